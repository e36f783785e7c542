"""Renames a class, or merges it into another one; opens below the classes when a person asks for it."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, Button, Dropdown, HBox, Text, VBox

from svetlana_jupyter.widgets.parts import color_swatch, muted

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

_FIELD = {"flex": "1 1 0", "width": "0", "min_width": "0", "margin": "2px 6px 2px 0"}
_BUTTON = {"width": "78px", "margin": "2px 0", "flex": "0 0 auto"}


class ClassEditor(VBox):
    """The name of one class, and what it may be merged into.

    Parameters
    ----------
    project : Project
    do : callable
        Does what a button asks for, and shows what goes wrong (`Panel.do`).
    say : callable
        Shows what was done.
    """

    def __init__(self, project: Project, do: Callable[..., None], say: Callable[[str], None]) -> None:
        self._project, self._do, self._say = project, do, say
        self._class_id = 0
        self.title = HTML(layout={"flex": "1 1 auto", "margin": "0"})
        self.done = Button(icon="times", tooltip="Close", layout={"width": "28px", "margin": "0"})
        self.done.add_class("sv-quiet")
        self.done.on_click(lambda _: do(self.hide))
        self.name = Text(layout=_FIELD)
        self.name.on_msg(self._entered)
        self.rename = Button(description="Rename", tooltip="Its annotations follow", layout=_BUTTON)
        self.rename.on_click(lambda _: do(self._rename))
        self.into = Dropdown(tooltip="The class that takes over its annotations", layout=_FIELD)
        self.merge = Button(description="Merge", disabled=True, layout=_BUTTON)
        self.merge.on_click(lambda _: do(self._merge))
        self.into.observe(lambda _: self._explain(), "value")
        self.note = HTML(layout={"margin": "0"})
        self.merged = VBox(layout={"width": "100%"})
        super().__init__(
            [
                HBox([self.title, self.done], layout={"align_items": "center"}),
                HBox([self.name, self.rename]),
                HBox([self.into, self.merge]),
                self.note,
                self.merged,
            ],
            layout={"width": "100%", "display": "none", "padding": "4px 8px 6px 8px", "margin": "4px 0"},
        )
        self.add_class("sv-editor")

    def edit(self, name: str) -> None:
        """Edit this class; a second time closes the editor again."""
        info = self._project.classes.by_name(name)
        if info.id == self._class_id:
            self.hide()
            return
        self._class_id = info.id
        self.layout.display = None
        self.follow()
        self.name.value = info.name
        self.name.focus()

    def hide(self) -> None:
        """Edit nothing."""
        self._class_id = 0
        self.layout.display = "none"

    def follow(self) -> None:
        """Bring what is shown up to the project's classes."""
        if not self._class_id:
            return
        classes = self._project.classes
        if self._class_id not in classes.ids:
            self.hide()
            return
        info = classes.by_id(self._class_id)
        self.title.value = f"{color_swatch(info.color)}<b>{html.escape(info.name)}</b>"
        chosen = self.into.value
        others = [(other.name, other.id) for other in classes if other.id != info.id]
        self.into.options = [("merge into …", 0), *others]
        self.into.value = chosen if chosen in {id for _, id in others} else 0
        self.merged.children = [
            self._merged_row(other.name)
            for other in classes.infos
            if other.into and classes.merged[other.id] == info.id
        ]
        self._explain()

    def _merged_row(self, name: str) -> HBox:
        """Return what stands for a class that was merged into this one, with the way back."""
        split = Button(description="Split off", tooltip="A class of its own again, with what was said", layout=_BUTTON)

        def act() -> None:
            self._project.split_class(name)
            self._say(self._project.status)

        split.on_click(lambda _: self._do(act))
        said = HTML(muted(f"with {name}"), layout={"flex": "1 1 0", "margin": "0"})
        return HBox([said, split], layout={"align_items": "center"})

    def _explain(self) -> None:
        self.merge.disabled = not self.into.value
        self.note.value = ""
        if self.into.value:
            classes = self._project.classes
            name, into = classes.by_id(self._class_id).name, classes.by_id(self.into.value).name
            count = int(self._project.class_counts()[name])
            said = f"{count:,} annotated as {name} will count as {into}. The log keeps what was said."
            self.note.value = muted(said)

    def _rename(self) -> None:
        old, new = self._project.classes.by_id(self._class_id).name, self.name.value.strip()
        self._project.rename_class(old, new)
        self._say(f"{old} is called {new} now.")
        self.hide()

    def _merge(self) -> None:
        classes = self._project.classes
        name, into = classes.by_id(self._class_id).name, classes.by_id(self.into.value).name
        self._project.merge_classes(name, into)
        self._say(self._project.status)
        self.hide()

    def _entered(self, _: Text, content: dict[str, Any], __: Any) -> None:
        if content.get("event") == "submit":  # the Enter key
            self._do(self._rename)
