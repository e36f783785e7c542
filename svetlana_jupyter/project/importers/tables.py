"""Tables of objects with their classes.

They are CSV or Excel files, for example from ilastik, QuPath or this package.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from svetlana_jupyter.core.annotations import FLAGS
from svetlana_jupyter.core.io.geojson import MAX_COORDINATE
from svetlana_jupyter.core.io.table_files import EXCEL_SUFFIXES, find_column, format_list, normalize_header, read_table
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.importers.imported_labels import ImportedLabel, ImportedLabels, ImportRequest, split_flag

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from numpy.typing import NDArray

    from svetlana_jupyter.core.io.image_pair import ImagePair

SUFFIXES = (".csv", ".tsv", ".txt", *EXCEL_SUFFIXES)
IMAGE_NAMES = ("image", "image name", "image file", "file name", "file", "filename")
OBJECT_NAMES = (
    *("object", "labelimage_oid", "object number", "object label", "label id", "mask id", "cell id", "nucleus id"),
    *("roi", "object id", "id", "number", "nr", "label", "name"),
)
# In order of precedence: columns of annotations come before columns of predictions.
CLASS_NAMES = (
    *("annotation", "user label", "class", "class name", "known class", "truth", "true class", "classification"),
    *("cell type", "phenotype", "category", "type", "label", "label name"),
    *("predicted class", "predicted", "prediction"),
)
# Column names of a coordinate, whether it is in micrometers, and whether it is measured from the corner of the first
# pixel (as in QuPath) instead of from its center.
POSITION_COLUMNS = (
    (("{0}", "center {0}", "centre {0}", "centroid {0}", "{0} center", "position {0}", "pos {0}"), False, False),
    (("centroid {0} px",), False, True),
    (("{0} µm", "{0} um", "center {0} um", "position {0} um"), True, False),
    (("centroid {0} µm", "centroid {0} um"), True, True),
)
FLAG_NAMES = ("flag", "action")
TEXT_NAMES = (*IMAGE_NAMES, *CLASS_NAMES, *FLAG_NAMES)
# Columns of `Project.predictions` and of `Project.labels`, whose classes are written exactly.
PREDICTION_NAMES, LABEL_NAMES = {"class", "predicted", "annotation", "run"}, {"action", "class_id", "class"}
NO_CLASS = ("", "nan", "none", "-", "unlabelled", "unlabeled", "unclassified")


def is_table(path: Path) -> bool:
    """Return whether the suffix of a file is that of a table."""
    return path.suffix.casefold() in SUFFIXES


def read_class_table(request: ImportRequest, source: pd.DataFrame | Path) -> ImportedLabels:
    """Return the classes of a table with one row per object.

    An object is identified by its label in the mask or by its position.
    """
    table = read_table(source, "a table of classes", (*TEXT_NAMES, *filter(None, [request.column])))
    file = None if isinstance(source, pd.DataFrame) else source
    class_column, object_column = _find_columns(table, request.column)
    contents = _class_names_and_flags(table, class_column, [info.name for info in request.classes.infos])
    time = find_column(table, ("timestep", "time", "frame"))
    is_ilastik = "labelimageoid" in map(normalize_header, table)
    if time is not None and is_ilastik and table[time].nunique() > 1:
        raise InputError(
            f"The table contains {table[time].nunique()} time points, but images of a project have only one. Import "
            "one time point at a time."
        )
    names, written, note = _resolve_images(request, table, file)
    if object_column is not None:
        objects = pd.to_numeric(table[object_column]).fillna(0).astype("int64").to_numpy()
    else:
        objects = _objects_by_position(request, table, names)
    rows = []
    for name, text, label, (class_name, flag) in zip(names, written, objects.tolist(), contents):
        problem = "" if name else f"the project has no image {text!r}"
        if name and object_column is None and label == 0:
            problem = "no object at this position"
        rows.append(ImportedLabel(name, label, class_name, problem, flag))
    origin = f"{'ilastik table' if is_ilastik else 'table'} {file.name}" if file is not None else "DataFrame"
    return ImportedLabels(rows, f"{origin}, column {class_column}", note=note)


def _find_columns(table: pd.DataFrame, column: str | None) -> tuple[str, str | None]:
    """Return the columns of classes and of object labels.

    The column of object labels is None if objects are identified by position.
    """
    names = format_list(table.columns, 10)
    class_column = None if column is None else find_column(table, [column])
    if column is not None and class_column is None:
        raise InputError(f"The table has no column {column!r}. Choose among {names}.")
    numbered = [found for name in OBJECT_NAMES if (found := find_column(table, [name])) and _is_integer(table[found])]
    object_column = next((name for name in numbered if name != class_column), None)
    if class_column is not None:
        return class_column, object_column
    others = table.drop(columns=[object_column] if object_column else [])
    candidates = [found for name in CLASS_NAMES if (found := find_column(others, [name]))]
    if not candidates:
        raise InputError(
            f"The table has no column of classes; its columns are {names}. Rename the column of classes to “class”."
        )
    if set(table) >= PREDICTION_NAMES:
        return "annotation", object_column
    # If the column of annotations is empty, the column of predictions is read.
    return next((name for name in candidates if any(map(_class_name, others[name]))), candidates[0]), object_column


def _is_integer(values: pd.Series) -> bool:
    numbers = pd.to_numeric(values, errors="coerce")
    return bool(numbers.notna().any() and (numbers.notna() | values.isna()).all() and (numbers.dropna() % 1 == 0).all())


def _class_name(value: Any, known: Collection[str] = ()) -> str:
    """Return the class in a cell, "" without one.

    Texts such as "none" are a class only if the project has it.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None or pd.isna(value) else str(value)
    return text if text in known else "" if text.strip().casefold() in NO_CLASS else text.strip()


