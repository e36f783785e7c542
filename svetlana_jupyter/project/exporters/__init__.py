"""Export of results to files for other tools.

`FORMATS` is the registry, with one entry per file format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.exporters import anndata, class_maps, geojson, ome_zarr, patch_files, tables
from svetlana_jupyter.project.exporters.output_folder import ExportStopped, OutputFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from svetlana_jupyter.project.exporters.snapshot import ResultsSnapshot

MAX_FILES_NAMED = 4


@dataclass(frozen=True)
class ExportFormat:
    """A file format for results.

    Attributes
    ----------
    title : str
        Name in the user interface.
    write : callable
        Writes the files, and yields the path of each file once it is complete.
    check : callable
        Raises an error if the format cannot hold the results; called before anything is written.
    file_per : "project", "image" or "class"
        One file per project, per image, or per image and class.
    """

    title: str
    write: Callable[[OutputFolder, ResultsSnapshot], Iterator[Path]]
    check: Callable[[ResultsSnapshot], None] = lambda snapshot: None
    file_per: Literal["project", "image", "class"] = "project"


FORMATS: Mapping[str, ExportFormat] = {
    "csv": ExportFormat("CSV tables", tables.write_csv),
    "excel": ExportFormat("Excel table", tables.write_excel, tables.check_excel),
    "parquet": ExportFormat("Parquet tables", tables.write_parquet),
    "anndata": ExportFormat("AnnData, for scanpy and squidpy", anndata.write_anndata, anndata.check_anndata),
    "tiff": ExportFormat("Class maps, for ImageJ and Fiji", class_maps.write_imagej, class_maps.check_imagej, "image"),
    "ome-tiff": ExportFormat("Class maps, as OME-TIFF", class_maps.write_ome_tiff, file_per="image"),
    "ome-zarr": ExportFormat("Class maps, as OME-Zarr", ome_zarr.write_ome_zarr, file_per="image"),
    "masks": ExportFormat("One mask per class", class_maps.write_masks, class_maps.check_imagej, "class"),
    "geojson": ExportFormat("Outlines, for QuPath", geojson.write_geojson, file_per="image"),
    "patches": ExportFormat("Annotated patches", patch_files.write_patches, patch_files.check_patches),
}


def check_formats(formats: Sequence[str] | str) -> list[str]:
    """Return the formats as a list, or raise an error if a format is unknown."""
    if not isinstance(formats, Iterable):
        raise InputError(f"formats must be a list of formats, got {formats!r}. Choose among {', '.join(FORMATS)}.")
    names = [formats] if isinstance(formats, str) else list(formats)
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise InputError(
            f"Unknown export format {', '.join(map(repr, unknown)) or '(none given)'}. "
            f"Choose among {', '.join(FORMATS)}."
        )
    return names


class Export:
    """Export of results to files, in one or more formats.

    The arguments are checked at once. The files are written by `files`.

    Parameters
    ----------
    snapshot : callable
        Returns the results as they are when the export starts.
    output : OutputFolder
    formats : sequence of str
        Keys of `FORMATS`.

    Attributes
    ----------
    folder : Path
    done : float
        Finished fraction of the export, from 0 to 1.
    stopped : bool
        Whether the user stopped the export.

    Raises
    ------
    InputError
        If a format is unknown.
    ProjectError
        If there are no images.
    """

    def __init__(
        self, snapshot: Callable[[], ResultsSnapshot], output: OutputFolder, formats: Sequence[str] | str
    ) -> None:
        self._formats = check_formats(formats)
        if not output.names:
            raise ProjectError("The project has no images yet. Add some with project.add_images(...).")
        self._snapshot, self._output = snapshot, output
        self.folder, self.done, self.stopped = output.folder, 0.0, False

    def files(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Path]:
        """Write one file after the other, and yield the path of each complete file."""
        output, snapshot = self._output, self._snapshot()
        output.stop = stop
        for name in self._formats:
            FORMATS[name].check(snapshot)
        output.record_contents(snapshot.name, snapshot.classes, snapshot.run, snapshot.warnings)
        try:
            for number, name in enumerate(self._formats):
                kind = FORMATS[name]
                expected = len(snapshot.images) * (len(snapshot.classes) if kind.file_per == "class" else 1)
                for count, file in enumerate(kind.write(output, snapshot), 1):
                    part = 0.5 if kind.file_per == "project" else min(1.0, count / max(1, expected))
                    self.done = (number + part) / len(self._formats)
                    yield file
        except ExportStopped:
            self.stopped = True
        except OSError as error:
            raise ProjectError(
                f"{output.current_file} could not be written ({_reason(error)}). Free some space or choose another "
                "folder, then export again. Files written earlier are complete."
            ) from error


@dataclass(frozen=True)
class ExportFinished:
    """Event that reports the end of a background export and the files written."""

    folder: Path
    files: tuple[Path, ...]
    stopped: bool

    @property
    def text(self) -> str:
        """A sentence that lists the written files."""
        names = [file.relative_to(self.folder).as_posix() for file in self.files]
        if len(names) > MAX_FILES_NAMED + 1:
            names = [*names[:MAX_FILES_NAMED], f"and {len(names) - MAX_FILES_NAMED} more"]
        if self.stopped:
            return f"Export stopped. Complete files in {self.folder}: {', '.join(names) or 'none'}"
        return f"Written to {self.folder}: {', '.join(names)}"


def _reason(error: OSError) -> str:
    """Return the reason why a file could not be written.

    An error of HDF5 contains the error number only in its long message.
    """
    number = error.errno or next(iter(re.findall(r"errno = (\d+)", str(error))), None)
    return error.strerror or (os.strerror(int(number)) if number else str(error).splitlines()[0])
