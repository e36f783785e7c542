"""The panel to annotate: click an object or take the next one, press a key, and go on.

Renames a class, or merges it into another one; opens below the classes when a person asks for it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, Button, ColorPicker, Dropdown, HBox, Text, VBox

from svetlana_jupyter.core.classes import PALETTE
from svetlana_jupyter.widgets.components import color_swatch, count_html, heading, muted
from svetlana_jupyter.widgets.labeling import LabelingPanel
from svetlana_jupyter.widgets.panel import Command

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
        Does what a button asks for, and shows what goes wrong (`Panel.run_action`).
    say : callable
        Shows what was done.
    """

    def __init__(self, project: Project, run_action: Callable[..., None], say: Callable[[str], None]) -> None:
        self._project, self._run_action, self._say = project, run_action, say
        self._class_id = 0
        self.title = HTML(layout={"flex": "1 1 auto", "margin": "0"})
        self.done = Button(icon="times", tooltip="Close", layout={"width": "28px", "margin": "0"})
        self.done.add_class("sv-quiet")
        self.done.on_click(lambda _: run_action(self.hide))
        self.name = Text(layout=_FIELD)
        self.name.on_msg(self._entered)
        self.rename = Button(description="Rename", tooltip="Its annotations follow", layout=_BUTTON)
        self.rename.on_click(lambda _: run_action(self._rename))
        self.into = Dropdown(tooltip="The class that takes over its annotations", layout=_FIELD)
        self.merge = Button(description="Merge", disabled=True, layout=_BUTTON)
        self.merge.on_click(lambda _: run_action(self._merge))
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
            self._project.classes.split(name)
            self._say(self._project.status)

        split.on_click(lambda _: self._run_action(act))
        said = HTML(muted(f"with {name}"), layout={"flex": "1 1 0", "margin": "0"})
        return HBox([said, split], layout={"align_items": "center"})

    def _explain(self) -> None:
        self.merge.disabled = not self.into.value
        self.note.value = ""
        if self.into.value:
            classes = self._project.classes
            name, into = classes.by_id(self._class_id).name, classes.by_id(self.into.value).name
            count = int(self._project.annotations.class_counts()[name])
            said = f"{count:,} annotated as {name} will count as {into}. The log keeps what was said."
            self.note.value = muted(said)

    def _rename(self) -> None:
        old, new = self._project.classes.by_id(self._class_id).name, self.name.value.strip()
        self._project.classes.rename(old, new)
        self._say(f"{old} is called {new} now.")
        self.hide()

    def _merge(self) -> None:
        classes = self._project.classes
        name, into = classes.by_id(self._class_id).name, classes.by_id(self.into.value).name
        self._project.classes.merge(name, into)
        self._say(self._project.status)
        self.hide()

    def _entered(self, _: Text, content: dict[str, Any], __: Any) -> None:
        if content.get("event") == "submit":  # the Enter key
            self._run_action(self._rename)


_SOURCES = [("At random", "random"), ("Test set", "test")]
_MARKS = {"ambiguous": "ambiguous", "bad_segmentation": "badly segmented", "skip": "skipped"}


