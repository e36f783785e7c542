"""A queue over a project: hands out the next object that nobody has said anything of, and steps back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.core.queue import (
    QueuedObject,
    distance_order,
    image_order,
    random_order,
    test_set_order,
    uncertainty_order,
)
from svetlana_jupyter.errors import InputError, ProjectError

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

KINDS = ("random", "uncertain", "near", "image", "test")


class Queue:
    """Objects to look at, one after the other.

    It resumes after a reopening, since what something was said of is passed over, and hands out nothing twice but what
    was stepped back from. When a mask is replaced it begins again with the new objects.

    Parameters
    ----------
    project : Project
    kind : {"random", "uncertain", "near", "image", "test"}
    seed : int
        Of the random order.
    images : sequence of str
        The images whose objects are drawn.
    near : (image, object), optional
        Where "near" begins.
    """

    _masks: list[int]
    _seen: list[QueuedObject]
    _drawn: deque[QueuedObject]
    _rest: Iterator[QueuedObject]
    _position: int

    def __init__(
        self, project: Project, kind: str, seed: int, images: Sequence[str], near: tuple[str, int] | None = None
    ) -> None:
        if kind not in KINDS:
            raise InputError(f"a queue is one of {', '.join(KINDS)}, got {kind!r}.")
        if kind == "test" and not project.test_set.objects:
            raise ProjectError("there is no test set yet; draw one with project.test_set.draw(100).")
        if (kind == "near") != (near is not None):
            raise InputError(
                'a queue of near objects begins at one: give it, for example kind="near", near=("P1_A1", 17).'
            )
        self._project, self._kind, self._seed, self._near = project, kind, seed, near
        self._images = [near[0]] if near is not None else list(images)
        self._begin()

    def next(self) -> QueuedObject | None:
        """Return the next object: one stepped back from, else a new one without annotation; None at the end."""
        if self._masks != self._masks_now():
            self._begin()
        if self._position < len(self._seen):
            self._position += 1
            return self._seen[self._position - 1]
        while (candidate := self._draw()) is not None:
            if self._is_open(candidate):
                self._seen.append(candidate)
                self._position = len(self._seen)
                return candidate
        return None

    def ahead(self, n: int) -> list[QueuedObject]:
        """Return up to ``n`` objects that `next` will bring if nothing is said of them before."""
        while len(self._drawn) < n and (candidate := next(self._rest, None)) is not None:
            if self._is_open(candidate):
                self._drawn.append(candidate)
        return [*self._seen[self._position :], *self._drawn][:n]

    def previous(self) -> QueuedObject | None:
        """Return the object handed out before the last one, None at the beginning."""
        if self._masks != self._masks_now():
            self._begin()
        if self._position < 2:
            return None
        self._position -= 1
        return self._seen[self._position - 1]

    def _draw(self) -> QueuedObject | None:
        return self._drawn.popleft() if self._drawn else next(self._rest, None)

    def _is_open(self, candidate: QueuedObject) -> bool:
        """Whether nothing is said of an object yet, and this queue may bring it."""
        if (candidate.id in self._project.test_set) != (self._kind == "test"):
            return False
        return not self._project.annotations.label_of(*candidate.id).action

    def _begin(self) -> None:
        self._masks = self._masks_now()
        self._seen = []
        self._drawn = deque()
        self._position = 0
        self._rest = self._order()

    def _order(self) -> Iterator[QueuedObject]:
        project = self._project
        if self._near is not None:
            image, label = ObjectId(*self._near)
            pair = project.pair(image)
            return distance_order(image, project.objects(image), label, pair.spacing)
        if self._kind == "image":
            return image_order((name, project.objects(name).index.to_numpy()) for name in self._images)
        if self._kind == "test":
            chosen = set(self._images)
            return test_set_order([id for id in project.test_set.objects if id.image in chosen])
        if self._kind == "random":
            return random_order({name: project.objects(name).index.to_numpy() for name in self._images}, self._seed)
        return uncertainty_order(project.predictions(self._images))

    def _masks_now(self) -> list[int]:
        return [self._project.images[name].mask_number for name in self._images]
