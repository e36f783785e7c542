"""A queue over a project: hands out the next object that nobody has said anything of, and steps back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from svetlana_jupyter.core.queue import Candidate, least_certain, random_order
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

KINDS = ("random", "uncertain")


class Queue:
    """Objects to look at, one after the other; resumes after a reopening, since what was labelled is passed over.

    Parameters
    ----------
    project : Project
    kind : {"random", "uncertain"}
    seed : int
        Of the random order.
    images : sequence of str
        The images whose objects are drawn.
    """

    def __init__(self, project: Project, kind: str, seed: int, images: Sequence[str]) -> None:
        if kind not in KINDS:
            raise InputError(f"a queue is one of {', '.join(KINDS)}, got {kind!r}.")
        self._project = project
        self._seen: list[Candidate] = []
        self._position = 0
        self._rest: Iterator[Candidate] = (
            random_order({name: project.objects(name).index.to_numpy() for name in images}, seed)
            if kind == "random"
            else least_certain(project.predictions(images))
        )

    def next(self) -> Candidate | None:
        """Return the next object: one stepped back from, else a new one without annotation; None at the end."""
        if self._position < len(self._seen):
            self._position += 1
            return self._seen[self._position - 1]
        for candidate in self._rest:
            if not self._project.label_of(*candidate.id).action:
                self._seen.append(candidate)
                self._position = len(self._seen)
                return candidate
        return None

    def previous(self) -> Candidate | None:
        """Return the object handed out before the last one, None at the beginning."""
        if self._position < 2:
            return None
        self._position -= 1
        return self._seen[self._position - 1]
