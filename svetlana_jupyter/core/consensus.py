"""Current label of every object: the consensus of all annotators.

Labels are carried over when a mask is replaced, and updated incrementally when annotations are added.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from svetlana_jupyter.core.annotations import ERASED_LABEL, UNLABELED, AnnotationLog, Label, ObjectId, VersionedObjectId
from svetlana_jupyter.core.relabeling import LabelMapping, follow_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class CurrentLabels:
    """Current labels that result from the annotation logs of all annotators.

    Parameters
    ----------
    logs : iterable of AnnotationLog
        One log per annotator. The majority decides; a tie gives no label. Logs may grow; then only changed objects are
        updated.
    mappings : mapping of image name to sequence of LabelMapping
        Links between the successive masks of each image, in order. Annotations made on the current mask take
        precedence; otherwise, an object inherits the label of more than half of the pixels that it shares with objects
        of the previous mask.
    merged_into : mapping of int to int
        Ids of merged classes, mapped to the ids of the classes that they count as.

    Attributes
    ----------
    version : int
        Number that increases whenever `labels` and `counts` are updated.

    Examples
    --------
    >>> from svetlana_jupyter.core.annotations import AnnotationEvent
    >>> log = AnnotationLog([AnnotationEvent("2026-01-01T09:00:00.000Z", "label", 1, "well", 17, class_id=2)])
    >>> CurrentLabels([log], merged_into={2: 1}).labels
    {ObjectId(image='well', label=17): Label(action='label', class_id=1)}
    """

    def __init__(
        self,
        logs: Iterable[AnnotationLog],
        mappings: Mapping[str, Sequence[LabelMapping]] | None = None,
        merged_into: Mapping[int, int] | None = None,
    ) -> None:
        self._logs = list(logs)
        self._mappings = dict(mappings or {})
        self._merged_labels = {class_id: Label("label", into) for class_id, into in (merged_into or {}).items()}
        self._labels: dict[ObjectId, Label] = {}
        self._counts: Counter[Label] = Counter()
        self.version = 0
        self._n_read = [len(log.changed_objects) for log in self._logs]
        self._lock = threading.Lock()  # readers on several threads update the labels
        for log in self._logs:
            self._update(log.labels)

    @property
    def labels(self) -> Mapping[ObjectId, Label]:
        """All labels, in the order of their last change."""
        self._read_logs()
        return self._labels

    @property
    def counts(self) -> Counter[Label]:
        """Number of objects with each label."""
        self._read_logs()
        return self._counts

    def current_objects(self, versioned_id: VersionedObjectId) -> list[ObjectId]:
        """Return the objects of the current mask that replaced an earlier object."""
        image, label, mask = versioned_id
        later = self._mappings.get(image, ())[mask:]
        return [ObjectId(image, current) for current in (follow_label(label, later) if later else (label,))]

    def _read_logs(self) -> None:
        with self._lock:
            for i, log in enumerate(self._logs):
                if changed := log.changed_objects[self._n_read[i] :]:
                    self._n_read[i] += len(changed)
                    self._update(changed)

    def _update(self, versioned_ids: Iterable[VersionedObjectId]) -> None:
        self.version += 1
        for versioned_id in versioned_ids:
            for object_id in self.current_objects(versioned_id):
                votes = [self._label_by(log, object_id) for log in self._logs]
                label = votes[0] if len(votes) == 1 else majority_label(votes)
                if object_id in self._labels:
                    self._counts[self._labels.pop(object_id)] -= 1
                if label != UNLABELED:
                    self._labels[object_id] = label
                    self._counts[label] += 1

    def _label_by(self, log: AnnotationLog, object_id: ObjectId) -> Label:
        """Return the label that one annotator gave to an object of the current mask."""
        mappings = self._mappings.get(object_id.image, ())
        label = self._carried_label(log, VersionedObjectId(*object_id, len(mappings)), mappings)
        return UNLABELED if label == ERASED_LABEL else label

    def _carried_label(
        self, log: AnnotationLog, versioned_id: VersionedObjectId, mappings: Sequence[LabelMapping]
    ) -> Label:
        own = log.label_of(versioned_id)
        own = self._merged_labels.get(own.class_id, own)
        if own.action not in ("", "skip") or not versioned_id.mask:
            return own
        votes: Counter[Label] = Counter()
        image, label, mask = versioned_id
        for old, pixels in mappings[mask - 1].predecessors(label):
            votes[self._carried_label(log, VersionedObjectId(image, old, mask - 1), mappings)] += pixels
        carried = next((label for label, pixels in votes.items() if 2 * pixels > votes.total()), UNLABELED)
        return own if carried in (UNLABELED, ERASED_LABEL) else carried


def majority_label(labels: Iterable[Label]) -> Label:
    """Return the label of an object by majority vote of its annotators.

    A tie gives no label. Annotators who skipped or did not label the object have no vote.
    """
    given = [label for label in labels if label != UNLABELED]
    ranked = Counter(label for label in given if label.action != "skip").most_common(2)
    if not ranked:
        return given[0] if given else UNLABELED
    return ranked[0][0] if len(ranked) == 1 or ranked[0][1] > ranked[1][1] else UNLABELED
