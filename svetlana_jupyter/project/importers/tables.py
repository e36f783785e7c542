"""Tables of objects with their classes.

They are CSV or Excel files, for example from ilastik, QuPath or this package.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from svetlana_jupyter.core.annotations import FLAGS
from svetlana_jupyter.core.io.geojson import is_legacy_kind, select_objects
from svetlana_jupyter.core.io.table_files import (
    EXCEL_SUFFIXES,
    find_column,
    find_key_columns,
    format_list,
    match_names,
    normalize_header,
    read_table,
)
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.importers.imported_labels import (
    NO_CLASS_NAMES,
    ImportedLabel,
    ImportedLabels,
    ImportRequest,
    split_flag,
)
from svetlana_jupyter.project.importers.positions import (
    RowObjects,
    compare_with_positions,
    find_position_columns,
    objects_by_number,
    objects_by_position,
    pixel_positions,
    unit_problem,
)
from svetlana_jupyter.project.importers.table_columns import (
    FLAG_NAMES,
    PART_NAMES,
    TEXT_NAMES,
    Tool,
    check_class_column,
    check_single_time,
    choose_column,
    class_columns,
    exact_integers,
    find_image_column,
    object_columns,
    recognize_tool,
    sample_columns,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

SUFFIXES = (".csv", ".tsv", ".txt", *EXCEL_SUFFIXES)
# Columns of `Project.predictions` and of `Project.labels`, whose classes are written exactly.
PREDICTION_NAMES, LABEL_NAMES = {"class", "predicted", "annotation", "run"}, {"action", "class_id", "class"}


class TableReading(NamedTuple):
    """What the rows of a table have in common; ``notes`` grow while it is read."""

    tool: Tool
    decimal_comma: bool
    notes: list[str]


def is_table(path: Path) -> bool:
    """Return whether the suffix of a file is that of a table."""
    return path.suffix.casefold() in SUFFIXES


def read_class_table(request: ImportRequest, source: pd.DataFrame | Path) -> ImportedLabels:
    """Return the classes of a table with one row per object.

    An object is identified by its label in the mask, by its position, or by both (`positions`). Rows of other images,
    and rows that QuPath wrote for regions, are set aside.
    """
    table = read_table(source, "a table of classes", (*TEXT_NAMES, *filter(None, [request.column])))
    read = TableReading(recognize_tool(table), table.attrs.get("decimal_comma", False), [table.attrs.get("note", "")])
    file = None if isinstance(source, pd.DataFrame) else source
    class_column, object_column = _find_columns(table, request.column, read)
    contents = _class_names_and_flags(table, class_column, read, [info.name for info in request.classes.infos])
    written = _image_names(request, table, object_column, read)
    rows = [
        ImportedLabel(image, 0, *content, problem, bool(problem) and bool(image))
        for (image, problem), content in zip(request.resolve_names(written, file, read.notes), contents)
    ]
    for place, reason in enumerate(_other_kinds(table.drop(columns=class_column))):
        if reason:
            rows[place] = rows[place]._replace(problem=reason, is_set_aside=True)
    for image in dict.fromkeys(row.image for row in rows if not row.problem):
        places = [place for place, row in enumerate(rows) if row.image == image and not row.problem]
        found = _find_objects(request, image, table.iloc[places].reset_index(drop=True), object_column, read)
        for place, label, problem in zip(places, found.labels, found.problems):
            rows[place] = rows[place]._replace(label=label, problem=problem)
        read.notes.extend(found.notes)
    origin = f"{read.tool.name} table {file.name}".strip() if file is not None else "DataFrame"
    note = " ".join(dict.fromkeys(filter(None, read.notes)))
    return ImportedLabels(rows, f"{origin}, column {class_column}", note=note)


def _find_columns(table: pd.DataFrame, column: str | None, read: TableReading) -> tuple[str, str | None]:
    """Return the columns of classes and of object labels.

    The column of object labels is None if objects are identified by position.
    """
    chosen = None if column is None else choose_column(table, column, is_exact=True)
    numbered = [name for name in object_columns(table) if name != chosen]
    object_column = choose_column(table, numbered[0]) if numbered else None
    if len(numbered) > 1 and not read.tool.name:
        read.notes.append(f"Objects were found by the column {object_column!r}, not {format_list(numbered[1:])}.")
    if chosen is not None:
        return chosen, object_column
    others = table.drop(columns=[object_column] if object_column else [])
    candidates = class_columns(others, read.tool)
    if not candidates:
        raise InputError(
            f"The table has no column of classes; its columns are {format_list(table.columns, 10)}. Rename the column "
            "of classes to “class”."
        )
    if set(table) >= PREDICTION_NAMES:
        return "annotation", object_column
    # If the column of annotations is empty, the column of predictions is read.
    filled = [name for name in candidates if any(_class_name(value, read.tool) for value in others[name])]
    class_column = choose_column(others, [*filled, *candidates][0])
    if class_column != candidates[0]:
        read.notes.append(f"The column {candidates[0]!r} is empty, so that {class_column!r} was imported.")
    check_class_column(table, class_column)
    return class_column, object_column


def _class_name(value: Any, tool: Tool, known: Collection[str] = ()) -> str:
    """Return the class in a cell, "" without one.

    Texts such as "none" are a class only if the project has it.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None or pd.isna(value) else str(value)
    plain = re.sub(r"(?<=\d)\.0+$", "", text.strip()).casefold()
    if plain in tool.no_class or (text not in known and plain in NO_CLASS_NAMES):
        return ""
    return text if text in known else text.strip()


