"""Widgets shared by several panels, and helpers that return small pieces of HTML."""

from __future__ import annotations

import base64
import html
import logging
import re
from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, Box, Button, ColorPicker, Dropdown, FloatProgress, HBox, Text, VBox

from svetlana_jupyter.core.classes import ClassInfo
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.widgets.call_names import name_controls
from svetlana_jupyter.widgets.scheduling import KeyPause, Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ipywidgets import Widget
    from traitlets import Bunch

    from svetlana_jupyter.project.jobs import JobState

FLAG_TEXTS = {"ambiguous": "ambiguous", "bad_segmentation": "badly segmented", "skip": "skipped"}

logger = logging.getLogger(__name__)


class StatusLine(HTML):
    """Status line for the result of the last action, or for its error.

    Parameters
    ----------
    hides : bool
        Whether the line takes no space while it is empty.

    Attributes
    ----------
    text : str
        The message without markup.
    """

    def __init__(self, hides: bool = False) -> None:
        super().__init__(layout={"width": "100%", "margin": "0"})
        self._hides = hides
        self._draw_soon = KeyPause(lambda: self.say(self.text))
        self.say("")

    def warn(self, text: str) -> None:
        """Show an error or a warning."""
        self.say(text, "sv-status sv-trouble")

    def say_soon(self, text: str) -> None:
        """Show the result of a key, once the user has stopped typing."""
        self.text = text
        self._draw_soon.restart()

    def say(self, text: str, css_class: str = "sv-status") -> None:
        """Show the result of an action."""
        self._draw_soon.cancel()
        self.text = text = name_controls(text)
        self.layout.display = "none" if self._hides and not text else None
        self.value = f'<div class="{css_class}" role="status" aria-live="polite">{prose_html(text) or "&nbsp;"}</div>'


class ClassButton(HBox):
    """Row of a class: color, button with the name, key, and a detail such as a count.

    Parameters
    ----------
    info : ClassInfo
    act : callable
        Called with the class name when the button is pressed.
    recolor : callable
        Called with the class name and ``"#rrggbb"`` when the user chooses another color.
    edit : callable, optional
        Called with the class name when the user wants to rename or merge the class.
    """

    def __init__(
        self,
        info: ClassInfo,
        act: Callable[[str], None],
        recolor: Callable[[str, str], None],
        edit: Callable[[str], None] | None = None,
    ) -> None:
        self.info = info
        self.picker = ColorPicker(concise=True, value=info.color, layout={"width": "30px", "margin": "2px 4px 2px 0"})
        self.button = button(lambda: act(self.info.name), flex="1 1 auto", min_width="60px", margin="2px 0")
        self.button.add_class("sv-class-button")
        self._key = HTML(layout={"width": "24px", "margin": "2px 0 2px 4px"})
        at_end: dict[str, Any] = {"flex": "0 0 auto", "margin": "2px 0 2px 4px"}
        self._detail = HTML(layout={"width": "auto", "min_width": "44px", **at_end})
        self.edit = button(lambda: edit and edit(self.info.name), icon="pencil", look="quiet", width="20px", **at_end)
        children = [self.picker, self.button, self._key, self._detail, self.edit]
        super().__init__(children[: 5 if edit else 4], layout={"width": "100%", "align_items": "center"})
        self.layout.flex = "0 0 auto"
        # The picker also changes when the project recolors the class; only the user's choice is passed on.
        self.picker.observe(
            lambda change: recolor(self.info.name, change["new"]) if change["new"] != self.info.color else None, "value"
        )

    def show(self, info: ClassInfo, detail: str, chosen: bool, key: str, visible: bool) -> None:
        """Update the row; ``detail`` is HTML, ``key`` is the key that assigns the class."""
        self.info = info
        self.picker.value = info.color
        self.picker.tooltip = f"Color of {info.name}"
        self.button.description = info.name
        self.button.tooltip = f"{info.name} (key {info.key})" if info.key else info.name
        self.edit.tooltip = f"Rename {info.name}, or merge it into another class"
        self._key.value = keycap(key) if key else ""
        self._detail.value = detail
        self.layout.display = None if visible else "none"
        (self.button.add_class if chosen else self.button.remove_class)("sv-chosen")


