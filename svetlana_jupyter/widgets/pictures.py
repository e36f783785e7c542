"""One object in small pictures: cut from three sides, as a classifier sees it, and where that looked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from skimage.segmentation import find_boundaries

from svetlana_jupyter.core.contrast import DisplaySettings, Window, initial_display_settings, sample, to_screen
from svetlana_jupyter.core.encode import png
from svetlana_jupyter.core.images import is_rgb
from svetlana_jupyter.core.normalize import TWICE
from svetlana_jupyter.core.regions import Reader
from svetlana_jupyter.core.render import halo

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from svetlana_jupyter.core.pairing import ImagePair
    from svetlana_jupyter.core.sections import OrthoView
    from svetlana_jupyter.core.settings import PatchSettings

_SIDE = 288
_STRENGTH = 0.65
# What of a normalised patch is black and what is white: the same for every object, so that they can be compared.
_WINDOWS: dict[str, Window] = {
    **dict.fromkeys(("minmax", "max", "percentile"), (0, 1)),
    **dict.fromkeys(("object", "apart"), (-3, 3)),
    "grain": (-0.3, 0.3),
}


def default_palette(pair: ImagePair) -> DisplaySettings:
    """Return how an image is shown before anybody changes it."""
    pixels = sample(Reader(pair.image, pair.levels))
    return initial_display_settings(list(pair.channels), is_rgb(pair.image), pair.image.dtype, pixels)


def section_picture(section: OrthoView, palette: DisplaySettings) -> bytes:
    """Return a PNG of a cut through a volume, in the contrast of the viewer, with the object's outline.

    Samples that are not squares are stretched to the shape that they have in the volume.
    """
    scale = _SIDE / max(section.size)
    height, width = (max(1, round(side * scale)) for side in section.size)
    seen = cv2.resize(to_screen(section.values, palette), (width, height), interpolation=cv2.INTER_NEAREST)
    own = cv2.resize(section.own.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    return png(_ringed(seen, own))


def patch_pictures(patch: xr.DataArray, settings: PatchSettings, palette: DisplaySettings) -> list[tuple[bytes, str]]:
    """Return all that a classifier sees of an object: the patch, the object alone where it gets that too, and its mask.

    Parameters
    ----------
    patch : DataArray of shape (C', [Z,] Y, X)
        From `project.patches.classifier_patch`. A volume is shown by its middle plane.
    settings : PatchSettings
        That it was cut with.
    palette : Palette
        Colours of the channels; their contrast only where patches keep the values of the image.

    Returns
    -------
    list of (bytes, str)
        PNGs and their captions.
    """
    flat = (patch[:, patch.sizes["z"] // 2] if "z" in patch.dims else patch).to_numpy()
    count = len(palette.channels)
    ways = TWICE.get(settings.normalize, (settings.normalize,))
    parts = zip(ways, ("Classifier sees", "the object alone"))
    shown = []
    for number, (how, caption) in enumerate(parts):
        colors = palette
        if how in _WINDOWS:
            channels = [replace(c, window=_WINDOWS[how], visible=True, gamma=1.0) for c in palette.channels]
            colors = replace(palette, channels=tuple(channels))
        shown.append((png(_enlarged(to_screen(flat[number * count : (number + 1) * count], colors))), caption))
    if settings.mask_channel:
        shown.append((png(_enlarged(np.rint(flat[-1] * 255).astype(np.uint8))), "and its mask"))
    return shown


def explanation_pictures(explanation: xr.Dataset) -> tuple[bytes, bytes]:
    """Return two PNGs with the object's outline: the patch, and the patch under its Grad-CAM.

    Parameters
    ----------
    explanation : Dataset
        From `Project.explain`: ``image`` (c, [z,] y, x), ``mask`` and ``cam`` ([z,] y, x). A volume is shown by its
        brightest values along z.
    """
    flat = explanation.max("z") if "z" in explanation.dims else explanation
    names = [str(name) for name in flat["c"].values] if "c" in flat.coords else [""] * flat.sizes["c"]
    pixels = flat["image"].transpose("c", "y", "x").to_numpy().astype(np.float32)
    palette = initial_display_settings(
        names, names == ["red", "green", "blue"], pixels.dtype, pixels.reshape(len(pixels), -1)
    )
    seen = _enlarged(to_screen(pixels, palette))
    if seen.ndim == 2:
        seen = np.repeat(seen[..., None], 3, axis=-1)
    edge = find_boundaries(_enlarged(flat["mask"].to_numpy() > 0), mode="thick")
    cam = _scaled(_enlarged(flat["cam"].to_numpy().astype(np.float32)))
    heat = cv2.applyColorMap(np.rint(cam * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    looked = seen * (1 - _STRENGTH) + heat * _STRENGTH
    return png(_outlined(seen, edge)), png(_outlined(looked.astype(np.uint8), edge))


def _enlarged(pixels: NDArray[Any]) -> NDArray[Any]:
    """Repeat pixels, so that the outline drawn over them is thin."""
    scale = max(1, _SIDE // max(pixels.shape[:2]))
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def _scaled(cam: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = float(cam.min()), float(cam.max())
    return (cam - low) / (high - low) if high > low else np.zeros_like(cam)


def _outlined(picture: NDArray[np.uint8], edge: NDArray[np.bool_]) -> NDArray[np.uint8]:
    done = np.ascontiguousarray(picture)
    done[edge] = 255
    return done


def _ringed(picture: NDArray[np.uint8], own: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw the double line of the viewer's selection round an object."""
    colored = np.repeat(picture[..., None], 3, axis=-1) if picture.ndim == 2 else picture.copy()
    if own.any():
        lines = halo(own, 2, 2)
        colored[lines == 1], colored[lines == 2] = 255, 0
    return colored
