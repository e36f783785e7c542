"""The form to export: where to, in which formats, and what was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ipywidgets import Button, Checkbox, HBox, Text, VBox

from svetlana_jupyter.widgets.panel import guarded
from svetlana_jupyter.widgets.parts import StatusLine


class ExportForm(VBox):
    """A folder, a box to tick for each format, a button, and a line that says what came of it.

    Parameters
    ----------
    folder : str
        Suggested.
    formats : mapping of str to str
        What a person reads of each format; the first one is ticked.
    act : callable
        Called with the folder and the formats that are ticked; what it raises is shown.

    Attributes
    ----------
    said : Status
        Hidden as long as there is nothing to say.
    """

    def __init__(self, folder: str, formats: Mapping[str, str], act: Callable[[str, list[str]], None]) -> None:
        self.folder = Text(value=folder, description="Folder", layout={"width": "640px"})
        self.folder.tooltip = "Made if it is new"
        self.formats = {
            name: Checkbox(value=position == 0, description=words, indent=False, layout={"width": "276px"})
            for position, (name, words) in enumerate(formats.items())
        }
        self.export = Button(
            description="Export", icon="download", tooltip="Write the results", layout={"width": "110px"}
        )
        self.said = StatusLine(hides=True)
        # Unlike other buttons it leaves the keyboard where it is: the viewer, far above, would come back into sight.
        self.export.on_click(guarded(lambda _: self._act(), self.said))
        self._export = act
        super().__init__(
            [
                self.folder,
                HBox(list(self.formats.values()), layout={"flex_flow": "row wrap"}),
                self.export,
                self.said,
            ]
        )

    def _act(self) -> None:
        chosen = [name for name, box in self.formats.items() if box.value]
        if chosen:
            self._export(self.folder.value, chosen)
        else:
            self.said.warn("Tick what to export.")
