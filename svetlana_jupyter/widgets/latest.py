"""Answers that take a while, looked for off the kernel's thread; only the last question's is shown."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from svetlana_jupyter.widgets.pace import Debounce, running_loop

Question = TypeVar("Question")


class LatestQuestion(Generic[Question]):
    """Asks once a person has stopped typing, one question at a time, and drops answers that nobody waits for any more.

    Without a running loop (a script, a test) the answer is there at once.

    Parameters
    ----------
    answer : callable
        Takes the question; runs on a thread of its own.
    show : callable
        Takes the answer; runs on the thread and loop of whoever asked.
    delay : float
        Seconds without another question before one is looked into.
    """

    def __init__(self, answer: Callable[[Question], Any], show: Callable[[Any], None], delay: float = 0.3) -> None:
        self._answer, self._show = answer, show
        self._rest = Debounce(self._begin, delay)
        self._asked: Question | None = None
        self._busy = False

    def ask(self, question: Question) -> None:
        """Look into this question instead of those before."""
        self._asked = question
        self._rest.restart()

    def drop(self) -> None:
        """Nothing is asked any more."""
        self._asked = None

    def _begin(self) -> None:
        question = self._asked
        if question is None or self._busy:
            return  # what is under way begins the next one when it ends
        loop = running_loop()
        if loop is None:
            self._asked = None
            self._show(self._answer(question))
            return
        self._busy = True
        threading.Thread(target=self._look, args=(question, loop), daemon=True).start()

    def _look(self, question: Question, loop: asyncio.AbstractEventLoop) -> None:
        found = self._answer(question)
        with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits any more
            loop.call_soon_threadsafe(self._end, question, found)

    def _end(self, question: Question, found: Any) -> None:
        self._busy = False
        if question is self._asked:
            self._asked = None
            self._show(found)
        else:
            self._begin()
