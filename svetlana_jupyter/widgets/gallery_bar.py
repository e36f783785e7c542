"""The controls round a page of patches: what is shown above it; leafing, selecting and looks below."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ipywidgets import BoundedIntText, Button, Dropdown, HBox, Label, ToggleButton
from traitlets import link

from svetlana_jupyter.core.gallery import Pagination, Wanted
from svetlana_jupyter.widgets.tools import ICON_LAYOUT, icon_button

if TYPE_CHECKING:
    from svetlana_jupyter.core.classes import ClassInfo
    from svetlana_jupyter.widgets.page import PatchGrid

ALL_IMAGES = "All images"
_FILTERS = (
    ("All objects", "all"),
    ("Unlabelled", "unlabelled"),
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

    def wanted(self, seed: int) -> Wanted:
        """Return what is chosen."""
        return Wanted(self.images, self.which.value, self.class_id.value, self.order.value, seed)

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
