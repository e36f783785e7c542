"""Review queue of unlabeled objects, with steps forward and back."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.core.queries import QUERIES
from svetlana_jupyter.core.queue import (
    distance_order,
    group_by_image,
    image_order,
    random_order,
    test_set_order,
    uncertainty_order,
)
from svetlana_jupyter.errors import InputError, ProjectError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import pandas as pd

    from svetlana_jupyter.core.queue import QueuedObject
    from svetlana_jupyter.project.annotation_store import Annotations
    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.query_pools import QueryPools
    from svetlana_jupyter.project.test_set import TestSet

QUEUE_KINDS = (*QUERIES, "random", "near", "similar", "image", "test")
MAX_SIMILAR = 1_000  # objects of the queue "similar"
LIST_LENGTH = 8  # objects that a query chooses at a time, with the labels of that moment
UNIFORM_SHARE = 0.25  # of the objects of the queue "useful", which are drawn uniformly at random


class Queue:
    """Queue of objects to review, one after the other.

    The queue "random" over all images is a random draw: the draw of an object is recorded in the annotation log when
    the object is annotated, whether in a panel or by a script. Labeled objects that the draw passes over are recorded,
    too, so that the drawn labels are a random sample of all objects outside the test set. A random queue of some images
    is no such draw, and is not recorded.

    The queue "useful" mixes in such a draw: every fourth of its objects on average is the next one of the queue
    "random", and is recorded alike. It hands out lists of 8 objects that are grouped by image, and chooses the next
    list with the labels, features and predictions of that moment. As long as there are no features, all its objects
    are drawn. The other queues of `core.queries.QUERIES` hand out lists, too.

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
    pools : QueryPools
        Chooses the objects of the queues in `core.queries.QUERIES`, except for "uncertain".
    kind : one of `QUEUE_KINDS`
    seed : int
        Seed of the random order.
    names : sequence of str
        Images whose objects are reviewed.
    near : (image, object), optional
        Object that the queue "near" or "similar" starts from.
    classes : sequence of str
        Classes that the user chose, for the queues "confused" and "predicted".
    """

    def __init__(
        self,
        images: ImageCollection,
        annotations: Annotations,
        test_set: TestSet,
        predictions: Callable[[Sequence[str]], pd.DataFrame],
        pools: QueryPools,
        kind: str,
        seed: int,
        names: Sequence[str],
        near: tuple[str, int] | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        if kind not in QUEUE_KINDS:
            raise InputError(f"There is no queue {kind!r}. Choose one of {', '.join(QUEUE_KINDS)}.")
        if kind == "test" and not test_set.objects:
            raise ProjectError("There is no test set yet. Draw one with project.test_set.draw(100).")
        if (kind in ("near", "similar")) != (near is not None):
            raise InputError(
                'kind="near" requires near=(image, label), like kind="similar", and no other kind accepts near. Pass '
                'both, for example kind="near", near=("P1_A1", 17).'
            )
        pools.check(kind, classes)
        images.chosen([] if near is None else [near[0]])  # raises for an unknown image
        self._pools, self._classes = pools, list(classes)
        self._images, self._annotations, self._test_set = images, annotations, test_set
        self._predictions, self._kind, self._seed, self._near = predictions, kind, seed, near
        self._names = [near[0]] if near is not None and kind == "near" else list(names)
        self._seen: list[QueuedObject] = []
        self._coming: deque[tuple[QueuedObject, list[ObjectId] | None]] = deque()
        self._passed: list[ObjectId] = []  # labeled objects since the last object that was handed out
        self._masks: list[int] | None = None
        self._follow_masks()

    @property
    def end(self) -> str:
        """Sentence to show at the end of the queue."""
        return "No label looks wrong." if self._kind == "suspect" else "No object is left in the queue."

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
            self._passed += passed or []
            if not self._is_in_queue(candidate):  # a test set was drawn in the meantime
                continue
            if self.is_open(candidate):
                self._seen.append(candidate)
                if passed is not None:
                    self._hand_out(candidate, self._passed)
                    self._passed = []
            elif passed is not None:
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
            if passed is not None:
                self._hand_out(candidate, passed)
        return objects

    def coming(self, n: int) -> list[QueuedObject]:
        """Return the same objects as `peek`, to load them early; none counts as drawn."""
        missing = max(0, n - len(self._coming))
        self._coming.extend(islice(self._rest, missing))
        return [*self._seen[self._position :], *(candidate for candidate, _ in self._coming)][:n]

    def is_open(self, candidate: QueuedObject) -> bool:
        """Return whether an object still belongs to the queue after recent labels."""
        action = self._annotations.label_of(*candidate.id).action
        return action == "label" if self._is_of_labeled else not action

    def previous(self) -> QueuedObject | None:
        """Go back to the previous object and return it; None at the start of the queue."""
        self._follow_masks()
        if self._position < 2:
            return None
        self._position -= 1
        return self._seen[self._position - 1]

    def _hand_out(self, candidate: QueuedObject, passed: list[ObjectId]) -> None:
        if self._kind in ("random", "useful") and set(self._names) == set(self._images):
            self._annotations.hand_out(candidate.id, passed)

    def _is_in_queue(self, candidate: QueuedObject) -> bool:
        return (candidate.id in self._test_set) == (self._kind == "test")

    @property
    def _is_of_labeled(self) -> bool:
        """Whether the queue consists of labeled objects."""
        return self._kind in QUERIES and QUERIES[self._kind].labeled

    def _chosen_objects(self) -> Iterator[tuple[QueuedObject, list[ObjectId] | None]]:
        """Yield the objects of a query, list by list.

        Drawn objects come with the labeled objects passed over before, all others with None.
        """
        rng, handed_out, passed = np.random.default_rng(self._seed), set[ObjectId](), list[ObjectId]()
        draws = self._open_objects(self._random_order() if self._kind == "useful" else ())
        while True:
            drawn: dict[ObjectId, tuple[QueuedObject, list[ObjectId]]] = {}
            for candidate, before in draws:
                passed += before
                if candidate.id in handed_out:  # of an earlier list: counts as drawn together with the next draw
                    passed.append(candidate.id)
                else:
                    drawn[candidate.id], passed = (candidate, passed), []
                if len(drawn) == round(UNIFORM_SHARE * LIST_LENGTH):
                    break
            closed = {*handed_out, *drawn, *self._test_set.objects}
            if not self._is_of_labeled:
                closed.update(self._annotations.labels)
            count = LIST_LENGTH - len(drawn)
            chosen = self._pools.choose(self._kind, self._names, closed, count, rng, self._classes)
            objects = group_by_image([*chosen, *(candidate for candidate, _ in drawn.values())], self._current_image)
            if not objects:
                return
            handed_out.update(candidate.id for candidate in objects)
            for candidate in objects:
                yield candidate, drawn[candidate.id][1] if candidate.id in drawn else None

    @property
    def _current_image(self) -> str:
        """The image of the last object of the queue."""
        last = self._coming[-1][0] if self._coming else self._seen[-1] if self._seen else None
        return last.image if last is not None else ""

    def _open_objects(self, order: Iterable[QueuedObject]) -> Iterator[tuple[QueuedObject, list[ObjectId]]]:
        """Yield each unlabeled object with the labeled objects passed over before."""
        passed: list[ObjectId] = []
        for candidate in order:
            if not self._is_in_queue(candidate):
                continue
            if self.is_open(candidate):
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
            is_chosen = self._kind in QUERIES and self._kind != "uncertain"
            self._rest = self._chosen_objects() if is_chosen else self._open_objects(self._order())

    def _order(self) -> Iterator[QueuedObject]:
        images = self._images
        if self._near is not None and self._kind == "similar":
            return self._pools.similar(*self._near, self._names, MAX_SIMILAR)
        if self._near is not None:
            image, label = self._near
            return distance_order(image, images.objects(image), label, images.pair(image).spacing)
        if self._kind == "test":
            return test_set_order([item for item in self._test_set.objects if item.image in set(self._names)])
        if self._kind == "uncertain":
            return uncertainty_order(self._predictions(self._names))
        if self._kind == "image":
            return image_order((name, images.objects(name).index.to_numpy()) for name in self._names)
        return self._random_order()

    def _random_order(self) -> Iterator[QueuedObject]:
        return random_order({name: self._images.objects(name).index.to_numpy() for name in self._names}, self._seed)
