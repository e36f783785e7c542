"""The parts that several panels are put together from, and the small pieces of HTML they show."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ipywidgets import HTML, Button, ColorPicker, FloatProgress, HBox, Text, VBox

from svetlana_jupyter.core.classes import ClassInfo
from svetlana_jupyter.widgets.scheduling import Throttle

if TYPE_CHECKING:
    from svetlana_jupyter.project.jobs import JobState


class StatusLine(HTML):
    """One line that says what was just done, or what went wrong.

    Parameters
    ----------
    hides : bool
        Take no place while there is nothing to say.
    """

    def __init__(self, hides: bool = False) -> None:
        super().__init__(layout={"width": "100%", "margin": "0"})
        self._hides = hides
        self.text = ""
        self.say("")

    def say(self, text: str) -> None:
        """Show what was done."""
        self._show(text, "sv-status")

    def warn(self, text: str) -> None:
        """Show what went wrong."""
        self._show(text, "sv-status sv-trouble")

    def _show(self, text: str, look: str) -> None:
        self.text = text
        self.layout.display = "none" if self._hides and not text else None
        self.value = f'<div class="{look}" role="status" aria-live="polite">{html.escape(text) or "&nbsp;"}</div>'


class ClassButton(HBox):
    """One class: its colour, a button with its name, its key, and something said about it.

    Parameters
    ----------
    info : ClassInfo
    act : callable
        Called with the class name when the button is pressed.
    recolor : callable
        Called with the class name and ``"#rrggbb"`` when a person picks another colour.
    edit : callable, optional
        Called with the class name when a person wants to rename or merge it.
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
        self.button = Button(layout={"flex": "1 1 auto", "min_width": "60px", "margin": "2px 0"})
        self.button.add_class("sv-class-button")
        self._key = HTML(layout={"width": "26px", "margin": "2px 0 2px 6px"})
        self._detail = HTML(
            layout={"width": "auto", "min_width": "44px", "flex": "0 0 auto", "margin": "2px 0 2px 4px"}
        )
        parts = [self.picker, self.button, self._key, self._detail]
        if edit is not None:
            self.edit = Button(icon="pencil", layout={"width": "24px", "flex": "0 0 auto", "margin": "2px 0 2px 4px"})
            self.edit.add_class("sv-quiet")
            self.edit.on_click(lambda _: edit(self.info.name))
            parts.append(self.edit)
        super().__init__(parts, layout={"width": "100%", "align_items": "center", "flex": "0 0 auto"})
        self.button.on_click(lambda _: act(self.info.name))
        # The picker also changes when the project recolours the class; only a person's choice is passed on.
        self.picker.observe(
            lambda change: recolor(self.info.name, change["new"]) if change["new"] != self.info.color else None, "value"
        )

    def show(self, info: ClassInfo, detail: str, chosen: bool, key: str, visible: bool) -> None:
        """Update in place; ``detail`` is HTML, ``key`` the key that gives this class now."""
        self.info = info
        self.picker.value = info.color
        self.picker.tooltip = f"Colour of {info.name}"
        self.button.description = info.name
        self.button.tooltip = f"{info.name} (key {info.key})" if info.key else info.name
        self._key.value = keycap(key) if key else ""
        self._detail.value = detail
        self.layout.display = None if visible else "none"
        (self.button.add_class if chosen else self.button.remove_class)("sv-chosen")
        if len(self.children) > 4:
            self.edit.tooltip = f"Rename {info.name}, or merge it into another class"


class ClassButtons(VBox):
    """A row for each class, kept while classes are added, renamed and recoloured.

    Once keys no longer reach every class, a field finds one by its name.

    Parameters
    ----------
    act, recolor, edit : callable
        As for `ClassButton`.
    found : callable, optional
        Called with the name of a class that was found by typing; without it there is no such field.

    Attributes
    ----------
    find : Text
        Enter in it takes the class whose row says so.
    lines : VBox
        The rows.
    """

    def __init__(
        self,
        act: Callable[[str], None],
        recolor: Callable[[str, str], None],
        edit: Callable[[str], None] | None = None,
        found: Callable[[str], None] | None = None,
    ) -> None:
        self.find = Text(placeholder="find a class …  press /", layout={"width": "100%", "margin": "2px 0"})
        self.find.add_class("sv-find")
        self.find.observe(lambda _: self._draw(), "value")
        self.find.on_msg(lambda _, content, __: self._entered() if content.get("event") == "submit" else None)
        self.lines = VBox(layout={"width": "100%", "max_height": "368px", "overflow": "hidden auto"})
        super().__init__([self.find, self.lines], layout={"width": "100%"})
        self._act, self._recolor, self._edit, self._found = act, recolor, edit, found
        self._infos: list[ClassInfo] = []
        self._details: Mapping[int, str] = {}
        self._chosen = 0
        self._rows: dict[int, ClassButton] = {}

    def show(self, classes: Iterable[ClassInfo], details: Mapping[int, str], chosen: int = 0) -> None:
        """Show the classes, what is said about each (HTML by class id), and which one the object has (0: none)."""
        self._infos, self._details, self._chosen = list(classes), details, chosen
        if [info.id for info in self._infos] != list(self._rows):
            kept = self._rows
            self._rows = {
                info.id: kept.get(info.id) or ClassButton(info, self._act, self._recolor, self._edit)
                for info in self._infos
            }
            self.lines.children = tuple(self._rows.values())
        self._draw()

    def row(self, class_id: int) -> ClassButton:
        """Return the row of a class."""
        return self._rows[class_id]

    def matches(self) -> list[ClassInfo]:
        """Return the classes with the typed words in their names, those that begin with them first."""
        typed = self.find.value.strip().casefold()
        names = [info for info in self._infos if typed in info.name.casefold()]
        return sorted(names, key=lambda info: not info.name.casefold().startswith(typed))

    def _entered(self) -> None:
        matches = self.matches()
        if self._found is not None and matches and self.find.value.strip():
            self.find.value = ""
            self._found(matches[0].name)

    def _draw(self) -> None:
        searching, matches = bool(self.find.value.strip()), self.matches()
        needed = self._found is not None and any(not info.key for info in self._infos)
        self.find.layout.display = None if needed else "none"
        for info in self._infos:
            key = info.key
            if searching:
                key = "⏎" if [info] == matches[:1] else ""
            self._rows[info.id].show(
                info,
                self._details.get(info.id, ""),
                chosen=info.id == self._chosen,
                key=key,
                visible=not searching or info in matches,
            )


