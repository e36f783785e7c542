"""The selected object in small pictures: a volume cut from three sides, and the patch that a classifier will see.

One object in small pictures: cut from three sides, as a classifier sees it, and where that looked.

What the classifier thinks of one object: a probability beside each class button, its patch, and Grad-CAM.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from ipywidgets import HTML, VBox
from skimage.segmentation import find_boundaries

from svetlana_jupyter.core.display.channels import (
    ContrastLimits,
    DisplaySettings,
    initial_display_settings,
    render_pixels,
    sample_pixels,
)
from svetlana_jupyter.core.display.encode import png
from svetlana_jupyter.core.display.overlay import halo
from svetlana_jupyter.core.display.thumbnails import take_orthoviews
from svetlana_jupyter.core.display.tiles import TileReader
from svetlana_jupyter.core.io.images import is_rgb
from svetlana_jupyter.core.normalization import DOUBLED_NORMALIZATIONS
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.project.patch_previews import classifier_patch, patch_settings
from svetlana_jupyter.widgets.components import ClassButtons, color_swatch, figure_html, fraction_bar, muted
from svetlana_jupyter.widgets.scheduling import LatestQuestion

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray
    from xarray import DataArray

    from svetlana_jupyter.core.annotations import Label, ObjectId
    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.core.display.thumbnails import OrthoView
    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.core.settings import PatchSettings
    from svetlana_jupyter.project.project import Project

_SIDE = 288
_STRENGTH = 0.65
# What of a normalised patch is black and what is white: the same for every object, so that they can be compared.
_WINDOWS: dict[str, ContrastLimits] = {
    **dict.fromkeys(("minmax", "max", "percentile"), (0, 1)),
    **dict.fromkeys(("object", "apart"), (-3, 3)),
    "grain": (-0.3, 0.3),
}


def default_palette(pair: ImagePair) -> DisplaySettings:
    """Return how an image is shown before anybody changes it."""
    pixels = sample_pixels(TileReader(pair.image, pair.levels))
    return initial_display_settings(list(pair.channels), is_rgb(pair.image), pair.image.dtype, pixels)


def section_picture(section: OrthoView, palette: DisplaySettings) -> bytes:
    """Return a PNG of a cut through a volume, in the contrast of the viewer, with the object's outline.

    Samples that are not squares are stretched to the shape that they have in the volume.
    """
    scale = _SIDE / max(section.size)
    height, width = (max(1, round(side * scale)) for side in section.size)
    seen = cv2.resize(render_pixels(section.values, palette), (width, height), interpolation=cv2.INTER_NEAREST)
    own = cv2.resize(section.own.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    return png(_ringed(seen, own))


def patch_pictures(patch: xr.DataArray, settings: PatchSettings, palette: DisplaySettings) -> list[tuple[bytes, str]]:
    """Return all that a classifier sees of an object: the patch, the object alone where it gets that too, and its mask.

    Parameters
    ----------
    patch : DataArray of shape (C', [Z,] Y, X)
        From `project.patch_previews.classifier_patch`. A volume is shown by its middle plane.
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
    ways = DOUBLED_NORMALIZATIONS.get(settings.normalize, (settings.normalize,))
    parts = zip(ways, ("Classifier sees", "the object alone"))
    shown = []
    for number, (how, caption) in enumerate(parts):
        colors = palette
        if how in _WINDOWS:
            channels = [replace(c, contrast_limits=_WINDOWS[how], visible=True, gamma=1.0) for c in palette.channels]
            colors = replace(palette, channels=tuple(channels))
        shown.append((png(_enlarged(render_pixels(flat[number * count : (number + 1) * count], colors))), caption))
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
    names = [str(name) for name in flat["c"].to_numpy()] if "c" in flat.coords else [""] * flat.sizes["c"]
    pixels = flat["image"].transpose("c", "y", "x").to_numpy().astype(np.float32)
    palette = initial_display_settings(
        names, names == ["red", "green", "blue"], pixels.dtype, pixels.reshape(len(pixels), -1)
    )
    seen = _enlarged(render_pixels(pixels, palette))
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


_TITLES = {"xy": "Plane (xy)", "xz": "Front (xz)", "zy": "Side (zy)", "maximum": "Brightest along z"}
_EMPTY = "Select an object to see what a classifier will see of it."
_DELAY = 0.25  # seconds: keys that follow each other quickly need no pictures in between

logger = logging.getLogger(__name__)

Field = tuple[float, float, float, float]


@dataclass(frozen=True)
class Question:
    """Which object, in which contrast."""

    image: str
    label: int
    palette: DisplaySettings


@dataclass(frozen=True)
class Answer:
    """Pictures with their captions, and the part of the plane that the patch shows: top, left, bottom, right."""

    pictures: tuple[tuple[bytes, str], ...]
    field: Field


class ObjectDetails(HTML):
    """Pictures of one object, made off the kernel's loop once the keys rest.

    Parameters
    ----------
    project : Project
    framed : callable
        Called with the field of view of the patch, or None.
    """

    def __init__(self, project: Project, framed: Callable[[Field | None], None]) -> None:
        super().__init__(layout={"margin": "4px 0 0 0", "height": "134px", "width": "100%"})
        self._project, self._framed = project, framed
        self._latest: LatestQuestion[Question] = LatestQuestion(self._answer, self._show, _DELAY)
        self._said(_EMPTY)

    def show(self, image: str, label: int, palette: DisplaySettings) -> None:
        """Show an object; with 0 none."""
        if label:
            self._latest.ask(Question(image, label, palette))
        else:
            self._latest.cancel()
            self._said(_EMPTY)

    def _answer(self, question: Question) -> Answer | str:
        try:
            return self._pictures(question)
        except SvetlanaError as error:
            return str(error)
        except Exception as error:
            logger.exception("object %s of %s cannot be pictured", question.label, question.image)
            return f"Object {question.label} cannot be shown here ({error})."

    def _pictures(self, question: Question) -> Answer:
        project, name, label = self._project, question.image, question.label
        pair, row = project.pair(name), project.objects(name, wait=True).loc[label]
        shown: list[tuple[bytes, str]] = []
        if pair.ndim == 3:
            sections = take_orthoviews(pair.image, pair.mask, label, row, pair.spacing)
            shown += [(section_picture(section, question.palette), _TITLES[side]) for side, section in sections.items()]
        settings = patch_settings(project.images, project._labeled(), name, project.settings)
        patch = classifier_patch(project.images, name, label, settings)
        shown += patch_pictures(patch, settings, question.palette)[: 3 if pair.ndim == 2 else 1]
        return Answer(tuple(shown), _field(patch))

    def _show(self, answer: Answer | str) -> None:
        if isinstance(answer, str):
            self._said(answer)
            return
        figures = "".join(figure_html(png, caption) for png, caption in answer.pictures)
        self.value = f'<div class="sv-pictures sv-beside">{figures}</div>'
        self._framed(answer.field)

    def _said(self, text: str) -> None:
        self.value = f'<div class="sv-beside sv-nothing">{muted(text)}</div>'
        self._framed(None)


def _field(patch: DataArray) -> Field:
    """Return the edges of a patch on the image plane, which is continuous."""
    y, x = (patch[axis].to_numpy() for axis in "yx")
    dy, dx = (float(at[1] - at[0]) / 2 if len(at) > 1 else 0.5 for at in (y, x))
    return float(y[0]) - dy + 0.5, float(x[0]) - dx + 0.5, float(y[-1]) + dy + 0.5, float(x[-1]) + dx + 0.5


_BLANK = '<figure><div class="sv-blank"></div><figcaption>{}</figcaption></figure>'


class Inspector(VBox):
    """One object under review.

    Parameters
    ----------
    rows : ClassRows
        The buttons that correct; the probabilities are shown in them.
    """

    def __init__(self, rows: ClassButtons) -> None:
        self.rows = rows
        self.title = HTML(layout={"margin": "0", "min_height": "46px"})
        self.pictures = HTML(layout={"margin": "4px 0 0 0", "height": "182px"})
        super().__init__([self.title, rows, self.pictures], layout={"width": "100%"})
        self.show_pictures()

    def show(self, object_id: ObjectId | None, predicted: pd.Series | None, label: Label, classes: ClassScheme) -> None:
        """Show what is predicted and annotated.

        Parameters
        ----------
        label : ObjectId or None
        predicted : Series or None
            Its row of `Project.probabilities`; None where there is no prediction.
        label : Label
        classes : Classes
        """
        details: dict[int, str] = {}
        said = muted("Click one, or press n for the least certain.")
        if object_id is not None:
            said = muted("not predicted yet")
        if predicted is not None:
            info = classes.by_id(int(predicted["predicted"]))
            said = f"{color_swatch(info.color)}{html.escape(info.name)}, predicted with {predicted['probability']:.0%}"
            details = {c.id: fraction_bar(float(predicted.get(f"p_{c.id}", 0.0)), c.color) for c in classes}
        annotated = f" · annotated: {classes.by_id(label.class_id).name}" if label.class_id else ""
        name = f"Object {object_id.label} in {object_id.image}{annotated}" if object_id else "No object chosen"
        self.title.value = f"<h4>{html.escape(name)}</h4>{said}"
        self.rows.show(classes, details, chosen=label.class_id)

    def show_pictures(self, patch: bytes = b"", cam: bytes = b"", caption: str = "") -> None:
        """Show two PNGs side by side, or empty places of the same size."""
        left = figure_html(patch, "What it sees") if patch else _BLANK.format(html.escape(caption))
        right = figure_html(cam, "Where it looked (Grad-CAM)") if cam else _BLANK.format("&nbsp;")
        self.pictures.value = f'<div class="sv-pictures">{left}{right}</div>'
