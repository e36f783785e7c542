"""Eight patches of one object, varied as training varies them: what must not decide the class, seen before training."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ipywidgets import HTML, Button, HBox, VBox

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.core.recipes import AUTO_PRESET
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.latest import LatestQuestion
from svetlana_jupyter.widgets.parts import muted, picture
from svetlana_jupyter.widgets.pictures import default_palette, patch_pictures

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

_COUNT = 8
_NOTHING = "Annotate an object, or look at an image, and patches of it are shown here as training varies them."
_SAME = "Nothing is varied: all patches are the object as it is."
_TRIED = " So it is with the default recipe; training tries others too."

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """Which object, varied by which settings."""

    object: ObjectId
    settings: TrainingSettings


class AugmentationPreview(VBox):
    """Shows eight augmented patches of an object, made beside the kernel's loop.

    Parameters
    ----------
    project : Project

    Attributes
    ----------
    pictures : HTML
    another : Button
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._latest: LatestQuestion[Question] = LatestQuestion(self._answer, self._show)
        self._turn = 0
        self.said = HTML(layout={"flex": "1 1 auto", "margin": "0"})
        self.another = Button(description="Another object", icon="random", layout={"width": "140px", "margin": "0"})
        self.another.tooltip = "Show another annotated object"
        self.another.on_click(lambda _: self._next())
        self.pictures = HTML(layout={"width": "100%", "margin": "4px 0 0 0"})
        super().__init__([HBox([self.said, self.another], layout={"align_items": "center"}), self.pictures])

    def show(self, settings: TrainingSettings) -> None:
        """Show what these settings make of the object that was annotated last, or of another one."""
        objects = self._objects()
        self.another.disabled = len(objects) < 2
        if objects:
            self._latest.ask(Question(objects[self._turn % len(objects)], settings))
        else:
            self._latest.drop()
            self.said.value, self.pictures.value = muted(_NOTHING), ""

    def _next(self) -> None:
        self._turn += 1
        self.show(self._project.settings)

    def _objects(self) -> list[ObjectId]:
        """Return the objects to choose from: those annotated, the last one first; else those of an indexed image."""
        labels = self._project.labels()
        known = [ObjectId(str(image), int(object)) for image, object in labels[labels["action"] == "label"].index]
        if known:
            last = [id for id in self._project.touched if id in set(known)][-1:]
            return [*last, *(id for id in known if id not in last)]
        for name in self._project.images:
            if self._project.is_indexed(name):
                return [ObjectId(name, int(object)) for object in self._project.objects(name).index[:_COUNT]]
        return []

    def _answer(self, question: Question) -> tuple[Question, tuple[TrainingSettings, list[bytes]] | str]:
        try:
            return question, self._varied(question)
        except SvetlanaError as error:
            return question, str(error)
        except Exception as error:
            logger.exception("object %s cannot be varied", question.object)
            return question, f"Object {question.object.object} of {question.object.image} cannot be shown ({error})."

    def _varied(self, question: Question) -> tuple[TrainingSettings, list[bytes]]:
        """Return the settings that were used, and the patches."""
        image, object = question.object
        patches = self._project.preview_augmentation(image, object, question.settings, _COUNT)
        used = TrainingSettings.from_json(patches.attrs["settings"])
        palette = default_palette(self._project.pair(image))
        return used, [patch_pictures(patches[number], used.patches, palette)[0][0] for number in range(_COUNT)]

    def _show(self, answer: tuple[Question, tuple[TrainingSettings, list[bytes]] | str]) -> None:
        question, found = answer
        if isinstance(found, str):
            self.said.value, self.pictures.value = muted(found), ""
            return
        used, pictures = found
        said = "To the classifier all of these are the same." if used.augmentation.varies else _SAME
        if question.settings.recipe == AUTO_PRESET:
            said += (
                _TRIED
                if used.recipe == AUTO_PRESET
                else f" So it is with {used.recipe}, the recipe that was chosen last."
            )
        self.said.value = muted(f"Object {question.object.object} in {question.object.image}. {said}")
        figures = "".join(picture(png, "") for png in pictures)
        self.pictures.value = f'<div class="sv-pictures sv-varied">{figures}</div>'
