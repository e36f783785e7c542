"""Where images and masks lie: patterns, axes, pixel size; it shows at once which files pair, and what is wrong."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from ipywidgets import HTML, HBox, Text, VBox

from svetlana_jupyter.core.preview import preview_pairs
from svetlana_jupyter.errors import InputError, SvetlanaError
from svetlana_jupyter.widgets.latest import LatestQuestion
from svetlana_jupyter.widgets.panel import guarded
from svetlana_jupyter.widgets.parts import StatusLine, muted, table

_FIXED = ("name", "image", "mask", "channels", "problem", "shape", "dtype", "spacing")
_LISTED = 12


@dataclass(frozen=True)
class Question:
    """What the fields say of images and masks."""

    images: str
    masks: str
    axes: str | None
    spacing: str

    def check(self) -> None:
        """Refuse one half of a pair, and a pixel size that is no number; nothing at all is no problem."""
        if bool(self.images) != bool(self.masks):
            missing = "masks" if self.images else "images"
            raise InputError(f"Say where the {missing} lie, or leave both empty.")
        numbers(self.spacing)


class PairFields(VBox):
    """Fields for the patterns of images and masks, and below them the files that pair.

    Parameters
    ----------
    status : Status
        Shows what goes wrong while one types.

    Attributes
    ----------
    images, masks, axes, spacing : Text
    pairs : HTML
    spacing_note : HTML
    """

    def __init__(self, status: StatusLine) -> None:
        self._latest = LatestQuestion(_look, guarded(self._show, StatusLine()))
        self.images = Text(placeholder="images/{well}.tif", **field("Images"))
        self.masks = Text(placeholder="masks/{well}_mask.tif", **field("Masks"))
        self.axes = Text(placeholder="as the files say", **field("Axes"))
        self.spacing = Text(placeholder="as the files say", **field("Pixel size in µm"))
        self.spacing_note = HTML()
        self.pairs = HTML(layout={"width": "100%", "margin": "2px 0 0 0"})
        axes = "Only where a file does not say: zyx for planes, cyx for channels, czyx for both"
        super().__init__(
            [
                line(self.images, note("Braces stand for what differs: {plate}, {well}, {channel} …")),
                line(self.masks, note("The same braces bring each image its mask")),
                line(self.axes, note(axes)),
                line(self.spacing, self.spacing_note),
                self.pairs,
            ],
            layout={"width": "100%", "grid_gap": "4px"},
        )
        for one in (self.images, self.masks, self.axes, self.spacing):
            one.observe(guarded(lambda _: self._ask(), status), "value")
        self._ask()

    @property
    def question(self) -> Question:
        return Question(
            self.images.value.strip(), self.masks.value.strip(), self.axes.value.strip() or None, self.spacing.value
        )

    def clear(self) -> None:
        """Empty the fields."""
        for one in (self.images, self.masks, self.axes, self.spacing):
            one.value = ""

    def _ask(self) -> None:
        question = self.question
        if question.images and question.masks:
            self._latest.ask(question)
        else:
            self._latest.drop()
            self._show("The images found will be listed here.")

    def _show(self, found: pd.DataFrame | str) -> None:
        self.spacing_note.value = muted(_said_of_spacing(found))
        self.pairs.value = f'<div class="sv-pairs">{_listing(found)}</div>'


def left_out(added: pd.DataFrame) -> str:
    """Return which of the pairs of `Project.add_images` were left out, and why, as a sentence; "" for none."""
    problems = added.loc[added["problem"] != ""]
    if not len(problems):
        return ""
    first = problems.iloc[0]
    reason = first["problem"].removeprefix(f"{first['name']}: ")
    return f"{len(problems):,} of {len(added):,} were left out. {first['name']}: {reason}"


def numbers(text: str) -> tuple[float, ...] | float | None:
    """Read one number, or one for each axis."""
    words = text.replace(",", " ").replace("×", " ").split()
    try:
        found = tuple(float(word) for word in words)
    except ValueError:
        raise InputError(
            f"the pixel size should be numbers in micrometres, such as 0.65 or 2.0, 0.65, 0.65 (z, y, x), got {text!r}."
        ) from None
    return (found[0] if len(found) == 1 else found) if found else None


def field(description: str) -> dict[str, Any]:
    """Return how a field of a form looks."""
    return {
        "description": description,
        "layout": {"width": "480px", "flex": "0 0 auto"},
        "style": {"description_width": "110px"},
    }


def note(text: str) -> HTML:
    """Return what is said of a field."""
    return HTML(muted(text))


def line(one: Any, said: HTML) -> HBox:
    """Return a field with what is said of it."""
    said.layout = {"margin": "0 0 0 10px", "flex": "1 1 200px"}
    return HBox([one, said], layout={"align_items": "center", "flex_flow": "row wrap"})


def _look(question: Question) -> pd.DataFrame | str:
    """Return what the patterns find, or a sentence why they find nothing."""
    try:
        return preview_pairs(question.images, question.masks, question.axes, numbers(question.spacing), most=_LISTED)
    except SvetlanaError as error:
        return str(error)
    except Exception as error:  # whatever a file system does: a half-typed path may lead anywhere
        return f"It could not be looked for: {error}"


def _listing(found: pd.DataFrame | str) -> str:
    """Return the pairs as HTML, those with a problem first."""
    if isinstance(found, str):
        return f'<div class="sv-empty">{html.escape(found)}</div>'
    good = found["problem"] == ""
    shown = pd.concat([found[~good].head(_LISTED // 2), found[good].head(_LISTED)]).head(_LISTED)
    groups = [column for column in found if column not in _FIXED]
    rows = []
    for _, row in shown.iterrows():
        said = [row["name"], *(row[group] for group in groups), row["shape"] or "", row["dtype"] or "", _files(row)]
        rows.append(["⚠" if row["problem"] else "✓", *said, row["problem"]])
    said = f"{int(good.sum()):,} of {len(found):,} images can be used."
    if len(found) > len(shown):
        said += f" {len(shown)} are listed" + (", those with a problem first." if (~good).any() else ".")
    titles = ["", "Name", *(group.capitalize() for group in groups), "Shape", "Type", "Files", ""]
    return muted(said) + table(titles, rows)


def _said_of_spacing(found: pd.DataFrame | str) -> str:
    if isinstance(found, str) or not found["shape"].notna().any():
        return "One number, or one for each axis: z, y, x"
    opened = found[found["shape"].notna()]
    known = {spacing for spacing in opened["spacing"] if spacing}
    if opened["spacing"].isna().any():
        return "The files do not say: without it everything is in pixels"
    if len(known) > 1:
        return "The files differ"
    return " × ".join(f"{size:.4g}" for size in known.pop()) + " µm"


def _files(row: pd.Series) -> str:
    """Return the names of a row's files as short text."""
    names = [", ".join(Path(path).name for path in _tuple(row[what])) for what in ("image", "mask") if row[what]]
    return " + ".join(names)


def _tuple(paths: Any) -> tuple[Any, ...]:
    return paths if isinstance(paths, tuple) else (paths,)
