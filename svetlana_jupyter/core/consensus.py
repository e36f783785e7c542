"""What stands for each object of today: by the word of everybody, over all masks, kept up to date object by object."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from svetlana_jupyter.core.annotations import ERASED_LABEL, UNLABELED, AnnotationLog, Label, ObjectId, VersionedObjectId
from svetlana_jupyter.core.relabeling import LabelMapping, follow


class CurrentLabels:
    """What several logs lead to, in the numbers of the masks that the images have now.

    Parameters
    ----------
    logs : iterable of AnnotationLog
        One an annotator. The majority stands, a tie is left out. They may grow; only what changed is looked at again.
    steps : mapping of image name to sequence of Succession
        How the masks of an image replaced each other. What is said of an object of the latest mask stands; of anything
        else, a new object takes over what more than half of it was, by the pixels that it shares with old objects.
    merged : mapping of int to int
        Classes that count as another one.

    Attributes
    ----------
    version : int
        Counts up with every change that `labels` and `counts` have taken in.

    Examples
    --------
    >>> from svetlana_jupyter.core.annotations import AnnotationEvent
    >>> log = AnnotationLog([AnnotationEvent("2026-01-01T09:00:00.000Z", "label", 1, "well", 17, class_id=2)])
    >>> CurrentLabels([log], merged={2: 1}).labels
    {ObjectId(image='well', label=17): Label(action='label', class_id=1)}
    """

    def __init__(
        self,
        logs: Iterable[AnnotationLog],
        steps: Mapping[str, Sequence[LabelMapping]] | None = None,
        merged: Mapping[int, int] | None = None,
    ) -> None:
        self._logs = list(logs)
        self._steps = dict(steps or {})
        self._merged = {id: Label("label", into) for id, into in (merged or {}).items()}
        self._labels: dict[ObjectId, Label] = {}
        self._counts: Counter[Label] = Counter()
        self.version = 0
        self._read = [len(log.touched) for log in self._logs]
        self._reading = threading.Lock()
        for log in self._logs:
            self._look_again(log.labels)

    @property
    def labels(self) -> Mapping[ObjectId, Label]:
        """Every object that something stands for, in the order in which it was last said."""
        self._catch_up()
        return self._labels

    @property
    def counts(self) -> Counter[Label]:
        """How many objects each label stands for."""
        self._catch_up()
        return self._counts

    def current_objects(self, subject: VersionedObjectId) -> list[ObjectId]:
        """Return the objects of today that something said of ``subject`` is about."""
        image, label, mask = subject
        later = self._steps.get(image, ())[mask:]
        return [ObjectId(image, number) for number in (follow(label, later) if later else (label,))]

    def _catch_up(self) -> None:
        with self._reading:
            for i, log in enumerate(self._logs):
                if self._read[i] < len(log.touched):
                    changed = log.touched[self._read[i] :]
                    self._read[i] += len(changed)
                    self._look_again(changed)

    def _look_again(self, object_ids: Iterable[VersionedObjectId]) -> None:
        self.version += 1
        for subject in object_ids:
            steps = self._steps.get(subject.image, ())
            for id in self.current_objects(subject):
                said = [self._said(log, *id, steps) for log in self._logs]
                self._set(id, said[0] if len(said) == 1 else majority_label(said))

    def _set(self, id: ObjectId, label: Label) -> None:
        before = self._labels.pop(id, None)
        if before is not None:
            self._counts[before] -= 1
        if label != UNLABELED:
            self._labels[id] = label
            self._counts[label] += 1

    def _said(self, log: AnnotationLog, image: str, label: int, steps: Sequence[LabelMapping]) -> Label:
        """Return what one person says of an object of today's mask."""
        annotation = self._said_at(log, VersionedObjectId(image, label, len(steps)), steps)
        return UNLABELED if annotation == ERASED_LABEL else annotation

    def _said_at(self, log: AnnotationLog, subject: VersionedObjectId, steps: Sequence[LabelMapping]) -> Label:
        said = log.label_of(subject)
        said = self._merged.get(said.class_id, said)
        if said.action not in ("", "skip") or not subject.mask:
            return said
        votes: dict[Label, int] = {}
        for old, pixels in steps[subject.mask - 1].predecessors(subject.label):
            word = self._said_at(log, VersionedObjectId(subject.image, old, subject.mask - 1), steps)
            votes[word] = votes.get(word, 0) + pixels
        carried = next((label for label, pixels in votes.items() if 2 * pixels > sum(votes.values())), UNLABELED)
        return said if carried in (UNLABELED, ERASED_LABEL) else carried


def majority_label(said: Iterable[Label]) -> Label:
    """Return what several people say of an object together: the majority stands, a tie is left out.

    A person who skipped it, or said nothing, has no vote.
    """
    words = [label for label in said if label != UNLABELED]
    if len(words) == 1:
        return words[0]
    ranked = Counter(label for label in words if label.action != "skip").most_common(2)
    if not ranked:
        return words[0] if words else UNLABELED
    return ranked[0][0] if len(ranked) == 1 or ranked[0][1] > ranked[1][1] else UNLABELED
