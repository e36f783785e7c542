"""Sections at the side of the label panel: selected object, queue, similar ones."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
from ipywidgets import HTML, Dropdown, HBox, VBox

from svetlana_jupyter.core.annotations import ObjectId
from svetlana_jupyter.core.queries import QUERIES
from svetlana_jupyter.project.queues import QUEUE_KINDS
from svetlana_jupyter.project.run_store import LIVE
from svetlana_jupyter.widgets.components import FLAG_TEXTS, error_text, figure_html, keycap, muted, set_options
from svetlana_jupyter.widgets.gallery.grid import PatchGrid, object_caption
from svetlana_jupyter.widgets.gallery.thumbnail_loader import default_crop_side
from svetlana_jupyter.widgets.panel import catch_errors
from svetlana_jupyter.widgets.scheduling import LatestQuestion
from svetlana_jupyter.widgets.viewer.object_details import explaining_run, explanation_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    import xarray as xr
    from ipywidgets import Widget

    from svetlana_jupyter.core.classes import ClassInfo
    from svetlana_jupyter.core.display.thumbnails import CellCaption
    from svetlana_jupyter.core.queue import QueuedObject
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.components import StatusLine
    from svetlana_jupyter.widgets.viewer.object_details import ObjectDetails
    from svetlana_jupyter.widgets.viewer.viewer_model import SelectionId

SIDE = 276  # CSS pixels, the width of a section
_STRIP_HEIGHT, _THUMBNAILS, _LINE = 58, 5, 3
_QUEUE_TITLES = {
    "useful": "Most useful",
    "random": "At random",
    "uncertain": "Least certain",
    "diverse": "Diverse",
    "rare": "Rarest class",
    "unlike": "Unlike labeled",
    "disagreement": "Disagreement",
    "confused": "Two classes …",
    "predicted": "Predicted as …",
    "suspect": "Label errors",
    "image": "By image",
    "test": "Test set",
}
QUEUED = 5  # objects of the queue that are shown
DRAWN = "drawn at random"  # reason of an object that a queue draws at random
_NOT_DRAWN = "Press n or Space for the first object."
_ABOUT_DASHED = "Dashed: drawn at random for the score."
_NOT_FILTERED = "The filter does not apply here."
HIDDEN_SIMILAR = "Hidden until this object of the test set is labeled."
_NO_SIMILAR = "Select an object to see those most like it."
SIMILAR = 60  # similar objects to find; as many are shown as there is room for
_HIDDEN = "Test set: its prediction is hidden until it is labeled."
CONFLICT_TIP = "A square in two colors: the label at the left, and a prediction that differs at the right"
_NONE_SELECTED = "Click an object, or press n for the next one."


def section(title: str, *parts: Widget, aside: Widget | None = None) -> VBox:
    """Return a section of the side column with a title, and a control at its right."""
    head = HTML(f'<div class="sv-title">{html.escape(title)}</div>', layout={"margin": "0", "flex": "1 1 auto"})
    return VBox([HBox([head, *([aside] if aside else [])]).add_class("sv-head"), *parts]).add_class("sv-section")


def key_hints(classes: Sequence[ClassInfo]) -> str:
    """Return the keys of the label panel in one line of HTML."""
    keys = [info.key for info in classes if info.key]
    label = " ".join(map(keycap, keys if len(keys) < 4 else (keys[0], "…", keys[-1])))
    lines = [(label, "label"), *((keycap(key), text) for key, text in (("Enter", "accept"), ("s", "skip")))]
    lines += [(keycap(key), text) for key, text in (("u", "undo"), ("Space", "next"), ("?", "all keys"))]
    return '<div class="sv-keyline">' + " · ".join(f"{keys} {text}" for keys, text in lines if keys) + "</div>"


def tally_html(labels: int, objects: int, total: int) -> str:
    """Return labels given, objects of a class and their percentage as HTML."""
    if not total:
        return f'<div class="sv-tally"><span>{labels:,}</span><span>–</span></div>'
    share = f"<small>{100 * objects / total:.1f} %</small>"
    return f'<div class="sv-tally"><span>{labels:,}</span><span>{objects:,}<br>{share}</span></div>'


def class_totals(project: Project) -> dict[int, int]:
    """Return the number of objects per class id, as labeled or else predicted.

    Flagged objects, and those of the test set without a label, are left out. Empty without a classifier.
    """
    totals = Counter[int]()
    if not project.current_run:
        return totals
    given: dict[str, list[tuple[int, int]]] = {}
    for (image, label), each in project.annotations.labels.items():
        if each.action != "skip":
            given.setdefault(image, []).append((label, each.class_id))
            totals[each.class_id] += 1
    for name in project.images:
        predicted = project.probabilities(name)["predicted"]
        is_given = predicted.index.isin([label for label, _ in given.get(name, ())])
        ids, numbers = np.unique(predicted.to_numpy()[~is_given], return_counts=True)
        totals.update(dict(zip(ids.tolist(), numbers.tolist())))
    del totals[0]
    return totals


class SelectedObject(VBox):
    """Selected object as the classifier sees it, with its probabilities.

    Parameters
    ----------
    project : Project
    details : ObjectDetails
        Pictures of the object; the first one is displayed.
    buttons : sequence of Widget
        Actions on the object.
    status : StatusLine
        Displays errors.

    Attributes
    ----------
    name, bars, why : HTML
    """

    def __init__(self, project: Project, details: ObjectDetails, buttons: Sequence[Widget], status: StatusLine) -> None:
        self._project = project
        self.name = HTML(layout={"margin": "0"})
        self.bars = HTML(layout={"margin": "0", "flex": "1 1 0", "min_width": "0"})
        self.why = HTML(layout={"margin": "0", "display": "none"})
        self._explained: tuple[ObjectId, str] | None = None
        self._explanation: LatestQuestion[tuple[ObjectId, str]] = LatestQuestion(
            lambda question: project.explain(*question[0]),
            catch_errors(self._show_explanation, status),
            0.05,
            lambda _, error: self._say_why(str(error)),
        )
        details.add_class("sv-object-picture")
        details.layout = {"margin": "0", "width": "96px", "height": "96px", "flex": "0 0 auto"}
        row = HBox([details, self.bars], layout={"grid_gap": "10px"})
        actions = HBox(list(buttons)).add_class("sv-actions")
        super().__init__([row, actions, self.why])

    def show(self, selection: Sequence[ObjectId]) -> None:
        """Show the state of the selected objects."""
        one = selection[0] if len(selection) == 1 else None
        self.name.value = muted(f"{one.image} · {one.label}" if one else f"{len(selection):,}" if selection else "")
        self.bars.value = self._one_html(one) if one else self._many_html(selection)
        if self._explained and self._explained != (one, self._project.current_run):
            self._explained, self.why.layout.display = None, "none"

    def toggle_why(self, object_id: SelectionId) -> None:
        """Show or hide what the classifier looks at in an object."""
        question = (ObjectId(*object_id), self._project.current_run) if object_id and object_id[1] > 0 else None
        if question is None or self._explained == question:
            self._explained, self.why.layout.display = None, "none"
            return
        self._explained = question
        self.why.layout.display = ""
        self._say_why("Explaining …")
        self._explanation.ask(question)

    def _one_html(self, object_id: ObjectId) -> str:
        project, label = self._project, self._project.annotations.label_of(*object_id)
        classes = project.classes
        given = classes.by_id(label.class_id).name if label.class_id else FLAG_TEXTS.get(label.action, "")
        state = f"Labeled <b>{html.escape(given)}</b>." if label.class_id else f"Flagged: {given}." if given else ""
        if not label.action and object_id.label in project.test_set.hidden(object_id.image):
            return muted(_HIDDEN)
        table = project.probabilities(object_id.image)
        if object_id.label not in table.index:
            return f"<p>{state or 'Not labeled.'} {muted('Not predicted yet.')}</p>"
        row = cast("pd.Series[float]", table.loc[object_id.label])
        predicted = classes.by_id(int(row["predicted"]))
        ranked = sorted(classes, key=lambda info: -float(row.get(f"p_{info.id}", 0.0)))
        bars = "".join(_bar_html(info, float(row.get(f"p_{info.id}", 0.0))) for info in ranked[:4])
        differs, name = label.class_id not in (0, predicted.id), f"<b>{html.escape(predicted.name)}</b>"
        told = f"Predicted {name}{', which differs' if differs else ''}."
        if differs and project.current_run == LIVE:
            told = f"The other labels suggest {name}."
        mark = _conflict_html(classes.by_id(label.class_id), predicted) if differs else ""
        return f'{bars}<p class="sv-soft">{mark}{state or "Not labeled."} {told}</p>'

    def _many_html(self, selection: Sequence[ObjectId]) -> str:
        if not selection:
            return muted(_NONE_SELECTED)
        images = {each.image for each in selection}
        place = selection[0].image if len(images) == 1 else f"{len(images):,} images"
        return (
            f"<p><b>{len(selection):,} objects</b> in {html.escape(place)}.<br>{muted('A key labels all of them.')}</p>"
        )

    def _show_explanation(self, explanation: xr.Dataset) -> None:
        patch, cam = explanation_pictures(explanation)
        figures = figure_html(patch, "Patch") + figure_html(cam, "Grad-CAM")
        text = muted(explaining_run(self._project, explanation))
        self.why.value = f'<div class="sv-pictures sv-beside">{figures}</div>{text}'

    def _say_why(self, text: str) -> None:
        self.why.value = muted(text)


def _conflict_html(given: ClassInfo, predicted: ClassInfo) -> str:
    """Return the square with which image and gallery mark a conflict, as HTML."""
    colors = f"linear-gradient(to right, {html.escape(given.color)} 50%, {html.escape(predicted.color)} 50%)"
    return f'<span class="sv-conflict" title="{CONFLICT_TIP}" style="background:{colors}"></span>'


def _bar_html(info: ClassInfo, probability: float) -> str:
    width, color = f"{100 * min(max(probability, 0.0), 1.0):.0f}", html.escape(info.color)
    bar = f'<span class="sv-track"><span style="width:{width}%;background:{color}"></span></span>'
    return f'<div class="sv-probability"><span>{html.escape(info.name)}</span>{bar}<span>{width} %</span></div>'


class ObjectStrip(VBox):
    """Row of thumbnails without text; a click selects an object in all views.

    Parameters
    ----------
    project : Project
    fills : bool
        Whether the strip has as many rows as the page has room for, instead of one.

    Attributes
    ----------
    grid : PatchGrid
    """

    def __init__(self, project: Project, fills: bool = False) -> None:
        self._project = project
        self._side = 0.0
        self.grid = PatchGrid(project, (_STRIP_HEIGHT, SIDE), SIDE, line=_LINE)
        self.grid.columns = _THUMBNAILS
        if fills:
            self.grid.add_class("sv-fill")
        super().__init__([self.grid])
        self._objects: Sequence[tuple[str, int]] = ()
        self.grid.observe(lambda _: self._show_page(), "size")

    def show(self, objects: Sequence[tuple[str, int]], drawn: Sequence[tuple[str, int]] = ()) -> None:
        """Show objects; those that were ``drawn`` at random have a dashed frame."""
        dashed = set(drawn)

        def caption_of(image: str, label: int) -> CellCaption:
            caption = object_caption(self._project, image, label)
            return replace(caption, name="", share="", is_dashed=(image, label) in dashed)

        self.grid.caption_of = caption_of
        self._objects = objects
        self._show_page()

    def _show_page(self) -> None:
        self.grid.show(self._objects[: self.grid.grid.count], self._crop_side())

    def close(self) -> None:
        """Stop following the selection, and remove the strip."""
        self.grid.close()
        super().close()

    def _crop_side(self) -> float:
        if not self._side:
            known = [name for name in self._project.images if self._project.images.is_indexed(name)]
            self._side = default_crop_side(self._project.objects(known[0])) if known else 0.0
        return self._side or 1.0


def similar_objects(project: Project, object_id: ObjectId) -> list[tuple[str, int]]:
    """Return the objects most similar to an object, the nearest first."""
    return [(str(image), int(label)) for image, label in project.features.similar(*object_id, SIMILAR).index]


class NextObjects(VBox):
    """Queue of the objects to label next, with the reason for the first one.

    Parameters
    ----------
    project : Project
    choose : callable
        Called when the user chooses a kind of queue or its classes.

    Attributes
    ----------
    kind : Dropdown
    first, second : Dropdown
        Classes of a queue that needs some.
    strip : ObjectStrip
    reason : HTML
    """

    def __init__(self, project: Project, choose: Callable[[], None]) -> None:
        self._project, self._choose = project, choose
        titles = [(title, kind) for kind, title in _QUEUE_TITLES.items() if kind in QUEUE_KINDS]
        self.kind = Dropdown(options=titles, tooltip="Order of the objects to label", layout={"width": "124px"})
        tips = "Class of the predictions to review", "The class that it may be confused with"
        self.first, self.second = (Dropdown(tooltip=tip, layout={"width": "134px"}) for tip in tips)
        self._class_row = HBox([self.first, self.second], layout={"display": "none"}).add_class("sv-head")
        self._is_filling = False
        for control in (self.kind, self.first, self.second):
            control.observe(lambda _: self._changed(), "value")
        self.strip = ObjectStrip(project)
        self.strip.grid.screen.pointer.name = "Objects to label next"
        self.reason = HTML(muted(_NOT_DRAWN), layout={"margin": "0", "min_height": "18px"})
        super().__init__([self._class_row, self.strip, self.reason])
        self.refresh()

    @property
    def classes(self) -> list[str]:
        """Names of the classes that the queue needs."""
        return [name for name in (self.first.value, self.second.value)[: self._needed] if name]

    @property
    def _needed(self) -> int:
        return QUERIES[self.kind.value].classes if self.kind.value in QUERIES else 0

    def refresh(self) -> None:
        """Update the classes that can be chosen."""
        self._is_filling = True
        names = self._project.classes.names
        for control in (self.first, self.second):
            set_options(control, list(names))
        if self.first.value == self.second.value:
            self.second.value = next((name for name in names if name != self.first.value), self.second.value)
        self._is_filling = False

    def _changed(self) -> None:
        if not self._is_filling:
            self.refresh()
            self._class_row.layout.display = "" if self._needed else "none"
            self.second.layout.display = "" if self._needed > 1 else "none"
            self._choose()

    def show(
        self,
        candidate: QueuedObject | None,
        coming: Sequence[QueuedObject],
        problem: str = "",
        is_filtered: bool = False,
    ) -> None:
        """Show the object of the queue that is on the screen, and those that follow it.

        ``problem`` says why there is no queue, ``is_filtered`` whether the views are filtered, which the queue is not.
        """
        queued = [*([candidate] if candidate else []), *coming]
        drawn = [each.id for each in queued if self.kind.value != "random" and each.reason == DRAWN]
        self.strip.show([each.id for each in queued], drawn)
        reason = candidate.reason.rstrip(".") if candidate else ""
        first = f"{reason[:1].upper()}{reason[1:]}." if candidate else _NOT_DRAWN if queued else "The queue is empty."
        notes = [first, *([_ABOUT_DASHED] if drawn else []), *([_NOT_FILTERED] if is_filtered else [])]
        self.reason.value = muted(problem or " ".join(notes))


class SimilarObjects(VBox):
    """Objects whose features are nearest to those of the selected object.

    Parameters
    ----------
    project : Project
    label_all : callable
        Called with a class name and the displayed objects.
    status : StatusLine
        Displays errors.

    Attributes
    ----------
    strip : ObjectStrip
    classes : Dropdown
        Labels all displayed objects with the chosen class.
    text : HTML
        Why there are no similar objects.
    """

    def __init__(
        self, project: Project, label_all: Callable[[str, Sequence[tuple[str, int]]], None], status: StatusLine
    ) -> None:
        self._project, self._label_all, self._status = project, label_all, status
        self._latest: LatestQuestion[ObjectId] = LatestQuestion(self._find, self._show_found, 0.3, self._show_error)
        self.strip = ObjectStrip(project, fills=True)
        self.strip.grid.screen.pointer.name = "Similar objects"
        self.classes = Dropdown(tooltip="Label all objects shown here", layout={"width": "124px"})
        self.classes.observe(self._chosen, "value")
        self.text = HTML(layout={"margin": "0"})
        super().__init__([self.text, self.strip])
        self.refresh()
        self.show(())

    def refresh(self) -> None:
        """Update the list of classes."""
        names = self._project.classes.names
        set_options(self.classes, [("label all …", ""), *zip(names, names)])

    def show(self, selection: Sequence[ObjectId]) -> None:
        """Show the objects most similar to the selected one, once they are found."""
        one = selection[0] if len(selection) == 1 else None
        if one is not None and one in self.strip.grid.objects:
            return  # a click on a similar object
        hidden = one is not None and one.label in self._project.test_set.hidden(one.image)
        self._latest.ask(None if hidden else one)
        if one is None or hidden:
            self._say(HIDDEN_SIMILAR if hidden else _NO_SIMILAR)

    def _find(self, object_id: ObjectId) -> Sequence[tuple[str, int]]:
        return similar_objects(self._project, object_id)

    def _show_found(self, objects: Sequence[tuple[str, int]]) -> None:
        self.text.layout.display, self.strip.layout.visibility = "none", "visible"
        self.classes.disabled = False
        self.strip.show(objects)

    def _show_error(self, object_id: ObjectId, error: Exception) -> None:
        self._say(error_text(error, "Similar objects cannot be found"))

    def _say(self, text: str) -> None:
        self.text.value, self.text.layout.display = muted(text), ""
        self.strip.show(())
        self.strip.layout.visibility, self.classes.disabled = "hidden", True

    def _chosen(self, change: Mapping[str, str]) -> None:
        if name := change["new"]:
            self.classes.value = ""
            self._label_all(name, self.strip.grid.objects)
