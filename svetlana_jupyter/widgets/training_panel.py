"""Training panel: allowed cues, training, curves, scores, runs and settings.

Pictures of an object explain each cue checkbox, and the augmentation preview shows how training changes a patch. The
user can therefore exclude a cue that must not decide the class before training.
"""

from __future__ import annotations

import html
import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np
from ipywidgets import HTML, Accordion, Box, Checkbox, HBox, VBox
from numpy.typing import NDArray

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.core.display.channels import as_rgb, default_display_settings, render_pixels
from svetlana_jupyter.core.display.encode import png
from svetlana_jupyter.core.display.thumbnails import ThumbnailSampling, take_thumbnails
from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import AUTO_PRESET, FEATURE_ARCHITECTURES, TrainingSettings
from svetlana_jupyter.samples import blood_smear
from svetlana_jupyter.widgets.components import JobProgress, button, error_text, figure_html, image_html, muted
from svetlana_jupyter.widgets.panel import MAX_WIDTH, Panel, catch_errors
from svetlana_jupyter.widgets.scheduling import LatestQuestion, Throttle
from svetlana_jupyter.widgets.settings_editor import SettingsEditor
from svetlana_jupyter.widgets.training_results import RunScores, RunTable, curves
from svetlana_jupyter.widgets.viewer.object_details import patch_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    import pandas as pd

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.project.project import Project

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

_TRAINS = "Train networks in the background while I label"
_TRAINS_TIP = (
    "With live predictions: a training starts when the labels have grown by half. Its run replaces what is shown only "
    "if its predictions of held-out labels are better, unless you have chosen a run"
)
_PREVIEW, _RUNS, _SETTINGS = "Augmentation preview", "Earlier runs", "Advanced settings"