class ClassButtons(VBox):
    """One row per class, and a search field if there are more classes than keys.

    Rows are reused while classes are added, renamed and recolored.

    Parameters
    ----------
    act, recolor, edit : callable
        As for `ClassButton`.
    on_found : callable, optional
        Called with the name of the class that the user searched for. Without this callback, there is no search field.

    Attributes
    ----------
    find : Text
        The search field; Enter selects the first match.
    lines : VBox
        The rows.
    """

    def __init__(
        self,
        act: Callable[[str], None],
        recolor: Callable[[str, str], None],
        edit: Callable[[str], None] | None = None,
        on_found: Callable[[str], None] | None = None,
    ) -> None:
        self.find = Text(placeholder="find a class …  press /", layout={"width": "100%", "margin": "2px 0"})
        self.find.add_class("sv-find")
        self.find.observe(lambda _: self._draw(), "value")
        on_enter(self.find, self._take_first_match, once=True)
        self.lines = VBox(layout={"width": "100%", "max_height": "368px", "overflow": "hidden auto"})
        super().__init__([self.find, self.lines], layout={"width": "100%"})
        self._callbacks = act, recolor, edit
        self._on_found = on_found
        self._infos: list[ClassInfo] = []
        self._details: Mapping[int, str] = {}
        self._chosen = 0
        self._rows: dict[int, ClassButton] = {}

    def show(self, classes: Iterable[ClassInfo], details: Mapping[int, str], chosen: int = 0) -> None:
        """Update the rows.

        Parameters
        ----------
        classes : iterable of ClassInfo
        details : mapping of int to str
            HTML by class id.
        chosen : int
            Id of the class of the selected object; 0 if it has no class.
        """
        self._infos, self._details, self._chosen = list(classes), details, chosen
        if [info.id for info in self._infos] != list(self._rows):
            rows = {info.id: self._rows.get(info.id) or ClassButton(info, *self._callbacks) for info in self._infos}
            self._rows = rows
            self.lines.children = tuple(self._rows.values())
        self._draw()

    @property
    def find_is_needed(self) -> bool:
        """Whether a class has no key, so that it is found by its name."""
        return self._on_found is not None and any(not info.key for info in self._infos)

    def row(self, class_id: int) -> ClassButton:
        """Return the row of a class."""
        return self._rows[class_id]

    def matches(self) -> list[ClassInfo]:
        """Return the classes whose names contain the typed text.

        Names that start with the text come first.
        """
        typed = self.find.value.strip().casefold()
        names = [info for info in self._infos if typed in info.name.casefold()]
        return sorted(names, key=lambda info: not info.name.casefold().startswith(typed))

    def _take_first_match(self) -> None:
        typed = self.find.value.strip()
        if self._on_found is not None and typed:
            self._on_found(next((info.name for info in self.matches()), typed))  # without a match, an error names it

    def _draw(self) -> None:
        searching, matches = bool(self.find.value.strip()), self.matches()
        self.find.layout.display = None if self.find_is_needed else "none"
        for info in self._infos:
            # While searching, the only key that assigns a class is Enter, for the first match.
            first = "⏎" if [info] == matches[:1] else ""
            self._rows[info.id].show(
                info,
                self._details.get(info.id, ""),
                chosen=info.id == self._chosen,
                key=first if searching else info.key,
                visible=not searching or info in matches,
            )


