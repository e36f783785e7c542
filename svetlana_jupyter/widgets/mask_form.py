"""Another mask for an image: what would become of its annotations is said before anything changes."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from ipywidgets import HTML, Button, Combobox, Dropdown, HBox, VBox

from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.latest import LatestQuestion
from svetlana_jupyter.widgets.pair_fields import field, line, note
from svetlana_jupyter.widgets.panel import guarded
from svetlana_jupyter.widgets.parts import muted, table

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.parts import StatusLine

_KINDS = (".tif", ".tiff", ".png", ".npy", ".zarr", ".h5")
_OFFERED, _NAMED = 100, 6
_MEANINGS = {
    "kept": "found again under the same number, with what was said of them",
    "moved": "found again under another number, with what was said of them",
    "split": "fell into several objects: each that is mostly of the old one has what was said of it",
    "merged": "became one with others: it has what was said of more than half of it, or nothing",
    "lost": "lie where the new mask has no object: what was said stays in the log",
}
_BOXES = "The old mask is not what it was, so the boxes that were noted with each annotation are compared."
_EMPTY = "Choose a file, and what would become of the annotations is said here."


@dataclass(frozen=True)
class Question:
    """A mask that may take the place of an image's."""

    image: str
    path: str


class MaskForm(VBox):
    """Gives an image of a project another mask.

    Parameters
    ----------
    project : Project
    do : callable
        Does what a button asks for, and shows what goes wrong (`Panel.do`).
    status : Status

    Attributes
    ----------
    image : Dropdown
    path : Combobox
    report : HTML
    replace : Button
    """

    def __init__(self, project: Project, do: Callable[..., None], status: StatusLine) -> None:
        self._project, self._status = project, status
        self._latest = LatestQuestion(self._look, guarded(self._show, status))
        self._checked: Question | None = None
        self.image = Dropdown(**field("Image"))
        self.path = Combobox(placeholder="masks/A1_again.tif", continuous_update=True, **field("New mask"))
        self.report = HTML(layout={"width": "100%", "margin": "2px 0 0 0"})
        self.replace = Button(description="Replace the mask", icon="exchange", layout={"width": "170px", "margin": "0"})
        self.replace.on_click(lambda _: do(self._replace))
        self._now = note("")
        super().__init__(
            [
                line(self.image, self._now),
                line(self.path, note("Of the same shape; it is read where it lies")),
                self.report,
                HBox([self.replace]),
            ],
            layout={"width": "100%", "grid_gap": "4px"},
        )
        self.image.observe(guarded(lambda _: self._choose(), status), "value")
        self.path.observe(guarded(lambda _: self._ask(), status), "value")
        self.follow()

    def follow(self) -> None:
        """Offer the images that the project has now."""
        names = list(self._project.images)
        if list(self.image.options) != names:
            chosen = self.image.value
            self.image.options = names
            self.image.value = chosen if chosen in names else (names[0] if names else None)
        self._choose()

    def _choose(self) -> None:
        name = self.image.value
        if name is None:
            return
        now = self._project.mask_file(name)
        self._now.value = muted(f"has {now.name}")
        self._now.tooltip = str(now)
        others = [file for file in sorted(now.parent.iterdir()) if file.suffix in _KINDS] if now.parent.is_dir() else []
        self.path.options = [str(file) for file in others[:_OFFERED] if file != now]
        self._ask()

    def _ask(self) -> None:
        path = self.path.value.strip()
        self._checked = None
        self.replace.disabled = True
        if path and self.image.value:
            self._say("Comparing …")
            self._latest.ask(Question(self.image.value, path))
        else:
            self._latest.drop()
            self._say(_EMPTY)

    def _look(self, question: Question) -> tuple[Question, pd.DataFrame | str]:
        try:
            return question, self._project.check_mask(question.image, Path(question.path).expanduser())
        except SvetlanaError as error:
            return question, str(error)
        except Exception as error:  # whatever a file system does: a half-typed path may lead anywhere
            return question, f"It could not be read: {error}"

    def _show(self, found: tuple[Question, pd.DataFrame | str]) -> None:
        question, report = found
        if isinstance(report, str):
            self._say(report)
            return
        self._checked = question
        self.replace.disabled = False
        self.report.value = in_words(report, question.image)

    def _say(self, text: str) -> None:
        self.report.value = f'<div class="sv-pairs"><div class="sv-empty">{html.escape(text)}</div></div>'

    def _replace(self) -> None:
        question = self._checked
        if question is None:
            return
        report = self._project.replace_mask(question.image, Path(question.path).expanduser())
        said = self._project.status
        self.path.value = ""
        self.report.value = in_words(report, question.image)
        self._status.say(said)


def in_words(report: pd.DataFrame, image: str) -> str:
    """Return a report of `Project.check_mask` or `Project.replace_mask` as HTML."""
    if report.empty:
        return muted(f"Nothing of {image} is annotated, so nothing can be lost.")
    rows = []
    for fate, meaning in _MEANINGS.items():
        objects = report.index[report["fate"] == fate]
        if len(objects):
            rows.append((len(objects), meaning, _listed(report.loc[objects])))
    said = f"{len(report):,} annotated object{'' if len(report) == 1 else 's'} of {image}:"
    boxes = f"<br>{muted(_BOXES)}" if report.attrs.get("matched_by") == "boxes" else ""
    return f"{muted(said)}{table(['', 'Annotated objects', 'Which'], rows)}{boxes}"


def _listed(report: pd.DataFrame) -> str:
    """Return the first of some objects, with the numbers of those in their place where they differ."""
    named = [
        f"{old} → {', '.join(map(str, new))}" if new and tuple(new) != (old,) else str(old)
        for old, new in report["new"].head(_NAMED).items()
    ]
    return "; ".join(named) + (" …" if len(report) > _NAMED else "")