def _class_names_and_flags(
    table: pd.DataFrame, column: str, read: TableReading, known: Collection[str]
) -> list[tuple[str, str]]:
    """Return the class name and the flag of each row.

    A table that this package exported contains class names only, such as "nan". Other programs write the class 1 of a
    column with empty cells as 1.0.
    """
    if set(table) >= PREDICTION_NAMES or set(table) >= LABEL_NAMES:
        names = ["" if pd.isna(value) else str(value) for value in table[column]]
    else:
        names = [_class_name(value, read.tool, known) for value in table[column]]
        plain = {name: re.sub(r"(?<=\d)\.0+$", "", name) for name in names}
        if all(re.fullmatch(r"[+-]?\d+\.0+", name) for name in plain if name) and plain.keys().isdisjoint(known):
            names = [plain[name] for name in names]
        codes = [f"“{code}”" for code in ("-1", "0") if code in names]
        if codes:
            read.notes.append(f"{' and '.join(codes)} was read as the name of a class.")
    flag_column = find_column(table, FLAG_NAMES)
    flags = ["" if pd.isna(flag) else str(flag) for flag in table[flag_column]] if flag_column else []
    if flag_column != column and set(flags) & set(FLAGS) and set(flags) <= {"", "label", *FLAGS}:
        if both := sum(bool(name) and flag in FLAGS for name, flag in zip(names, flags)):
            read.notes.append(f"{both:,} rows have a class and a flag; their class was read.")
        return [(name, "" if name or flag not in FLAGS else flag) for name, flag in zip(names, flags)]
    if column == "annotation" and "flag" not in table and set(table) >= PREDICTION_NAMES:
        return [split_flag(name, None, bool(has)) for name, has in zip(names, table["class"].notna())]
    return [(name, "") for name in names]