class JobProgress(HBox):
    """Progress bar of a job, with the remaining time and a Stop button.

    The widget keeps its space while no job runs.

    Parameters
    ----------
    stop : callable
        Called when the user presses Stop.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.bar = FloatProgress(
            min=0.0, max=1.0, layout={"width": "120px", "flex": "0 0 auto", "margin": "0 2px 0 10px"}
        )
        self.text = HTML(layout={"flex": "1 1 0", "min_width": "0", "margin": "2px 8px"})
        tooltip = "Stop and keep the best result so far"
        self.stop = button(stop, "Stop", "stop", tooltip, width="90px", flex="0 0 auto")
        self._job: JobState | None = None
        # A job may report many times per second; more than ten redraws per second would only load the browser.
        self._throttle = Throttle(self._draw, interval=0.1)
        layout = {"flex": "1 1 320px", "min_width": "320px", "align_items": "center", "visibility": "hidden"}
        super().__init__([self.bar, self.text, self.stop], layout=layout)

    def show(self, job: JobState | None) -> None:
        """Show the state of the project's job; hide everything if there is none."""
        self._job = job
        self._throttle.request()

    def _draw(self) -> None:
        self.layout.visibility = "visible" if self._job else "hidden"
        if job := self._job:
            self.bar.value = job.done / job.total if job.total else 0.0
            self.text.value = f'<div class="sv-two-lines">{muted(job.message)}</div>'
            self.stop.disabled = job.stopping


def button(
    act: Callable[[], object], text: str = "", icon: str = "", tooltip: str = "", look: str = "", **layout: Any
) -> Button:
    """Return a button that calls ``act``.

    Parameters
    ----------
    act : callable
    text, icon, tooltip : str
    look : str
        "primary" for the main action, "quiet" for an icon without a frame.
    **layout : str
        CSS properties such as ``width``.
    """
    style = look if look == "primary" else ""
    made = Button(description=text, icon=icon, tooltip=tooltip, button_style=style, layout=layout)
    made.on_click(lambda _: act())
    return made.add_class(f"sv-{look}") if look else made


def on_enter(field: Text, act: Callable[[], None], once: bool = False) -> None:
    """Call ``act`` when the user presses Enter in a text field.

    Parameters
    ----------
    field : Text
    act : callable
    once : bool
        Whether Enter empties the field. The page does so (``key_guard.js``), because a kernel that empties a field
        may delete what was typed in the meantime.
    """
    if once:
        field.add_class("sv-once")
    field.on_msg(lambda _, content, __: act() if content.get("event") == "submit" else None)


def handle_in_order(widget: Widget) -> None:
    """Handle the messages of a widget, and of all in it, in the main thread.

    ipykernel 7.4 handles the messages of each widget in the thread that wrote to it last: a click on a button could
    overtake the text that was typed before it.

    Parameters
    ----------
    widget : Widget
        With its present and future children.
    """
    if widget.comm is not None:
        widget.comm._reply_subshell_for = lambda *_: None  # asked by ipykernel for the thread; None is the main one
    if isinstance(widget, Box):
        widget.observe(_order_children, "children")
        for child in widget.children:
            handle_in_order(child)


def _order_children(change: Bunch) -> None:
    for child in set(change["new"]) - set(change["old"]):
        handle_in_order(child)


def set_options(dropdown: Dropdown, options: Sequence[Any]) -> None:
    """Replace the options of a dropdown; keep its value if it remains an option.

    Parameters
    ----------
    dropdown : Dropdown
    options : sequence of values, or of pairs (label, value)
        The first option becomes the value if the current value is no longer an option.
    """
    if list(dropdown.options) == list(options):
        return
    value = dropdown.value
    values = [option[1] if isinstance(option, tuple) else option for option in options]
    dropdown.options = options
    dropdown.value = value if value in values else next(iter(values), None)


def muted(text: str) -> str:
    """Return text as HTML in the secondary color; calls become the names of controls."""
    return f'<span class="sv-muted">{html.escape(name_controls(text))}</span>'


def heading(text: str) -> HTML:
    """Return the heading of a section."""
    return HTML(f"<h4>{html.escape(text)}</h4>", layout={"margin": "6px 0 0 0"})


