"""Positions in tables of other tools, compared with the numbers of objects.

A tool that segments or relabels an image itself numbers objects in its own way. Positions then tell which object a row
means. Conversely, positions may be in another unit or axis order than the table states; numbers then tell.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from svetlana_jupyter.core.io.geojson import MAX_COORDINATE
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from svetlana_jupyter.core.io.image_pair import ImagePair
    from svetlana_jupyter.project.importers.imported_labels import ImportRequest

MICROMETERS = {
    **dict.fromkeys(
        ("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"), 1
    ),
    **dict.fromkeys(("nm", "nanometer", "nanometers"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimeters"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), 1e4),
    **dict.fromkeys(("inch", "inches"), 25_400),
}
PIXELS = ("px", "pix", "pixel", "pixels")
_POSITION_WORDS = {
    *("center", "centre", "centroid", "position", "pos", "location", "loc", "coordinate", "coordinates", "coord"),
    *("coords", "point", "of", "the", "object", "cell", "nucleus", "in"),
}
CLOSE_PIXELS = 1.5  # rounding, and the two conventions for the center of a pixel
NO_OBJECT = "no object at this position"
FEW_ROWS = 5  # fewer rows prove no unit and no axis order
MANY_ROWS = 20  # as many rows rarely hit as few objects as random positions

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


class PositionColumns(NamedTuple):
    """Columns of coordinates in the order of the axes, and how to read them.

    ``micrometers`` is the unit; 0 for pixels and None if the header names no unit. ``from_corner`` is whether
    coordinates are measured from the corner of the first pixel (QuPath, ImageJ, Imaris) instead of its center.
    """

    columns: tuple[str, ...]
    micrometers: float | None
    from_corner: bool


def find_position_columns(table: pd.DataFrame, axes: str, tool: str = "") -> PositionColumns | None:
    """Return the columns of positions along all axes, or None.

    Columns in pixels come before columns without a unit, and these before columns in micrometers.

    >>> find_position_columns(pd.DataFrame({"Centroid X µm": [3.5], "Centroid Y µm": [8.0]}), "yx")
    PositionColumns(columns=('Centroid Y µm', 'Centroid X µm'), micrometers=1, from_corner=True)
    """
    families: dict[tuple[str, float | None], dict[str, str]] = {}
    for column in map(str, table.columns):
        if (found := _parse_header(column, len(axes))) is not None and pd.to_numeric(
            table[column].astype(str).str.replace(",", "."), errors="coerce"
        ).notna().any():
            axis, words, unit = found
            families.setdefault((words, unit), {}).setdefault(axis, column)
    complete = [key for key, columns in families.items() if set(axes) <= set(columns)]
    if not complete:
        return None
    words, unit = min(complete, key=lambda key: 1 if key[1] is None else 2 if key[1] else 0)
    columns = tuple(families[words, unit][axis] for axis in axes)
    if unit is None and tool == "Imaris" and "Unit" in table:
        unit = _single_unit(table["Unit"])
    return PositionColumns(columns, unit, tool in ("ImageJ", "Imaris") or (words == "centroid" and unit is not None))


def _single_unit(units: pd.Series) -> float:
    names = units.dropna().astype(str).str.strip().str.casefold().unique().tolist()
    if len(names) != 1 or names[0] not in (*MICROMETERS, *PIXELS):
        raise InputError(
            f"The column 'Unit' contains {format_list(map(repr, names)) or 'no unit'}. Pass rows of one unit of length."
        )
    return MICROMETERS.get(names[0], 0)


def _parse_header(header: str, ndim: int) -> tuple[str, str, float | None] | None:
    """Return the axis, other words and unit in a header; None without a coordinate.

    >>> _parse_header("POSITION_X (micron)", 2), _parse_header("centroid-0", 3), _parse_header("Max X", 2)
    (('x', 'position', 1), ('z', 'centroid', None), None)
    """
    words = re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", header).casefold())
    # CellProfiler writes the kind of object and of measurement first: Nuclei_Location_Center_X.
    for first, last in (("location", "location"), ("area", "shape")):
        words = words[words.index(last) + 1 :] if first in words and last in words else words
    units = [MICROMETERS.get(word, 0) for word in words if word in MICROMETERS or word in PIXELS]
    words = [word for word in words if word not in MICROMETERS and word not in PIXELS]
    axes = [word for word in words if word in ("x", "y", "z") or word.isdecimal()]
    rest = [word for word in words if word not in axes]
    if len(axes) != 1 or len(units) > 1 or not set(rest) <= {*_POSITION_WORDS, "axis"}:
        return None
    axis = axes[0]
    if axis.isdecimal():  # scikit-image and napari number the axes in the order z, y, x; ilastik in the order x, y, z
        order = "zyx"[-ndim:] if rest in (["centroid"], ["axis"]) else "xyz"[:ndim] if "object" in rest else ""
        if int(axis) >= len(order):
            return None
        axis = order[int(axis)]
    return axis, " ".join(rest), units[0] if units else None


def unit_problem(pair: ImagePair, columns: PositionColumns, tool: str = "") -> str:
    """Return a sentence about positions that cannot be converted to pixels, or ""."""
    spacing = pair.spacing
    if spacing is None and columns.micrometers:
        return (
            f"The table contains positions in micrometers, but the pixel size of {pair.name!r} is unknown. Add the "
            "image with spacing=, or pass positions in pixels."
        )
    if tool in ("ImageJ", "TrackMate") and columns.micrometers is None and spacing and set(spacing) != {1.0}:
        first = columns.columns[-1]
        return (
            f"{tool} writes positions in the unit of its image, and this table does not name it. Rename the column "
            f"{first!r} to {f'{first} px'!r} or {f'{first} µm'!r}, and the other coordinates likewise."
        )
    return ""


def pixel_positions(pair: ImagePair, table: pd.DataFrame, columns: PositionColumns, decimal_comma: bool) -> Floats:
    """Return the position of each row in pixels, shape (n, ndim).

    Position 0 is the center of the first pixel. A coordinate is NaN where the table contains no number. Positions in
    micrometers remain so if the pixel size of the image is unknown (`unit_problem`).
    """
    texts = table[list(columns.columns)]
    if decimal_comma:
        texts = texts.replace({",": "."}, regex=True)
    positions: Floats = texts.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if columns.micrometers and pair.spacing:
        positions = positions * columns.micrometers / np.array(pair.spacing)
    return positions - (0.5 if columns.from_corner else 0)


class RowObjects(NamedTuple):
    """Object of each row, or 0 and the reason, and notes on the comparison."""

    labels: list[int]
    problems: list[str]
    notes: Sequence[str] = ()


def objects_by_number(numbers: Sequence[int | None], index: pd.Index, image: str) -> RowObjects:
    """Return the objects with the numbers of rows; ``index`` is that of the mask."""
    given = [number for number in numbers if number is not None]
    notes = []
    if 2 * sum(number in index for number in given) < len(numbers) and given:
        notes.append(
            f"Compared: numbers {min(given)} to {max(given)} with objects {index.min()} to {index.max()} of {image!r}."
        )
    problems = ["" if number is not None else "it has no object number" for number in numbers]
    return RowObjects([number or 0 for number in numbers], problems, notes)


def objects_by_position(request: ImportRequest, image: str, positions: Floats, columns: PositionColumns) -> RowObjects:
    """Return the objects at positions without numbers.

    Raises
    ------
    InputError
        If only another unit or another order of the axes explains the positions, or they are like random positions.
    """
    look, pair = _Lookup(request, image), request.images.pair(image)
    labels, count = look.at(positions), int(np.isfinite(positions).all(axis=1).sum())
    ours = int((labels > 0).sum()), look.centered(labels, positions)
    is_doubtful = count >= FEW_ROWS and 2 * min(ours) < count
    for what, other, advice in _other_readings(pair, positions, columns) if is_doubtful else ():
        theirs = look.at(other)
        new = int((theirs > 0).sum()), look.centered(theirs, other)
        if any(10 * b >= 9 * count and 10 * a <= 6 * count for a, b in zip(ours, new)):
            raise InputError(
                f"The positions in {format_list(columns.columns)} fit the objects of {image!r} only {what}: then "
                f"{new[1]:,} of {count:,} are centers of objects, instead of {ours[1]:,}. {advice}"
            )
    inside = int(((positions > -0.5) & (positions < np.array(pair.mask.shape) - 0.5)).all(axis=1).sum())
    chance = look.coverage * inside + 2 * (look.coverage * (1 - look.coverage) * inside) ** 0.5
    if inside >= MANY_ROWS and look.coverage < 0.5 and ours[0] <= chance and 5 * ours[1] < inside:
        raise InputError(
            f"Only {ours[0]:,} of {inside:,} positions in {image!r} lie in objects, as many as at random, because "
            f"objects cover {look.coverage:.0%} of the image. Compared: {_extent(positions, pair)}. Check that the "
            "table is of this image, and its unit."
        )
    notes = [f"Positions in {format_list(columns.columns)} were read as pixels."] if columns.micrometers is None else []
    if 10 * ours[0] < 9 * len(labels):
        notes.append(f"Compared: {_extent(positions, pair)}.")
    located = np.asarray(np.isfinite(positions).all(axis=1))
    problems = ["" if label else NO_OBJECT if at else "it has no position" for label, at in zip(labels, located)]
    return RowObjects(labels.tolist(), problems, notes)


def compare_with_positions(
    request: ImportRequest,
    image: str,
    numbers: Sequence[int | None],
    positions: Floats,
    columns: PositionColumns,
    problem: str = "",
) -> RowObjects:
    """Return the object of each row from its number and its position.

    Where they disagree, the position counts. A number is confirmed by a position inside its object or at its center. If
    the positions do not lie at the centers of objects, but follow the centers of the numbered objects on another scale
    or in another order of the axes, the numbers are right and the unit is not.

    Raises
    ------
    InputError
        If they disagree and the unit is unknown; ``problem`` (`unit_problem`) says so.
    """
    look = _Lookup(request, image)
    given = np.array([number if number in look.index else 0 for number in numbers], np.int64)
    located = np.asarray(np.isfinite(positions).all(axis=1))
    found = look.at(positions)
    comparable = (given > 0) & located
    confirmed: NDArray[np.bool_] = comparable & ((given == found) | look.is_center(given, positions))
    is_confirmed = 10 * confirmed.sum() >= 9 * (located & ((given > 0) | (found > 0))).sum()
    if problem or not (is_confirmed or 2 * look.centered(found, positions) > located.sum()):
        by_number = objects_by_number(numbers, look.index, image)
        enough = comparable.sum() >= FEW_ROWS
        centers = look.centers[look.rows(given[comparable])]
        reading = _explain(positions[comparable], centers) if enough else ""
        if reading:
            return by_number._replace(notes=[*by_number.notes, f"{reading}; objects were found by number."])
        if problem and not enough:
            return by_number._replace(notes=[*by_number.notes, f"Positions were not compared. {problem}"])
        if problem:
            raise InputError(f"Numbers and positions of objects disagree. {problem}")
    differ = located & ~confirmed & (found > 0)
    # The center of an object may lie outside of it.
    is_number_right = (confirmed | (np.asarray(is_confirmed) & ~differ)).tolist()
    labels, problems = [], []
    for row, number in enumerate(numbers):
        label = (number or 0) if is_number_right[row] else int(found[row])
        labels.append(label)
        problems.append("" if label else NO_OBJECT if located[row] else "it has no position, and numbers name others")
    notes = []
    if differ.any():
        notes.append(
            f"Numbers and positions of {differ.sum():,} of {located.sum():,} rows disagree; objects were found by "
            f"position ({format_list(columns.columns)})."
        )
    if 2 * np.count_nonzero(labels) < len(labels):
        notes.append(f"Compared: {_extent(positions, request.images.pair(image))}.")
    return RowObjects(labels, problems, notes)


class _Lookup:
    """Objects of an image, by position."""

    def __init__(self, request: ImportRequest, image: str) -> None:
        self._request, self._image = request, image
        table = request.images.objects(image)
        axes = [str(dim) for dim in request.images.pair(image).mask.dims]
        self.index, self.centers = table.index, table[axes].to_numpy(np.float64)
        self.coverage = float(table["size"].sum() / np.prod(request.images.pair(image).mask.shape, dtype=float))
        self._sides = table["size"].to_numpy(np.float64) ** (1 / len(axes))

    def at(self, positions: Floats) -> Labels:
        """Return the label at each position, 0 on the background and for NaN."""
        labels = np.zeros(len(positions), np.int64)
        valid = (np.abs(positions) < MAX_COORDINATE).all(axis=1)  # this also excludes NaN
        pixels = np.floor(positions[valid] + 0.5 + 1e-6).astype(np.int64)
        labels[valid] = self._request.objects_at_points(self._image, pixels)
        return labels

    def rows(self, labels: Labels) -> Labels:
        """Return the row of each label in ``centers``; -1 for others."""
        return self.index.get_indexer(pd.Index(labels)).astype(np.int64)

    def is_center(self, labels: Labels, positions: Floats) -> NDArray[np.bool_]:
        """Return whether each position is the center of the object with a label."""
        rows = self.rows(labels)
        limits = np.maximum(CLOSE_PIXELS, self._sides[rows] / 6)
        close: NDArray[np.bool_] = np.abs(self.centers[rows] - positions).max(axis=1) <= limits
        return close & (rows >= 0)

    def centered(self, labels: Labels, positions: Floats) -> int:
        """Return the number of positions at the center of the object below them."""
        return int(self.is_center(labels, positions).sum())


def _explain(positions: Floats, centers: Floats) -> str:
    """Return how positions follow from centers by scaling, or "" if they do not."""
    axes = "zyx"[-centers.shape[1] :]
    for order, what in ((centers, ""), (centers[:, [*range(centers.shape[1] - 2), -1, -2]], " with x and y exchanged")):
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = order - order.mean(axis=0)
            scale = (spread * (positions - positions.mean(axis=0))).sum(axis=0) / (spread**2).sum(axis=0)
            offset = positions.mean(axis=0) - scale * order.mean(axis=0)
            close = np.abs(positions - scale * order - offset) <= CLOSE_PIXELS * np.abs(scale)
        if np.isfinite(scale).all() and close.all(axis=1).mean() >= 0.9:
            scales = ", ".join(f"{axis} × {value:.3g}" for axis, value in zip(axes, scale))
            return (
                f"Positions are those of the numbered objects{what} in another unit or from another origin ({scales})"
            )
    return ""


def _other_readings(pair: ImagePair, positions: Floats, columns: PositionColumns) -> Iterator[tuple[str, Floats, str]]:
    """Yield other readings of positions: what differs, the positions, and what to do."""
    exchanged, flipped = positions[:, [*range(positions.shape[1] - 2), -1, -2]], positions.copy()
    flipped[:, -2] = pair.mask.shape[-2] - 1 - flipped[:, -2]
    yield "from bottom to top", flipped, f"Subtract {columns.columns[-2]!r} from the height of the image."
    yield "with x and y exchanged", exchanged, "Exchange the names of these columns."
    if columns.micrometers is None and pair.spacing and set(pair.spacing) != {1.0}:
        name = columns.columns[-1]
        yield "in micrometers", positions / np.array(pair.spacing), f"Rename {name!r} to {f'{name} µm'!r}, and so on."


def _extent(positions: Floats, pair: ImagePair) -> str:
    """Return the range of positions and the size of the image as text."""
    finite = positions[np.isfinite(positions).all(axis=1)]
    shape = " × ".join(f"{side:,}" for side in pair.mask.shape)
    if not len(finite):
        return f"no row has a position, for {pair.name!r} of {shape} px"
    axes = [str(dim) for dim in pair.mask.dims]
    ranges = [f"{axis} {low:.6g} to {high:.6g}" for axis, low, high in zip(axes, finite.min(0), finite.max(0))]
    return f"positions {', '.join(ranges)} px with {pair.name!r} of {shape} px"
