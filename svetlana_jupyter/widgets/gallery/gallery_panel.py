"""The gallery: a page of patches, sorted and framed by class; what is selected gets its class with one key.

The controls round a page of patches: what is shown above it; leafing, selecting and looks below.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import pandas as pd
from ipywidgets import HTML, BoundedIntText, Button, Dropdown, HBox, Label, ToggleButton, VBox
from traitlets import link

from svetlana_jupyter.core.display.selection import GalleryQuery, Pagination, build_gallery_table, filter_and_sort
from svetlana_jupyter.widgets.components import ClassButtons, count_html, heading, muted, no_images_hint
from svetlana_jupyter.widgets.gallery.grid import Captions, PatchGrid
from svetlana_jupyter.widgets.gallery.thumbnail_loader import ThumbnailCache, default_crop_side
from svetlana_jupyter.widgets.object_indexing import ObjectIndexer
from svetlana_jupyter.widgets.panel import SIDE_WIDTH, Command, CommandPanel, catch_errors
from svetlana_jupyter.widgets.viewer.interaction import ICON_LAYOUT, icon_button

if TYPE_CHECKING:
    from svetlana_jupyter.core.annotations import LabelAction, ObjectId
    from svetlana_jupyter.core.classes import ClassInfo
    from svetlana_jupyter.project.project import Project

ALL_IMAGES = "All images"
_FILTERS = (
    ("All objects", "all"),
    ("Unlabeled", "unlabeled"),
    ("Annotated", "annotated"),
    ("Corrected", "corrected"),
)
_ORDERS = (
    ("At random", "random"),
    ("By class", "class"),
    ("Least certain first", "uncertain"),
    ("Most certain first", "certain"),
    ("Largest first", "largest"),
    ("Smallest first", "smallest"),
    ("As in the image", "position"),
)


class FilterBar(HBox):
    """What a gallery shows: which objects, of which class and image, in which order.

    Parameters
    ----------
    page : PatchPage
    changed : callable
        Called when something else is wanted.
        Also when it is to be arranged again.
    """

    def __init__(self, page: PatchGrid, changed: Callable[[], None]) -> None:
        self.which = _dropdown(_FILTERS, "Which objects are shown", "112px")
        self.class_id = _dropdown([("Any class", 0)], "Only objects of this class, annotated or predicted", "124px")
        self.order = _dropdown(_ORDERS, "In which order", "150px")
        self.image = _dropdown([(ALL_IMAGES, "")], "Of which image", "124px")
        self.found = _rest()
        self.again = icon_button(page, "refresh", "Arrange again, with what is known by now (g)", changed)
        super().__init__(
            [
                self.which,
                self.class_id,
                self.order,
                self.image,
                self.again,
                self.found,
            ],
            layout={"align_items": "center", "width": "100%", "margin": "0 0 4px 0"},
        )
        self._listing = False

        def chosen(_: object) -> None:
            if not self._listing:
                changed()
                page.focus()

        for control in (self.which, self.class_id, self.order, self.image):
            control.observe(chosen, "value")

    @property
    def images(self) -> tuple[str, ...]:
        """The chosen image; empty for all."""
        return (self.image.value,) if self.image.value else ()

    def wanted(self, seed: int) -> GalleryQuery:
        """Return what is chosen."""
        return GalleryQuery(self.images, self.which.value, self.class_id.value, self.order.value, seed)

    def count(self, number: int) -> None:
        """Say how many objects are shown, on all pages."""
        self.found.value = f"{number:,} object{'' if number == 1 else 's'}"

    def list(self, images: Iterable[str], classes: Iterable[ClassInfo], show_all_images: bool) -> None:
        """Offer these images and classes.

        Parameters
        ----------
        images : iterable of str
        classes : iterable of ClassInfo
        all_first : bool
            Begin with all images, else with the first one.
        """
        self._listing = True
        empty = len(self.image.options) == 1
        try:
            _offer(self.image, [(ALL_IMAGES, ""), *((name, name) for name in images)])
            if empty and not show_all_images and len(self.image.options) > 1:
                self.image.index = 1
            _offer(self.class_id, [("Any class", 0), *((info.name, info.id) for info in classes)])
        finally:
            self._listing = False
        self.image.layout.display = "" if len(self.image.options) > 2 else "none"


class DisplayBar(HBox):
    """How patches are shown: how large, with how much around each object, with outlines; of a volume what.

    Parameters
    ----------
    page : PatchPage
    """

    def __init__(self, page: PatchGrid) -> None:
        self.outlines = ToggleButton(page.outlines, icon="circle-o", tooltip="Outlines (o)", layout=ICON_LAYOUT)
        link((page, "outlines"), (self.outlines, "value"))
        self.depth = ToggleButton(icon="clone", tooltip="Brightest over an object's planes (m)", layout=ICON_LAYOUT)
        link((page, "depth"), (self.depth, "value"), (lambda depth: depth == "maximum", _depth_of))
        for toggle in (self.outlines, self.depth):
            toggle.observe(lambda _: page.focus(), "value")
        super().__init__(
            [
                self.depth,
                self.outlines,
                icon_button(page, "compress", "Less around each object ([)", lambda: page.change_field_of_view(-1)),
                icon_button(page, "expand", "More around each object (])", lambda: page.change_field_of_view(1)),
                icon_button(
                    page, "search-minus", "Smaller patches, more of them (-)", lambda: page.change_patch_size(-1)
                ),
                icon_button(
                    page, "search-plus", "Larger patches, fewer of them (+)", lambda: page.change_patch_size(1)
                ),
            ],
            layout={"flex": "0 0 auto"},
        )

    def follow(self, deep: bool) -> None:
        """Show what fits the images; ``deep`` if one of them is a volume."""
        self.depth.layout.display = "" if deep else "none"


class PageBar(HBox):
    """Turns pages, and selects on the page shown.

    Parameters
    ----------
    page : PatchPage
    go : callable
        Called with the number of the page to show, from 0.
    looks : LookBar
        Shown at the end of the row.
    """

    def __init__(self, page: PatchGrid, go: Callable[[int], None], display_bar: DisplayBar) -> None:
        self.first = icon_button(page, "angle-double-left", "First page (Home)", lambda: go(0))
        self.previous = icon_button(page, "angle-left", "Previous page (p, Page Up)", lambda: go(self._shown - 1))
        self.number = BoundedIntText(1, min=1, max=1, tooltip="The page shown", layout={"width": "62px"})
        self.of = Label(layout={"width": "auto", "margin": "0 4px"})
        self.next = icon_button(page, "angle-right", "Next page (n, Page Down)", lambda: go(self._shown + 1))
        self.last = icon_button(page, "angle-double-right", "Last page (End)", lambda: go(self.number.max - 1))
        self.all = _text_button(page, "All", "Select all patches of this page (Ctrl+A)", page.select_all)
        self.inverse = _text_button(page, "Inverse", "Select the others of this page (i)", page.select_inverse)
        self.none = _text_button(page, "None", "Select nothing (Escape)", page.clear_selection)
        super().__init__(
            [
                self.first,
                self.previous,
                self.number,
                self.of,
                self.next,
                self.last,
                Label(layout={"width": "8px"}),
                self.all,
                self.inverse,
                self.none,
                _rest(),
                display_bar,
            ],
            layout={"align_items": "center", "width": "100%", "margin": "4px 0 0 0"},
        )
        self._shown = 0

        def typed(change: dict[str, int]) -> None:
            if change["new"] - 1 != self._shown:
                go(change["new"] - 1)
                page.focus()

        self.number.observe(typed, "value")

    def follow(self, pages: Pagination, shown: int, selected: int) -> None:
        """Show which page is shown, and how many of its patches are selected."""
        self._shown = shown
        self.number.max, self.number.value = pages.count, shown + 1
        self.of.value = f"of {pages.count:,}"
        self.first.disabled = self.previous.disabled = shown == 0
        self.last.disabled = self.next.disabled = shown == pages.count - 1
        self.all.disabled = self.inverse.disabled = pages.total == 0
        self.none.disabled = selected == 0


def _rest() -> Label:
    """Return a label at the right, which takes what is left of a row."""
    return Label(layout={"flex": "1 1 auto", "min_width": "0", "justify_content": "flex-end"})


def _depth_of(maximum: bool) -> str:
    return "maximum" if maximum else "plane"


def _dropdown(options: Iterable[object], tooltip: str, width: str) -> Dropdown:
    return Dropdown(options=options, tooltip=tooltip, layout={"width": width, "margin": "0 4px 0 0"})


def _offer(dropdown: Dropdown, options: list[tuple[str, object]]) -> None:
    """Offer other options; what is chosen stays if it is among them."""
    if list(dropdown.options) != options:
        value = dropdown.value
        dropdown.options = options
        dropdown.value = value if value in [one for _, one in options] else options[0][1]


def _text_button(page: PatchGrid, text: str, tooltip: str, act: Callable[[], None]) -> Button:
    button = icon_button(page, "", tooltip, act, text)
    button.layout = {"width": "auto", "padding": "0 10px", "margin": "0 2px 0 0"}
    return button


SIZE = (484, 648)
_SEED = 0
_AT_ONCE = 10**8  # pixels of masks that are searched for objects without being asked
_HINT = "Click a patch, drag over several or press Ctrl+A; then press the key of their class."
_NONE = "Nothing is selected: click a patch, drag over several, or press Ctrl+A for all."
_NO_SUCH = "No object is like this: choose other ones above."
_TOO_EARLY = "That key came before the selection was on the screen, so it labelled nothing."

SelectionId = tuple[str, int] | None


class GalleryPanel(CommandPanel):
    """Look at many objects at once, and label those that are selected with one key.

    Frames have the colour of the class: thick for annotations, thin for predictions. The page stays as it is while it
    is annotated; arranged again, it takes in what was annotated since.

    Parameters
    ----------
    project : Project

    Attributes
    ----------
    page : PatchPage
    bar : WantedBar
        What is shown.
    leaves : LeafBar
        Which page is shown.
    rows : ClassRows
        The class buttons.
    """

    digits = "the class of all that is selected"
    view_keys = (
        ("Click Drag", "Select one patch, or several in a row"),
        ("Shift+Click", "Select all up to this one"),
        ("Ctrl+Click", "Add one patch, or take it away"),
        ("← ↑ → ↓", "Select the patch beside; with Shift all between"),
        ("Ctrl+A i Esc", "Select all of the page, the others, nothing"),
        ("n PageDown Space", "Next page"),
        ("p PageUp", "Previous page"),
        ("Home End", "First page, last page"),
        ("+ -", "Larger patches, smaller patches"),
        ("[ ]", "Less around each object, more"),
        ("o m", "Outlines; of a volume the middle plane, or the brightest over all"),
        ("g", "Arrange again, with what is known by now"),
    )

    def __init__(self, project: Project) -> None:
        super().__init__(project)
        self._table = build_gallery_table({}, {}, project.labels())
        self._rows = np.empty(0, np.int64)
        self._number = 0
        self._since = time.monotonic()
        self._captions = Captions(project)
        self._indexing = ObjectIndexer(project, self.status)
        self.page = PatchGrid(ThumbnailCache(project), SIZE, self._captions)
        self._count = self.page.grid.count
        self.bar = FilterBar(self.page, catch_errors(self.arrange, self.status))
        self.display_bar = DisplayBar(self.page)
        self.leaves = PageBar(self.page, catch_errors(self.go, self.status), self.display_bar)
        self.rows = ClassButtons(
            act=lambda name: self.run_action(self.label, name, self.shown),
            recolor=lambda name, color: self.run_action(project.classes.recolor, name, color),
            on_found=lambda name: self.run_action(self.label, name, self.shown),
        )
        self.set_commands(
            Command(("Enter",), "Accept", "check", "Keep each prediction as an annotation", self.accept),
            Command(("e", "Delete"), "Erase", "eraser", "Remove the annotations", self.erase),
            Command(("u",), "Undo", "undo", "Take back the last annotation", self.undo),
            Command(("r",), "Redo", "repeat", "Bring it back again", self.redo),
            Command(("a",), "Ambiguous", "question", "Even an expert could not tell", self.mark_command("ambiguous")),
            Command(
                ("b",),
                "Bad segmentation",
                "chain-broken",
                "The outlines are wrong here",
                self.mark_command("bad_segmentation"),
            ),
            Command(("s",), "Skip", "step-forward", "Pass over the selection", self.mark_command("skip")),
        )
        self.tally = HTML(layout={"margin": "0", "min_height": "38px"})
        self.chosen = HTML(layout={"margin": "0"})
        column = VBox(
            [
                HBox([heading("Classes"), self.help_button], layout={"align_items": "center"}),
                self.rows,
                heading("Selection"),
                self.chosen,
                self.grid(),
                self.tally,
                self.help,
            ],
            layout={"width": SIDE_WIDTH, "flex": "0 0 auto", "padding": "0 0 0 12px", "grid_gap": "4px"},
        )
        shown = VBox([self.bar, self.page, self.leaves], layout={"width": f"{SIZE[1]}px", "flex": "0 0 auto"})
        self.body = HBox([shown, column], layout={"width": "100%", "flex_flow": "row wrap"})
        self.empty = no_images_hint()
        self.children = (self._style, self.empty, self.body, self.status)
        self.page.on_key(catch_errors(self.press, self.status))
        self.page.on_page_turn(catch_errors(lambda pages: self.go(self._number + pages), self.status))
        self.page.observe(catch_errors(lambda _: self._follow_selection(), self.status), "selection")
        self.page.observe(catch_errors(lambda _: self._resize(), self.status), "columns")
        self.observe_project(self.arrange, "images_version")
        self.observe_project(self._follow, "annotations_version", "classes_version")
        self.observe_project(self._follow_predictions, "predictions_version", "current_run")
        self.show_hint(_HINT if project.images else "")
        self.arrange()

    @property
    def shown(self) -> SelectionId:
        """The selection, by the number of its state; None when nothing is selected."""
        return self.page.picked

    @property
    def pages(self) -> Pagination:
        """How the gallery is cut into pages."""
        return Pagination(len(self._rows), self.page.grid.count)

    def arrange(self) -> None:
        """Show what is wanted, with what is known of the objects now, from the first page on."""
        project = self.project
        self.empty.layout.display = "none" if project.images else "block"
        self.body.layout.display = "flex" if project.images else "none"
        self.display_bar.follow(deep=any(len(entry.shape) == 3 for entry in project.images.values()))
        self.bar.list(project.images, project.classes.scheme, show_all_images=self._quick())
        names = self.bar.images or tuple(project.images)
        self._indexing.after(names, lambda: self._arrange(names), "They are shown then.", all=False)
        if self._indexing.is_waiting:
            self._rows = self._rows[:0]
            self.go(0)
        self._follow()

    def _arrange(self, names: tuple[str, ...]) -> None:
        project = self.project
        objects = self._indexing.objects(names)
        self._table = build_gallery_table(
            objects, {name: project.probabilities(name) for name in objects}, project.labels()
        )
        self._rows = filter_and_sort(self._table, self.bar.wanted(_SEED))
        self.go(0)

    def go(self, page: int) -> None:
        """Show another page; nothing of it is selected."""
        self._number = self.pages.nearest(page)
        side = default_crop_side(self._table)
        none = "The objects are being found." if self._indexing.is_waiting else _NO_SUCH
        words = "" if len(self._rows) else none
        self.page.show(self._objects(self._number), side, self._objects(self._number + 1), words)
        self._since = time.monotonic()
        self._follow_selection()

    def press(self, key: str, shown: SelectionId) -> None:
        """Follow a key that went down while ``shown`` was selected on the screen."""
        moves: dict[str, Callable[[], None]] = {
            "Ctrl+a": self.page.select_all,
            "i": self.page.select_inverse,
            "Escape": self.page.clear_selection,
            **dict.fromkeys(("n", "PageDown", " "), lambda: self.go(self._number + 1)),
            **dict.fromkeys(("p", "PageUp"), lambda: self.go(self._number - 1)),
            "Home": lambda: self.go(0),
            "End": lambda: self.go(self.pages.count - 1),
            "+": lambda: self.page.change_patch_size(1),
            "=": lambda: self.page.change_patch_size(1),
            "-": lambda: self.page.change_patch_size(-1),
            "[": lambda: self.page.change_field_of_view(-1),
            "]": lambda: self.page.change_field_of_view(1),
            "o": lambda: self.page.set_trait("outlines", not self.page.outlines),
            "m": lambda: self.page.set_trait("depth", "plane" if self.page.depth == "maximum" else "maximum"),
            "g": self.arrange,
        }
        info = self.project.classes.by_shortcut(key)
        if info:
            self.label(info.name, shown)
        elif key in moves:
            moves[key]()
        else:
            self.dispatch_key(key, shown)

    def label(self, name: str, shown: SelectionId) -> None:
        """Give all that is selected a class, in one edit."""
        if self._means(shown):
            self._annotate(dict.fromkeys(self.page.selected, name))

    def accept(self, shown: SelectionId) -> None:
        """Keep each prediction of the selection as an annotation, in one edit."""
        if not self._means(shown):
            return
        found = {(image, label): self._captions.predicted(image, label)[0] for image, label in self.page.selected}
        classes = {id: self.project.classes.by_id(class_id).name for id, class_id in found.items() if class_id}
        if classes:
            self._annotate(classes)
        else:
            self.status.say("Nothing of the selection is predicted yet.")

    def mark_command(self, mark: LabelAction) -> Callable[[SelectionId], None]:
        """Return the command that marks all that is selected as skipped, ambiguous or badly segmented."""

        def act(shown: SelectionId) -> None:
            if self._means(shown):
                self.project.annotations.flag_each(self.page.selected, mark, source="gallery", seconds=self._seconds())
                self.status.say(self.project.status)

        return act

    def erase(self, shown: SelectionId) -> None:
        """Remove what was said of all that is selected."""
        if self._means(shown):
            self.project.annotations.erase_each(self.page.selected, source="gallery")
            self.status.say(self.project.status)

    def undo(self, shown: SelectionId = None) -> None:
        """Take back the last edit, whatever is selected, and select what it was about."""
        self._revisit(self.project.undo(), "undo")

    def redo(self, shown: SelectionId = None) -> None:
        """Annotate again what was taken back last, and select it."""
        self._revisit(self.project.redo(), "redo")

    def focus(self) -> None:
        self.page.focus()

    def close(self) -> None:
        self.page.close()
        super().close()

    def _annotate(self, classes: dict[tuple[str, int], str]) -> None:
        self.project.annotations.annotate_each(classes, source="gallery", seconds=self._seconds())
        self.status.say(self.project.status)

    def _means(self, shown: SelectionId) -> TypeGuard[tuple[str, int]]:
        """Whether a key or button is meant for the selection; else the status says why not."""
        if shown is None or shown != self.shown:
            self.status.say(_TOO_EARLY if shown else _NONE)
            return False
        return True

    def _seconds(self) -> float:
        seconds, self._since = time.monotonic() - self._since, time.monotonic()
        return seconds

    def _revisit(self, done: bool, said: str) -> None:
        if not done:
            self.status.say(f"Nothing is left to {said}.")
            return
        touched = self.project.annotations.last_edited
        self._select(touched)
        (image, label), *more = touched
        objects = f"{len(touched):,} objects" if more else f"object {label} in {image}"
        self.status.say(f"{said.capitalize()}: {objects}.")

    def _select(self, objects: list[ObjectId]) -> None:
        """Turn to the page of the first of some objects, and select those of them that are on it."""
        names = list(self._table["image"].cat.categories)
        table = self._table.iloc[self._rows]
        wanted = pd.MultiIndex.from_tuples([(names.index(id.image), id.label) for id in objects if id.image in names])
        here = pd.MultiIndex.from_arrays([table["image"].cat.codes, table["object"]])
        found = np.flatnonzero(here.isin(wanted)).tolist() if len(wanted) else []
        if found:
            page = self.pages.page_containing(found[0])
            if page != self._number:
                self.go(page)
            start = self.pages.places(page).start
            cells = [place - start for place in found if self.pages.page_containing(place) == page]
            self.page.select(self.page.selection.of(cells))

    def _objects(self, page: int) -> list[tuple[str, int]]:
        return self._objects_at(self.pages.places(page))

    def _objects_at(self, places: range) -> list[tuple[str, int]]:
        rows = self._table.iloc[self._rows[places.start : places.stop]]
        return [(str(image), int(label)) for image, label in zip(rows["image"], rows["object"])]

    def _resize(self) -> None:
        """Keep the first patch of the page when there are more or fewer on one."""
        first = self._number * self._count
        self._count = self.page.grid.count
        self.go(self.pages.page_containing(first))

    def _follow(self) -> None:
        """Bring counts, buttons and frames up to the project."""
        project = self.project
        counts = project.annotations.class_counts()
        details = {info.id: count_html(int(counts[info.name])) for info in project.classes}
        self.rows.show(project.classes.scheme, details)
        self.buttons["Undo"].disabled = not project.annotations.can_undo
        self.buttons["Redo"].disabled = not project.annotations.can_redo
        self.buttons["Accept"].disabled = not project.current_run
        said = f"{int(counts.sum()):,} annotated"
        if not math.isnan(rate := project.annotations.rate()):
            said += f" · {rate:.0f} edits per minute"
        self.tally.value = muted(said if len(project.classes) else "Name the first class on the panel to annotate.")
        self.page.redraw()

    def _follow_predictions(self) -> None:
        self._follow()
        self.status.say("There are new predictions: press g to arrange the gallery by them.")

    def _follow_selection(self) -> None:
        selected = len(self.page.selection.chosen)
        self.bar.count(len(self._rows))
        self.leaves.follow(self.pages, self._number, selected)
        self.chosen.value = muted(f"{selected:,} of {len(self.page.objects):,} on this page")

    def _quick(self) -> bool:
        """Whether finding the objects of all images takes no time to speak of."""
        entries = self.project.images.items()
        unknown = [entry.shape for name, entry in entries if not self.project.images.is_indexed(name)]
        return sum(map(math.prod, unknown)) <= _AT_ONCE