def prose_html(text: str) -> str:
    """Return a sentence as escaped HTML, with names of controls, or calls as code.

    >>> prose_html("Call `project.objects('A1')` if a < b.")
    'Call <code>project.objects(&#x27;A1&#x27;)</code> if a &lt; b.'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(name_controls(text)))


def error_html(problem: str) -> str:
    """Return an error message as HTML that screen readers announce at once."""
    return f'<div class="sv-status sv-trouble" role="alert">{prose_html(problem)}</div>'


def error_text(error: Exception, summary: str) -> str:
    """Return the message of an error for the user.

    A `SvetlanaError` has a message for the user. Any other error is logged, and its message is returned after
    ``summary``.
    """
    if isinstance(error, SvetlanaError):
        return str(error)
    logger.error(summary, exc_info=error)
    return f"{summary}: {error}"


def no_images_hint() -> HTML:
    """Return the hint for a project without images."""
    code = '<code>project.add_images("images/{well}.tif", masks="masks/{well}.tif")</code>'
    text = f"There are no images yet. Add some in the Images tab of the workspace, or with {code}."
    hint = f'<div class="sv-empty">{text}</div>'
    return HTML(hint, layout={"width": "100%", "margin": "0"})


def keycap(key: str) -> str:
    """Return the HTML of a keyboard key (``<kbd>``)."""
    return f"<kbd>{html.escape(key)}</kbd>"


def count_html(number: int) -> str:
    """Return a number of objects as HTML, right-aligned in digits of equal width."""
    return f'<div class="sv-number">{number:,}</div>'


def fraction_bar(fraction: float, color: str) -> str:
    """Return a fraction as an HTML bar in the color of its class, with a percentage."""
    width = 100 * min(max(fraction, 0.0), 1.0)
    bar = f'<span class="sv-bar"><span style="width:{width:.1f}%;background:{html.escape(color)}"></span></span>'
    return f'<div class="sv-number">{bar}<span class="sv-percent">{width:.0f} %</span></div>'


def color_swatch(color: str) -> str:
    """Return a small square in the color of a class, as HTML."""
    return f'<span class="sv-swatch" style="background:{html.escape(color)}"></span>'


def image_html(png: bytes, text: str = "") -> str:
    """Return a PNG as an ``<img>`` element with an alternative text."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{data}">'


def figure_html(png: bytes, caption: str) -> str:
    """Return a PNG with its caption as a ``<figure>`` element."""
    return f"<figure>{image_html(png, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"


class Markup(str):
    """Text that is already HTML; `html_table` does not escape it."""

    __slots__ = ()


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]], current: int | None = None) -> str:
    """Return an HTML table; every cell but `Markup` is escaped.

    Parameters
    ----------
    header : sequence of str
    rows : iterable of sequences
        Cells: text, numbers (right-aligned, with their title), or a ``ClassInfo``, shown as its color and name.
    current : int, optional
        Position of the row to highlight.
    """
    rows = list(rows)
    is_number = [isinstance(value, int | float) for value in (rows[0] if rows else header)]
    starts = ['<th class="sv-number">' if number else "<th>" for number in is_number]
    head = "".join(f"{start}{html.escape(title)}</th>" for start, title in zip(starts, header))
    body = "".join(
        ('<tr class="sv-current">' if position == current else "<tr>") + "".join(map(_cell, row)) + "</tr>"
        for position, row in enumerate(rows)
    )
    return f'<table class="sv-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(value: object) -> str:
    if isinstance(value, Markup):
        return f'<td class="sv-nowrap">{value}</td>'
    if isinstance(value, ClassInfo):
        return f"<td>{color_swatch(value.color)}{html.escape(value.name)}</td>"
    if isinstance(value, int | float):
        return f'<td class="sv-number">{format(value, "," if isinstance(value, int) else ".3g")}</td>'
    return f"<td>{html.escape(str(value))}</td>"


def side_by_side(*parts: str) -> str:
    """Return HTML that shows the parts next to each other; each scrolls separately."""
    return '<div class="sv-side">' + "".join(f"<div>{part}</div>" for part in parts) + "</div>"
