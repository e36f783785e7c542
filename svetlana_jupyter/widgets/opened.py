"""One image of a project as the viewer needs it: readers, contrast, and how its objects are marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from svetlana_jupyter.core.contrast import initial_palette, sample
from svetlana_jupyter.core.images import is_rgb
from svetlana_jupyter.core.marks import Marks, class_marks
from svetlana_jupyter.core.regions import Reader
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.project.project import Project

_SAID = {"ambiguous": "ambiguous", "bad": "bad segmentation"}


class OpenImage:
    """An open image, with what the viewer remembers of it.

    Parameters
    ----------
    project : Project
    name : str
        Of the image.

    Attributes
    ----------
    image, mask : Reader
    pixels : array of shape (C, n)
        A sample of each channel, ascending.
    automatic, palette : Palette
        How the channels are shown at first, and now.
    planes : int
        1 in 2D.
    """

    def __init__(self, project: Project, name: str) -> None:
        pair = project.pair(name)
        self.name = name
        self.image, self.mask = Reader(pair.image), Reader(pair.mask)
        self.planes: int = pair.mask.sizes.get("z", 1)
        self.spacing = pair.spacing[-1] if pair.spacing else None
        self.pixels = sample(self.image)
        self.automatic = initial_palette(list(pair.channels), is_rgb(pair.image), pair.image.dtype, self.pixels)
        self.palette = self.automatic
        self._project = project
        self._predictions: tuple[int, pd.DataFrame] | None = None
        self._marks: Marks | None = None
        self._objects: pd.DataFrame | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.image.shape

    def predictions(self) -> pd.DataFrame:
        """Return what the current run predicted here, read once."""
        version = self._project.predictions_version
        if self._predictions is None or self._predictions[0] != version:
            self._predictions = (version, self._project.probabilities(self.name))
        return self._predictions[1]

    def marks(self, overlay: str) -> Marks | None:
        """Return how the objects are marked by "annotations", "predictions" (annotations above them) or "off"."""
        if overlay == "off":
            return None
        project = self._project
        key = (self.name, overlay, project.annotations_version, project.classes_version, project.predictions_version)
        if self._marks is None or self._marks.key != key:
            labels = project.labels()
            here = labels[labels.index.get_level_values("image") == self.name].droplevel("image")
            predicted = self.predictions()["predicted"] if overlay == "predictions" else None
            self._marks = class_marks(project.classes, here, predicted, key)
        return self._marks

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

    def place(self, object: int) -> tuple[tuple[float, ...], float, float]:
        """Return an object's centre ``([z,] y, x)``, its longest side and the median longest side here, in pixels."""
        if self._objects is None:
            self._objects = self._project.objects(self.name)
        table = self._objects
        if object not in table.index:
            raise InputError(f"{self.name} has no object {object}; it has {len(table):,} objects.")
        axes = [axis for axis in "zyx" if axis in table]
        sides = np.maximum(table["y1"] - table["y0"], table["x1"] - table["x0"])
        center = tuple(float(table.at[object, axis]) for axis in axes)
        return center, float(sides.at[object]), float(sides.median())
