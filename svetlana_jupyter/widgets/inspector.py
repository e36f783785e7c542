"""What the classifier thinks of one object: a probability beside each class button, its patch, and Grad-CAM."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from ipywidgets import HTML, VBox

from svetlana_jupyter.widgets.parts import ClassButtons, color_swatch, muted, picture, share

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.core.annotations import Label, ObjectId
    from svetlana_jupyter.core.classes import ClassScheme

_BLANK = '<figure><div class="sv-blank"></div><figcaption>{}</figcaption></figure>'


class Inspector(VBox):
    """One object under review.

    Parameters
    ----------
    rows : ClassRows
        The buttons that correct; the probabilities are shown in them.
    """

    def __init__(self, rows: ClassButtons) -> None:
        self.rows = rows
        self.title = HTML(layout={"margin": "0", "min_height": "46px"})
        self.pictures = HTML(layout={"margin": "4px 0 0 0", "height": "182px"})
        super().__init__([self.title, rows, self.pictures], layout={"width": "100%"})
        self.show_pictures()

    def show(self, object: ObjectId | None, predicted: pd.Series | None, label: Label, classes: ClassScheme) -> None:
        """Show what is predicted and annotated.

        Parameters
        ----------
        object : ObjectId or None
        predicted : Series or None
            Its row of `Project.probabilities`; None where there is no prediction.
        label : Label
        classes : Classes
        """
        details: dict[int, str] = {}
        said = muted("Click one, or press n for the least certain.")
        if object is not None:
            said = muted("not predicted yet")
        if predicted is not None:
            info = classes.by_id(int(predicted["predicted"]))
            said = f"{color_swatch(info.color)}{html.escape(info.name)}, predicted with {predicted['probability']:.0%}"
            details = {c.id: share(float(predicted.get(f"p_{c.id}", 0.0)), c.color) for c in classes}
        annotated = f" · annotated: {classes.by_id(label.class_id).name}" if label.class_id else ""
        name = f"Object {object.object} in {object.image}{annotated}" if object else "No object chosen"
        self.title.value = f"<h4>{html.escape(name)}</h4>{said}"
        self.rows.show(classes, details, chosen=label.class_id)

    def show_pictures(self, patch: bytes = b"", cam: bytes = b"", caption: str = "") -> None:
        """Show two PNGs side by side, or empty places of the same size."""
        left = picture(patch, "What it sees") if patch else _BLANK.format(html.escape(caption))
        right = picture(cam, "Where it looked (Grad-CAM)") if cam else _BLANK.format("&nbsp;")
        self.pictures.value = f'<div class="sv-pictures">{left}{right}</div>'
