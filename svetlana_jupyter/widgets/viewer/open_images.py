"""Images that a viewer holds open, with their contrast and object styles."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from svetlana_jupyter.core.display.channels import (
    DisplaySettings,
    initial_display_settings,
    is_sampled_whole,
    sample_pixels,
)
from svetlana_jupyter.core.display.overlay import LabelMark, ObjectStyles, class_styles, uncertainty_styles
from svetlana_jupyter.core.display.scene import tiles_to_read
from svetlana_jupyter.core.display.tiles import TileCache, TileReader, tile_cache
from svetlana_jupyter.core.display.viewport import Viewport
from svetlana_jupyter.core.io.images import is_rgb
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.widgets.components import FLAG_TEXTS
from svetlana_jupyter.widgets.object_filter import ObjectFilter, matching_objects

if TYPE_CHECKING:
    from collections.abc import Hashable

    import pandas as pd
    from numpy.typing import NDArray

    from svetlana_jupyter.core.display.overlay import ObjectRaster
    from svetlana_jupyter.core.display.tiles import TileGroup
    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.object_indexing import ObjectIndexer

# Fraction of the screen that an object of median size fills, largest fraction of any object, largest magnification.
_MEDIAN_FRACTION, _MAX_FRACTION, _MAX_SCALE = 0.2, 0.6, 24.0
_SHOWS_PREDICTIONS = ("predictions", "uncertainty")  # overlays
_MIN_MARKED, _MAX_MARKS = 14.0, 1500  # smallest average side of marked objects in CSS pixels, largest number of marks
_PLACE = {"z", "y", "x", "y0", "x0", "y1", "x1"}
NO_FILTER = ObjectFilter()
_MAX_OPEN = 4  # images; a queue goes back and forth between several images


class OpenImage:
    """Readers, contrast and object styles of one image.

    Parameters
    ----------
    project : Project
    name : str
        Name of the image.
    cache : TileCache
        Storage of decoded pixels, shared by all open images.

    Attributes
    ----------
    pair : ImagePair
    image, mask : TileReader
    pixels : array of shape (C, n)
        Sampled values of each channel, ascending.
    auto_palette, palette : DisplaySettings
        Automatic and current display settings of the channels.
    shape : tuple of int
        Rows and columns.
    planes : int
        Number of planes, 1 in 2D.
    spacing : float or None
        Pixel size in micrometers.
    """

    def __init__(self, project: Project, name: str, cache: TileCache) -> None:
        self.pair: ImagePair = project.pair(name)
        self.name = name
        self.image = TileReader(self.pair.image, self.pair.levels, cache)
        self.mask = TileReader(self.pair.mask, self.pair.mask_levels, cache)
        self.shape = self.image.shape
        self.planes: int = self.pair.mask.sizes.get("z", 1)
        self.spacing = self.pair.spacing[-1] if self.pair.spacing else None
        self._sample_contrast()
        self.palette = self.auto_palette
        self._project = project
        self._marks: tuple[Hashable, tuple[LabelMark, ...]] | None = None
        self._styles: tuple[Hashable, pd.DataFrame | None, ObjectStyles] | None = None
        self._median_side: tuple[pd.DataFrame, float] | None = None

    def refine_contrast(self) -> bool:
        """Update the automatic contrast once the whole image has been read.

        The few regions of a huge image that are sampled first may contain nothing but background.

        Returns
        -------
        bool
            Whether the automatic contrast changed.
        """
        if self._sampled_whole or not is_sampled_whole(self.image):
            return False
        before = self.auto_palette
        self._sample_contrast()
        if self.palette == before:
            self.palette = self.auto_palette
        return self.auto_palette != before

    def _sample_contrast(self) -> None:
        image = self.pair.image
        self._sampled_whole = is_sampled_whole(self.image)
        self.pixels = sample_pixels(self.image)
        self.auto_palette = initial_display_settings(list(self.pair.channels), is_rgb(image), image.dtype, self.pixels)

    def styles(self, overlay: str, chosen: ObjectFilter = NO_FILTER) -> ObjectStyles | None:
        """Return the colors of the objects.

        Parameters
        ----------
        overlay : {"annotations", "predictions", "uncertainty", "off"}
            "predictions" and "uncertainty" apply to objects without annotation.
        chosen : ObjectFilter
            Objects that it leaves out have no color.
        """
        if overlay == "off":
            return None
        project = self._project
        base = (self.name, overlay, project.classes_version, project.predictions_version)
        predictions = project.probabilities(self.name) if overlay in _SHOWS_PREDICTIONS else None
        # `probabilities` returns a new table when objects of the test set are hidden or no longer hidden.
        if self._styles is None or self._styles[0] != base or self._styles[1] is not predictions:
            labels_of = partial(project.annotations.labels_of, self.name)
            scheme = project.classes.scheme
            if overlay == "uncertainty" and predictions is not None:
                styles = uncertainty_styles(scheme, labels_of, predictions["probability"])
            else:
                styles = class_styles(scheme, labels_of, None if predictions is None else predictions["predicted"])
            self._styles = base, predictions, styles
        only = matching_objects(project, self.name, chosen)
        return replace(self._styles[2], key=(*base, project.annotations_version, chosen), only=only)

    def describe(self, label: int, overlay: str) -> str:
        """Describe an object by its number and its annotation, else its prediction."""
        annotation, classes = self._project.annotations.label_of(self.name, label), self._project.classes
        flag = "" if annotation.action == "skip" else FLAG_TEXTS.get(annotation.action)
        text = classes.by_id(annotation.class_id).name if annotation.class_id else flag
        class_id, probability = predicted_class(self._project, self.name, label)
        if class_id and not text and overlay in _SHOWS_PREDICTIONS:
            text = f"{classes.by_id(class_id).name}? {probability:.0%}"
        return f"object {label} · {text}" if text else f"object {label}"

    def marks(
        self, raster: ObjectRaster, dpr: float, overlay: str, chosen: ObjectFilter = NO_FILTER
    ) -> tuple[LabelMark, ...]:
        """Return the dots on visible labeled objects, unless tiny or too many."""
        project = self._project
        if overlay == "off" or raster.side < _MIN_MARKED * dpr or not project.images.is_indexed(self.name):
            return ()
        versions = project.annotations_version, project.classes_version, project.predictions_version
        key = raster.key, overlay, chosen, *versions
        if self._marks is None or self._marks[0] != key:
            only = matching_objects(project, self.name, chosen)
            visible = raster.objects if only is None else np.intersect1d(raster.objects, only)
            self._marks = key, self._find_marks(visible, overlay in _SHOWS_PREDICTIONS)
        return self._marks[1]

    def _find_marks(self, visible: NDArray[np.int64], compares: bool) -> tuple[LabelMark, ...]:
        labels, on_screen = self._project.annotations.labels_of(self.name, visible), set(visible.tolist())
        given = {label: each.class_id for label, each in labels.items() if each.class_id and label in on_screen}
        if not 0 < len(given) <= _MAX_MARKS:
            return ()
        places = self._project.objects(self.name)[["y", "x"]].reindex(list(given)).to_numpy(float) + 0.5
        colors = {info.id: info.color for info in self._project.classes}
        predicted = {label: predicted_class(self._project, self.name, label)[0] if compares else 0 for label in given}
        return tuple(
            LabelMark(y, x, colors[class_id], colors[other] if (other := predicted[label]) not in (0, class_id) else "")
            for (label, class_id), (y, x) in zip(given.items(), places.tolist())
            if class_id in colors
        )

    def usual_scale(self, view: Viewport) -> float:
        """Return the magnification at which most objects are clearly visible."""
        median = self._median_object_side(self._project.images.objects(self.name))
        return min(_MEDIAN_FRACTION * min(view.size) / median, _MAX_SCALE)

    def view_centered_on(self, label: int, view: Viewport, scale: float = 0.0) -> Viewport:
        """Return the view with an object at its center.

        At the border of the image, the object is only near the center.

        Parameters
        ----------
        label : int
        view : Viewport
            View to start from.
        scale : float
            Magnification, which is reduced for an object that would not fit; 0 keeps that of ``view``.

        Raises
        ------
        InputError
            If the image has no such object.
        """
        table = self._project.images.objects(self.name)
        if label not in table.index:
            raise InputError(
                f"{self.name} has no object {label}. Choose one of its {len(table):,} objects, listed by "
                f"`project.objects({self.name!r})`."
            )
        values: Any = table.at  # much faster than `loc`; called for every object of a queue
        row = {name: float(values[label, name]) for name in table if name in _PLACE}
        if scale:
            side = max(row["y1"] - row["y0"], row["x1"] - row["x0"])
            scale = min(scale, _MAX_FRACTION * min(view.size) / side)
            scale = max(scale, Viewport.fitted(self.shape, view.size).scale)
        # The center of the pixel at (row, column) lies half a pixel further on the continuous image plane.
        center = row["y"] + 0.5, row["x"] + 0.5
        plane = round(row["z"]) if "z" in row else view.plane
        return replace(view, center=center, scale=scale or view.scale, plane=plane).framed(self.shape)

    def is_visible(self, label: int, view: Viewport) -> bool:
        """Return whether the center of an object, on one of its planes, is in view."""
        row = self._project.images.objects(self.name).loc[label].to_dict()
        at = view.to_screen(float(row["y"]) + 0.5, float(row["x"]) + 0.5)
        on_plane = "z" not in row or row["z0"] <= view.plane < row["z1"]
        return on_plane and all(0 <= where < end for where, end in zip(at, view.size))

    def _median_object_side(self, table: pd.DataFrame) -> float:
        """Return the median of the longest sides of the objects."""
        if self._median_side is None or self._median_side[0] is not table:
            sides = np.maximum(table["y1"] - table["y0"], table["x1"] - table["x0"])
            self._median_side = table, float(np.median(sides))
        return self._median_side[1]


class OpenImages:
    """The most recently displayed images, with their shared pixel cache and contrast.

    Parameters
    ----------
    project : Project
    indexing : ObjectIndexer
        Indexes the objects of large images in the background.

    Attributes
    ----------
    cache : TileCache
    """

    def __init__(self, project: Project, indexing: ObjectIndexer) -> None:
        self.cache = tile_cache()
        self._indexing = indexing
        self._project = project
        self._open: dict[str, OpenImage] = {}
        self._manual: dict[object, DisplaySettings] = {}

    def open_image(self, name: str) -> OpenImage:
        """Return an image; open it if necessary.

        The image has the contrast that the user last set for images with the same channels.
        """
        image = self.get_open(name) or OpenImage(self._project, name, self.cache)
        self._open.pop(name, None)
        self._open[name] = image
        while len(self._open) > _MAX_OPEN:
            del self._open[next(iter(self._open))]
        self._indexing.index_ahead(name, image.pair.mask.size)
        image.palette = self._manual.get(image.auto_palette.display_key, image.auto_palette)
        return image

    def get_open(self, name: str) -> OpenImage | None:
        """Return an image if it is open and its mask has not been replaced."""
        image = self._open.get(name)
        return image if image is not None and image.pair is self._project.pair(name) else None

    def pieces_ahead(self, name: str, label: int, view: Viewport, scale: float = 0.0) -> tuple[TileGroup, ...]:
        """Return the tile groups to read before an object can be displayed.

        There are none if the image is not open or not indexed. ``scale`` is the magnification, by default the usual
        one.
        """
        image = self.get_open(name)
        if image is None or not self._project.images.is_indexed(name):
            return ()
        coming = image.view_centered_on(label, view, scale or image.usual_scale(view))
        return tiles_to_read(image.image, image.mask, coming)

    def set_manual_palette(self, image: OpenImage, palette: DisplaySettings) -> None:
        """Apply display settings to an image and to others with the same channels.

        With the automatic settings of the image, other images use their own automatic settings again.
        """
        image.palette = palette
        self._manual[palette.display_key] = palette
        if palette == image.auto_palette:
            del self._manual[palette.display_key]


def predicted_class(project: Project, image: str, label: int) -> tuple[int, float]:
    """Return the predicted class id of an object and its probability, or 0 and 0.0."""
    table = project.probabilities(image)
    if label not in table.index:
        return 0, 0.0
    at: Any = table.at  # much faster than `loc`; called for every cell of every frame of the gallery
    return int(at[label, "predicted"]), float(at[label, "probability"])


def unreadable_image(name: str, error: object) -> InputError:
    """Return the error for an image whose pixels cannot be read."""
    return InputError(
        f"{name} cannot be shown ({error}). Check that its files exist and are complete. Annotations are safe, and "
        "other images can still be shown."
    )