class TrainingPanel(Panel):
    """Panel that trains a classifier in the background, on all annotations.

    Parameters
    ----------
    project : Project or path

    Attributes
    ----------
    cues : CueCheckboxes
        The cues that the classifier may use.
    train : Button
    search : Button
        Searches for the best preset again. Shown if the preset is chosen by a search and a run exists.
    job : JobProgress
        Progress of the running job, or else of the score in the background.
    readiness : HTML
        What is missing before training can start.
    trains : Checkbox
        Whether networks are trained in the background while the live predictions follow the labels.
    curves : HTML
    result : RunScores
        The scores of the current run.
    preview : AugmentationPreview
    runs : RunTable
    settings : SettingsEditor
    more : Accordion
        Holds ``preview``, ``runs`` and ``settings``.
    """

    job_kinds = frozenset({"training", "scoring", "sweep"})

    def __init__(self, project: Project | str | Path) -> None:
        super().__init__(project)
        self.layout.max_width = MAX_WIDTH
        project = self.project
        self._throttle = Throttle(catch_errors(self._show_curves, self.status), interval=0.4)
        train, tooltip = project.background.train, "Train on all annotations, in the background"
        self.train = self.make_button(train, "Train", "play", tooltip, "primary", width="110px", flex="0 0 auto")
        search = partial(train, search=True)
        tooltip = "Search for the best preset and train it. This is repeated once the number of annotations doubles."
        self.search = self.make_button(search, "Search again", "", tooltip, "quiet", width="140px", flex="0 0 auto")
        self.job = JobProgress(stop=lambda: self.run_action(project.stop))
        self.readiness = HTML(layout={"margin": "0 0 0 12px", "flex": "1 1 auto"})
        self.trains = Checkbox(project.live.trains, description=_TRAINS, indent=False, layout={"width": "auto"})
        self.trains.tooltip = _TRAINS_TIP
        self.trains.observe(lambda change: self.run_action(self._allow_training, change["new"]), "value")
        self.curves = HTML(layout={"width": "100%", "margin": "0", "display": "none"})
        self.result = RunScores(project, lambda name: self.run_action(project.background.score, name))
        self.preview = AugmentationPreview(project)
        self.runs = RunTable(project, choose=lambda name: self.run_action(project.runs.choose, name))
        self.settings = SettingsEditor(project, self.status)
        self.cues = CueCheckboxes(project, lambda allowed: self.run_action(self._allow, allowed))
        self.more = Accordion(
            [self.preview, self.runs, self.settings],
            titles=[_PREVIEW, _RUNS, _SETTINGS],
            layout={"width": "100%", "margin": "6px 0 2px 0"},
        )
        row = {"width": "100%", "align_items": "center", "flex_flow": "row wrap"}
        buttons = HBox([self.train, self.search, self.readiness, self.job], layout=row)
        self.children = (self._style, self.cues, buttons, self.trains, self.curves, self.result, self.more, self.status)
        self.more.observe(catch_errors(lambda _: self._show_preview(), self.status), "selected_index")
        self._watcher.observe(self.settings, self._follow_settings, "used")
        self.observe_project(self._show_buttons, "annotations_version", "classes_version", "images_version", "job")
        self.observe_project(self._show_preview, "annotations_version", "images_version")
        self.observe_project(self.cues.draw_cards, "images_version", "annotations_version")
        self.observe_project(self._show_progress, "job", "scoring")
        self.observe_project(self._throttle.request, "training_curve", "job")
        self.observe_project(self._show_runs, "current_run", "runs_version", "classes_version")
        self._follow_settings()
        self.cues.draw_cards()
        self._show_progress()
        self._show_runs()
        running = "Training runs in the background."
        self.show_hint(running if self._follows_job else "Press Train to train on all annotations, in the background.")

    def open_section(self, title: str) -> None:
        """Open one of the sections below the scores by its title."""
        self.more.selected_index = self.more.titles.index(title)

    def close(self) -> None:
        """Stop following the project and its settings file, and remove the panel."""
        self.settings.close()
        super().close()

    def _allow(self, allowed: frozenset[str]) -> None:
        """Write the allowed cues to the settings; on failure, reset the checkboxes."""
        try:
            self.settings.keep(self.project.settings.changed(may_use=allowed))
        finally:
            self._follow_settings()

    def _follow_settings(self) -> None:
        if self.settings.used:
            self.cues.show(self.settings.used.may_use)
        self._show_buttons()
        self._show_preview()

    def _show_buttons(self) -> None:
        running = self.project.job is not None
        missing = "" if running else self.project.readiness()  # a job reports its progress many times
        self.readiness.value = muted(missing)
        self.readiness.layout.display = None if missing else "none"
        self.train.disabled = self.search.disabled = bool(missing) or running
        automatic = self.settings.used is not None and self.settings.used.preset == AUTO_PRESET
        self.search.layout.display = None if automatic and self.project.runs else "none"

    def _allow_training(self, allowed: bool) -> None:
        self.project.live.trains = allowed

    def _show_progress(self) -> None:
        self.job.show(self.project.job or self.project.scoring)

    def _show_curves(self) -> None:
        project = self.project
        training = project.job is not None and project.job.kind == "training"
        if training or not project.current_run:
            live = project.training_curve
            points = list(zip(live.epochs, live.losses, live.scores)) if live else []
            planned = self.settings.used.epochs if self.settings.used else 1
            total = live.total if live and live.total else planned
        else:
            run = project.runs.current
            has_epochs = run.settings["architecture"] not in FEATURE_ARCHITECTURES
            history = run.history if has_epochs else []
            points = [(entry["epoch"], entry["loss"], entry.get("score")) for entry in history]
            total = len(points)
        self.curves.layout.display = None if points else "none"
        self.curves.value = curves(points, total)

    def _show_runs(self) -> None:
        self.runs.show()
        self.result.show()
        self._show_buttons()
        self._throttle.request()

    def _show_preview(self) -> None:
        """Show augmented patches if their section is open; computing them takes time."""
        if self.more.selected_index == self.more.titles.index(_PREVIEW) and (settings := self.settings.used):
            self.preview.show(settings)


