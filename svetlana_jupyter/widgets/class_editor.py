"""Forms to add, rename, delete, merge and split classes."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from ipywidgets import HTML, ColorPicker, Dropdown, HBox, Text, VBox

from svetlana_jupyter.core.classes import PALETTE
from svetlana_jupyter.widgets.components import color_swatch, muted, on_enter
from svetlana_jupyter.widgets.panel import catch_errors

if TYPE_CHECKING:
    from svetlana_jupyter.core.classes import ClassInfo
    from svetlana_jupyter.widgets.panel import Panel

_FIELD = {"flex": "1 1 0", "width": "0", "min_width": "0", "margin": "2px 6px 2px 0"}
_BUTTON = {"width": "78px", "margin": "2px 0", "flex": "0 0 auto"}


class NewClassField(HBox):
    """Field for the name and the color of a new class.

    Parameters
    ----------
    panel : Panel
        Adds the class to its project, and displays the result or the error.

    Attributes
    ----------
    color : ColorPicker
    name : Text
    add : Button
    """

    def __init__(self, panel: Panel) -> None:
        self._project, self._say = panel.project, panel.status.say
        self._colored = -1  # number of classes for which the color of the next one was proposed
        self.color = ColorPicker(concise=True, layout={"width": "30px", "margin": "2px 4px 2px 0"})
        self.color.tooltip = "Color of the new class"
        self.name = Text(placeholder="new class …", layout={"flex": "1 1 0", "width": "0", "margin": "2px 0"})
        on_enter(self.name, lambda: catch_errors(self._add, panel.status)(), once=True)
        self.add = panel.make_button(self._add_and_empty, "Add", "plus", "Add the class", width="74px", flex="0 0 auto")
        super().__init__([self.color, self.name, self.add], layout={"width": "100%"})

    def refresh(self) -> None:
        """Propose a color for the next class."""
        count = len(self._project.classes)
        if self._colored != count:  # not over a color that the user has chosen
            self._colored = count
            self.color.value = PALETTE[count % len(PALETTE)]

    def _add_and_empty(self) -> None:
        self._add()
        self.name.value = ""

    def _add(self) -> None:
        name, known = self.name.value.strip(), self._project.classes.names
        self._project.classes.add(name, self.color.value)
        self._say(f"Class {name} exists already." if name in known else f"Added class {name}.")


class ClassEditor(VBox):
    """Form to rename, delete or merge a class, or to split off a merged class.

    Parameters
    ----------
    panel : Panel
        Runs the actions, and displays their results and errors.
    """

    def __init__(self, panel: Panel) -> None:
        self._panel, self._project, self._say = panel, panel.project, panel.status.say
        self._class_id = 0
        self.title = HTML(layout={"flex": "1 1 auto", "margin": "0"})
        self.done = panel.make_button(self.hide, "", "times", "Close", "quiet", width="28px", margin="0")
        self.name = Text(layout=_FIELD)
        on_enter(self.name, lambda: panel.run_action(self._rename))
        tooltip = "Rename the class; it keeps its annotations"
        self.rename = panel.make_button(self._rename, "Rename", "", tooltip, **_BUTTON)
        tooltip = "Delete the class, if no annotation and no run needs it"
        self.delete = panel.make_button(self._delete, "", "trash", tooltip, "quiet", width="28px", margin="0")
        self.into = Dropdown(tooltip="Class that takes over the annotations", layout=_FIELD)
        self.merge = panel.make_button(self._merge, "Merge", **_BUTTON)
        self.into.observe(lambda _: self._preview_merge(), "value")
        self.note = HTML(layout={"margin": "0"})
        self.merged = VBox(layout={"width": "100%"})
        super().__init__(
            [
                HBox([self.title, self.delete, self.done], layout={"align_items": "center"}),
                HBox([self.name, self.rename]),
                HBox([self.into, self.merge]),
                self.note,
                self.merged,
            ],
            layout={"width": "100%", "display": "none", "padding": "4px 8px 6px 8px", "margin": "4px 0"},
        )
        self.add_class("sv-editor")

    def edit(self, name: str) -> None:
        """Open the editor for a class, or close it if it is already open for this class."""
        info = self._project.classes.by_name(name)
        if info.id == self._class_id:
            self.hide()
            return
        self._class_id = info.id
        self.layout.display = None
        self.refresh()
        self.name.value = info.name
        self.name.focus()

    def hide(self) -> None:
        """Close the editor."""
        self._class_id = 0
        self.layout.display = "none"

    def refresh(self) -> None:
        """Update the editor after the classes of the project have changed."""
        classes = self._project.classes
        if self._class_id not in classes.ids:
            self.hide()
            return
        info = self._info
        self.title.value = f"{color_swatch(info.color)}<b>{html.escape(info.name)}</b>"
        chosen = self.into.value
        others = [(other.name, other.id) for other in classes if other.id != info.id]
        self.into.options = [("merge into …", 0), *others]
        self.into.value = chosen if chosen in dict(others).values() else 0
        merged = [other.name for other in classes.infos if classes.merged.get(other.id) == info.id]
        self.merged.children = list(map(self._merged_row, merged))
        self._preview_merge()

    @property
    def _info(self) -> ClassInfo:
        return self._project.classes.by_id(self._class_id)

    def _merged_row(self, name: str) -> HBox:
        """Return the row of a merged class, with a button to split it off."""

        def act() -> None:
            self._project.classes.split(name)
            self._say(self._project.status)

        tooltip = "Make it a class of its own again, with its annotations"
        split = self._panel.make_button(act, "Split off", "", tooltip, **_BUTTON)
        text = HTML(muted(f"includes {name}"), layout={"flex": "1 1 0", "margin": "0"})
        return HBox([text, split], layout={"align_items": "center"})

    def _preview_merge(self) -> None:
        self.merge.disabled, self.note.value = not self.into.value, ""
        if self.into.value:
            name, into = self._info.name, self._project.classes.by_id(self.into.value).name
            count = int(self._project.annotations.class_counts()[name])
            self.note.value = muted(f"{count:,} annotated as {name} will count as {into}. The log keeps both names.")

    def _rename(self) -> None:
        old, new = self._info.name, self.name.value.strip()
        self._project.classes.rename(old, new)
        self._say(f"Renamed class {old} to {new}.")
        self.hide()

    def _delete(self) -> None:
        name = self._info.name
        self._project.classes.delete(name)
        self._say(f"Deleted class {name}. To undo, add it again.")
        self.hide()

    def _merge(self) -> None:
        self._project.classes.merge(self._info.name, self._project.classes.by_id(self.into.value).name)
        self._say(self._project.status)
        self.hide()