def _class_names_and_flags(table: pd.DataFrame, column: str, known: Collection[str]) -> list[tuple[str, str]]:
    """Return the class name and the flag of each row.

    A table that this package exported contains class names only, such as "nan". Other programs write the class 1 of a
    column with empty cells as 1.0.
    """
    if set(table) >= PREDICTION_NAMES or set(table) >= LABEL_NAMES:
        names = ["" if pd.isna(value) else str(value) for value in table[column]]
    else:
        names = [_class_name(value, known) for value in table[column]]
        plain = {name: re.sub(r"(?<=\d)\.0+$", "", name) for name in names}
        if all(re.fullmatch(r"[+-]?\d+\.0+", name) for name in plain if name) and plain.keys().isdisjoint(known):
            names = [plain[name] for name in names]
    if "labelimageoid" in map(normalize_header, table):
        names = ["" if name == "0" else name for name in names]
    flag_column = find_column(table, FLAG_NAMES)
    flags = ["" if pd.isna(flag) else str(flag) for flag in table[flag_column]] if flag_column else []
    if flag_column != column and set(flags) & set(FLAGS) and set(flags) <= {"", "label", *FLAGS}:
        return [split_flag(name, flag, bool(name)) for name, flag in zip(names, flags)]
    if column == "annotation" and "flag" not in table and set(table) >= PREDICTION_NAMES:
        return [split_flag(name, None, bool(has)) for name, has in zip(names, table["class"].notna())]
    return [(name, "") for name in names]


def _resolve_images(request: ImportRequest, table: pd.DataFrame, file: Path | None) -> tuple[list[str], list[str], str]:
    """Return the image of each row ("" without one), its name in the table, a note."""
    column = find_column(table, IMAGE_NAMES) if request.image is None else None
    if column is None:
        return [request.resolve_image(file)] * len(table), [""] * len(table), ""
    written = table[column].astype(str).tolist()
    names, note = request.find_images(dict.fromkeys(written))
    if not names:
        raise InputError(
            f"No image of the table ({format_list(dict.fromkeys(written), 3)}) is in the project, which has "
            f"{format_list(request.images, 3) or 'no images yet'}. Add the images first, or pass image=."
        )
    return [names.get(text, "") for text in written], written, note


def _objects_by_position(request: ImportRequest, table: pd.DataFrame, names: list[str]) -> NDArray[np.int64]:
    objects, image_of_row = np.zeros(len(table), np.int64), np.array(names, object)
    for name in filter(None, dict.fromkeys(names)):
        rows = np.flatnonzero(image_of_row == name)
        positions = _pixel_positions(request.images.pair(name), table.iloc[rows])
        valid = (np.abs(positions) < MAX_COORDINATE).all(axis=1)  # this also excludes NaN
        objects[rows[valid]] = request.objects_at_points(name, positions[valid].astype(np.int64))
    return objects


def _pixel_positions(pair: ImagePair, table: pd.DataFrame) -> NDArray[np.float64]:
    """Return the pixel position of each row, shape (n, ndim).

    A coordinate is NaN where the table contains no number.
    """
    axes, spacing = [str(dim) for dim in pair.mask.dims], pair.spacing
    columns = [found for axis in axes if (found := _coordinate_column(table, axis, len(axes)))]
    if len(columns) < len(axes):
        raise InputError(
            f"The table has neither object labels nor positions; its columns are {format_list(table.columns, 10)}. "
            f"Name the column of labels “object”, or the columns of positions {format_list(axes)}."
        )
    if spacing is None and any(in_um for _, in_um, _ in columns):
        raise InputError(
            f"The table contains positions in micrometers, but the pixel size of {pair.name!r} is unknown. Add the "
            "image with spacing=, or pass positions in pixels."
        )
    positions = np.empty((len(table), len(columns)))
    for i, (column, in_um, from_corner) in enumerate(columns):
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
        values = values / spacing[i] if in_um and spacing else values
        positions[:, i] = np.floor(values + (1e-6 if from_corner else 0.5))
    return positions


def _coordinate_column(table: pd.DataFrame, axis: str, ndim: int) -> tuple[str, bool, bool] | None:
    """Return the column of the coordinate along an axis, and its two flags.

    The flags are explained at `POSITION_COLUMNS`. Without such a column, return None.
    """
    index = "zyx"[-ndim:].index(axis)
    # scikit-image numbers the axes in the order z, y, x; ilastik in the order x, y, z.
    numbered = (f"centroid-{index}", f"Center of the object_{ndim - 1 - index}")
    for names, in_um, from_corner in (*POSITION_COLUMNS, (numbered, False, False)):
        if (column := find_column(table, [name.format(axis) for name in names])) is not None:
            return column, in_um, from_corner
    return None