_LOOKS_SAME = "these look the same to the classifier:"
# Name of the cue, label of its checkbox, what the classifier may use, and the effect of clearing the box.
CUE_TEXTS = (
    ("surroundings", "Surroundings", "What lies around the object: neighbors, tissue.", "only the object is shown."),
    ("brightness", "Brightness", "Brightness and color.", _LOOKS_SAME),
    ("orientation", "Orientation", "The orientation of objects, for example of stripes.", _LOOKS_SAME),
    ("size", "Size", "The size of objects.", _LOOKS_SAME),
)


class CueCheckbox(Box):
    """Checkbox of an allowed cue; hovering over it opens an explanation.

    Parameters
    ----------
    text, allowed, excluded : str
        The label, what the classifier may use if the box is checked, and the effect of clearing it.

    Attributes
    ----------
    checkbox : Checkbox
    card : HTML
    """

    def __init__(self, text: str, allowed: str, excluded: str) -> None:
        self._texts = text, allowed, excluded
        self.checkbox = Checkbox(True, description=text, indent=False, layout={"width": "auto", "margin": "0"})
        self.checkbox.tooltip = allowed
        self.card = HTML(layout={"margin": "0"})
        self.card.add_class("sv-card")
        super().__init__([self.checkbox, self.card], layout={"overflow": "visible", "flex": "0 0 auto"})
        self.add_class("sv-question")

    def show(self, before: bytes, after: tuple[bytes, ...]) -> None:
        """Fill the card with the PNG images made by `cue_images`."""
        text, allowed, excluded = map(html.escape, self._texts)
        equal = '<span class="sv-same">=</span>'.join(map(image_html, after))
        row = f'<div class="sv-row">{image_html(before)}<span class="sv-same">→</span>{equal}</div>'
        self.card.value = f"<h4>{text}</h4><p>{allowed} <b>If cleared</b>, {excluded}</p>{row}"


class CueCheckboxes(HBox):
    """One checkbox per cue, all checked at first.

    Parameters
    ----------
    project : Project
    changed : callable
        Called with the allowed cues when the user checks or clears a box.

    Attributes
    ----------
    boxes : dict of str to CueCheckbox
        The checkboxes by the names of their cues.
    """

    def __init__(self, project: Project, changed: Callable[[frozenset[str]], None]) -> None:
        self.boxes = {name: CueCheckbox(*texts) for name, *texts in CUE_TEXTS}
        self._project = project
        self._allowed: Collection[str] = self.boxes  # the cues whose boxes are checked by `show`
        self._own_image = False
        self._latest: LatestQuestion[object] = LatestQuestion(self._draw, self._show_cards)
        title = HTML("<b>What may the classifier use?</b>", layout={"margin": "0 14px 0 0"})
        super().__init__(
            [title, *self.boxes.values()],
            layout={"align_items": "center", "flex_flow": "row wrap", "overflow": "visible", "grid_gap": "0 18px"},
        )
        self.add_class("sv-questions")

        def clicked(name: str, change: Mapping[str, bool]) -> None:
            if change["new"] != (name in self._allowed):  # by the user, not by `show`
                changed(self.checked)

        for name, box in self.boxes.items():
            box.checkbox.observe(partial(clicked, name), "value")

    @property
    def checked(self) -> frozenset[str]:
        """The allowed cues."""
        return frozenset(name for name, box in self.boxes.items() if box.checkbox.value)

    def show(self, allowed: Collection[str]) -> None:
        """Check the boxes of the given cues, without calling ``changed``."""
        self._allowed = allowed
        for name, box in self.boxes.items():
            box.checkbox.value = name in allowed

    def draw_cards(self) -> None:
        """Draw the cards in the background, unless they already show a project object."""
        if not self._own_image:
            self._latest.ask(object())

    def _draw(self, _: object) -> tuple[bool, dict[str, tuple[bytes, tuple[bytes, ...]]]]:
        try:
            example = find_example(self._project)
        except Exception:  # an unreadable image is reported when the viewer opens it, not by the cards
            logger.exception("no object of the project can be drawn")
            example = builtin_example()
        return example.own_image, {name: cue_images(example, name) for name in self.boxes}

    def _show_cards(self, answer: tuple[bool, dict[str, tuple[bytes, tuple[bytes, ...]]]]) -> None:
        self._own_image, images = answer
        for name, (before, after) in images.items():
            self.boxes[name].show(before, after)


