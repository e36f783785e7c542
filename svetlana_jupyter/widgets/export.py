"""The form to export: where to, in which formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ipywidgets import Button, Checkbox, HBox, Text, VBox


class ExportForm(VBox):
    """A folder, a box to tick for each format, and a button.

    Parameters
    ----------
    folder : str
        Suggested.
    formats : sequence of str
    act : callable
        Called with the folder and the formats that are ticked.
    """

    def __init__(self, folder: str, formats: Sequence[str], act: Callable[[str, list[str]], None]) -> None:
        self.folder = Text(value=folder, description="Folder", layout={"width": "640px"})
        self.folder.tooltip = "Made if it is new"
        self.formats = {
            name: Checkbox(value=position == 0, description=name, indent=False, layout={"width": "130px"})
            for position, name in enumerate(formats)
        }
        self.export = Button(
            description="Export", icon="download", tooltip="Write the results", layout={"width": "110px"}
        )
        self.export.on_click(
            lambda _: act(self.folder.value, [name for name, box in self.formats.items() if box.value])
        )
        super().__init__(
            [self.folder, HBox(list(self.formats.values()), layout={"flex_flow": "row wrap"}), self.export]
        )
