"""A dataset that takes in what other tools and tables say of its objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from svetlana_jupyter.core.geojson import is_geojson
from svetlana_jupyter.core.tables import EXCEL_SUFFIXES, TableSource
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.dataset import Dataset
from svetlana_jupyter.project.importing.found import Found
from svetlana_jupyter.project.importing.maps import read_class_image
from svetlana_jupyter.project.importing.outlines import read_qupath
from svetlana_jupyter.project.importing.svetlana import labels_file, read_napari_svetlana
from svetlana_jupyter.project.importing.tables import read_class_table
from svetlana_jupyter.project.importing.taking import check_not_empty, take

TABLES = (".csv", ".tsv", ".txt", *EXCEL_SUFFIXES)


class Imports(Dataset):
    """A `Dataset` whose annotations may come from elsewhere."""

    def import_annotations(
        self,
        source: TableSource,
        image: str | None = None,
        *,
        column: str | None = None,
        names: Mapping[int, str] | Sequence[str] | None = None,
        overwrite: bool = False,
    ) -> pd.DataFrame:
        """Annotate objects as a file or table says: all in one gesture, which one undo takes back.

        Parameters
        ----------
        source : path or DataFrame
            A table (CSV, Excel or DataFrame) with a row an object: columns for its image, its number in the mask or its
            position (x, y and z in pixels, or in µm where that stands in the header), and its class, in usual
            spellings; ilastik's object tables are such. Outlines or points from QuPath (GeoJSON), for the objects that
            they share more than half with, or lie on. A class image (TIFF, HDF5, ...), in which each pixel has the
            class of its object. The folder of a napari-svetlana project, whose images are added where they are not
            there yet.
        image : str, optional
            Of a source that does not say it; by default the one that the file is called after, or the only one.
        column : str, optional
            Which column of a table has the classes. By default what a person said goes before what a classifier said:
            "annotation", ilastik's "User Label", "class", ..., "Predicted Class".
        names : mapping of int to str or sequence of str, optional
            What the numbers of a class image mean (a sequence begins with 1), or those of napari-svetlana (it begins
            with 0).
        overwrite : bool
            Whether an object that is another class here takes the new one; otherwise it stays, and is said.

        Returns
        -------
        DataFrame
            One row for each of the source: ``image``, ``object``, ``class``, ``outcome`` ("taken", "known", "differs",
            "contradicts", "earlier", "no class", "not found") and ``why``. ``attrs["summary"]``, and `status`, say it
            in a sentence. Classes that are new are added, with the file's colours.

        Raises
        ------
        InputError
            If the source cannot be used; then nothing has changed.
        """
        self._store.check_writable()
        found = self._found(source, image, column, names)
        check_not_empty(found, source if isinstance(source, str | Path) else "the table")
        return take(self, found, overwrite)

    def _found(
        self,
        source: TableSource,
        image: str | None,
        column: str | None,
        names: Mapping[int, str] | Sequence[str] | None,
    ) -> Found:
        if isinstance(source, pd.DataFrame):
            return read_class_table(self, source, image, column)
        if not isinstance(source, str | Path):
            raise InputError(f"annotations come from a file, a folder or a DataFrame, got {type(source).__name__}.")
        path = Path(source).expanduser()
        if (labels := labels_file(path)) is not None:
            return read_napari_svetlana(self, labels, names)
        if path.suffix.casefold() in TABLES:
            return read_class_table(self, path, image, column)
        if is_geojson(path):
            return read_qupath(self, path, image, column)
        if names is not None and not isinstance(names, Mapping):
            names = dict(enumerate(names, 1))
        return read_class_image(self, path, image, names)
