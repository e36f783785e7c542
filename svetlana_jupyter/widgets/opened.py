"""One image of a project as the viewer needs it: readers, contrast, and how its objects are marked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from svetlana_jupyter.core.contrast import initial_display_settings, is_sampled_whole, sample
from svetlana_jupyter.core.images import is_rgb
from svetlana_jupyter.core.marks import ObjectStyles, class_styles
from svetlana_jupyter.core.regions import Reader
from svetlana_jupyter.core.view import View
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Hashable

    import pandas as pd

    from svetlana_jupyter.core.pairing import ImagePair
    from svetlana_jupyter.core.tiles import TileCache
    from svetlana_jupyter.project.project import Project

_SHARE, _MOST, _SCALE = 0.2, 0.6, 24.0  # of the screen: a usual object, a large one; screen pixels an image pixel
_SAID = {"ambiguous": "ambiguous", "bad": "bad segmentation"}


class OpenImage:
    """An open image, with what the viewer remembers of it.

    Parameters
    ----------
    project : Project
    name : str
        Of the image.
    cache : TileCache
        Where pixels are kept.

    Attributes
    ----------
    pair : ImagePair
    image, mask : Reader
    pixels : array of shape (C, n)
        A sample of each channel, ascending.
    automatic, palette : Palette
        How the channels are shown at first, and now.
    planes : int
        1 in 2D.
    """

    def __init__(self, project: Project, name: str, cache: TileCache) -> None:
        self.pair: ImagePair = project.pair(name)
        pair = self.pair
        self.name = name
        self.image = Reader(pair.image, pair.levels, cache)
        self.mask = Reader(pair.mask, pair.mask_levels, cache)
        self.planes: int = pair.mask.sizes.get("z", 1)
        self.spacing = pair.spacing[-1] if pair.spacing else None
        self._look_over()
        self.palette = self.auto_palette
        self._project = project
        self._predictions: tuple[int, pd.DataFrame] | None = None
        self._marks: tuple[Hashable, ObjectStyles] | None = None
        self._places: tuple[pd.DataFrame, float] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.image.shape

    def refine_contrast(self) -> bool:
        """Choose the automatic contrast anew if by now the whole image has been seen; False if nothing changes.

        The few places that are read of a huge image at first may all be background.
        """
        if self._whole or not is_sampled_whole(self.image):
            return False
        before = self.auto_palette
        self._look_over()
        if self.palette == before:
            self.palette = self.auto_palette
        return self.auto_palette != before

    def _look_over(self) -> None:
        image = self.pair.image
        self._whole = is_sampled_whole(self.image)
        self.pixels = sample(self.image)
        self.auto_palette = initial_display_settings(list(self.pair.channels), is_rgb(image), image.dtype, self.pixels)

    def predictions(self) -> pd.DataFrame:
        """Return what the current run predicted here, read once."""
        version = self._project.predictions_version
        if self._predictions is None or self._predictions[0] != version:
            self._predictions = (version, self._project.probabilities(self.name))
        return self._predictions[1]

    def marks(self, overlay: str) -> ObjectStyles | None:
        """Return how the objects are marked by "annotations", "predictions" (annotations above them) or "off"."""
        if overlay == "off":
            return None
        project = self._project
        base = (self.name, overlay, project.classes_version, project.predictions_version)
        if self._marks is None or self._marks[0] != base:
            predicted = self.predictions()["predicted"] if overlay == "predictions" else None
            marks = class_styles(project.classes, lambda objects: project.labels_of(self.name, objects), predicted)
            self._marks = base, marks
        return self._marks[1].with_key((*base, project.annotations_version))

    def describe(self, object: int, overlay: str) -> str:
        """Say what an object is: its number, and what a person or else the classifier says of it."""
        label = self._project.label_of(self.name, object)
        classes = self._project.classes
        if label.action == "label":
            return f"object {object} · {classes.by_id(label.class_id).name}"
        if label.action in _SAID:
            return f"object {object} · {_SAID[label.action]}"
        predictions = self.predictions()
        if overlay == "predictions" and object in predictions.index:
            row = predictions.loc[object]
            name = classes.by_id(int(row["predicted"])).name
            return f"object {object} · {name}? {row['probability']:.0%}"
        return f"object {object}"

    def view_centered_on(self, object: int, view: View, zoom: bool) -> View:
        """Return the view with an object in its middle, or near it at the image's border.

        Parameters
        ----------
        object : int
        view : View
            Where to start from.
        zoom : bool
            Magnify so that the object and its surroundings are well seen.
        """
        table, usual = self._index()
        if object not in table.index:
            raise InputError(f"{self.name} has no object {object}; it has {len(table):,} objects.")
        row = table.loc[object]
        scale = view.scale
        if zoom:
            height, side = min(view.size), float(max(row["y1"] - row["y0"], row["x1"] - row["x0"]))
            scale = min(_SHARE * height / usual, _MOST * height / side, _SCALE)
            scale = max(scale, View.fitted(self.shape, view.size).scale)
        # Pixel (row, column) is a square whose middle is half a pixel further.
        center = float(row["y"]) + 0.5, float(row["x"]) + 0.5
        return replace(view, center=center, scale=scale, plane=round(row["z"]) if "z" in table else view.plane).framed(
            self.shape
        )

    def _index(self) -> tuple[pd.DataFrame, float]:
        """Return the object index, and the median of the objects' longest sides."""
        table = self._project.objects(self.name)
        if self._places is None or self._places[0] is not table:
            sides = np.maximum(table["y1"] - table["y0"], table["x1"] - table["x0"])
            self._places = table, float(sides.median())
        return self._places
