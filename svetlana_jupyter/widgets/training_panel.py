"""The panel to train: what may count, Train and Stop, live curves, honest scores, earlier runs, and every setting.

The face of training: four questions about what may count, each explained by a card with pictures.

What each kind of evidence is, drawn from one object: as it is, and what a classifier may no longer tell from it.

Eight patches of one object, varied as training varies them: what must not decide the class, seen before training.
"""

from __future__ import annotations

import base64
import html
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
from ipywidgets import HTML, Accordion, Box, Button, Checkbox, HBox, VBox
from numpy.typing import NDArray

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.core.display.channels import to_screen
from svetlana_jupyter.core.display.encode import png
from svetlana_jupyter.core.display.thumbnails import Cut, take_thumbnails
from svetlana_jupyter.core.io.image_pair import pair as open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import AUTO_PRESET, TrainingSettings
from svetlana_jupyter.errors import ProjectError, SettingsError, SvetlanaError
from svetlana_jupyter.samples import blood_smear
from svetlana_jupyter.widgets.components import JobProgress, muted, picture
from svetlana_jupyter.widgets.panel import Panel, guarded
from svetlana_jupyter.widgets.run_views import RunScores, RunTable, curves
from svetlana_jupyter.widgets.scheduling import LatestQuestion, Pace
from svetlana_jupyter.widgets.settings_editor import SettingsEditor
from svetlana_jupyter.widgets.viewer.object_details import default_palette, patch_pictures

if TYPE_CHECKING:
    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.project.project import Project

_SIDE, _AROUND = 84, 2.2  # screen pixels; how much wider than the object a picture is
_HIDDEN = 128  # the grey of what a classifier does not see
_SAMPLE = "smear_01", 11

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ExampleObject:
    """An object with what lies around it: pixels of shape (n, n, 3), where it is, and whether it is the project's."""

    pixels: Pixels
    own: NDArray[np.bool_]
    own_image: bool = True


def find_example(project: Project) -> ExampleObject:
    """Return an annotated object of a project, else one of an image, else one that comes with the package.

    May be called on any thread; of an image whose objects are not known yet, none is looked for.
    """
    labels = project.labels()
    known = labels[labels["action"] == "label"].index
    for name in [*known.get_level_values("image")[-1:], *filter(project.images.is_indexed, project.images)]:
        objects = project.objects(name, wait=True)
        own = known[known.get_level_values("image") == name].get_level_values("object")
        whole, told = ~objects["on_border"], objects.index.isin(own)
        best = next(found for found in (whole & told, whole, objects["size"] > 0) if found.any())
        return _example(project.pair(name), objects.loc[[objects["size"].where(best).idxmax()]])  # large shows most
    return builtin_example()


def builtin_example() -> ExampleObject:
    """Return a white blood cell."""
    name, label = _SAMPLE
    folder = blood_smear()
    opened = open_pair(name, folder / "images" / f"{name}.png", folder / "masks" / f"{name}.tif")
    return replace(_example(opened, index_objects(opened.mask).loc[[label]]), own_image=False)


def _example(opened: ImagePair, row: pd.DataFrame) -> ExampleObject:
    box = row.iloc[0]
    side = _AROUND * float(max(box["y1"] - box["y0"], box["x1"] - box["x0"]))
    (found,) = take_thumbnails(opened, row, Cut.of(side, _SIDE))
    shown = to_screen(found.values, default_palette(opened))
    colored = np.repeat(shown[..., None], 3, axis=-1) if shown.ndim == 2 else shown
    rows, columns = found.inside
    before, after = ((rows.start, columns.start), (len(shown) - rows.stop, len(shown) - columns.stop))
    # Beyond the border of the image there is nothing: mirrored, it does not catch the eye.
    filled = cv2.copyMakeBorder(
        np.ascontiguousarray(colored[found.inside]), before[0], after[0], before[1], after[1], cv2.BORDER_REFLECT
    )
    return ExampleObject(filled.astype(np.uint8), found.own)


