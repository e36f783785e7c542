"""Filter of objects by annotation and class, which all views of a project share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from svetlana_jupyter.core.display.selection import AnnotationStatus, match_objects

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from svetlana_jupyter.project.project import Project

STATUS_TITLES: tuple[tuple[str, AnnotationStatus], ...] = (
    ("All objects", "all"),
    ("Unlabeled", "unlabeled"),
    ("Annotated", "annotated"),
    ("Corrected", "corrected"),
)


@dataclass(frozen=True)
class ObjectFilter:
    """Filter of objects.

    Attributes
    ----------
    status : {"all", "unlabeled", "annotated", "corrected"}
        "annotated": with a class or a flag; "corrected": annotated with another class than predicted.
    class_id : int
        The annotated class or, without annotation, the predicted class; 0 for any.
    """

    status: AnnotationStatus = "all"
    class_id: int = 0

    @property
    def is_active(self) -> bool:
        """Whether the filter may leave objects out."""
        return self != ObjectFilter()


_matches: WeakKeyDictionary[Project, dict[str, tuple[Hashable, pd.DataFrame, NDArray[np.int64]]]] = WeakKeyDictionary()


def matching_objects(project: Project, image: str, chosen: ObjectFilter) -> NDArray[np.int64] | None:
    """Return the labels (n,) of an image's objects that a filter selects, ascending.

    The result is None if it selects all of them, or if the objects are not indexed yet.
    """
    if not chosen.is_active or image not in project.images or not project.images.is_indexed(image):
        return None
    table = project.probabilities(image)
    mask = project.images.entry(image).mask_number
    key = chosen, mask, project.annotations_version, project.classes_version, project.predictions_version
    known = _matches.setdefault(project, {})
    # `probabilities` returns a new table when objects of the test set are hidden or no longer hidden.
    if image not in known or known[image][0] != key or known[image][1] is not table:
        known[image] = key, table, _find_matching(project, image, chosen)
    return known[image][2]


def _find_matching(project: Project, image: str, chosen: ObjectFilter) -> NDArray[np.int64]:
    objects, table = project.objects(image).index, project.probabilities(image)
    places = table.index.get_indexer(objects)
    predicted = np.zeros(len(objects), np.int64)
    predicted[places >= 0] = table["predicted"].to_numpy()[places[places >= 0]]
    annotated, given = np.zeros(len(objects), bool), np.zeros(len(objects), np.int64)
    labels = project.annotations.labels_of(image, objects.to_numpy())
    counted = {label: each for label, each in labels.items() if each.action != "skip"}
    rows = objects.get_indexer(pd.Index(list(counted), dtype=np.int64))
    for row, each in zip(rows.tolist(), counted.values()):
        if row >= 0:
            annotated[row], given[row] = True, each.class_id
    return np.sort(objects.to_numpy()[match_objects(chosen.status, chosen.class_id, annotated, given, predicted)])
