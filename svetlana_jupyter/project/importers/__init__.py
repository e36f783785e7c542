"""Import of labels from other tools.

`FORMATS` is the registry, with one entry per file format.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from svetlana_jupyter.core.io.geojson import is_geojson
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.importers import class_image, napari_svetlana, qupath, tables
from svetlana_jupyter.project.importers.imported_labels import ImportedLabels, ImportRequest

Matches = Callable[[Path], bool]
Read = Callable[[ImportRequest, Path], ImportedLabels]

# The first format that matches a file reads it.
FORMATS: tuple[tuple[Matches, Read], ...] = (
    (napari_svetlana.is_napari_svetlana, napari_svetlana.read_napari_svetlana),
    (tables.is_table, tables.read_class_table),
    (is_geojson, qupath.read_qupath),
    (lambda path: True, class_image.read_class_image),
)


def read_imported_labels(request: ImportRequest, source: object) -> ImportedLabels:
    """Read the labels of a file, folder or table, in any supported format.

    Raises
    ------
    InputError
        If the source cannot be read or contains no labels.
    """
    if isinstance(source, pd.DataFrame):
        imported = tables.read_class_table(request, source)
    elif isinstance(source, str | Path):
        path = Path(source).expanduser()
        imported = next(read for matches, read in FORMATS if matches(path))(request, path)
    else:
        raise InputError(f"Cannot import annotations from {type(source).__name__}. Pass a file, folder or DataFrame.")
    if not imported.rows:
        raise InputError(
            f"{source if isinstance(source, str | Path) else 'The table'} contains no object labels. "
            "Choose another source."
        )
    return imported