def _image_names(
    request: ImportRequest, table: pd.DataFrame, object_column: str | None, read: TableReading
) -> list[str]:
    """Return the name of the image in each row, "" if there is none.

    Raises
    ------
    InputError
        If rows are of several samples that are no images of the project.
    """
    if (column := find_image_column(table)) is not None:
        return _texts(table[column])
    if read.tool.name == "ImageJ" and "Label" in table:  # such as "cells.tif:0012-0345"
        written = [text.partition(":")[0] for text in _texts(table["Label"])]
        if request.find_images(written)[0]:
            return written
    if any(written := _images_of_groups(request, table)):
        return written
    for column in sample_columns(table):
        written = _texts(table[column])
        distinct = list(dict.fromkeys(filter(None, written)))
        if distinct and len(request.find_images(distinct)[0]) == len(distinct):
            return written
        places = table.groupby(object_column)[column] if object_column else None
        is_part = normalize_header(column) in map(normalize_header, PART_NAMES)
        if not is_part or (places is not None and (places.nunique() > 1).any()):
            raise InputError(
                f"The table contains rows of several images: its column {column!r} has the values "
                f"{format_list(distinct)}, and the images of the project are {format_list(request.images)}. Add a "
                "column “image” with these names, or import the rows of one image at a time without this column."
            )
    return [""] * len(table)


def _images_of_groups(request: ImportRequest, table: pd.DataFrame) -> list[str]:
    """Return the image of each row by its plate, well and so on; [] if unknown."""
    groups = pd.DataFrame.from_dict(request.images.groups(), orient="index").fillna("")
    keys = find_key_columns(table, list(map(str, groups)))
    if not keys:
        return []
    ours = groups[list(keys)].agg(" ".join, axis=1)
    theirs = pd.DataFrame({key: _texts(table[column]) for key, column in keys.items()}).agg(" ".join, axis=1)
    matches = match_names(theirs.unique(), ours.unique())
    if not matches or ours[ours.isin(matches.values())].duplicated().any():
        return []
    names = {text: str(image) for image, text in ours.items()}
    return [names[matches[text]] if text in matches else text for text in theirs]


def _texts(values: pd.Series) -> list[str]:
    return ["" if pd.isna(value) else str(value).strip() for value in values]


def _other_kinds(table: pd.DataFrame) -> list[str]:
    """Return the reason why QuPath's row is not of an object, such as a cell, or ""."""
    column = find_column(table, ["object type"])
    name = None if column is not None else find_column(table, ["name"])  # QuPath 0.2 writes the type as a name
    values = _texts(table[column or name]) if column or name else []
    if column is None:
        is_typed = any(map(is_legacy_kind, values))
        values = [value if is_legacy_kind(value) else "annotation" for value in values] if is_typed else []
    chosen = select_objects(values)
    reasons = ["" if use else f"it is of the type {value or 'unknown'}" for use, value in zip(chosen, values)]
    return reasons or [""] * len(table)


def _find_objects(
    request: ImportRequest, image: str, table: pd.DataFrame, object_column: str | None, read: TableReading
) -> RowObjects:
    """Return the object of each row of an image.

    Raises
    ------
    InputError
        If neither numbers nor positions identify objects, or the rows are of several time points or planes.
    """
    pair = request.images.pair(image)
    axes = "".join(map(str, pair.mask.dims))
    read.notes.append(check_single_time(table, pair.ndim == 2))
    columns = find_position_columns(table, axes, read.tool.name)
    numbers = None if object_column is None else exact_integers(table[object_column])
    if read.tool.own_numbers and columns is not None:
        numbers = None
    if columns is None:
        if numbers is None or read.tool.own_numbers:
            raise InputError(
                f"The table has neither object labels nor positions; its columns are {format_list(table.columns, 10)}. "
                f"Name the column of labels “object”, or the columns of positions {format_list(axes)}."
            )
        return objects_by_number(numbers, request.images.objects(image).index, image)
    problem = unit_problem(pair, columns, read.tool.name)
    positions = pixel_positions(pair, table, columns, read.decimal_comma)
    if numbers is not None:
        return compare_with_positions(request, image, numbers, positions, columns, problem)
    if problem:
        raise InputError(problem)
    volume = find_position_columns(table, "zyx", read.tool.name) if pair.ndim == 2 else None
    if volume is not None and table[volume.columns[0]].nunique() > 1:
        raise InputError(
            f"The table contains positions in {table[volume.columns[0]].nunique():,} z planes (column "
            f"{volume.columns[0]!r}), but {image!r} has one. Import the rows of one plane without this column."
        )
    return objects_by_position(request, image, positions, columns)
