"""Import of annotations from tables, class images, QuPath and napari-svetlana."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.core.io.geojson import is_geojson
from svetlana_jupyter.core.io.table_files import EXCEL_SUFFIXES, TableSource
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.importers.class_image import read_class_image
from svetlana_jupyter.project.importers.imported_labels import Found, check_not_empty
from svetlana_jupyter.project.importers.napari_svetlana import labels_file, read_napari_svetlana
from svetlana_jupyter.project.importers.qupath import read_qupath
from svetlana_jupyter.project.importers.tables import read_class_table

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", *EXCEL_SUFFIXES)


def read_imported_labels(
    project: Project,
    source: TableSource,
    image: str | None,
    column: str | None,
    names: Mapping[int, str] | Sequence[str] | None,
) -> Found:
    """Read the labels of a source with the reader for its kind, as `Project.import_annotations` describes."""
    found = _read(project, source, image, column, names)
    check_not_empty(found, source if isinstance(source, str | Path) else "the table")
    return found


def _read(
    project: Project,
    source: TableSource,
    image: str | None,
    column: str | None,
    names: Mapping[int, str] | Sequence[str] | None,
) -> Found:
    if isinstance(source, pd.DataFrame):
        return read_class_table(project, source, image, column)
    if not isinstance(source, str | Path):
        raise InputError(
            f"Annotations cannot be imported from {type(source).__name__}. Pass a file, a folder or a DataFrame."
        )
    path = Path(source).expanduser()
    if (labels := labels_file(path)) is not None:
        return read_napari_svetlana(project, labels, names)
    if path.suffix.casefold() in TABLE_SUFFIXES:
        return read_class_table(project, path, image, column)
    if is_geojson(path):
        return read_qupath(project, path, image, column)
    if names is not None and not isinstance(names, Mapping):
        names = dict(enumerate(names, 1))
    return read_class_image(project, path, image, names)
