"""Panel to annotate objects, with an editor of classes."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from ipywidgets import HTML, ColorPicker, Dropdown, HBox, Text, VBox

from svetlana_jupyter.core.classes import PALETTE
from svetlana_jupyter.widgets.components import FLAG_TEXTS, color_swatch, count_html, heading, muted, on_enter
from svetlana_jupyter.widgets.labeling import LabelingPanel
from svetlana_jupyter.widgets.panel import Command, Panel, catch_errors, labeling_commands
from svetlana_jupyter.widgets.scheduling import KeyPause

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.core.classes import ClassInfo
    from svetlana_jupyter.project.project import Project

_FIELD = {"flex": "1 1 0", "width": "0", "min_width": "0", "margin": "2px 6px 2px 0"}
_BUTTON = {"width": "78px", "margin": "2px 0", "flex": "0 0 auto"}
_SOURCES = (("Random", "random"), ("Test set", "test"))
_SOURCE_NOTES = {
    "random": "Next shows objects drawn at random.",
    "test": "Next shows the objects of the test set. Their predictions stay hidden until they are annotated.",
}


class AnnotationPanel(LabelingPanel):
    """Panel to annotate the objects of a project with one key each.

    Parameters
    ----------
    project : Project or path

    Attributes
    ----------
    editor : ClassEditor
    new_name : Text
        Name of a class to add.
    source : Dropdown
        Queue of the objects that the button Next shows; displayed once a test set is drawn.
    progress_text : HTML
        Number of annotations, and edits per minute.
    """

    def __init__(self, project: Project | str | Path) -> None:
        super().__init__(project, "random", "panel", queue_source="queue", edit=lambda name: self.editor.edit(name))
        project = self.project
        self.editor = ClassEditor(self)
        self._counts: dict[int, str] = {}
        self._colored = -1  # number of classes for which the color of the next one was proposed
        self.command_bar.set_commands(
            Command(("p",), "Previous", "chevron-left", "Previous object", self.previous),
            Command(("n", " "), "Next", "chevron-right", "Next object, drawn at random", self.next),
            *labeling_commands(self, "Undo", "Redo", "Skip", "Erase", "Ambiguous", "Bad segmentation"),
        )
        self.new_color = ColorPicker(concise=True, layout={"width": "30px", "margin": "2px 4px 2px 0"})
        self.new_color.tooltip = "Color of the new class"
        self.new_name = Text(placeholder="new class …", layout={"flex": "1 1 0", "width": "0", "margin": "2px 0"})
        on_enter(self.new_name, lambda: catch_errors(self._add_class, self.status)(), once=True)
        self.add = self.make_button(self._add_and_empty, "Add", "plus", "Add the class", width="74px", flex="0 0 auto")
        self.progress_text = HTML(layout={"margin": "0", "min_height": "38px"})
        self.source = Dropdown(options=_SOURCES, layout={"width": "120px", "flex": "0 0 auto", "margin": "0 8px 0 0"})
        self.source.tooltip = "Objects that Next shows. Test set objects are used for scoring only, never for training."
        self.source.observe(lambda change: self.run_action(self._choose_source, change["new"]), "value")
        self.test_set_text = HTML(layout={"margin": "0", "flex": "1 1 0", "min_width": "0"})
        self.test_set = HBox([self.source, self.test_set_text], layout={"align_items": "center", "width": "100%"})

        hint, body = self.arrange(
            self.viewer,
            self.command_bar.header("Classes"),
            self.class_buttons,
            self.editor,
            HBox([self.new_color, self.new_name, self.add], layout={"width": "100%"}),
            heading("This object"),
            self.test_set,
            self.command_bar.grid(),
            self.progress_text,
            self.command_bar.help,
        )
        self.children = (self._style, hint, body, self.status)
        self.observe_project(self.reset_queue, "images_version")
        self.observe_project(self._refresh, "classes_version", "images_version")
        self.observe_project(KeyPause(catch_errors(self._refresh, self.status)).restart, "annotations_version")
        self.observe_project(self._show_test_set, "predictions_version")
        self._refresh()
        first = "Click an object, or press n for a random one; then press the key of its class."
        self.show_hint(first if project.images else "")

    def show(self) -> None:
        """Show the class of the selected object."""
        object_id = self.single_object
        class_id = self.project.annotations.label_of(*object_id).class_id if object_id else 0
        self.class_buttons.show(self.project.classes.scheme, self._counts, chosen=class_id)

    def _refresh(self) -> None:
        """Update counts and buttons."""
        project = self.project
        counts = project.annotations.class_counts()
        self._counts = {info.id: count_html(int(counts[info.name])) for info in project.classes}
        if self._colored != len(project.classes):  # not over a color that the user has chosen
            self._colored = len(project.classes)
            self.new_color.value = PALETTE[self._colored % len(PALETTE)]
        self.command_bar.show_history()
        self.progress_text.value = "<br>".join(map(muted, self._progress(int(counts.sum()))))
        self._show_test_set()
        self.editor.refresh()
        self.show()

    def _choose_source(self, kind: str) -> None:
        self._kind = kind
        self.reset_queue()
        self._show_test_set()
        self.status.say(_SOURCE_NOTES[kind])

    def _show_test_set(self) -> None:
        """Show how many objects of the test set are annotated, if a test set exists."""
        # The table of the test set is not used, because it would take milliseconds per key.
        actions = [self.project.annotations.label_of(*each).action for each in self.project.test_set.objects]
        annotated = sum(action in ("label", "ambiguous", "bad_segmentation") for action in actions)
        share = f"{annotated:,} of {len(actions):,}"
        self.test_set_text.value = muted(f"{share} annotated" if self.source.value == "test" else f"Test set: {share}")
        self.test_set.layout.display = None if len(actions) else "none"
        if not len(actions):
            self.source.value = "random"

    def _progress(self, total: int) -> tuple[str, str]:
        if not len(self.project.classes):
            return "Name the first class above, for example “active”.", ""
        rate = self.project.annotations.rate()
        flags = self.project.annotations.flag_counts()
        flagged = [f"{flags[flag]:,} {text}" for flag, text in FLAG_TEXTS.items() if flags[flag]]
        return f"{total:,} annotated" + ("" if math.isnan(rate) else f" · {rate:.0f} per minute"), " · ".join(flagged)

    def _add_and_empty(self) -> None:
        self._add_class()
        self.new_name.value = ""

    def _add_class(self) -> None:
        name, known = self.new_name.value.strip(), self.project.classes.names
        self.project.classes.add(name, self.new_color.value)
        self.status.say(f"Class {name} exists already." if name in known else f"Added class {name}.")


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
