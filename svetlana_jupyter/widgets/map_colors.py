"""Objects of a map, and their colors by the labels and predictions of a project."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.core.display.point_map import PointStyles, class_codes, image_codes, probability_codes
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.object_filter import ObjectFilter, matching_objects

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from numpy.typing import NDArray

    from svetlana_jupyter.project.project import Project

NO_FILTER = ObjectFilter()
COLORINGS = ("prediction", "label", "probability", "image", "off")


class MapObjects:
    """Objects of several images, numbered consecutively.

    Parameters
    ----------
    labels : mapping of image name to Index
        Labels of the objects of each image, ascending.

    Attributes
    ----------
    images : mapping of str to slice
        Numbers of the objects of each image.
    """

    def __init__(self, labels: Mapping[str, pd.Index]) -> None:
        ends = list(accumulate(map(len, labels.values())))
        self.images = {name: slice(end - len(labels[name]), end) for name, end in zip(labels, ends)}
        self._labels = np.concatenate([np.empty(0, np.int64), *(index.to_numpy(np.int64) for index in labels.values())])

    def __len__(self) -> int:
        return len(self._labels)

    def labels(self, image: str) -> NDArray[np.int64]:
        """Return the labels of the objects of an image."""
        return self._labels[self.images[image]]

    def find(self, objects: Iterable[tuple[str, int]]) -> NDArray[np.int64]:
        """Return the numbers of objects, image by image; unknown objects are left out."""
        by_image = defaultdict[str, list[int]](list)
        for image, label in objects:
            by_image[image].append(label)
        numbers = [self.find_in(image, np.array(labels)) for image, labels in by_image.items() if image in self.images]
        return np.concatenate([np.empty(0, np.int64), *(found[found >= 0] for found in numbers)])

    def find_in(self, image: str, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of each object (n,) of an image, -1 if it is unknown."""
        known = self.labels(image)
        if not len(known):
            return np.full(len(labels), -1)
        places = np.minimum(np.searchsorted(known, labels), len(known) - 1)
        return np.where(known[places] == labels, places + self.images[image].start, -1)

    def ids(self, numbers: NDArray[np.int64]) -> tuple[ObjectId, ...]:
        """Return the objects with ascending numbers."""
        found: list[ObjectId] = []
        for image, rows in self.images.items():
            first, last = np.searchsorted(numbers, [rows.start, rows.stop])
            found += [ObjectId(image, label) for label in self._labels[numbers[first:last]].tolist()]
        return tuple(found)


def point_styles(
    project: Project, objects: MapObjects, coloring: str, key: Hashable, chosen: ObjectFilter = NO_FILTER
) -> PointStyles:
    """Return the colors of objects.

    Parameters
    ----------
    project : Project
    objects : MapObjects
    coloring : {"prediction", "label", "probability", "image", "off"}
        "prediction": the class of the annotation where there is one, else of the prediction; "label": the class of the
        annotation; "probability": that of the predicted class; "off": neutral, without rings around labeled objects.
    key : hashable
        Key of the result; equal for equal arguments and data.
    chosen : ObjectFilter
        Objects that it leaves out are faded.
    """
    predicted, probability = np.zeros(len(objects), np.int64), np.full(len(objects), np.nan)
    hidden = np.zeros(len(objects), bool)
    for image, rows in objects.images.items():
        of_test_set = objects.find_in(image, np.array(sorted(project.test_set.hidden(image)), np.int64))
        hidden[of_test_set[of_test_set >= 0]] = True
        if coloring in ("prediction", "probability"):
            with suppress(SvetlanaError, OSError):  # of a missing image, which the panel reports
                table = project.probabilities(image)
                places = table.index.get_indexer(pd.Index(objects.labels(image)))
                known = np.flatnonzero(places >= 0)
                predicted[rows.start + known] = table["predicted"].to_numpy()[places[known]]
                probability[rows.start + known] = table["probability"].to_numpy()[places[known]]
    labels = project.labels().query("action != 'skip'")
    class_of = dict(zip(labels.index, labels["class_id"]))
    annotated = np.sort(objects.find(class_of))
    class_ids = predicted.copy() if coloring == "prediction" else np.zeros(len(objects), np.int64)
    class_ids[annotated] = [class_of[object_id] for object_id in objects.ids(annotated)]
    scheme = project.classes.scheme
    others = None
    if coloring == "probability":
        colors, codes = probability_codes(probability, len(scheme))
    elif coloring == "image":
        sizes = [rows.stop - rows.start for rows in objects.images.values()]
        colors, codes = image_codes(np.repeat(np.arange(len(sizes)), sizes))
    elif coloring == "off":
        annotated = annotated[:0]
        colors, codes = class_codes(np.zeros_like(class_ids), scheme)
    else:
        colors, codes = class_codes(class_ids, scheme)
        given, other = class_ids[annotated], predicted[annotated]
        differs = (given != 0) & (other != 0) & (given != other)  # never where only labels are shown
        others = np.where(differs, class_codes(other, scheme)[1].astype(np.int64), -1)
    return PointStyles(key, colors, codes, annotated, hidden, others, _left_out(project, objects, chosen))


def _left_out(project: Project, objects: MapObjects, chosen: ObjectFilter) -> NDArray[np.bool_] | None:
    """Return which objects a filter leaves out; None for none."""
    if not chosen.is_active:
        return None
    left_out = np.zeros(len(objects), bool)
    for image, rows in objects.images.items():
        with suppress(SvetlanaError, OSError):  # of a missing image, which the panel reports
            only = matching_objects(project, image, chosen)
            if only is not None:
                left_out[rows] = ~np.isin(objects.labels(image), only)
    return left_out
