"""The formats that results are written in, one idea a file.

Results as files that other tools open, in a folder of their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.exporters.anndata import check_anndata, write_anndata
from svetlana_jupyter.project.exporters.class_maps import check_imagej, write_imagej, write_masks, write_ome
from svetlana_jupyter.project.exporters.geojson import write_geojson
from svetlana_jupyter.project.exporters.ome_zarr import write_ngff
from svetlana_jupyter.project.exporters.patch_files import check_patches, write_patches
from svetlana_jupyter.project.exporters.snapshot import ExportStopped, OutputFolder, ResultsSnapshot
from svetlana_jupyter.project.exporters.tables import check_excel, write_csv, write_excel, write_parquet

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

NAMED = 4  # files that a person is told by name


@dataclass(frozen=True)
class ExportFormat:
    """One way to write results.

    Attributes
    ----------
    words : str
        What a person reads of it.
    write : callable
        Writes one file after the other and yields them.
    check : callable
        Raises what stands against it, before anything is written.
    each : "project", "image" or "class"
        What there is a file of.
    """

    words: str
    write: Callable[[OutputFolder, ResultsSnapshot], Iterator[Path]]
    check: Callable[[ResultsSnapshot], None] = lambda found: None
    each: Literal["project", "image", "class"] = "project"


FORMATS: Mapping[str, ExportFormat] = {
    "csv": ExportFormat("CSV tables", write_csv),
    "excel": ExportFormat("Excel table", write_excel, check_excel),
    "parquet": ExportFormat("Parquet tables", write_parquet),
    "anndata": ExportFormat("AnnData, for scanpy and squidpy", write_anndata, check_anndata),
    "tiff": ExportFormat("Class maps, for ImageJ and Fiji", write_imagej, check_imagej, "image"),
    "ome-tiff": ExportFormat("Class maps, as OME-TIFF", write_ome, each="image"),
    "ome-zarr": ExportFormat("Class maps, as OME-Zarr", write_ngff, each="image"),
    "masks": ExportFormat("One mask a class", write_masks, check_imagej, "class"),
    "geojson": ExportFormat("Outlines, for QuPath", write_geojson, each="image"),
    "patches": ExportFormat("Annotated patches", write_patches, check_patches),
}


class Export:
    """Results to write: checked when it is made, written by `files`.

    Parameters
    ----------
    project : Project
    folder : Path
    formats : sequence of str
        Keys of `FORMATS`.

    Attributes
    ----------
    folder : Path
    done : float
        How much of it is done, from 0 to 1.
    stopped : bool

    Raises
    ------
    InputError
        If a format is not known.
    ProjectError
        If the folder is not for exports, or there is nothing to export.
    """

    def __init__(self, project: Project, folder: Path, formats: Sequence[str]) -> None:
        formats = [formats] if isinstance(formats, str) else list(formats)
        unknown = [name for name in formats if name not in FORMATS]
        if unknown or not formats:
            raise InputError(f"formats are {', '.join(FORMATS)}; got {', '.join(map(repr, unknown)) or 'none'}.")
        if not project.images:
            raise ProjectError("the project has no images yet; add some with project.add_images(...).")
        self._project, self._formats = project, formats
        self._stop: Callable[[], bool] = lambda: False
        self._place = OutputFolder(project, folder, lambda: self._stop())
        self.folder, self.done, self.stopped = self._place.folder, 0.0, False

    def files(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Path]:
        """Write one file after the other, and yield each when it is whole."""
        self._stop = stop
        found = ResultsSnapshot.of(self._project)
        for name in self._formats:
            FORMATS[name].check(found)
        self._place.describe(found)
        try:
            for number, name in enumerate(self._formats):
                format = FORMATS[name]
                many = len(found.images) * (len(found.classes) if format.each == "class" else 1)
                for count, file in enumerate(format.write(self._place, found), 1):
                    part = min(1.0, count / max(1, many)) if format.each != "project" else 0.5
                    self.done = (number + part) / len(self._formats)
                    yield file
        except ExportStopped:
            self.stopped = True
        except OSError as error:
            raise ProjectError(
                f"{self._place.now} could not be written ({_reason(error)}); make room, or choose another folder, and "
                "export again. What was written before it is whole."
            ) from error


@dataclass(frozen=True)
class ExportFinished:
    """The end of an export that ran beside the notebook."""

    folder: Path
    files: tuple[Path, ...]
    stopped: bool

    @property
    def text(self) -> str:
        names = [file.relative_to(self.folder).as_posix() for file in self.files]
        told = ", ".join(names if len(names) <= NAMED + 1 else [*names[:NAMED], f"and {len(names) - NAMED} more"])
        if self.stopped:
            return f"The export was stopped; whole in {self.folder}: {told or 'nothing'}"
        return f"Written to {self.folder}: {told}"


def _reason(error: OSError) -> str:
    """Return why a file could not be written; HDF5 says it amid much else."""
    number = error.errno or next(iter(re.findall(r"errno = (\d+)", str(error))), None)
    return error.strerror or (os.strerror(int(number)) if number else str(error).splitlines()[0])
