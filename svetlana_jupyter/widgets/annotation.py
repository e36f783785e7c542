"""The panel to annotate: click an object or take the next one, press a key, and go on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, ColorPicker, Dropdown, HBox, Text

from svetlana_jupyter.core.classes import PALETTE
from svetlana_jupyter.widgets.class_editor import ClassEditor
from svetlana_jupyter.widgets.commands import Command
from svetlana_jupyter.widgets.labelling import LabelingPanel
from svetlana_jupyter.widgets.parts import count, heading, muted

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

_SOURCES = [("At random", "random"), ("Test set", "test")]
_MARKS = {"ambiguous": "ambiguous", "bad": "badly segmented", "skip": "skipped"}


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
        self.editor = ClassEditor(project, self.do, self.status.say)
        self._details: dict[int, str] = {}
        self.offer(
            Command(("p",), "Previous", "chevron-left", "Previous object", self.previous),
            Command(("n", " "), "Next", "chevron-right", "Next object, drawn at random", self.next),
            Command(("u",), "Undo", "undo", "Take back the last annotation", self.undo),
            Command(("r",), "Redo", "repeat", "Bring it back again", self.redo),
            Command(("s",), "Skip", "step-forward", "Pass over this object", self.mark_command("skip")),
            Command(("e", "Delete"), "Erase", "eraser", "Remove the annotation", self.erase),
            Command(("a",), "Ambiguous", "question", "Even an expert could not tell", self.mark_command("ambiguous")),
            Command(("b",), "Bad segmentation", "chain-broken", "The outline is wrong here", self.mark_command("bad")),
        )
        self.new_color = ColorPicker(concise=True, layout={"width": "30px", "margin": "2px 4px 2px 0"})
        self.new_color.tooltip = "Colour of the new class"
        self.new_name = Text(placeholder="new class …", layout={"flex": "1 1 auto", "width": "auto", "margin": "2px 0"})
        self.new_name.on_msg(self._entered)
        self.add = self.button(self._add_class, "Add", icon="plus", tooltip="Add the class", layout={"width": "74px"})
        self.tally = HTML(layout={"margin": "0", "min_height": "38px"})
        self.source = Dropdown(options=_SOURCES, layout={"width": "120px", "flex": "0 0 auto", "margin": "0 8px 0 0"})
        self.source.tooltip = "Where Next takes objects from; those of the test set are scored alone, never trained on"
        self.source.observe(lambda change: self.do(self._choose_source, change["new"]), "value")
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
        self.watch(self.reset_queue, "images_version")
        self.watch(self._follow, "annotations_version", "classes_version", "images_version")
        self.watch(self._show_test_set, "predictions_version")
        self._follow()
        hint = "Click an object, or press n for one drawn at random; then press the key of its class."
        self.show_hint(hint if project.images else "")

    def show(self) -> None:
        class_id = self.project.label_of(*self.one).class_id if self.one else 0
        self.rows.show(self.project.classes, self._details, chosen=class_id)

    def _follow(self) -> None:
        """Bring counts and buttons up to the project, then the rest."""
        project = self.project
        counts = project.class_counts()
        self._details = {info.id: count(int(counts[info.name])) for info in project.classes}
        self.new_color.value = PALETTE[len(project.classes) % len(PALETTE)]
        self.buttons["Undo"].disabled = not project.can_undo
        self.buttons["Redo"].disabled = not project.can_redo
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
        actions = self.project.test_set()["action"]
        answered = int(actions.isin(["label", "ambiguous", "bad"]).sum())
        far = f"{answered:,} of {len(actions):,}"
        self.answered.value = muted(f"{far} annotated" if self.source.value == "test" else f"Test set: {far}")
        self.test_set.layout.display = None if len(actions) else "none"
        if not len(actions):
            self.source.value = "random"

    def _tally(self, total: int) -> tuple[str, str]:
        if not len(self.project.classes):
            return "Name the first class above, for example “active”.", ""
        rate = self.project.rate()
        marks = self.project.mark_counts()
        aside = [f"{marks[mark]:,} {said}" for mark, said in _MARKS.items() if marks[mark]]
        return f"{total:,} annotated" + ("" if math.isnan(rate) else f" · {rate:.0f} a minute"), " · ".join(aside)

    def _add_class(self) -> None:
        name = self.new_name.value.strip()
        self.project.add_class(name, self.new_color.value)
        self.new_name.value = ""
        self.status.say(f"Added the class {name}.")

    def _entered(self, _: Text, content: dict[str, Any], __: Any) -> None:
        if content.get("event") == "submit":  # the Enter key
            self.do(self._add_class)
