"""Gallery panel: pages of thumbnails, framed in the colors of their classes.

The user filters and sorts the thumbnails, and labels all selected objects with one key.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING

from ipywidgets import HTML, BoundedIntText, Dropdown, HBox, Label, VBox
from traitlets import link

from svetlana_jupyter.core.display.selection import GalleryQuery, Pagination, build_gallery_table, filter_and_sort
from svetlana_jupyter.widgets.components import ClassButtons, count_html, heading, muted, set_options
from svetlana_jupyter.widgets.gallery.grid import PatchGrid
from svetlana_jupyter.widgets.gallery.thumbnail_loader import default_crop_side
from svetlana_jupyter.widgets.object_indexing import ObjectIndexer
from svetlana_jupyter.widgets.panel import MAX_VIEWER_SIZE, Command, CommandBar, Panel, catch_errors, labeling_commands
from svetlana_jupyter.widgets.viewer.open_images import predicted_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from svetlana_jupyter.core.annotations import LabelAction, ObjectId
    from svetlana_jupyter.core.classes import ClassInfo
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.viewer.viewer_model import SelectionId

GRID_SIZE = (484, 648)
ALL_IMAGES = "All images"
_FILTERS = (("All objects", "all"), ("Unlabeled", "unlabeled"), ("Annotated", "annotated"), ("Corrected", "corrected"))
_ORDERS = (
    ("Random", "random"),
    ("By class", "class"),
    ("Least certain first", "uncertain"),
    ("Most certain first", "certain"),
    ("Largest first", "largest"),
    ("Smallest first", "smallest"),
    ("As in the image", "position"),
)
_VIEW_KEYS = (
    ("Click", "Select one object"),
    ("Drag", "Select several objects in a row"),
    ("Shift+Click", "Select a range"),
    ("Ctrl+Click", "Add or remove one object"),
    ("← ↑ → ↓", "Move the selection; with Shift extend it"),
    ("Ctrl+A i Esc", "Select the whole page; invert the selection; clear it"),
    ("n PageDown Space", "Next page"),
    ("p PageUp", "Previous page"),
    ("Home End", "First or last page"),
    ("+ -", "Larger or smaller thumbnails"),
    ("[ ]", "Show less or more of the surroundings"),
    ("o", "Show or hide outlines"),
    ("m", "Show the middle plane or the maximum projection of a volume"),
    ("g", "Arrange again with current labels and predictions"),
)
_INDEXED_AT_ONCE = 10**8  # mask pixels up to which the gallery begins with all images
_HINT = "Click a thumbnail, drag over several or press Ctrl+A; then press the key of their class."
_NOTHING_SELECTED = "No object selected. Click a thumbnail, drag over several, or press Ctrl+A for all."
_NO_MATCH = "No object matches. Change the filters above."
_KEY_IGNORED = "Key ignored: the selection was not displayed yet."


class GalleryPanel(Panel):
    """Panel to look at many objects at once and to label the selected ones.

    Each thumbnail has a frame in the color of its class, thick for an annotation and thin for a prediction. Objects
    keep their places while they are annotated; they are filtered and sorted again when the user asks for it.

    Parameters
    ----------
    project : Project or path

    Attributes
    ----------
    page : PatchGrid
    filter_bar : FilterBar
    page_bar : PageBar
    display_bar : DisplayBar
    class_buttons : ClassButtons
    command_bar : CommandBar
    """

    def __init__(self, project: Project | str | Path) -> None:
        super().__init__(project)
        project = self.project
        self._listed: list[tuple[str, int]] = []  # the objects of all pages
        self._crop_side = 1.0
        self._page_number = 0
        self._selected_at = time.monotonic()
        self._indexing = ObjectIndexer(project, self.status)
        self.page = PatchGrid(project, GRID_SIZE, MAX_VIEWER_SIZE[1])
        self._page_size = self.page.grid.count
        self.filter_bar = FilterBar(self.page, catch_errors(self.rearrange, self.status))
        self.display_bar = DisplayBar(self.page)
        self.page_bar = PageBar(self.page, catch_errors(self.show_page, self.status), self.display_bar)
        self.command_bar = CommandBar(self, lambda: self.shown, "Label the whole selection with this class", _VIEW_KEYS)
        label_selection = partial(self.run_action, lambda name: self.label(name, self.shown))
        self.class_buttons = ClassButtons(
            act=label_selection,
            recolor=lambda name, color: self.run_action(project.classes.recolor, name, color),
            on_found=label_selection,
        )
        self.command_bar.set_commands(
            Command(("Enter",), "Accept", "check", "Keep each prediction as an annotation", self.accept),
            *labeling_commands(self, "Erase", "Undo", "Redo", "Ambiguous", "Bad segmentation", "Skip"),
        )
        self.progress_text = HTML(layout={"margin": "0", "min_height": "38px"})
        self.selection_text = HTML(layout={"margin": "0"})
        pages = VBox([self.filter_bar, self.page, self.page_bar])
        pages.layout.max_width = f"{MAX_VIEWER_SIZE[1]}px"
        self.hint, self.body = self.arrange(
            pages,
            self.command_bar.header("Classes"),
            self.class_buttons,
            heading("Selection"),
            self.selection_text,
            self.command_bar.grid(),
            self.progress_text,
            self.command_bar.help,
        )
        self.children = (self._style, self.hint, self.body, self.status)
        self._moves = self._key_actions()
        self.page.screen.handle_key = catch_errors(self.handle_key, self.status)
        self.page.screen.report = self.report_key
        self.page.turn_page = catch_errors(self._turn_page, self.status)
        self._watcher.observe(self.page, self._show_selection, "selection")
        self._watcher.observe(self.page, self._resize, "columns", "size")
        self.observe_project(self.rearrange, "images_version")
        self.observe_project(self._refresh, "annotations_version", "classes_version")
        self.observe_project(self._predictions_changed, "predictions_version", "current_run")
        self.show_hint(_HINT if project.images else "")
        self.rearrange()

    @property
    def shown(self) -> SelectionId:
        """Identifier of the selection; None if nothing is selected."""
        return self.page.selection_id

    @property
    def pages(self) -> Pagination:
        """Division of the objects into pages."""
        return Pagination(len(self._listed), self.page.grid.count)

    def rearrange(self) -> None:
        """Filter and sort the objects again, and show the first page."""
        project = self.project
        has_volumes = any(len(entry.shape) == 3 for entry in project.images.values())
        self.display_bar.depth.layout.display = "" if has_volumes else "none"
        self.filter_bar.list(project.images, project.classes.scheme, show_all_images=self._is_quickly_indexed())
        names = self.filter_bar.query.images or tuple(project.images)
        self._indexing.run_when_indexed(
            names, lambda: self._arrange(names), "The gallery is shown afterwards.", needs_all=False
        )
        if self._indexing.is_waiting:
            self._listed = []
            self.show_page(0)
        self._refresh()

    def show_page(self, page: int) -> None:
        """Show a page and clear the selection."""
        self._page_number = self.pages.nearest(page)
        message = "The objects are being indexed." if self._indexing.is_waiting else _NO_MATCH
        shown, following = (self._objects(self._page_number + ahead) for ahead in (0, 1))
        self.page.show(shown, self._crop_side, following, "" if self._listed else message)
        self._selected_at = time.monotonic()
        self._show_selection()
        self.report_key("")

    def handle_key(self, key: str, shown: SelectionId) -> None:
        """Handle a key that was pressed while ``shown`` was selected on the screen."""
        info = self.project.classes.by_shortcut(key)
        if info:
            self.label(info.name, shown)
        elif key in self._moves:
            self._moves[key]()
        elif key == "/" and self.class_buttons.find_is_needed:
            self.class_buttons.find.focus()
        else:
            self.command_bar.dispatch_key(key, shown)

    def label(self, name: str, shown: SelectionId) -> None:
        """Label all selected objects with a class, in one edit."""
        if self._applies_to(shown):
            self._annotate(dict.fromkeys(self.page.selected, name))

    def accept(self, shown: SelectionId) -> None:
        """Keep each prediction of the selected objects as an annotation, in one edit."""
        if not self._applies_to(shown):
            return
        predicted = {object_id: predicted_class(self.project, *object_id)[0] for object_id in self.page.selected}
        classes = self.project.classes
        names = {object_id: classes.by_id(class_id).name for object_id, class_id in predicted.items() if class_id}
        if names:
            self._annotate(names)
        else:
            self.status.say("No selected object is predicted yet.")

    def flag_command(self, flag: LabelAction) -> Callable[[SelectionId], None]:
        """Return the command that sets a flag on all selected objects."""

        def act(shown: SelectionId) -> None:
            if self._applies_to(shown):
                self.project.annotations.flag_each(self.page.selected, flag, source="gallery", seconds=self._seconds())
                self.status.say(self.project.status)

        return act

    def erase(self, shown: SelectionId) -> None:
        """Remove the annotations of all selected objects."""
        if self._applies_to(shown):
            self.project.annotations.erase_each(self.page.selected, source="gallery")
            self.status.say(self.project.status)

    def undo(self, shown: SelectionId = None) -> None:
        """Undo the last edit, regardless of the selection, and select its objects."""
        self._revisit(self.project.undo(), "undo")

    def redo(self, shown: SelectionId = None) -> None:
        """Redo the edit that was undone last, and select its objects."""
        self._revisit(self.project.redo(), "redo")

    def describe_selection(self) -> str:
        """Return a sentence about the selected objects."""
        count = len(self.page.selected)
        return f"{count:,} object{'' if count == 1 else 's'} selected." if count else _NOTHING_SELECTED

    def focus(self) -> None:
        """Give the grid the keyboard focus."""
        self.page.screen.focus()

    def close(self) -> None:
        """Stop observing the project, and remove the panel."""
        self.page.close()
        super().close()

    def _key_actions(self) -> dict[str, Callable[[], None]]:
        page = self.page
        return {
            "Ctrl+a": page.select_all,
            "i": page.select_inverse,
            "Escape": page.clear_selection,
            **dict.fromkeys(("n", "PageDown", " "), partial(self._turn_page, 1)),
            **dict.fromkeys(("p", "PageUp"), partial(self._turn_page, -1)),
            "Home": partial(self.show_page, 0),
            "End": lambda: self.show_page(self.pages.count - 1),
            **dict.fromkeys(("+", "="), partial(page.change_patch_size, 1)),
            "-": partial(page.change_patch_size, -1),
            "[": partial(page.change_field_of_view, -1),
            "]": partial(page.change_field_of_view, 1),
            "o": lambda: page.set_trait("outlines", not page.outlines),
            "m": lambda: page.set_trait("depth", "plane" if page.depth == "maximum" else "maximum"),
            "g": self.rearrange,
        }

    def _arrange(self, names: tuple[str, ...]) -> None:
        project = self.project
        objects = self._indexing.objects(names)
        predictions = {name: project.probabilities(name) for name in objects}
        table = build_gallery_table(objects, predictions, project.labels())
        rows = table.iloc[filter_and_sort(table, self.filter_bar.query)]
        self._listed = list(zip(rows["image"].tolist(), rows["object"].tolist()))
        self._crop_side = default_crop_side(table)
        self.show_page(0)

    def _turn_page(self, pages: int) -> None:
        page = self._page_number + pages
        if page != self.pages.nearest(page):
            self.report_key("This is the last page." if pages > 0 else "This is the first page.")
        else:
            self.show_page(page)

    def _annotate(self, classes: dict[tuple[str, int], str]) -> None:
        self.project.annotations.annotate_each(classes, source="gallery", seconds=self._seconds())
        self.status.say(self.project.status)

    def _applies_to(self, shown: SelectionId) -> bool:
        """Return whether an action applies to the selection; if not, display the reason."""
        if shown is None or shown != self.shown:
            self.status.say(_KEY_IGNORED if shown else _NOTHING_SELECTED)
            return False
        return True

    def _seconds(self) -> float:
        seconds, self._selected_at = time.monotonic() - self._selected_at, time.monotonic()
        return seconds

    def _revisit(self, done: bool, verb: str) -> None:
        objects = self.project.annotations.last_edited
        if not done:
            self.status.say(f"Nothing to {verb}.")
        elif not objects:
            self.status.say(f"{verb.capitalize()}: the object is no longer in the mask.")
        else:
            self._select(objects)
            text = f"{len(objects):,} objects" if len(objects) > 1 else "object {1} in {0}".format(*objects[0])
            self.status.say(f"{verb.capitalize()}: {text}.")

    def _select(self, objects: list[ObjectId]) -> None:
        """Show the page of the first object, and select the objects on that page."""
        wanted = set(objects)
        places = [place for place, object_id in enumerate(self._listed) if object_id in wanted]
        if places:
            page = self.pages.page_containing(places[0])
            if page != self._page_number:
                self.show_page(page)
            on_page = self.pages.places(page)
            self.page.select(self.page.selection.of([place - on_page.start for place in places if place in on_page]))

    def _objects(self, page: int) -> list[tuple[str, int]]:
        return [self._listed[place] for place in self.pages.places(page)]

    def _resize(self) -> None:
        """Keep the first object of the page visible when the size of a page changes."""
        if self._page_size == self.page.grid.count:
            return
        first = self._page_number * self._page_size
        self._page_size = self.page.grid.count
        self.show_page(self.pages.page_containing(first))

    def _refresh(self) -> None:
        """Update counts, buttons and frames."""
        project = self.project
        counts = project.annotations.class_counts()
        details = {info.id: count_html(int(counts[info.name])) for info in project.classes}
        self.class_buttons.show(project.classes.scheme, details)
        self.command_bar.show_history()
        self.command_bar.buttons["Accept"].disabled = not project.current_run
        rate = project.annotations.rate()
        text = f"{int(counts.sum()):,} annotated" + ("" if math.isnan(rate) else f" · {rate:.0f} edits per minute")
        first = "Name the first class in the Annotate panel."
        self.progress_text.value = muted(text if len(project.classes) else first)
        self.page.screen.redraw()

    def _predictions_changed(self) -> None:
        self._refresh()
        self.status.say("New predictions. Press g to arrange the gallery by them.")

    def _show_selection(self) -> None:
        selected, number = len(self.page.selection.chosen), len(self._listed)
        self.filter_bar.count_label.value = f"{number:,} object{'' if number == 1 else 's'}"
        self.page_bar.refresh(self.pages, self._page_number, selected)
        self.selection_text.value = muted(f"{selected:,} of {len(self.page.objects):,} on this page")

    def _is_quickly_indexed(self) -> bool:
        """Return whether indexing the objects of all images takes no noticeable time."""
        images = self.project.images
        return sum(math.prod(images[name].shape) for name in images if not images.is_indexed(name)) <= _INDEXED_AT_ONCE


class FilterBar(HBox):
    """Controls of the contents of the gallery: filter, class, order and image.

    Parameters
    ----------
    page : PatchGrid
    on_change : callable
        Called when a filter or the order changes, or when the user asks to arrange the gallery again.

    Attributes
    ----------
    which, class_id, order, image : Dropdown
    count_label : Label
        Number of objects on all pages.
    refresh_button : Button
    """

    def __init__(self, page: PatchGrid, on_change: Callable[[], None]) -> None:
        self.which = _dropdown(_FILTERS, "Filter by annotation", "112px")
        self.class_id = _dropdown([("Any class", 0)], "Filter by class, annotated or predicted", "124px")
        self.order = _dropdown(_ORDERS, "Order", "150px")
        self.image = _dropdown([(ALL_IMAGES, "")], "Filter by image", "124px")
        self.count_label = _spacer(min_width="max-content")
        again = "Arrange again with current labels and predictions (g)"
        self.refresh_button = page.screen.button("refresh", again, on_change)
        controls = [self.which, self.class_id, self.order, self.image]
        super().__init__(
            [*controls, self.refresh_button, self.count_label],
            layout={"align_items": "center", "flex_flow": "row wrap", "width": "100%", "margin": "0 0 4px 0"},
        )
        self._is_listing = False

        def chosen(_: object) -> None:
            if not self._is_listing:
                on_change()
                page.screen.focus()

        for control in controls:
            control.observe(chosen, "value")

    @property
    def query(self) -> GalleryQuery:
        """The chosen filters and order."""
        images = (self.image.value,) if self.image.value else ()
        return GalleryQuery(images, self.which.value, self.class_id.value, self.order.value)

    def list(self, images: Iterable[str], classes: Iterable[ClassInfo], show_all_images: bool) -> None:
        """Set the images and classes that the user can choose.

        Parameters
        ----------
        images : iterable of str
        classes : iterable of ClassInfo
        show_all_images : bool
            Whether to begin with all images instead of only the first one.
        """
        self._is_listing = True
        was_empty = len(self.image.options) == 1
        try:
            set_options(self.image, [(ALL_IMAGES, ""), *((name, name) for name in images)])
            if was_empty and not show_all_images and len(self.image.options) > 1:
                self.image.index = 1
            set_options(self.class_id, [("Any class", 0), *((info.name, info.id) for info in classes)])
        finally:
            self._is_listing = False
        self.image.layout.display = "" if len(self.image.options) > 2 else "none"


class DisplayBar(HBox):
    """Controls for thumbnails: size, surroundings, outlines and depth.

    Parameters
    ----------
    page : PatchGrid
    """

    def __init__(self, page: PatchGrid) -> None:
        button = page.screen.button
        self.outlines = page.screen.toggle("circle-o", "Outlines (o)", page.outlines)
        link((page, "outlines"), (self.outlines, "value"))
        self.depth = page.screen.toggle("clone", "Maximum over the planes of an object (m)")
        is_maximum = (lambda depth: depth == "maximum", lambda maximum: "maximum" if maximum else "plane")
        link((page, "depth"), (self.depth, "value"), is_maximum)
        buttons = [
            button("compress", "Less of the surroundings ([)", partial(page.change_field_of_view, -1)),
            button("expand", "More of the surroundings (])", partial(page.change_field_of_view, 1)),
            button("search-minus", "Smaller thumbnails, more per page (-)", partial(page.change_patch_size, -1)),
            button("search-plus", "Larger thumbnails, fewer per page (+)", partial(page.change_patch_size, 1)),
        ]
        super().__init__([self.depth, self.outlines, *buttons], layout={"flex": "0 0 auto"})


class PageBar(HBox):
    """Controls to turn pages and to select the objects of a page.

    Parameters
    ----------
    page : PatchGrid
    show_page : callable
        Called with the number of the page to show, counted from 0.
    display_bar : DisplayBar
        Displayed at the end of the row.
    """

    def __init__(self, page: PatchGrid, show_page: Callable[[int], None], display_bar: DisplayBar) -> None:
        self._shown = 0
        button = page.screen.button
        self.first = button("angle-double-left", "First page (Home)", lambda: show_page(0))
        self.previous = button("angle-left", "Previous page (p, Page Up)", lambda: show_page(self._shown - 1))
        self.number = BoundedIntText(1, min=1, max=1, tooltip="Page number", layout={"width": "62px"})
        self.of = Label(layout={"width": "auto", "margin": "0 4px"})
        self.next = button("angle-right", "Next page (n, Page Down)", lambda: show_page(self._shown + 1))
        self.last = button("angle-double-right", "Last page (End)", lambda: show_page(self.number.max - 1))
        self.all = button("", "Select all objects of this page (Ctrl+A)", page.select_all, "All")
        self.invert_button = button("", "Invert the selection (i)", page.select_inverse, "Invert")
        self.none = button("", "Clear the selection (Escape)", page.clear_selection, "None")
        for text_button in (self.all, self.invert_button, self.none):
            text_button.layout = {"width": "auto", "padding": "0 10px", "margin": "0 2px 0 0", "flex": "0 0 auto"}
        turning = [self.first, self.previous, self.number, self.of, self.next, self.last]
        selecting = [self.all, self.invert_button, self.none]
        super().__init__(
            [*turning, Label(layout={"width": "8px"}), *selecting, _spacer(), display_bar],
            layout={"align_items": "center", "flex_flow": "row wrap", "width": "100%", "margin": "4px 0 0 0"},
        )

        def typed(change: dict[str, int]) -> None:
            if change["new"] - 1 != self._shown:
                show_page(change["new"] - 1)
                page.screen.focus()

        self.number.observe(typed, "value")

    def refresh(self, pages: Pagination, shown: int, selected: int) -> None:
        """Display the number of the page, and enable the buttons that apply."""
        self._shown = shown
        self.number.max, self.number.value = pages.count, shown + 1
        self.of.value = f"of {pages.count:,}"
        self.first.disabled = self.previous.disabled = shown == 0
        self.last.disabled = self.next.disabled = shown == pages.count - 1
        self.all.disabled = self.invert_button.disabled = pages.total == 0
        self.none.disabled = selected == 0


def _spacer(min_width: str = "0") -> Label:
    """Return a right-aligned label that fills the rest of a row."""
    return Label(layout={"flex": "1 1 auto", "min_width": min_width, "justify_content": "flex-end"})


def _dropdown(options: Iterable[object], tooltip: str, width: str) -> Dropdown:
    return Dropdown(
        options=options, tooltip=tooltip, layout={"width": width, "flex": "0 0 auto", "margin": "0 4px 0 0"}
    )