class AnnotationPanel(LabelingPanel):
    """Annotate objects of a project, one keypress each.

    Parameters
    ----------
    project : Project

    Attributes
    ----------
    source : Dropdown
        Where Next takes objects from; shown once a test set is drawn.
    """

    def __init__(self, project: Project) -> None:
        super().__init__(
            project, queue="random", source="panel", queue_source="queue", edit=lambda name: self.editor.edit(name)
        )
        self.editor = ClassEditor(project, self.run_action, self.status.say)
        self._details: dict[int, str] = {}
        self.set_commands(
            Command(("p",), "Previous", "chevron-left", "Previous object", self.previous),
            Command(("n", " "), "Next", "chevron-right", "Next object, drawn at random", self.next),
            Command(("u",), "Undo", "undo", "Take back the last annotation", self.undo),
            Command(("r",), "Redo", "repeat", "Bring it back again", self.redo),
            Command(("s",), "Skip", "step-forward", "Pass over this object", self.mark_command("skip")),
            Command(("e", "Delete"), "Erase", "eraser", "Remove the annotation", self.erase),
            Command(("a",), "Ambiguous", "question", "Even an expert could not tell", self.mark_command("ambiguous")),
            Command(
                ("b",),
                "Bad segmentation",
                "chain-broken",
                "The outline is wrong here",
                self.mark_command("bad_segmentation"),
            ),
        )
        self.new_color = ColorPicker(concise=True, layout={"width": "30px", "margin": "2px 4px 2px 0"})
        self.new_color.tooltip = "Colour of the new class"
        self.new_name = Text(placeholder="new class …", layout={"flex": "1 1 auto", "width": "auto", "margin": "2px 0"})
        self.new_name.on_msg(self._entered)
        self.add = self.make_button(
            self._add_class, "Add", icon="plus", tooltip="Add the class", layout={"width": "74px"}
        )
        self.tally = HTML(layout={"margin": "0", "min_height": "38px"})
        self.source = Dropdown(options=_SOURCES, layout={"width": "120px", "flex": "0 0 auto", "margin": "0 8px 0 0"})
        self.source.tooltip = "Where Next takes objects from; those of the test set are scored alone, never trained on"
        self.source.observe(lambda change: self.run_action(self._choose_source, change["new"]), "value")
        self.answered = HTML(layout={"margin": "0", "flex": "1 1 0", "min_width": "0"})
        self.test_set = HBox([self.source, self.answered], layout={"align_items": "center", "width": "100%"})

        empty, body = self.arrange(
            HBox([heading("Classes"), self.help_button], layout={"align_items": "center"}),
            self.rows,
            self.editor,
            HBox([self.new_color, self.new_name, self.add], layout={"width": "100%"}),
            heading("This object"),
            self.test_set,
            self.grid(),
            self.tally,
            self.help,
        )
        self.children = (self._style, empty, body, self.status)
        self.observe_project(self.reset_queue, "images_version")
        self.observe_project(self._follow, "annotations_version", "classes_version", "images_version")
        self.observe_project(self._show_test_set, "predictions_version")
        self._follow()
        hint = "Click an object, or press n for one drawn at random; then press the key of its class."
        self.show_hint(hint if project.images else "")

    def show(self) -> None:
        class_id = self.project.annotations.label_of(*self.one).class_id if self.one else 0
        self.rows.show(self.project.classes.scheme, self._details, chosen=class_id)

    def _follow(self) -> None:
        """Bring counts and buttons up to the project, then the rest."""
        project = self.project
        counts = project.annotations.class_counts()
        self._details = {info.id: count_html(int(counts[info.name])) for info in project.classes}
        self.new_color.value = PALETTE[len(project.classes) % len(PALETTE)]
        self.buttons["Undo"].disabled = not project.annotations.can_undo
        self.buttons["Redo"].disabled = not project.annotations.can_redo
        self.tally.value = "<br>".join(map(muted, self._tally(int(counts.sum()))))
        self._show_test_set()
        self.editor.follow()
        self.show()

    def _choose_source(self, kind: str) -> None:
        self.choose_queue(kind)
        self._show_test_set()
        self.status.say(
            "Next brings the objects of the test set. What is predicted of them stays hidden until you have said what "
            "they are."
            if kind == "test"
            else "Next brings objects drawn at random."
        )

    def _show_test_set(self) -> None:
        """Offer the test set once there is one, and say how far it is annotated."""
        actions = self.project.test_set.table()["action"]
        answered = int(actions.isin(["label", "ambiguous", "bad_segmentation"]).sum())
        far = f"{answered:,} of {len(actions):,}"
        self.answered.value = muted(f"{far} annotated" if self.source.value == "test" else f"Test set: {far}")
        self.test_set.layout.display = None if len(actions) else "none"
        if not len(actions):
            self.source.value = "random"

    def _tally(self, total: int) -> tuple[str, str]:
        if not len(self.project.classes):
            return "Name the first class above, for example “active”.", ""
        rate = self.project.annotations.rate()
        marks = self.project.annotations.flag_counts()
        aside = [f"{marks[mark]:,} {said}" for mark, said in _MARKS.items() if marks[mark]]
        return f"{total:,} annotated" + ("" if math.isnan(rate) else f" · {rate:.0f} a minute"), " · ".join(aside)

    def _add_class(self) -> None:
        name = self.new_name.value.strip()
        self.project.classes.add(name, self.new_color.value)
        self.new_name.value = ""
        self.status.say(f"Added the class {name}.")

    def _entered(self, _: Text, content: dict[str, Any], __: Any) -> None:
        if content.get("event") == "submit":  # the Enter key
            self.run_action(self._add_class)
