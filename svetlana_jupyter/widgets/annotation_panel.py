"""Panel to annotate objects."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ipywidgets import HTML, Dropdown, HBox

from svetlana_jupyter.widgets.class_editor import ClassEditor, NewClassField
from svetlana_jupyter.widgets.components import FLAG_TEXTS, count_html, heading, muted
from svetlana_jupyter.widgets.labeling import LabelingPanel
from svetlana_jupyter.widgets.panel import Command, catch_errors, labeling_commands
from svetlana_jupyter.widgets.scheduling import KeyPause

if TYPE_CHECKING:
    from pathlib import Path

    from svetlana_jupyter.project.project import Project

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
    new_class : NewClassField
    source : Dropdown
        Queue of the objects that the button Next shows; displayed once a test set is drawn.
    progress_text : HTML
        Number of annotations, and edits per minute.
    """

    def __init__(self, project: Project | str | Path) -> None:
        super().__init__(project, "random", "panel", edit=lambda name: self.editor.edit(name))
        project = self.project
        self.editor = ClassEditor(self)
        self._counts: dict[int, str] = {}
        self.command_bar.set_commands(
            Command(("p",), "Previous", "chevron-left", "Previous object", self.previous),
            Command(("n", " "), "Next", "chevron-right", "Next object, drawn at random", self.next),
            *labeling_commands(self, "Undo", "Redo", "Skip", "Erase", "Ambiguous", "Bad segmentation"),
        )
        self.new_class = NewClassField(self)
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
            self.new_class,
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
        self.new_class.refresh()
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
