"""Columns of object tables of other tools.

They contain classes, objects, images and time points. Headers are those of ilastik, QuPath, CellProfiler, TrackMate,
Imaris, ImageJ, napari plugins, MCMICRO and spatialdata.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pandas as pd

from svetlana_jupyter.core.io.table_files import find_column, format_list, normalize_header
from svetlana_jupyter.errors import InputError


class Tool(NamedTuple):
    """Program that writes tables of objects.

    ``headers`` are sets of headers, of which one set is complete; ``no_class`` are its words for an object without a
    class. ``own_numbers`` is whether it numbers objects regardless of the mask, so that only positions tell.
    """

    name: str
    headers: tuple[tuple[str, ...], ...] = ()
    no_class: tuple[str, ...] = ()
    own_numbers: bool = False


TOOLS = (
    Tool("ilastik", (("labelimageoid",), ("labelimageid", "lineageid")), no_class=("0",)),
    Tool(
        "napari-feature-classifier",
        (
            ("annotations", "prediction"),
            ("annotations", "predictions"),
            ("annotations", "roiid"),
            ("annotations", "hash"),
        ),
        no_class=("-1", "deselected"),
    ),
    Tool("TrackMate", (("positionx.*", "frame", "trackid|spotid|visibility|quality.*"),), own_numbers=True),
    Tool("Imaris", (("positionx", "unit", "category|collection"),), own_numbers=True),
    Tool("QuPath", (("objecttype",), ("centroidx(px|µm|μm)", "parent|roi"))),
    Tool("CellProfiler", (("imagenumber", "(.*)objectnumber"),)),
    Tool("ImageJ", (("unnamed0", "area|mean|xm|label", "x", "y"),), own_numbers=True),
)
OTHER_TOOL = Tool("")

IMAGE_NAMES = ("image", "image name", "image file", "file name", "file", "filename", "image file name")
# These name an image in several tools, but their values need not be names of images here. Objects of a whole image may
# also belong to several parts.
SAMPLE_NAMES = (
    *("image id", "image number", "roi id", "fov", "library id", "sample", "sample id", "slide", "slide id"),
    *("plate", "well", "field", "site", "metadata plate", "metadata well", "metadata field", "metadata site"),
)
PART_NAMES = ("region", "tile", "core", "tma core")
OBJECT_NAMES = (
    *(
        "object",
        "labelimage_oid",
        "labelimageId",
        "instance id",
        "object number",
        "object label",
        "label id",
        "mask id",
    ),
    *("cell id", "nucleus id", "roi", "object id", "id", "number", "nr", "label", "labels", "name"),
)
# In order of precedence: columns of annotations come before columns of predictions.
PERSON_NAMES = (
    *("annotation", "annotations", "user label", "user labels", "user class", "ground truth", "gt", "truth"),
    *("true class", "true label", "known class", "expert label", "expert", "annotated class"),
)
CLASS_NAMES = (
    *("class", "class name", "classification", "cell type", "phenotype", "category", "type", "label", "label name"),
)
MACHINE_NAMES = (
    *("predicted class", "predicted", "prediction", "predictions", "predicted label", "pred", "pred class"),
)
FLAG_NAMES = ("flag", "action")
TEXT_NAMES = (*IMAGE_NAMES, *SAMPLE_NAMES, *PART_NAMES, *PERSON_NAMES, *CLASS_NAMES, *MACHINE_NAMES, *FLAG_NAMES)
TIME_NAMES = ("timestep", "time", "frame", "time point", "t", "time index", "frame index", "metadata frame")
PLANE_NAMES = ("slice", "z slice", "plane", "z plane")
NAMELIKE_ROWS = 20  # in this many rows, classes repeat


def recognize_tool(table: pd.DataFrame) -> Tool:
    """Return the tool whose usual headers a table has.

    >>> recognize_tool(pd.DataFrame(columns=["object_id", "labelimage_oid"])).name
    'ilastik'
    """
    headers = [normalize_header(column) for column in table]

    def has(pattern: str) -> bool:
        return any(re.fullmatch(pattern, header) for header in headers)

    return next((tool for tool in TOOLS if any(all(map(has, names)) for names in tool.headers)), OTHER_TOOL)


def class_columns(table: pd.DataFrame, tool: Tool) -> list[str]:
    """Return the columns that may contain classes.

    Columns of a person come first, and predictions last.
    """
    # TrackMate writes the color that the user gave to a spot.
    manual = [
        str(column) for column in table if re.fullmatch(r"manual(?!.*colou?r).*|.*manual", normalize_header(column))
    ]
    person = [found for name in PERSON_NAMES if (found := find_column(table, [name]))]
    # In Imaris, the category is Spot or Surface; in ImageJ, the label is the name of an image or region.
    hidden = {"Imaris": ("category",), "ImageJ": ("label",), "TrackMate": ("label",)}.get(tool.name, ())
    names = [name for name in (*CLASS_NAMES, *MACHINE_NAMES) if name not in hidden]
    return list(dict.fromkeys([*person, *manual, *(found for name in names if (found := find_column(table, [name])))]))


def choose_column(table: pd.DataFrame, column: str, is_exact: bool = False) -> str:
    """Return the column of a table with a name.

    Case and punctuation are ignored where this is unambiguous.

    Raises
    ------
    InputError
        If there is none, or several with different content.
    """
    alike = [name for name in map(str, table) if normalize_header(name) == normalize_header(column)]
    if column in alike and is_exact:
        return column
    if not alike or not all(table[name].equals(table[alike[0]]) for name in alike):
        if not alike:
            raise InputError(f"The table has no column {column!r}. Choose among {format_list(table.columns, 10)}.")
        raise InputError(f"The columns {format_list(map(repr, alike))} differ. Rename or remove all but one of them.")
    return alike[0]


def object_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns of object numbers, the most likely first.

    Raises
    ------
    InputError
        If numbers have lost digits or are mixed with text.
    """
    named = [found for name in OBJECT_NAMES if (found := find_column(table, [name]))]
    named += [str(column) for column in table if normalize_header(column).endswith("objectnumber")]
    for name in named:
        if 2 * pd.to_numeric(table[name], errors="coerce").notna().sum() > len(table) and not is_integer(table[name]):
            texts = table[name].dropna().astype(str)
            others = texts[pd.to_numeric(texts, errors="coerce").isna()]
            if len(others):
                raise InputError(
                    f"The column {name!r} contains numbers of objects, but also {others.iloc[0]!r}. Correct this cell."
                )
        if pd.api.types.is_float_dtype(table[name]) and (largest := table[name].abs().max()) >= 2**53:
            raise InputError(
                f"The column {name!r} contains {largest:.0f}, which may have lost digits as a floating-point number. "
                "Read it as text, for example with pd.read_csv(file, dtype=str)."
            )
    return [name for name in dict.fromkeys(named) if is_integer(table[name])]


