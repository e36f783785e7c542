"""An explanation as two pictures: the patch as the classifier sees it, and where it looked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from skimage.segmentation import find_boundaries

from svetlana_jupyter.core.contrast import initial_palette, to_screen
from svetlana_jupyter.core.encode import png

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

_SIDE = 288
_STRENGTH = 0.65


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
    palette = initial_palette(names, names == ["red", "green", "blue"], pixels.dtype, pixels.reshape(len(pixels), -1))
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