def pictures(example: ExampleObject, evidence: str) -> tuple[bytes, tuple[bytes, ...]]:
    """Return PNGs of an object as it is, and of what is the same to a classifier that may not use ``evidence``."""
    own = cv2.resize(example.own.astype(np.uint8), (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST) > 0
    seen = cv2.resize(example.pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    made = {"surroundings": _alone, "brightness": _relit, "orientation": _turned, "size": _resized}[evidence]
    return png(seen), tuple(png(np.ascontiguousarray(one)) for one in made(seen, own))


def _alone(seen: Pixels, own: NDArray[np.bool_]) -> list[Pixels]:
    return [np.where(own[..., None], seen, np.uint8(_HIDDEN))]


def _relit(seen: Pixels, own: NDArray[np.bool_]) -> list[Pixels]:
    """Show the object dark and darker, and with all the contrast there is; grey, since colour is brightness too."""
    grey = cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low, high = np.percentile(grey, (1, 99))
    stretched = (grey - low) * (255 / max(high - low, 1.0))
    lit = [(part.clip(0, 255)).astype(np.uint8) for part in (grey * 0.4, grey * 0.8, stretched)]
    return [np.repeat(one[..., None], 3, axis=-1) for one in lit]


def _turned(seen: Pixels, own: NDArray[np.bool_]) -> list[Pixels]:
    middle = (_SIDE / 2, _SIDE / 2)
    turns = [cv2.getRotationMatrix2D(middle, angle, 1.0) for angle in (60, 150)]
    turned = [cv2.warpAffine(seen, turn, (_SIDE, _SIDE), borderMode=cv2.BORDER_REFLECT) for turn in turns]
    return [*turned, seen[:, ::-1]]


def _resized(seen: Pixels, own: NDArray[np.bool_]) -> list[Pixels]:
    middle = (_SIDE / 2, _SIDE / 2)
    scales = [cv2.getRotationMatrix2D(middle, 0, scale) for scale in (0.6, 1.0, 1.6)]
    return [cv2.warpAffine(seen, scale, (_SIDE, _SIDE), borderMode=cv2.BORDER_REFLECT) for scale in scales]


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


_COUNT = 8
_NOTHING = "Annotate an object, or look at an image, and patches of it are shown here as training varies them."
_SAME = "Nothing is varied: all patches are the object as it is."
_TRIED = " So it is with the default preset; training tries others too."


@dataclass(frozen=True)
class AugmentedQuestion:
    """Which object, varied by which settings."""

    label: ObjectId
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
        self._latest: LatestQuestion[AugmentedQuestion] = LatestQuestion(self._answer, self._show)
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
            self._latest.ask(AugmentedQuestion(objects[self._turn % len(objects)], settings))
        else:
            self._latest.drop()
            self.said.value, self.pictures.value = muted(_NOTHING), ""

    def _next(self) -> None:
        self._turn += 1
        self.show(self._project.settings)

    def _objects(self) -> list[ObjectId]:
        """Return the objects to choose from: those annotated, the last one first; else those of an indexed image."""
        labels = self._project.labels()
        known = [ObjectId(str(image), int(label)) for image, label in labels[labels["action"] == "label"].index]
        if known:
            last = [id for id in self._project.annotations.last_edited if id in set(known)][-1:]
            return [*last, *(id for id in known if id not in last)]
        for name in self._project.images:
            if self._project.images.is_indexed(name):
                return [ObjectId(name, int(label)) for label in self._project.objects(name).index[:_COUNT]]
        return []

    def _answer(
        self, question: AugmentedQuestion
    ) -> tuple[AugmentedQuestion, tuple[TrainingSettings, list[bytes]] | str]:
        try:
            return question, self._varied(question)
        except SvetlanaError as error:
            return question, str(error)
        except Exception as error:
            logger.exception("object %s cannot be varied", question.label)
            return question, f"Object {question.label.label} of {question.label.image} cannot be shown ({error})."

    def _varied(self, question: AugmentedQuestion) -> tuple[TrainingSettings, list[bytes]]:
        """Return the settings that were used, and the patches."""
        image, label = question.label
        patches = self._project.preview_augmentation(image, label, question.settings, _COUNT)
        used = TrainingSettings.from_json(patches.attrs["settings"])
        palette = default_palette(self._project.pair(image))
        return used, [patch_pictures(patches[number], used.patches, palette)[0][0] for number in range(_COUNT)]

    def _show(self, answer: tuple[AugmentedQuestion, tuple[TrainingSettings, list[bytes]] | str]) -> None:
        question, found = answer
        if isinstance(found, str):
            self.said.value, self.pictures.value = muted(found), ""
            return
        used, pictures = found
        said = "To the classifier all of these are the same." if used.augmentation.varies else _SAME
        if question.settings.preset == AUTO_PRESET:
            said += (
                _TRIED
                if used.preset == AUTO_PRESET
                else f" So it is with {used.preset}, the preset that was chosen last."
            )
        self.said.value = muted(f"Object {question.label.label} in {question.label.image}. {said}")
        figures = "".join(picture(png, "") for png in pictures)
        self.pictures.value = f'<div class="sv-pictures sv-varied">{figures}</div>'


_PREVIEW, _RUNS, _ADVANCED = "Eight augmented patches", "Earlier runs", "Advanced: every setting"


class TrainingPanel(Panel):
    """Train a classifier on the annotations of a project; the kernel stays free meanwhile.

    Parameters
    ----------
    project : Project

    Attributes
    ----------
    questions : Questions
        What may count.
    train : Button
    search : Button
        Shown where the preset is chosen by a search and there was a training.
    job : JobBar
    readiness : HTML
        What is missing before a training can start.
    curves : HTML
    result : RunResult
        The scores of the current run.
    preview : AugmentedPatches
    runs : RunTable
    settings : SettingsView
        Every setting, as controls and as JSON.
    more : Accordion
        Holds the last three.
    """

    def __init__(self, project: Project) -> None:
        super().__init__(project)
        self._pace = Pace(guarded(self._show_curves, self.status), rest=0.4)
        self.train = self.button(
            project.background.train,
            "Train",
            icon="play",
            button_style="primary",
            tooltip="Train on all annotations; the notebook stays free",
            layout={"width": "110px", "flex": "0 0 auto"},
        )
        self.search = self.button(
            lambda: project.background.train(search=True),
            "Try presets anew",
            tooltip="Look for the best preset once more, within what may count, and train it; "
            "it happens by itself when there are twice as many annotations",
            layout={"width": "140px", "flex": "0 0 auto"},
        )
        self.search.add_class("sv-quiet")
        self.job = JobProgress(stop=lambda: self.do(project.stop))
        self.readiness = HTML(layout={"margin": "0 0 0 12px", "flex": "1 1 auto"})
        self.curves = HTML(layout={"width": "100%", "margin": "0", "display": "none"})
        self.result = RunScores(project)
        self.preview = AugmentationPreview(project)
        self.runs = RunTable(project, choose=lambda name: self.do(project.runs.choose, name))
        self.settings = SettingsEditor(project, self.status)
        self.questions = CueCheckboxes(project, lambda allowed: self.do(self._allow, allowed))
        titles = [_PREVIEW, _RUNS, _ADVANCED]
        self.more = Accordion(
            [self.preview, self.runs, self.settings], titles=titles, layout={"width": "100%", "margin": "6px 0 2px 0"}
        )
        self.children = (
            self._style,
            self.questions,
            HBox(
                [self.train, self.search, self.readiness, self.job],
                layout={"width": "100%", "align_items": "center", "flex_flow": "row wrap"},
            ),
            self.curves,
            self.result,
            self.more,
            self.status,
        )
        self.more.observe(guarded(lambda _: self._preview(), self.status), "selected_index")
        self.settings.on_change(guarded(self._follow_settings, self.status))
        self.watch(self._show_readiness, "annotations_version", "classes_version", "images_version", "job")
        self.watch(self._preview, "annotations_version", "images_version")
        self.watch(self.questions.draw_cards, "images_version", "annotations_version")
        self.watch(lambda: self.job.show(project.job), "job")
        self.watch(self._pace.request, "training_curve", "job")
        self.watch(self._show_runs, "current_run", "runs_version", "classes_version")
        self._follow_settings()
        self.questions.draw_cards()
        self._show_readiness()
        self.job.show(project.job)
        self._show_runs()
        self.show_hint("Train learns from all annotations; the notebook stays free meanwhile.")

    def open_section(self, title: str) -> None:
        """Open one of the sections by its title."""
        self.more.selected_index = self.more.titles.index(title)

    def close(self) -> None:
        self.settings.close()
        super().close()

    def _allow(self, allowed: frozenset[str]) -> None:
        """Let this evidence count, and no other."""
        try:
            self.settings.keep(self.project.settings.changed(may_use=allowed))
        finally:
            self._follow_settings()

    def _follow_settings(self) -> None:
        if self.settings.used:
            self.questions.show(self.settings.used.may_use)
        self._show_search()
        self._show_readiness()
        self._preview()

    def _show_readiness(self) -> None:
        project = self.project
        missing, running = project.readiness(), project.job is not None
        self.readiness.value = muted(missing)
        self.readiness.layout.display = None if missing and not running else "none"
        self.train.disabled = self.search.disabled = bool(missing) or running

    def _show_search(self) -> None:
        chosen = self.settings.used is not None and self.settings.used.preset == AUTO_PRESET
        self.search.layout.display = None if chosen and self.project.runs else "none"

    def _show_curves(self) -> None:
        project = self.project
        training = project.job is not None and project.job.kind == "training"
        if training or not project.current_run:
            live = project.training_curve
            epochs, losses, scores = (live.epochs, live.losses, live.scores) if live else ((), (), ())
            total = (live.total if live else 0) or self._epochs()
        else:
            history = project.runs.current.history
            epochs, losses = [entry["epoch"] for entry in history], [entry["loss"] for entry in history]
            scores, total = [entry.get("score") for entry in history], len(history)
        self.curves.layout.display = None if training or epochs else "none"
        self.curves.value = curves(epochs, losses, scores, total)

    def _epochs(self) -> int:
        try:
            return self.project.settings.epochs
        except (SettingsError, ProjectError, OSError):  # edited by hand and wrong: the settings say so themselves
            return 1

    def _show_runs(self) -> None:
        self.runs.show()
        self.result.show()
        self._show_search()
        self._pace.request()

    def _preview(self) -> None:
        """Show augmented patches, while a person looks at them."""
        if self.more.selected_index == self.more.titles.index(_PREVIEW) and (settings := self.settings.used):
            self.preview.show(settings)