def is_integer(values: pd.Series) -> bool:
    """Return whether a column contains integers, possibly with gaps."""
    try:
        return any(number is not None for number in exact_integers(values))
    except ValueError:
        return False


def exact_integers(values: pd.Series) -> list[int | None]:
    """Return integers of any length, with None for empty cells.

    >>> exact_integers(pd.Series(["9007199254740993", None, "7.0"]))
    [9007199254740993, None, 7]

    Raises
    ------
    ValueError
        If a cell contains anything else, such as a float that is too large to be exact.
    """
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "iu":
        return values.tolist()
    return [_exact_integer(value) for value in values.tolist()]


def _exact_integer(value: object) -> int | None:
    if value is None or pd.isna(value) or (isinstance(value, str) and not value.strip()):  # type: ignore[call-overload]
        return None
    if isinstance(value, float):
        if not value.is_integer() or abs(value) >= 2**53:
            raise ValueError(f"{value} is not an exact integer")
        return int(value)
    if isinstance(value, bool) or not (match := re.fullmatch(r"\s*([+-]?\d+)(\.0*)?\s*", str(value), re.ASCII)):
        raise ValueError(f"{value!r} is not an integer")
    return int(match[1])


def find_image_column(table: pd.DataFrame) -> str | None:
    """Return the column that names the image of each row, or None."""
    column = find_column(table, IMAGE_NAMES)
    prefixes = ("filename", "imagefilename")  # CellProfiler: FileName_DNA
    others = (str(name) for name in table if normalize_header(name).startswith(prefixes))
    return column or next(others, None)


def sample_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns with several values that may name the image of each row."""
    found = (find_column(table, [name]) for name in (*SAMPLE_NAMES, *PART_NAMES))
    return [column for column in found if column is not None and table[column].nunique() > 1]


def check_single_time(table: pd.DataFrame, is_flat: bool) -> str:
    """Check that rows are of one time point and, in 2D, of one plane; return a note.

    Raises
    ------
    InputError
        If the rows of an image are of several.
    """
    notes = []
    for kind, names in (("time points", TIME_NAMES), ("z planes", PLANE_NAMES if is_flat else ())):
        for column in dict.fromkeys(filter(None, (find_column(table, [name]) for name in names))):
            values = table[column].dropna().astype(str).str.strip()
            if values.empty or not values.str.fullmatch(r"[a-zA-Z_]{0,6}\d+(\.\d*)?").all():
                continue
            if len(shown := values.drop_duplicates()) > 1:
                raise InputError(
                    f"The table contains {len(shown):,} {kind} in the column {column!r} ({format_list(shown, 3)}), but "
                    "images of a project have only one. Import the rows of one, or rename the column if it is none."
                )
            if not re.fullmatch(r"[01](\.0*)?", values.iloc[0]):
                notes.append(f"All rows have {column} {values.iloc[0]}.")
    return " ".join(notes)


def check_class_column(table: pd.DataFrame, column: str) -> None:
    """Raise an error if a column such as "label" names objects instead of classes."""
    values = table[column].dropna().astype(str)
    is_measured = bool(values.str.fullmatch(r"-?\d*\.\d*[1-9]\d*").all())
    if normalize_header(column) in ("class", "classname", "classification") and not is_measured:
        return
    if len(values) >= NAMELIKE_ROWS and 2 * values.nunique() > len(values):
        raise InputError(
            f"The column {column!r} contains {values.nunique():,} different values in {len(values):,} rows, such as "
            f"{values.iloc[0]!r}, so that it hardly contains classes. Pass column=, one of "
            f"{format_list(table.columns, 10)}."
        )
