"""Results as files that other tools open, in a folder of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tifffile

from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.store import file_name, replacing

if TYPE_CHECKING:
    from svetlana_jupyter.project.results import Results


def export(project: Results, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write what `Results.predictions` and `Results.class_map` give.

    Parameters
    ----------
    folder : Path
        Made if it is new; must not be one that inputs lie in.
    formats : sequence of str
        "csv" and "parquet": the table of objects, and the counts by image. "tiff": one class map an image, with the
        class codes of `Results.class_map`, in ImageJ's form.

    Returns
    -------
    list of Path
        The files written.
    """
    formats = [formats] if isinstance(formats, str) else list(formats)
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise InputError(f"formats are {', '.join(FORMATS)}; got {', '.join(map(repr, unknown)) or 'none'}.")
    folder = folder.absolute()
    if folder in project.input_folders():
        raise ProjectError(f"{folder} holds images or masks of the project; export to a folder of its own.")
    folder.mkdir(parents=True, exist_ok=True)
    return [file for name in formats for file in FORMATS[name](project, folder)]


def _csv(project: Results, folder: Path) -> list[Path]:
    objects, counts = folder / "objects.csv", folder / "counts.csv"
    with replacing(objects) as beside:
        project.predictions().to_csv(beside)
    with replacing(counts) as beside:
        project.counts(by="image").to_csv(beside, index=False)
    return [objects, counts]


def _parquet(project: Results, folder: Path) -> list[Path]:
    file = folder / "objects.parquet"
    with replacing(file) as beside:
        project.predictions().to_parquet(beside)
    return [file]


def _tiff(project: Results, folder: Path) -> list[Path]:
    files = []
    for name in project.images:
        file = folder / f"{file_name(name)}_classes.tif"
        codes = project.class_map(name)
        axes = "".join(map(str, codes.dims)).upper()
        with replacing(file) as beside:
            tifffile.imwrite(beside, codes.to_numpy(), imagej=True, metadata={"axes": axes}, compression="zlib")
        files.append(file)
    return files


FORMATS: Mapping[str, Callable[[Results, Path], list[Path]]] = {"csv": _csv, "parquet": _parquet, "tiff": _tiff}