@dataclass(frozen=True)
class ExampleObject:
    """Pixels and mask of an object with its surroundings, to explain the cues.

    Attributes
    ----------
    pixels : array of uint8, shape (n, n, 3)
    own : array of bool, shape (n, n)
        The mask of the object.
    own_image : bool
        Whether the object is from the project instead of the samples.
    """

    pixels: Pixels
    own: NDArray[np.bool_]
    own_image: bool = True


_SIDE, _AROUND = 84, 2.2  # side of a picture in screen pixels; its width relative to the object
_HIDDEN = 128  # the gray of pixels that the classifier does not see
_SAMPLE = "smear_01", 11  # a white blood cell


def find_example(project: Project) -> ExampleObject:
    """Return an object of the project, or of the sample images without one.

    Annotated objects are preferred. Images that are not indexed yet are skipped, because indexing may take long. May be
    called on any thread.
    """
    labels = project.labels()
    labeled = labels[labels["action"] == "label"].index
    for name in [*labeled.get_level_values("image")[-1:], *filter(project.images.is_indexed, project.images)]:
        objects = project.objects(name, wait=True)
        whole = ~objects["on_border"]
        annotated = objects.index.isin(labeled[labeled.get_level_values("image") == name].get_level_values("object"))
        eligible = next(rows for rows in (whole & annotated, whole, objects["size"] > 0) if rows.any())
        largest = objects["size"].where(eligible).idxmax()  # it shows the most detail
        return _example(project.pair(name), objects.loc[[largest]])
    return builtin_example()


def builtin_example() -> ExampleObject:
    """Return a white blood cell from the samples."""
    name, label = _SAMPLE
    folder = blood_smear()
    opened = open_pair(name, folder / "images" / f"{name}.png", folder / "masks" / f"{name}.tif")
    return replace(_example(opened, index_objects(opened.mask).loc[[label]]), own_image=False)


def _example(opened: ImagePair, row: pd.DataFrame) -> ExampleObject:
    box = row.iloc[0]
    side = _AROUND * float(max(box["y1"] - box["y0"], box["x1"] - box["x0"]))
    (thumbnail,) = take_thumbnails(opened, row, ThumbnailSampling.of(side, _SIDE))
    rgb = as_rgb(render_pixels(thumbnail.values, default_display_settings(opened)))
    # Beyond the border of the image, mirrored pixels distract less than a black bar.
    outside = [(inside.start, len(rgb) - inside.stop) for inside in thumbnail.inside]
    return ExampleObject(np.pad(rgb[thumbnail.inside], [*outside, (0, 0)], "symmetric"), thumbnail.own)


