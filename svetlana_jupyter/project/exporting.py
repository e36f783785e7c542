"""A project whose results go to other tools: as files in a folder of their own, and as a Dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import xarray as xr
from traitlets import Any as AnyTrait

from svetlana_jupyter.project.export import Export, ExportFinished
from svetlana_jupyter.project.exports.arrays import to_xarray
from svetlana_jupyter.project.jobs import Progress, Stop
from svetlana_jupyter.project.predicting import Predicting

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project


class Exporting(Predicting):
    """Results that are written for other tools.

    Attributes
    ----------
    exported : Written or None
        The last export that ran beside the notebook.
    """

    exported = AnyTrait(allow_none=True)

    def handle(self, event: object) -> None:
        """Take in one event of a job; only ever called by the owner."""
        if isinstance(event, ExportFinished):
            self.exported, self.status = event, event.text
        else:
            super().handle(event)

    def export(self, folder: str | Path, formats: Sequence[str] = ("csv",)) -> list[Path]:
        """Write the results to a folder of their own, as they stand now, and return the files.

        Parameters
        ----------
        folder : str or Path
            Made if it is new. Not one that images or masks lie in, nor part of the project. Files of an earlier export
            there are replaced, others are not.
        formats : sequence of str
            "csv", "parquet", "excel" (tables), "anndata" (for scanpy), "tiff" (class maps for ImageJ), "ome-tiff",
            "masks" (one a class), "ome-zarr", "geojson" (outlines for QuPath), "patches" (those annotated).

        Raises
        ------
        InputError
            If a format is not known.
        ProjectError
            If the folder is not for exports, a format cannot hold the results (before anything is written), or a file
            cannot be written; every file is whole or not there.
        """
        return list(Export(self._as_project(), Path(folder), formats).files())

    def start_export(self, folder: str | Path, formats: Sequence[str] = ("csv",)) -> None:
        """Export on a thread of its own, so that the notebook stays free; `job` and `status` tell."""
        export = Export(self._as_project(), Path(folder), formats)
        self.exported = None

        def work(stop: Stop) -> Iterator[object]:
            files: list[Path] = []
            yield Progress(0, 1, "exporting")
            for file in export.files(stop):
                files.append(file)
                yield Progress(export.done, 1, f"{file.name} is written")
            yield ExportFinished(export.folder, tuple(files), export.stopped)

        self._jobs.start("export", work)

    def to_xarray(self, images: Iterable[str] | None = None) -> xr.Dataset:
        """Return the table of objects as arrays with dims ``object`` and ``class`` (`core.object_dataset`).

        What was measured already is in it too. Its ``to_netcdf("objects.nc")`` and ``to_zarr`` write it.
        """
        return to_xarray(self._as_project(), self._chosen(images))

    def _as_project(self) -> Project:
        return cast("Project", self)
