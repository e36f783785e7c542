"""The panel of the images: what a project holds, more images, another mask, annotations from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipywidgets import HTML, Accordion, Button, HBox, VBox

from svetlana_jupyter.widgets.import_form import ImportForm
from svetlana_jupyter.widgets.mask_form import MaskForm
from svetlana_jupyter.widgets.pair_fields import PairFields, left_out, numbers
from svetlana_jupyter.widgets.panel import Panel
from svetlana_jupyter.widgets.parts import heading, muted, table

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

_LISTED = 500
_HINT = "More images can be added below, and an image can be given another mask: its annotations go over to it."


class ImagesPanel(Panel):
    """Lists the images of a project, adds some, gives one another mask, and imports annotations.

    Parameters
    ----------
    project : Project

    Attributes
    ----------
    listing : HTML
    fields : PairFields
    add : Button
    mask : MaskForm
    importing : ImportForm
    """

    def __init__(self, project: Project) -> None:
        super().__init__(project)
        self.listing = HTML(layout={"width": "100%", "margin": "0"})
        self.fields = PairFields(self.status)
        self.add: Button = self.button(
            self._add,
            "Add images",
            icon="plus",
            tooltip="Add the images listed above; what the project has already stays as it is",
            layout={"width": "150px", "margin": "0"},
        )
        self.mask = MaskForm(project, self.do, self.status)
        self.importing = ImportForm(project, self.status)
        self.forms = Accordion(
            [VBox([self.fields, HBox([self.add])]), self.mask, self.importing],
            titles=["Add images", "Give an image another mask", "Import annotations"],
            selected_index=None if project.images else 0,
            layout={"margin": "8px 0 4px 0"},
        )
        self.children = (self._style, heading("Images"), self.listing, self.forms, self.status)
        self.watch(self._follow, "images_version", "annotations_version")
        self._follow()
        self.show_hint(_HINT if project.images else "There are no images yet: say below where they lie.")

    def _follow(self) -> None:
        project = self.project
        entries = project.images
        labels = project.labels().query("action == 'label'")
        annotated = labels.groupby(level="image").size()
        groups = list(dict.fromkeys(group for entry in entries.values() for group in entry.groups))
        rows = []
        for name, entry in list(entries.items())[:_LISTED]:
            channels = f"{len(entry.channels)} channels, " if len(entry.channels) > 1 else ""
            objects = len(project.objects(name)) if project.is_indexed(name) else "not counted yet"
            said = [name, *(entry.groups.get(group, "") for group in groups)]
            shape = channels + " × ".join(map(str, entry.shape))
            rows.append([*said, shape, entry.dtype, objects, int(annotated.get(name, 0)), project.mask_file(name).name])
        titles = ["Name", *(group.capitalize() for group in groups), "Shape", "Type", "Objects", "Annotated", "Mask"]
        more = len(entries) - len(rows)
        said = f"and {more:,} more" if more else ""
        self.listing.value = f'<div class="sv-pairs">{table(titles, rows)}{muted(said)}</div>' if rows else ""
        self.mask.follow()
        self.importing.follow()

    def _add(self) -> None:
        question = self.fields.question
        question.check()
        if not question.images:
            self.status.warn("Say where the images and their masks lie first.")
            return
        before = len(self.project.images)
        spacing = numbers(question.spacing)
        added = self.project.add_images(question.images, question.masks, question.axes, spacing)
        count = len(self.project.images) - before
        problems = left_out(added)
        said = f"{count:,} image{' is' if count == 1 else 's are'} new. {problems}".strip()
        (self.status.warn if problems else self.status.say)(said)
        if not problems:
            self.fields.clear()
