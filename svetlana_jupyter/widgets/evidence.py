"""The face of training: four questions about what may count, each explained by a card with pictures."""

from __future__ import annotations

import base64
import html
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, Box, Checkbox, HBox

from svetlana_jupyter.widgets.evidence_pictures import ExampleObject, builtin_example, find_example, pictures
from svetlana_jupyter.widgets.latest import LatestQuestion

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

# What is asked: the name of the evidence, the word on the box, what it may do ticked, and what happens unticked.
CUE_TEXTS = (
    (
        "surroundings",
        "Surroundings",
        "What lies around an object may decide: its neighbours, the tissue it lies in.",
        "only the object itself is seen.",
    ),
    (
        "brightness",
        "Brightness",
        "How bright an object is may decide, and its colour.",
        "these are the same to the classifier:",
    ),
    (
        "orientation",
        "Orientation",
        "How an object is turned may decide: stripes up or across.",
        "these are the same to the classifier:",
    ),
    (
        "size",
        "Size",
        "How large an object is may decide.",
        "these are the same to the classifier:",
    ),
)

logger = logging.getLogger(__name__)


class Question(Box):
    """A box to tick, with a card that opens while the mouse or the keyboard is on it.

    Attributes
    ----------
    tick : Checkbox
    card : HTML
    """

    def __init__(self, name: str, word: str, checked: str, unchecked: str) -> None:
        self.name, self._said = name, (word, checked, unchecked)
        self.checkbox = Checkbox(True, description=word, indent=False, layout={"width": "auto", "margin": "0"})
        self.checkbox.tooltip = checked
        self.card = HTML(layout={"margin": "0"})
        self.card.add_class("sv-card")
        super().__init__([self.checkbox, self.card], layout={"overflow": "visible", "flex": "0 0 auto"})
        self.add_class("sv-question")

    def show(self, before: bytes, after: tuple[bytes, ...]) -> None:
        """Draw the card."""
        word, checked, unchecked = (html.escape(text) for text in self._said)
        same = '<span class="sv-same">=</span>'.join(map(_image, after))
        row = f'{_image(before)}<span class="sv-same">→</span>{same}'
        self.card.value = f'<h4>{word}</h4><p>{checked} <b>Unticked</b>, {unchecked}</p><div class="sv-row">{row}</div>'


class CueCheckboxes(HBox):
    """The four boxes, all ticked at first.

    Parameters
    ----------
    project : Project
    changed : callable
        Called with the evidence that may count when a person ticks or unticks a box.
    """

    def __init__(self, project: Project, changed: Callable[[frozenset[str]], None]) -> None:
        self.questions = {question[0]: Question(*question) for question in CUE_TEXTS}
        self._project, self._changed = project, changed
        self._showing = self._own = False
        self._latest: LatestQuestion[object] = LatestQuestion(self._draw, self._show)
        title = HTML("<b>What may count?</b>", layout={"margin": "0 14px 0 0"})
        super().__init__(
            [title, *self.questions.values()],
            layout={"align_items": "center", "flex_flow": "row wrap", "overflow": "visible", "grid_gap": "0 18px"},
        )
        self.add_class("sv-questions")
        for question in self.questions.values():
            question.checkbox.observe(self._ticked, "value")

    @property
    def checked(self) -> frozenset[str]:
        """The evidence that may count."""
        return frozenset(name for name, question in self.questions.items() if question.checkbox.value)

    def show(self, allowed: Collection[str]) -> None:
        """Tick what may count; nobody is told."""
        self._showing = True
        try:
            for name, question in self.questions.items():
                question.checkbox.value = name in allowed
        finally:
            self._showing = False

    def draw_cards(self) -> None:
        """Draw the cards, beside the kernel's loop, unless they show an object of the project already."""
        if not self._own:
            self._latest.ask(object())

    def _ticked(self, _: Any) -> None:
        if not self._showing:
            self._changed(self.checked)

    def _draw(self, _: object) -> tuple[bool, dict[str, tuple[bytes, tuple[bytes, ...]]]]:
        example = self._example()
        return example.own_image, {name: pictures(example, name) for name in self.questions}

    def _example(self) -> ExampleObject:
        try:
            return find_example(self._project)
        except Exception:  # a card is no place for what is wrong with an image
            logger.exception("no object of the project can be drawn")
            return builtin_example()

    def _show(self, answer: tuple[bool, dict[str, tuple[bytes, tuple[bytes, ...]]]]) -> None:
        self._own, drawn = answer
        for name, (before, after) in drawn.items():
            self.questions[name].show(before, after)


def _image(data: bytes) -> str:
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(data).decode("ascii")}">'
