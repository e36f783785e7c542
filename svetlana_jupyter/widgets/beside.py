"""The selected object in small pictures: a volume cut from three sides, and the patch that a classifier will see."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ipywidgets import HTML

from svetlana_jupyter.core.sections import take_orthoviews
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.project.patches import classifier_patch, patch_settings
from svetlana_jupyter.widgets.latest import LatestQuestion
from svetlana_jupyter.widgets.parts import muted, picture
from svetlana_jupyter.widgets.pictures import patch_pictures, section_picture

if TYPE_CHECKING:
    from xarray import DataArray

    from svetlana_jupyter.core.contrast import DisplaySettings
    from svetlana_jupyter.project.project import Project

_TITLES = {"xy": "Plane (xy)", "xz": "Front (xz)", "zy": "Side (zy)", "maximum": "Brightest along z"}
_EMPTY = "Select an object to see what a classifier will see of it."
_DELAY = 0.25  # seconds: keys that follow each other quickly need no pictures in between

logger = logging.getLogger(__name__)

Field = tuple[float, float, float, float]


@dataclass(frozen=True)
class Question:
    """Which object, in which contrast."""

    image: str
    object: int
    palette: DisplaySettings


@dataclass(frozen=True)
class Answer:
    """Pictures with their captions, and the part of the plane that the patch shows: top, left, bottom, right."""

    pictures: tuple[tuple[bytes, str], ...]
    field: Field


class ObjectDetails(HTML):
    """Pictures of one object, made off the kernel's loop once the keys rest.

    Parameters
    ----------
    project : Project
    framed : callable
        Called with the field of view of the patch, or None.
    """

    def __init__(self, project: Project, framed: Callable[[Field | None], None]) -> None:
        super().__init__(layout={"margin": "4px 0 0 0", "height": "134px", "width": "100%"})
        self._project, self._framed = project, framed
        self._latest: LatestQuestion[Question] = LatestQuestion(self._answer, self._show, _DELAY)
        self._said(_EMPTY)

    def show(self, image: str, object: int, palette: DisplaySettings) -> None:
        """Show an object; with 0 none."""
        if object:
            self._latest.ask(Question(image, object, palette))
        else:
            self._latest.drop()
            self._said(_EMPTY)

    def _answer(self, question: Question) -> Answer | str:
        try:
            return self._pictures(question)
        except SvetlanaError as error:
            return str(error)
        except Exception as error:
            logger.exception("object %s of %s cannot be pictured", question.object, question.image)
            return f"Object {question.object} cannot be shown here ({error})."

    def _pictures(self, question: Question) -> Answer:
        project, name, object = self._project, question.image, question.object
        pair, row = project.pair(name), project.objects(name, wait=True).loc[object]
        shown: list[tuple[bytes, str]] = []
        if pair.ndim == 3:
            sections = take_orthoviews(pair.image, pair.mask, object, row, pair.spacing)
            shown += [(section_picture(section, question.palette), _TITLES[side]) for side, section in sections.items()]
        settings = patch_settings(project, name)
        patch = classifier_patch(project, name, object, settings)
        shown += patch_pictures(patch, settings, question.palette)[: 3 if pair.ndim == 2 else 1]
        return Answer(tuple(shown), _field(patch))

    def _show(self, answer: Answer | str) -> None:
        if isinstance(answer, str):
            self._said(answer)
            return
        figures = "".join(picture(png, caption) for png, caption in answer.pictures)
        self.value = f'<div class="sv-pictures sv-beside">{figures}</div>'
        self._framed(answer.field)

    def _said(self, text: str) -> None:
        self.value = f'<div class="sv-beside sv-nothing">{muted(text)}</div>'
        self._framed(None)


def _field(patch: DataArray) -> Field:
    """Return the edges of a patch on the image plane, which is continuous."""
    y, x = (patch[axis].to_numpy() for axis in "yx")
    dy, dx = (float(at[1] - at[0]) / 2 if len(at) > 1 else 0.5 for at in (y, x))
    return float(y[0]) - dy + 0.5, float(x[0]) - dx + 0.5, float(y[-1]) + dy + 0.5, float(x[-1]) + dx + 0.5
