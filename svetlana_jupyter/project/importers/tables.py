"""Tables of objects with their classes: any CSV, ilastik's object tables, QuPath's measurements, our own export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from svetlana_jupyter.core.io.geojson import MAX_COORDINATE
from svetlana_jupyter.core.io.images import spacing_of
from svetlana_jupyter.core.io.table_files import TableSource, find_column, format_list, normalize_header, read_table
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.importers.imported_labels import (
    Found,
    ImportedLabel,
    find_image,
    image_aliases,
    objects_at,
    resolve_image,
)

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Dataset

IMAGE = ("image", "image name", "image file", "file name", "file", "filename")
OBJECT = (
    *("object", "labelimage_oid", "object number", "object label", "label id", "mask id", "cell id", "nucleus id"),
    *("roi", "object id", "id", "number", "nr", "label", "name"),
)
# What a person said goes before what a classifier said.
CLASS = (
    *("annotation", "user label", "class", "class name", "known class", "truth", "true class", "classification"),
    *(
        "cell type",
        "phenotype",
        "category",
        "type",
        "label",
        "label name",
        "predicted class",
        "predicted",
        "prediction",
    ),
)
# How a place along an axis is called, whether it is in micrometres, and whether it counts from the corner of the first
# pixel, as QuPath does, instead of its middle.
POSITION_COLUMNS = (
    (("{0}", "center {0}", "centre {0}", "centroid {0}", "{0} center", "position {0}", "pos {0}"), False, False),
    (("centroid {0} px",), False, True),
    (("{0} µm", "{0} um", "center {0} um", "position {0} um"), True, False),
    (("centroid {0} µm", "centroid {0} um"), True, True),
)
NONE = ("", "nan", "none", "-", "unlabelled", "unlabeled", "unclassified")


class _Place(NamedTuple):
    """A column that says where objects lie along an axis."""

    column: str
    in_um: bool
    from_corner: bool


def read_class_table(project: Dataset, source: TableSource, image: str | None, column: str | None) -> Found:
    """Return what a table says: a row an object, named by its number in the mask or by a place in it."""
    table = read_table(source, "a table of classes")
    file = None if isinstance(source, pd.DataFrame) else Path(source)
    class_column, object_column = _columns(table, column)
    time = find_column(table, ("timestep", "time", "frame"))
    ilastik = "labelimageoid" in map(normalize_header, table)
    if time is not None and ilastik and table[time].nunique() > 1:
        raise InputError(
            f"the table is of {table[time].nunique()} times; a project's images have one: give one at a time."
        )
    images, unknown = _images(project, table, image, file)
    classes = [_class(value, ilastik) for value in table[class_column]]
    if object_column is not None:
        objects = pd.to_numeric(table[object_column]).fillna(0).astype("int64").to_numpy()
    else:
        objects = _by_place(project, table, images)
    rows = []
    for name, given, label, class_name in zip(images, unknown, objects.tolist(), classes):
        problem = ""
        if not name:
            problem = f"the project has no image {given!r}"
        elif object_column is None and label == 0:
            problem = "no object lies there"
        rows.append(ImportedLabel(name, label, class_name, problem))
    tool = "ilastik table" if ilastik else "table"
    called = f"{tool} {file.name}" if file is not None else "DataFrame"
    return Found(rows, f"{called}, column {class_column}")


def _columns(table: pd.DataFrame, column: str | None) -> tuple[str, str | None]:
    """Return the columns of classes and of object numbers; None where positions must tell."""
    names = format_list(table.columns, 10)
    if column is not None and (asked := find_column(table, [column])) is None:
        raise InputError(f"the table has no column {column!r}; its columns are {names}.")
    numbered = [one for name in OBJECT if (one := find_column(table, [name])) and _is_number(table[one])]
    object_column = next((one for one in numbered if column is None or one != asked), None)
    if column is not None:
        return str(asked), object_column
    rest = table.drop(columns=[object_column] if object_column else [])
    said = [one for name in CLASS if (one := find_column(rest, [name]))]
    if not said:
        raise InputError(f"the table needs a column of classes, called “class” for example; its columns are {names}.")
    # A column in which a person could have said something, but did not, gives way to the next.
    return next((one for one in said if any(map(_class, rest[one]))), said[0]), object_column


def _is_number(values: pd.Series) -> bool:
    numbers = pd.to_numeric(values, errors="coerce")
    return bool(numbers.notna().any() and (numbers.notna() | values.isna()).all() and (numbers.dropna() % 1 == 0).all())


def _class(value: object, ilastik: bool = False) -> str:
    if isinstance(value, float):
        value = "" if np.isnan(value) else int(value) if value.is_integer() else value
    text = "" if value is None else str(value).strip()
    return "" if text.casefold() in NONE or (ilastik and text == "0") else text


def _images(project: Dataset, table: pd.DataFrame, image: str | None, file: Path | None) -> tuple[list[str], list[str]]:
    """Return the image of each row ("" where it is unknown), and how the table calls it."""
    column = find_column(table, IMAGE) if image is None else None
    if column is None:
        return [resolve_image(project, image, file)] * len(table), [""] * len(table)
    known = image_aliases(project)
    called = table[column].astype(str).tolist()
    names = {text: find_image(text, known) for text in dict.fromkeys(called)}
    if not any(names.values()):
        raise InputError(
            f"no image of the table is in the project: it names {format_list(names, 3)}, and the project has "
            f"{format_list(project.images, 3) or 'none yet'}."
        )
    return [names[text] for text in called], called


def _by_place(project: Dataset, table: pd.DataFrame, images: list[str]) -> NDArray[np.int64]:
    objects = np.zeros(len(table), np.int64)
    of = pd.Series(images)
    for name in [one for one in dict.fromkeys(images) if one]:
        mask, rows = project.pair(name).mask, np.flatnonzero(of == name)
        axes = [str(dim) for dim in mask.dims]
        columns = [found for axis in axes if (found := _place_column(table, axis, len(axes)))]
        if len(columns) < len(axes):
            raise InputError(
                "the table needs a column of object numbers, called “object” for example, or positions in columns "
                f"{format_list(axes)}; its columns are {format_list(table.columns, 10)}."
            )
        objects[rows] = _under(project, name, table.iloc[rows], columns)
    return objects


def _under(project: Dataset, name: str, table: pd.DataFrame, columns: list[_Place]) -> NDArray[np.int64]:
    """Return the object of an image that lies at the place of each row; 0 where there is none."""
    spacing = spacing_of(project.pair(name).image)
    if spacing is None and any(in_um for _, in_um, _ in columns):
        raise InputError(
            f"the table gives positions in micrometres, and the pixel size of {name!r} is not known: add the image "
            "with spacing=, or give positions in pixels."
        )
    places = np.empty((len(table), len(columns)))
    for i, (column, in_um, from_corner) in enumerate(columns):
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
        values = values / spacing[i] if in_um and spacing else values
        places[:, i] = np.floor(values + (1e-6 if from_corner else 0.5))
    objects, whole = np.zeros(len(table), np.int64), (np.abs(places) < MAX_COORDINATE).all(axis=1)
    objects[whole] = objects_at(project, name, places[whole].astype(np.int64))
    return objects


def _place_column(table: pd.DataFrame, axis: str, ndim: int) -> _Place | None:
    """Return the column that says where an object lies along an axis, and how."""
    place = "zyx"[-ndim:].index(axis)
    more = (
        f"centroid-{place}",
        f"Center of the object_{ndim - 1 - place}",
    )  # scikit-image begins with rows, ilastik not
    for names, in_um, from_corner in (*POSITION_COLUMNS, (more, False, False)):
        if (column := find_column(table, [name.format(axis) for name in names])) is not None:
            return _Place(column, in_um, from_corner)
    return None