class JobProgress(HBox):
    """How far a job is, how long it will still take, and its Stop; holds its place when nothing runs."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.bar = FloatProgress(min=0.0, max=1.0, layout={"width": "180px", "flex": "0 0 auto", "height": "18px"})
        self.text = HTML(layout={"flex": "1 1 0", "min_width": "0", "margin": "2px 8px"})
        self.stop = Button(description="Stop", icon="stop", tooltip="Stop and keep what is done")
        self.stop.layout = {"width": "90px", "flex": "0 0 auto"}
        self.stop.on_click(lambda _: stop())
        self._job: JobState | None = None
        self._throttle = Throttle(self._draw, interval=0.1)
        super().__init__(
            [self.bar, self.text, self.stop],
            layout={"flex": "1 1 auto", "min_width": "0", "align_items": "center", "visibility": "hidden"},
        )

    def show(self, job: JobState | None) -> None:
        """Show the state of the project's job, or nothing; not more often than a person can see."""
        self._job = job
        self._throttle.request()

    def _draw(self) -> None:
        job = self._job
        self.layout.visibility = "hidden" if job is None else "visible"
        if job is not None:
            self.bar.value = job.done / job.total if job.total else 0.0
            left = f" · {format_duration(job.seconds_left)} left" if job.seconds_left is not None else ""
            said = "Stopping …" if job.stopping else f"{job.text}{left}"
            self.text.value = f'<div class="sv-line">{muted(said)}</div>'
            self.stop.disabled = job.stopping


def format_duration(seconds: float) -> str:
    """Say a time roughly, as one would aloud.

    >>> format_duration(7.6), format_duration(200), format_duration(5400)
    ('8 s', '3 min', '1 h 30 min')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def muted(text: str) -> str:
    """Return text, escaped, in the quieter colour."""
    return f'<span class="sv-muted">{html.escape(text)}</span>'


def heading(text: str) -> HTML:
    """Return the heading of a section."""
    return HTML(f"<h4>{html.escape(text)}</h4>", layout={"margin": "6px 0 0 0"})


def no_images_hint() -> HTML:
    """Return what is shown while a project has no images: how to add some."""
    said = (
        'There are no images yet. Add some with <code>project.add_images("images/{well}.tif", '
        'masks="masks/{well}.tif")</code>, and they appear here.'
    )
    return HTML(f'<div class="sv-empty">{said}</div>', layout={"width": "100%", "margin": "0"})


def keycap(key: str) -> str:
    """Return a key as it looks on a keyboard."""
    return f"<kbd>{html.escape(key)}</kbd>"


def count(number: int) -> str:
    """Return a number of objects, set so that columns line up."""
    return f'<div class="sv-number">{number:,}</div>'


def share(fraction: float, color: str) -> str:
    """Return a fraction as a bar in the class's colour, with its percentage."""
    width = 100 * min(max(fraction, 0.0), 1.0)
    bar = f'<span class="sv-bar"><span style="width:{width:.1f}%;background:{html.escape(color)}"></span></span>'
    return f'<div class="sv-number">{bar}<span class="sv-percent">{width:.0f} %</span></div>'


def color_swatch(color: str) -> str:
    """Return a small square in a class's colour."""
    return f'<span class="sv-swatch" style="background:{html.escape(color)}"></span>'


def picture(png: bytes, caption: str) -> str:
    """Return a PNG with its caption."""
    data = base64.b64encode(png).decode("ascii")
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def table(header: Sequence[str], rows: Iterable[Sequence[object]], current: int | None = None) -> str:
    """Return an HTML table; every cell is escaped.

    Parameters
    ----------
    header : sequence of str
    rows : iterable of sequences
        Cells: text, numbers (aligned to the right), or a ``ClassInfo``, shown as its colour and name.
    current : int, optional
        Position of the row to bring out.
    """
    head = "".join(f"<th>{html.escape(title)}</th>" for title in header)
    lines = []
    for position, row in enumerate(rows):
        look = ' class="sv-current"' if position == current else ""
        lines.append(f"<tr{look}>{''.join(map(_cell, row))}</tr>")
    return f'<table class="sv-table"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def side_by_side(*parts: str) -> str:
    """Return pieces of HTML beside each other; what is higher than the rest scrolls on its own."""
    return '<div class="sv-side">' + "".join(f"<div>{part}</div>" for part in parts) + "</div>"


def _cell(value: object) -> str:
    if isinstance(value, ClassInfo):
        return f"<td>{color_swatch(value.color)}{html.escape(value.name)}</td>"
    if isinstance(value, int | float):
        text = f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
        return f'<td class="sv-number">{text}</td>'
    return f"<td>{html.escape(str(value))}</td>"
