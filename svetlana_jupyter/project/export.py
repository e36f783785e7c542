"""Results as files that other tools open, in a folder of their own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.exports.geojson import write_geojson
from svetlana_jupyter.project.exports.h5ad import check_anndata, write_anndata
from svetlana_jupyter.project.exports.maps import check_imagej, write_imagej, write_masks, write_ome
from svetlana_jupyter.project.exports.ngff import write_ngff
from svetlana_jupyter.project.exports.patches import check_patches, write_patches
from svetlana_jupyter.project.exports.place import Place
from svetlana_jupyter.project.exports.tables import check_excel, write_csv, write_excel, write_parquet

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project


@dataclass(frozen=True)
class Format:
    """One way to write results.

    Attributes
    ----------
    words : str
        What a person reads of it.
    write : callable
        Writes one file after the other and yields them.
    check : callable
        Raises what stands against it, before anything is written.
    """

    words: str
    write: Callable[[Place], Iterator[Path]]
    check: Callable[[Project], None] = lambda project: None


FORMATS: Mapping[str, Format] = {
    "csv": Format("Tables, as CSV", write_csv),
    "parquet": Format("Tables, as Parquet", write_parquet),
    "excel": Format("Tables, as Excel", write_excel, check_excel),
    "anndata": Format("Objects as AnnData, for scanpy and squidpy", write_anndata, check_anndata),
    "tiff": Format("Class maps, for ImageJ and Fiji", write_imagej, check_imagej),
    "ome-tiff": Format("Class maps, as OME-TIFF", write_ome),
    "masks": Format("One mask a class", write_masks, check_imagej),
    "ome-zarr": Format("Classes, objects and probabilities, as OME-Zarr", write_ngff),
    "geojson": Format("Outlines with classes, for QuPath", write_geojson),
    "patches": Format("Annotated patches, a folder a class", write_patches, check_patches),
}


def export(project: Project, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write what `Results.predictions` and `Results.class_map` give.

    Parameters
    ----------
    folder : Path
        Made if it is new; must not be one that inputs lie in, nor part of the project. Files of an earlier export there
        are replaced, others are not.
    formats : sequence of str
        Keys of `FORMATS`.

    Returns
    -------
    list of Path
        The files and folders written.

    Raises
    ------
    InputError
        If a format is not known.
    ProjectError
        If the folder is not for exports, or a file cannot be written; files are whole or not there.
    """
    return list(exporting(project, folder, formats))


def exporting(project: Project, folder: Path, formats: Sequence[str]) -> Iterator[Path]:
    """Do what `export` does, and yield each file when it is written."""
    formats = [formats] if isinstance(formats, str) else list(formats)
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise InputError(f"formats are {', '.join(FORMATS)}; got {', '.join(map(repr, unknown)) or 'none'}.")
    if not project.images:
        raise ProjectError("the project has no images yet; add some with project.add_images(...).")
    place = Place(project, folder)
    for name in formats:
        FORMATS[name].check(project)
    try:
        for name in formats:
            yield from FORMATS[name].write(place)
    except OSError as error:
        raise ProjectError(
            f"{place.now} could not be written ({_reason(error)}); make room, or choose another folder, and export "
            "again. What was written before it is whole."
        ) from error


def _reason(error: OSError) -> str:
    """Return why a file could not be written; HDF5 says it amid much else."""
    number = error.errno or next(iter(re.findall(r"errno = (\d+)", str(error))), None)
    return error.strerror or (os.strerror(int(number)) if number else str(error).splitlines()[0])