def cue_images(example: ExampleObject, cue: str) -> tuple[bytes, tuple[bytes, ...]]:
    """Return PNGs of an object that differ only in one cue.

    The first PNG shows the object as it is. A classifier that may not use ``cue`` cannot distinguish the others.
    """
    own = cv2.resize(example.own.astype(np.uint8), (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST) > 0
    pixels = cv2.resize(example.pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    if cue == "surroundings":
        images = [np.where(own[..., None], pixels, np.uint8(_HIDDEN))]
    elif cue == "brightness":
        gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)  # color counts as brightness per channel
        low, high = np.percentile(gray, (1, 99))
        stretched = (gray - low) * (255 / max(high - low, 1.0))
        images = [image.clip(0, 255).astype(np.uint8) for image in (gray * 0.4, gray * 0.8, stretched)]
    elif cue == "orientation":
        images = [_transform(pixels, angle=60), _transform(pixels, angle=150), pixels[:, ::-1]]
    else:
        images = [_transform(pixels, scale=scale) for scale in (0.6, 1.0, 1.6)]
    return png(pixels), tuple(png(np.ascontiguousarray(image)) for image in images)


def _transform(pixels: Pixels, angle: float = 0, scale: float = 1.0) -> Pixels:
    matrix = cv2.getRotationMatrix2D((_SIDE / 2, _SIDE / 2), angle, scale)
    return np.asarray(cv2.warpAffine(pixels, matrix, (_SIDE, _SIDE), borderMode=cv2.BORDER_REFLECT))


_PATCHES = 8
_NO_OBJECT = "Annotate an object to preview its augmented patches."
_EQUAL = "Training treats all of these patches as the same object."
_UNCHANGED = "Augmentation is off: all patches are identical."
_DEFAULT_PRESET = " Shown for the default preset; the search also compares other presets."

PreviewQuestion = tuple[ObjectId, TrainingSettings]
PreviewAnswer = tuple[PreviewQuestion, TrainingSettings, list[bytes]]  # question, settings used, PNGs


class AugmentationPreview(VBox):
    """Augmented patches of one object, computed in the background.

    Parameters
    ----------
    project : Project

    Attributes
    ----------
    message : HTML
    pictures : HTML
    another : Button
        Shows the next annotated object.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._latest = LatestQuestion(self._augment, self._show_patches, show_error=self._show_error)
        self._turn = 0
        self.message = HTML(layout={"flex": "1 1 auto", "margin": "0"})
        act, tooltip = self._show_next, "Show another annotated object"
        self.another = button(act, "Another object", "random", tooltip, width="160px", margin="0")
        self.pictures = HTML(layout={"width": "100%", "margin": "4px 0 0 0"})
        super().__init__([HBox([self.message, self.another], layout={"align_items": "center"}), self.pictures])

    def show(self, settings: TrainingSettings) -> None:
        """Show patches of an annotated object, augmented with these settings."""
        objects = self._objects()
        self.another.disabled = len(objects) < 2
        if objects:
            self._latest.ask((objects[self._turn % len(objects)], settings))
        else:
            self._latest.ask(None)
            self.message.value, self.pictures.value = muted(_NO_OBJECT), ""

    def _show_next(self) -> None:
        self._turn += 1
        self.show(self._project.settings)

    def _objects(self) -> list[ObjectId]:
        """Return the annotated objects, beginning with the one that was annotated last.

        Without annotations, return the first objects of an indexed image.
        """
        labels = self._project.labels()
        annotated = [ObjectId(str(image), int(label)) for image, label in labels[labels["action"] == "label"].index]
        if annotated:
            last = [touched for touched in self._project.annotations.last_edited if touched in set(annotated)][-1:]
            return list(dict.fromkeys([*last, *annotated]))
        name = next(filter(self._project.images.is_indexed, self._project.images), None)
        return [ObjectId(name, int(label)) for label in self._project.objects(name).index[:_PATCHES]] if name else []

    def _augment(self, question: PreviewQuestion) -> PreviewAnswer:
        (image, label), settings = question
        patches = self._project.preview_augmentation(image, label, settings, _PATCHES)
        used = TrainingSettings.from_json(patches.attrs["settings"])
        palette = default_display_settings(self._project.pair(image))
        return question, used, [patch_pictures(patch, used.patches, palette)[0][0] for patch in patches]

    def _show_error(self, question: PreviewQuestion, error: Exception) -> None:
        image, label = question[0]
        summary = f"Object {label} in {image} cannot be shown"
        self.message.value, self.pictures.value = muted(error_text(error, summary)), ""

    def _show_patches(self, answer: PreviewAnswer) -> None:
        ((image, label), settings), used, pictures = answer
        text, preset = f"Object {label} in {image}. {_EQUAL if used.augmentation.varies else _UNCHANGED}", ""
        if settings.preset == AUTO_PRESET:
            chosen = f" Shown for {used.preset}, the preset chosen last."
            preset = chosen if used.preset != AUTO_PRESET else _DEFAULT_PRESET
        self.message.value = muted(text + preset)
        figures = "".join(figure_html(picture, "") for picture in pictures)
        self.pictures.value = f'<div class="sv-pictures sv-varied">{figures}</div>'
