"""Filter of objects by annotation and class, which all views of a project share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from ipywidgets import HTML, Dropdown, HBox, VBox

from svetlana_jupyter.core.display.selection import AnnotationStatus, match_objects
from svetlana_jupyter.widgets.components import muted, set_options

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.viewer.viewer_model import SharedModel

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


class FilterControls(VBox):
    """Controls of the filter that all views of a project share.

    Parameters
    ----------
    project : Project
    shared : SharedModel

    Attributes
    ----------
    status, class_id : Dropdown
    """

    def __init__(self, project: Project, shared: SharedModel) -> None:
        self._project, self._shared = project, shared
        layout = {"width": "150px"}
        self.status = Dropdown(options=STATUS_TITLES, tooltip="Filter by annotation", layout=layout)
        self.class_id = Dropdown(tooltip="Filter by class, annotated or predicted", layout=layout)
        text = "Other objects have no color, and are not selected by a box or lasso."
        super().__init__([HBox([self.status, self.class_id]), HTML(muted(text), layout={"margin": "0"})])
        self._is_following = False
        self.refresh()
        self.follow()
        for control in (self.status, self.class_id):
            control.observe(lambda _: self._choose(), "value")

    def refresh(self) -> None:
        """Update the classes; a filter by a class that is gone ends."""
        set_options(self.class_id, [("Any class", 0), *((info.name, info.id) for info in self._project.classes)])

    def follow(self) -> None:
        """Show the filter that another view has chosen."""
        self._is_following = True
        self.status.value, self.class_id.value = self._shared.filter.status, self._shared.filter.class_id
        self._is_following = False

    def _choose(self) -> None:
        if not self._is_following:
            self._shared.filter = ObjectFilter(self.status.value, self.class_id.value)


_matches: WeakKeyDictionary[Project, dict[str, tuple[Hashable, NDArray[np.int64]]]] = WeakKeyDictionary()


def matching_objects(project: Project, image: str, chosen: ObjectFilter) -> NDArray[np.int64] | None:
    """Return the labels (n,) of an image's objects that a filter selects, ascending.

    The result is None if it selects all of them, or if the objects are not indexed yet.
    """
    if not chosen.is_active or image not in project.images or not project.images.is_indexed(image):
        return None
    table = project.probabilities(image)
    mask = project.images.entry(image).mask_number
    key = chosen, mask, id(table), project.annotations_version, project.classes_version, project.predictions_version
    known = _matches.setdefault(project, {})
    if image not in known or known[image][0] != key:
        known[image] = key, _find_matching(project, image, chosen)
    return known[image][1]


def _find_matching(project: Project, image: str, chosen: ObjectFilter) -> NDArray[np.int64]:
    objects, table = project.objects(image).index, project.probabilities(image)
    places = table.index.get_indexer(objects)
    predicted = np.zeros(len(objects), np.int64)
    predicted[places >= 0] = table["predicted"].to_numpy()[places[places >= 0]]
    annotated, given = np.zeros(len(objects), bool), np.zeros(len(objects), np.int64)
    labels = project.annotations.labels_of(image, objects.to_numpy())
    counted = {label: each for label, each in labels.items() if each.action != "skip"}
    rows = objects.get_indexer(list(counted))
    for row, each in zip(rows.tolist(), counted.values()):
        if row >= 0:
            annotated[row], given[row] = True, each.class_id
    return np.sort(objects.to_numpy()[match_objects(chosen.status, chosen.class_id, annotated, given, predicted)])
