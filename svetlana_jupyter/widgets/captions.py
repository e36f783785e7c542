"""What is said of an object beside its patch: the class, who gave it, and how sure a classifier is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svetlana_jupyter.core.contact import CellCaption

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

_SHORT = {"ambiguous": "ambiguous", "bad": "bad"}
_LONG = {"ambiguous": "ambiguous", "bad": "bad segmentation", "skip": "skipped"}


class Captions:
    """Says what a project knows of its objects, now.

    Parameters
    ----------
    project : Project
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def predicted(self, image: str, object: int) -> tuple[int, float]:
        """Return class id and probability; 0 and 0.0 where nothing is predicted."""
        table = self._project.probabilities(image)
        if object not in table.index:
            return 0, 0.0
        return int(table.at[object, "predicted"]), float(table.at[object, "probability"])

    def tile(self, image: str, object: int) -> CellCaption:
        """Return the frame and the words of a patch: the annotation, else the prediction."""
        label = self._project.label_of(image, object)
        if label.action == "label":
            info = self._project.classes.by_id(label.class_id)
            return CellCaption(info.color, is_annotated=True, name=info.name)
        if label.action in _SHORT:
            return CellCaption(is_annotated=True, name=_SHORT[label.action])
        class_id, probability = self.predicted(image, object)
        if not class_id:
            return CellCaption()
        info = self._project.classes.by_id(class_id)
        return CellCaption(info.color, name=info.name, share=f"{probability:.0%}")

    def sentence(self, image: str, object: int) -> str:
        """Return all that is known: the object, the annotation and the prediction."""
        words = [f"object {object} in {image}"]
        label, (class_id, probability) = self._project.label_of(image, object), self.predicted(image, object)
        if label.action:
            words.append(self._project.classes.by_id(label.class_id).name if label.class_id else _LONG[label.action])
        if class_id:
            words.append(f"{self._project.classes.by_id(class_id).name}? {probability:.0%}")
        return " · ".join(words)
