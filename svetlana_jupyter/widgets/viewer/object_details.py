"""Small images of one object: cross-sections, classifier input, and Grad-CAM."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import traitlets
from ipywidgets import HTML, VBox
from skimage.segmentation import find_boundaries

from svetlana_jupyter.core.display.channels import (
    ContrastLimits,
    DisplaySettings,
    as_rgb,
    default_display_settings,
    initial_display_settings,
    render_pixels,
)
from svetlana_jupyter.core.display.encode import png
from svetlana_jupyter.core.display.overlay import halo
from svetlana_jupyter.core.display.thumbnails import take_orthoviews
from svetlana_jupyter.core.normalization import DOUBLED_NORMALIZATIONS
from svetlana_jupyter.project.patch_previews import classifier_patch, patch_settings
from svetlana_jupyter.widgets.components import ClassButtons, color_swatch, error_text, figure_html, fraction_bar, muted
from svetlana_jupyter.widgets.scheduling import LatestQuestion

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray
    from xarray import DataArray

    from svetlana_jupyter.core.annotations import Label, ObjectId
    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.core.display.thumbnails import OrthoView
    from svetlana_jupyter.core.settings import PatchSettings
    from svetlana_jupyter.project.project import Project

FieldOfView = tuple[float, float, float, float]  # top, left, bottom, right on the image plane
Question = tuple[str, int, DisplaySettings | None]  # image, label, contrast; None for the automatic one
Details = tuple[list[tuple[bytes, str]], FieldOfView]  # images with their captions, and the extent of the patch

_SIDE = 288  # pixels of a small image
_CAM_OPACITY = 0.65
# Contrast limits of normalized patches: the same for every object, so that objects can be compared.
_WINDOWS: dict[str, ContrastLimits] = {
    **dict.fromkeys(("minmax", "max", "percentile"), (0, 1)),
    **dict.fromkeys(("object", "apart"), (-3, 3)),
    "grain": (-0.3, 0.3),
}
_SECTION_TITLES = {"xy": "Plane (xy)", "xz": "Front (xz)", "zy": "Side (zy)", "maximum": "Maximum along z"}
_NOTHING_SELECTED = "Select an object to see its classifier input."
_DELAY = 0.25  # seconds; keys that follow each other quickly need no images in between
_EMPTY_FIGURE = '<figure><div class="sv-blank"></div><figcaption>&nbsp;</figcaption></figure>'


class ObjectDetails(HTML):
    """Images of the selected object, computed on a thread after a short delay.

    Parameters
    ----------
    project : Project

    Attributes
    ----------
    field : tuple of float or None
        Extent of the displayed patch on the image plane; None if no patch is displayed.
    """

    field = traitlets.Any()

    def __init__(self, project: Project) -> None:
        super().__init__(layout={"margin": "4px 0 0 0", "height": "134px", "width": "100%"})
        self._project = project
        self._latest: LatestQuestion[Question] = LatestQuestion(
            self._make_details, self._show_details, _DELAY, self._show_error
        )
        self._show_text(_NOTHING_SELECTED)

    def show(self, question: Question | None) -> None:
        """Show an object, or a hint if there is none."""
        self.field = None
        if question is not None:
            self._latest.ask(question)
        else:
            self._latest.ask(None)
            self._show_text(_NOTHING_SELECTED)

    def _make_details(self, question: Question) -> Details:
        project, (image, label, chosen) = self._project, question
        pair = project.pair(image)
        palette = chosen or default_display_settings(pair)
        row = cast("pd.Series", project.objects(image, wait=True).loc[label])
        images: list[tuple[bytes, str]] = []
        if pair.ndim == 3:
            sections = take_orthoviews(pair.image, pair.mask, label, row, pair.spacing)
            images += [(section_picture(section, palette), _SECTION_TITLES[side]) for side, section in sections.items()]
        settings = patch_settings(project.images, project.annotations.class_ids(), image, project.settings)
        patch = classifier_patch(project.images, image, label, settings)
        images += patch_pictures(patch, settings, palette)[: 3 if pair.ndim == 2 else 1]
        return images, _field_of_view(patch)

    def _show_details(self, details: Details) -> None:
        images, self.field = details
        figures = "".join(figure_html(png, caption) for png, caption in images)
        self.value = f'<div class="sv-pictures sv-beside">{figures}</div>'

    def _show_error(self, question: Question, error: Exception) -> None:
        self._show_text(error_text(error, f"Object {question[1]} in {question[0]} cannot be displayed"))

    def _show_text(self, text: str) -> None:
        self.value = f'<div class="sv-beside sv-nothing">{muted(text)}</div>'


class Inspector(VBox):
    """Prediction, annotation and explanation of the object under review.

    Parameters
    ----------
    class_buttons : ClassButtons
        Buttons that correct the prediction; they display the probabilities.
    """

    def __init__(self, class_buttons: ClassButtons) -> None:
        self.class_buttons = class_buttons
        self.title = HTML(layout={"margin": "0", "min_height": "46px"})
        self.pictures = HTML(layout={"margin": "4px 0 0 0", "height": "165px"})
        super().__init__([self.title, class_buttons, self.pictures], layout={"width": "100%"})
        self.show_pictures()

    def show(self, object_id: ObjectId | None, predicted: pd.Series | None, label: Label, classes: ClassScheme) -> None:
        """Show the prediction and the annotation of an object.

        Parameters
        ----------
        object_id : ObjectId or None
        predicted : Series or None
            Row of the object in `Project.probabilities`; None without a prediction.
        label : Label
        classes : ClassScheme
        """
        probabilities: dict[int, str] = {}
        summary = muted("Click an object, or press n for the least certain one.")
        if object_id is not None:
            summary = muted("not predicted yet")
        if predicted is not None:
            info = classes.by_id(int(predicted["predicted"]))
            name = f"{color_swatch(info.color)}{html.escape(info.name)}"
            summary = f"{name}, predicted with {predicted['probability']:.0%}"
            probabilities = {c.id: fraction_bar(float(predicted.get(f"p_{c.id}", 0.0)), c.color) for c in classes}
        annotated = f" · annotated: {classes.by_id(label.class_id).name}" if label.class_id else ""
        title = f"Object {object_id.label} in {object_id.image}{annotated}" if object_id else "No object selected"
        self.title.value = f"<h4>{html.escape(title)}</h4>{summary}"
        self.class_buttons.show(classes, probabilities, chosen=label.class_id)

    def show_pictures(self, patch: bytes = b"", cam: bytes = b"", caption: str = "") -> None:
        """Show two PNGs side by side.

        Without PNGs, show the caption alone or, without a caption too, empty frames of the same size.
        """
        if caption and not patch:
            self.pictures.value = f'<div class="sv-beside sv-nothing">{muted(caption)}</div>'
            return
        figures = figure_html(patch, "Patch") + figure_html(cam, caption) if patch else _EMPTY_FIGURE * 2
        self.pictures.value = f'<div class="sv-pictures">{figures}</div>'


def section_picture(section: OrthoView, palette: DisplaySettings) -> bytes:
    """Return a PNG of a cross-section of a volume, with the outline of the object.

    The PNG has the contrast of the viewer. Pixels that are not square are stretched to their shape in the volume.
    """
    scale = _SIDE / max(section.size)
    height, width = (max(1, round(side * scale)) for side in section.size)
    pixels = cv2.resize(render_pixels(section.values, palette), (width, height), interpolation=cv2.INTER_NEAREST)
    own = cv2.resize(section.own.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    colored = as_rgb(pixels)
    if own.any():
        lines = halo(own, 2, 2)  # the double line that marks the selection in the viewer
        colored[lines == 1], colored[lines == 2] = 255, 0
    return png(colored)


def patch_pictures(patch: xr.DataArray, settings: PatchSettings, palette: DisplaySettings) -> list[tuple[bytes, str]]:
    """Return images of the input that a classifier receives for an object.

    These are the patch and, if they are channels of the input, the object alone and the mask.

    Parameters
    ----------
    patch : DataArray of shape (C', [Z,] Y, X)
        From `project.patch_previews.classifier_patch`. A volume is shown by its middle plane.
    settings : PatchSettings
        Settings of the patch.
    palette : DisplaySettings
        Colors of the channels. Their contrast is only used if patches keep the values of the image.

    Returns
    -------
    list of (bytes, str)
        PNGs and their captions.
    """
    flat = (patch[:, patch.sizes["z"] // 2] if "z" in patch.dims else patch).to_numpy()
    count = len(palette.channels)
    normalizations = DOUBLED_NORMALIZATIONS.get(settings.normalize, (settings.normalize,))
    images = []
    for number, (normalization, caption) in enumerate(zip(normalizations, ("Classifier input", "Object alone"))):
        colors = palette
        if window := _WINDOWS.get(normalization):
            channels = tuple(replace(c, contrast_limits=window, visible=True, gamma=1.0) for c in palette.channels)
            colors = replace(palette, channels=channels)
        images.append((png(_enlarge(render_pixels(flat[number * count : (number + 1) * count], colors))), caption))
    if settings.mask_channel:
        images.append((png(_enlarge(np.rint(flat[-1] * 255).astype(np.uint8))), "Mask"))
    return images


def explanation_pictures(explanation: xr.Dataset) -> tuple[bytes, bytes]:
    """Return two PNGs with the outline of the object: patch and Grad-CAM.

    Parameters
    ----------
    explanation : Dataset
        From `Project.explain`: ``image`` (c, [z,] y, x), ``mask`` and ``cam`` ([z,] y, x). A volume is shown by its
        maximum along z.
    """
    flat = explanation.max("z") if "z" in explanation.dims else explanation
    names = [str(name) for name in flat["c"].to_numpy()]
    pixels = flat["image"].transpose("c", "y", "x").to_numpy().astype(np.float32)
    rgb = names == ["red", "green", "blue"]
    palette = initial_display_settings(names, rgb, pixels.dtype, pixels.reshape(len(pixels), -1))
    image = as_rgb(_enlarge(render_pixels(pixels, palette)))
    cam = flat["cam"].to_numpy().astype(np.float32)
    low, high = float(cam.min()), float(cam.max())
    scaled = (cam - low) / (high - low) if high > low else np.zeros_like(cam)
    codes = np.rint(_enlarge(scaled) * 255).astype(np.uint8)
    heat = cv2.applyColorMap(codes, cv2.COLORMAP_INFERNO)[..., ::-1]  # OpenCV orders channels as BGR
    blended = (image * (1 - _CAM_OPACITY) + heat * _CAM_OPACITY).astype(np.uint8)
    edge = find_boundaries(_enlarge(flat["mask"].to_numpy() > 0), mode="thick")
    image[edge] = blended[edge] = 255
    return png(image), png(blended)


def explaining_run(project: Project, explanation: xr.Dataset) -> str:
    """Return which run explains which class, as a sentence."""
    class_id, run = int(explanation.attrs["class_id"]), str(explanation.attrs["run"])
    name, share = project.classes.by_id(class_id).name, f"{explanation.attrs['probability']:.0%}"
    instead = "" if run == project.current_run else ", the newest network,"
    return f"Run {run}{instead} looks here for {name} ({share})."


def _field_of_view(patch: DataArray) -> FieldOfView:
    """Return the edges of a patch on the continuous image plane."""
    y, x = (patch[axis].to_numpy() for axis in "yx")
    dy, dx = (float(at[1] - at[0]) / 2 if len(at) > 1 else 0.5 for at in (y, x))
    return float(y[0]) - dy + 0.5, float(x[0]) - dx + 0.5, float(y[-1]) + dy + 0.5, float(x[-1]) + dx + 0.5


def _enlarge(pixels: NDArray[Any]) -> NDArray[Any]:
    """Repeat pixels, so that an outline drawn over them is thin."""
    scale = max(1, _SIDE // max(pixels.shape[:2]))
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)
