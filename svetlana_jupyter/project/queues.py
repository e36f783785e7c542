"""Review queue of unlabeled objects, with steps forward and back."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from svetlana_jupyter.core.queue import distance_order, image_order, random_order, test_set_order, uncertainty_order
from svetlana_jupyter.errors import InputError, ProjectError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd

    from svetlana_jupyter.core.annotations import ObjectId
    from svetlana_jupyter.core.queue import QueuedObject
    from svetlana_jupyter.project.annotation_store import Annotations
    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.test_set import TestSet

QUEUE_KINDS = ("random", "uncertain", "near", "image", "test")


class Queue:
    """Queue of objects to review, one after the other.

    The queue "random" over all images is a random draw: the draw of an object is recorded in the annotation log when
    the object is annotated, whether in a panel or by a script. Labeled objects that the draw passes over are recorded,
    too, so that the drawn labels are a random sample of all objects outside the test set. A random queue of some images
    is no such draw, and is not recorded.

    Labeled objects are skipped, so after a project is reopened, a queue continues with the next unlabeled object. No
    object is returned twice, except after a step back. The queue restarts when the mask of an image is replaced.

    Parameters
    ----------
    images : ImageCollection
    annotations : Annotations
    test_set : TestSet
        Objects that only the queue "test" contains.
    predictions : callable
        Returns the predictions of some images, one row per object.
    kind : {"random", "uncertain", "near", "image", "test"}
    seed : int
        Seed of the random order.
    names : sequence of str
        Images whose objects are reviewed.
    near : (image, object), optional
        Object from which the queue "near" starts.
    """

    def __init__(
        self,
        images: ImageCollection,
        annotations: Annotations,
        test_set: TestSet,
        predictions: Callable[[Sequence[str]], pd.DataFrame],
        kind: str,
        seed: int,
        names: Sequence[str],
        near: tuple[str, int] | None = None,
    ) -> None:
        if kind not in QUEUE_KINDS:
            raise InputError(f"There is no queue {kind!r}. Choose one of {', '.join(QUEUE_KINDS)}.")
        if kind == "test" and not test_set.objects:
            raise ProjectError("There is no test set yet. Draw one with project.test_set.draw(100).")
        if (kind == "near") != (near is not None):
            raise InputError(
                'kind="near" requires near=(image, label), and no other kind accepts near. Pass both, for example '
                'kind="near", near=("P1_A1", 17).'
            )
        self._images, self._annotations, self._test_set = images, annotations, test_set
        self._predictions, self._kind, self._seed, self._near = predictions, kind, seed, near
        self._names = [near[0]] if near is not None else list(names)
        self._seen: list[QueuedObject] = []
        self._coming: deque[tuple[QueuedObject, list[ObjectId]]] = deque()
        self._passed: list[ObjectId] = []  # labeled objects since the last object that was handed out
        self._masks: list[int] | None = None
        self._follow_masks()

    def next(self) -> QueuedObject | None:
        """Go to the next unlabeled object and return it; None at the end of the queue.

        After a step back, the next object is the object that was returned before the step.
        """
        self._follow_masks()
        while self._position == len(self._seen):
            coming = self._coming.popleft() if self._coming else next(self._rest, None)
            if coming is None:
                return None
            candidate, passed = coming
            self._passed += passed
            if not self._is_in_queue(candidate):  # a test set was drawn in the meantime
                continue
            if self._is_open(candidate):
                self._seen.append(candidate)
                self._hand_out(candidate, self._passed)
                self._passed = []
            else:
                self._passed.append(candidate.id)
        self._position += 1
        return self._seen[self._position - 1]

    def peek(self, n: int) -> list[QueuedObject]:
        """Return up to ``n`` objects that the following calls of `next` will return.

        A random queue counts these objects as drawn once they are annotated. Objects that are labeled in the meantime
        will be skipped.
        """
        objects = self.coming(n)
        for _, (candidate, passed) in zip(objects[len(self._seen) - self._position :], self._coming):
            self._hand_out(candidate, passed)
        return objects

    def coming(self, n: int) -> list[QueuedObject]:
        """Return the same objects as `peek`, to load them early; none counts as drawn."""
        missing = max(0, n - len(self._coming))
        self._coming.extend(islice(self._rest, missing))
        return [*self._seen[self._position :], *(candidate for candidate, _ in self._coming)][:n]

    def previous(self) -> QueuedObject | None:
        """Go back to the previous object and return it; None at the start of the queue."""
        self._follow_masks()
        if self._position < 2:
            return None
        self._position -= 1
        return self._seen[self._position - 1]

    def _hand_out(self, candidate: QueuedObject, passed: list[ObjectId]) -> None:
        if self._kind == "random" and set(self._names) == set(self._images):
            self._annotations.hand_out(candidate.id, passed)

    def _is_in_queue(self, candidate: QueuedObject) -> bool:
        return (candidate.id in self._test_set) == (self._kind == "test")

    def _is_open(self, candidate: QueuedObject) -> bool:
        return not self._annotations.label_of(*candidate.id).action

    def _open_objects(self) -> Iterator[tuple[QueuedObject, list[ObjectId]]]:
        """Yield each unlabeled object with the labeled objects passed over before."""
        passed: list[ObjectId] = []
        for candidate in self._order():
            if not self._is_in_queue(candidate):
                continue
            if self._is_open(candidate):
                yield candidate, passed
                passed = []
            else:
                passed.append(candidate.id)

    def _follow_masks(self) -> None:
        """Restart the queue if a mask was replaced."""
        masks = [self._images[name].mask_number for name in self._names]
        if masks != self._masks:
            self._masks, self._position = masks, 0
            self._seen.clear()
            self._coming.clear()
            self._passed = []
            self._rest = self._open_objects()

    def _order(self) -> Iterator[QueuedObject]:
        images = self._images
        if self._near is not None:
            image, label = self._near
            return distance_order(image, images.objects(image), label, images.pair(image).spacing)
        if self._kind == "test":
            return test_set_order([item for item in self._test_set.objects if item.image in set(self._names)])
        if self._kind == "uncertain":
            return uncertainty_order(self._predictions(self._names))
        labels = ((name, images.objects(name).index.to_numpy()) for name in self._names)
        return image_order(labels) if self._kind == "image" else random_order(dict(labels), self._seed)
