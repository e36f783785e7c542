"""Pages of thumbnails with a filter and an order.

The objects are those that the filter selects, or a list that another view has made.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from ipywidgets import BoundedIntText, Dropdown, HBox, Label, VBox
from traitlets import link

from svetlana_jupyter.core.display.selection import GalleryQuery, Pagination, build_gallery_table, filter_and_sort
from svetlana_jupyter.widgets.components import set_options
from svetlana_jupyter.widgets.gallery.grid import PatchGrid
from svetlana_jupyter.widgets.gallery.thumbnail_loader import default_crop_side
from svetlana_jupyter.widgets.object_filter import STATUS_TITLES, ObjectFilter
from svetlana_jupyter.widgets.object_indexing import ObjectIndexer
from svetlana_jupyter.widgets.panel import Watcher, catch_errors
from svetlana_jupyter.widgets.scheduling import Debounce
from svetlana_jupyter.widgets.viewer.viewer_model import shared_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from svetlana_jupyter.core.classes import ClassInfo
    from svetlana_jupyter.project.project import Project
    from svetlana_jupyter.widgets.components import StatusLine

ALL_IMAGES = "All images"
LISTED = "listed"  # filter: the list of objects of the shared model
_ORDERS = (
    ("Random", "random"),
    ("By class", "class"),
    ("Least certain first", "uncertain"),
    ("Most certain first", "certain"),
    ("Largest first", "largest"),
    ("Smallest first", "smallest"),
    ("As in the image", "position"),
)
_INDEXED_AT_ONCE = 10**8  # mask pixels up to which the gallery begins with all images
_NO_MATCH = "No object matches. Change the filters above."
_PAUSE = 0.25  # seconds after which the gallery turns to the page of an object that another view has selected


class GalleryView(VBox):
    """Filtered and sorted pages of thumbnails.

    Objects keep their places while they are annotated; they are filtered and sorted again when the user asks for it.

    Parameters
    ----------
    project : Project
    status : StatusLine
        Displays errors, and the progress while objects are indexed.
    size : tuple of int
        Height and initial width of the grid, in CSS pixels.
    max_width : int
    report : callable
        Called with a sentence if a key had no effect, otherwise with "".

    Attributes
    ----------
    page : PatchGrid
    filter_bar : FilterBar
    page_bar : PageBar
    display_bar : DisplayBar
    listed : list of (str, int)
        The objects of all pages.
    page_number : int
        The displayed page, counted from 0.
    on_page : callable
        Called after other objects are shown.
    """

    def __init__(
        self,
        project: Project,
        status: StatusLine,
        size: tuple[int, int],
        max_width: int,
        report: Callable[[str], object],
    ) -> None:
        self.project, self.shared, self._report = project, shared_model(project), report
        self.listed: list[tuple[str, int]] = []
        self.page_number = 0
        self.on_page: Callable[[], None] = lambda: None
        self._is_shown = True
        self._crop_side = 1.0
        self._indexing = ObjectIndexer(project, status)
        self.page = PatchGrid(project, size, max_width)
        self._page_size = self.page.grid.count
        self.filter_bar = FilterBar(self.page, catch_errors(self.rearrange, status))
        self.display_bar = DisplayBar(self.page)
        self.page_bar = PageBar(self.page, catch_errors(self.turn_to, status), self.display_bar)
        super().__init__([self.filter_bar, self.page, self.page_bar], layout={"max_width": f"{max_width}px"})
        self._moves = self._key_actions()
        self.page.turn_page = catch_errors(self._turn_page, status)
        self._reveal_later = Debounce(catch_errors(self.reveal, status), _PAUSE)
        self._watcher = Watcher(status)
        self._watcher.observe(self.page, self._show_selection, "selection")
        self._watcher.observe(self.page, self._resize, "columns", "size")
        self._watcher.observe(self.shared, self._follow_selection, "selection")
        self._watcher.observe(self.shared, self._show_list, "listed")
        self._watcher.observe(self.shared, self._follow_filter, "filter")
        self._watcher.observe(project, self.rearrange, "images_version")
        versions = "annotations_version", "classes_version", "predictions_version", "current_run"
        self._watcher.observe(project, self._redraw, *versions)
        self._begin()

    def _begin(self) -> None:
        """Show the list or the filter that another view has chosen before."""
        listed, chosen = self.shared.listed[0], self.shared.filter
        if listed or chosen.is_active:
            images, classes = self.project.images, self.project.classes.scheme
            self.filter_bar.list(images, classes, self._is_quickly_indexed(), listed)
            if listed:
                self.filter_bar.show_list(listed)
            else:
                self.filter_bar.choose(chosen)

    @property
    def pages(self) -> Pagination:
        """Division of the objects into pages."""
        return Pagination(len(self.listed), self.page.grid.count)

    @property
    def is_shown(self) -> bool:
        """Whether the gallery is on the page; a hidden one neither draws nor turns pages."""
        return self._is_shown

    @is_shown.setter
    def is_shown(self, shown: bool) -> None:
        self._is_shown = self.page.is_shown = shown
        if shown:
            self.page.screen.redraw()
            self.reveal()

    def _redraw(self) -> None:
        if self._is_shown:
            self.page.screen.redraw()

    def rearrange(self) -> None:
        """Filter and sort the objects again, and show the first page."""
        project = self.project
        has_volumes = any(len(entry.shape) == 3 for entry in project.images.values())
        self.display_bar.depth.layout.display = "" if has_volumes else "none"
        if self.filter_bar.which.value != LISTED:
            self.shared.listed = "", ()
            self.shared.filter = self.filter_bar.filter
        self.filter_bar.list(project.images, project.classes.scheme, self._is_quickly_indexed(), self.shared.listed[0])
        names = self.filter_bar.query.images or tuple(project.images)
        self._indexing.run_when_indexed(
            names, lambda: self._arrange(names), "The gallery is shown afterwards.", needs_all=False
        )
        if self._indexing.is_waiting:
            self.listed = []
            self._show_page(0)

    def turn_to(self, page: int) -> None:
        """Show a page, and deselect what is not on it."""
        had_selection = bool(self.page.selection.chosen)
        self._show_page(page)
        if had_selection and not self.page.selection.chosen:
            self.shared.selection = ()

    def reveal(self) -> None:
        """Turn to the page of the selection, unless part of it is on this page."""
        if self.shared.selection and not self.page.selection.chosen:
            wanted = set(self.shared.selection)
            place = next((place for place, object_id in enumerate(self.listed) if object_id in wanted), None)
            if place is not None:
                self._show_page(self.pages.page_containing(place))

    def move(self, key: str) -> bool:
        """Turn pages or change the view; return whether the key does so."""
        if key in self._moves:
            self._moves[key]()
        return key in self._moves

    def close(self) -> None:
        """Stop following the project, and remove the view."""
        self._watcher.close()
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
            "Home": partial(self.turn_to, 0),
            "End": lambda: self.turn_to(self.pages.count - 1),
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
        self._crop_side = default_crop_side(table)
        if self.filter_bar.which.value == LISTED:
            self.listed = [each for each in self.shared.listed[1] if each[0] in objects]
        else:
            rows = table.iloc[filter_and_sort(table, self.filter_bar.query)]
            self.listed = list(zip(rows["image"].tolist(), rows["object"].tolist()))
        self._show_page(0)

    def _show_page(self, page: int) -> None:
        self.page_number = self.pages.nearest(page)
        message = "The objects are being indexed." if self._indexing.is_waiting else _NO_MATCH
        shown, following = (self._objects(self.page_number + ahead) for ahead in (0, 1))
        self.page.show(shown, self._crop_side, following, "" if self.listed else message)
        self._show_selection()
        self.on_page()
        self._report("")

    def _show_list(self) -> None:
        """Show the list that another view has made, or all objects without one."""
        if self.shared.listed[0]:
            self.filter_bar.show_list(self.shared.listed[0])
        elif self.filter_bar.which.value == LISTED:
            self.filter_bar.show_list("")

    def _follow_filter(self) -> None:
        """Show what the filter of all views selects."""
        if self.shared.filter != self.filter_bar.filter:
            self.filter_bar.choose(self.shared.filter)

    def _turn_page(self, pages: int) -> None:
        page = self.page_number + pages
        if page != self.pages.nearest(page):
            self._report("This is the last page." if pages > 0 else "This is the first page.")
        else:
            self.turn_to(page)

    def _follow_selection(self) -> None:
        if self._is_shown and self.shared.selection and not self.page.selection.chosen:
            self._reveal_later.restart()

    def _objects(self, page: int) -> list[tuple[str, int]]:
        return [self.listed[place] for place in self.pages.places(page)]

    def _resize(self) -> None:
        """Keep the selection or the first object when the size of a page changes."""
        if self._page_size == self.page.grid.count:
            return
        first, had_selection = self.page_number * self._page_size, bool(self.page.selection.chosen)
        self._page_size = self.page.grid.count
        self._show_page(self.pages.page_containing(first))
        if had_selection:
            self.reveal()

    def _show_selection(self) -> None:
        number = len(self.listed)
        self.filter_bar.count_label.value = f"{number:,} object{'' if number == 1 else 's'}"
        self.page_bar.refresh(self.pages, self.page_number, len(self.page.selection.chosen))

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
        self.which = _dropdown(STATUS_TITLES, "Filter by annotation")
        self.class_id = _dropdown([("Any class", 0)], "Filter by class, annotated or predicted")
        self.order = _dropdown(_ORDERS, "Order")
        self.image = _dropdown([(ALL_IMAGES, "")], "Filter by image")
        self.count_label = _spacer(min_width="max-content")
        again = "Arrange again with current labels and predictions (g)"
        self.refresh_button = page.screen.button("refresh", again, on_change)
        controls = [self.which, self.class_id, self.image, self.order]
        super().__init__(
            [*controls, self.refresh_button, self.count_label],
            layout={"align_items": "center", "flex_flow": "row wrap", "width": "100%", "margin": "0 0 4px 0"},
        )
        self.add_class("sv-filter-bar")
        self._is_listing, self._on_change = False, on_change
        self._order = self.order.value  # the last one that was not that of a list

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
        status: Any = "all" if self.which.value == LISTED else self.which.value
        order: Any = self._order if self.order.value == LISTED else self.order.value
        return GalleryQuery(images, status, self.class_id.value, order)

    @property
    def filter(self) -> ObjectFilter:
        """The chosen filter of all views; the images are the gallery's own."""
        return ObjectFilter(self.query.status, self.class_id.value)

    def choose(self, chosen: ObjectFilter) -> None:
        """Choose a filter."""
        self._is_listing = True
        self.which.value, self.class_id.value = chosen.status, chosen.class_id
        self._is_listing = False
        self._on_change()

    def list(
        self, images: Iterable[str], classes: Iterable[ClassInfo], show_all_images: bool, listed: str = ""
    ) -> None:
        """Set the images and classes that the user can choose.

        Parameters
        ----------
        images : iterable of str
        classes : iterable of ClassInfo
        show_all_images : bool
            Whether to begin with all images instead of only the first one.
        listed : str
            Title of the list of objects that can be chosen instead of a filter; "" for none.
        """
        self._is_listing = True
        was_empty = len(self.image.options) == 1
        try:
            set_options(self.image, [(ALL_IMAGES, ""), *((name, name) for name in images)])
            if was_empty and not show_all_images and len(self.image.options) > 1:
                self.image.index = 1
            set_options(self.which, [*STATUS_TITLES, *([(listed, LISTED)] if listed else [])])
            set_options(self.class_id, [("Any class", 0), *((info.name, info.id) for info in classes)])
            self._name_order()
        finally:
            self._is_listing = False
        self.image.layout.display = "" if len(self.image.options) > 2 else "none"

    def show_list(self, title: str) -> None:
        """Choose the list of objects with a title, or all objects without a title."""
        self._is_listing = True
        set_options(self.which, [*STATUS_TITLES, *([(title, LISTED)] if title else [])])
        self.which.value = LISTED if title else "all"
        self._name_order()
        self._is_listing = False
        self._on_change()

    def _name_order(self) -> None:
        """Name the order of a list, which the user cannot change, or offer all orders."""
        is_list = self.which.value == LISTED
        if self.order.value != LISTED:
            self._order = self.order.value
        set_options(self.order, [("As in the list", LISTED)] if is_list else _ORDERS)
        self.order.disabled = is_list
        if not is_list:
            self.order.value = self._order


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
        for button_of_wide_pages in (self.first, self.last, self.invert_button, self.none):
            button_of_wide_pages.add_class("sv-wide")  # keys do the same on narrow ones
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
        self._shown = min(self._shown, pages.count - 1)  # a smaller maximum changes the value, which turns no page
        self.number.max = pages.count
        self._shown = shown
        self.number.value = shown + 1
        self.of.value = f"of {pages.count:,}"
        self.first.disabled = self.previous.disabled = shown == 0
        self.last.disabled = self.next.disabled = shown == pages.count - 1
        self.all.disabled = self.invert_button.disabled = pages.total == 0
        self.none.disabled = selected == 0


def _spacer(min_width: str = "0") -> Label:
    """Return a right-aligned label that fills the rest of a row."""
    return Label(layout={"flex": "1 1 auto", "min_width": min_width, "justify_content": "flex-end"})


def _dropdown(options: Iterable[object], tooltip: str) -> Dropdown:
    """Return a dropdown as wide as its longest option."""
    layout = {"width": "max-content", "max_width": "200px", "flex": "0 0 auto", "margin": "0 4px 0 0"}
    return Dropdown(options=options, tooltip=tooltip, layout=layout)
