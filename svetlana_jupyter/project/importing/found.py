"""What a source says of objects, before any of it is taken in; and how its images and places are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.blocks import processing_block_shape
from svetlana_jupyter.core.tables import format_list, normalize_value
from svetlana_jupyter.core.windows import Window, read_regions
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from svetlana_jupyter.project.dataset import Dataset


class ImportedLabel(NamedTuple):
    """What a source says of one thing: its object (0 where none was found), class ("" for none), and what is wrong."""

    image: str
    object: int
    class_name: str
    problem: str = ""


@dataclass(frozen=True)
class Found:
    """All that a source says.

    Attributes
    ----------
    rows : sequence of Said
        In the order of the source.
    source : str
        Where from, for the log: "ilastik table cells.csv".
    colors : mapping of str to str
        ``"#rrggbb"`` by class.
    last_stands : bool
        Whether what is said last of an object stands; else nothing is taken of one that is given two classes.
    note : str
    """

    rows: Sequence[ImportedLabel]
    source: str
    colors: Mapping[str, str] = field(default_factory=dict)
    last_wins: bool = False
    note: str = ""


def image_aliases(project: Dataset) -> Mapping[str, str]:
    """Return the project's images by all that they may be called: their names, and those of their files."""
    found: dict[str, set[str]] = {}
    for name, entry in project.images.items():
        paths = entry.image if isinstance(entry.image, tuple) else (entry.image,)
        files = [Path(path) for path in (*paths, entry.mask) if "arrays" not in Path(path).parts]
        for called in {normalize_value(part) for path in files for part in (path.name, file_stem(path.name))}:
            found.setdefault(called, set()).add(name)
    by_file = {called: names.pop() for called, names in found.items() if len(names) == 1}
    return by_file | {normalize_value(name): name for name in project.images} | {name: name for name in project.images}


def file_stem(name: str) -> str:
    """Return a file's name without folders and endings, as any system writes them.

    >>> file_stem("C:\\\\plates\\\\P1_A1.ome.tif"), file_stem("P1_A1.geojson.gz")
    ('P1_A1', 'P1_A1')
    """
    stem = PureWindowsPath(name).name  # takes slashes of both kinds
    for ending in (".gz", ".ome"):
        stem = stem.removesuffix(ending) if ending == ".gz" else stem
    stem = stem.rpartition(".")[0] or stem
    return stem.removesuffix(".ome")


def find_image(called: object, known: Mapping[str, str]) -> str:
    """Return the image of that name or file; "" if there is none."""
    text = str(called)
    tried = (text, normalize_value(text), normalize_value(PureWindowsPath(text).name), normalize_value(file_stem(text)))
    return next((known[one] for one in tried if one in known), "")


def resolve_image(project: Dataset, image: str | None, file: Path | None) -> str:
    """Return the image that a source without image names is of: the one given, of the file's name, or the only one."""
    if image is not None:
        if image not in project.images:
            raise InputError(f"the project has no image {image!r}; its images are {format_list(project.images)}.")
        return image
    if file is not None and (named := _called_after(file.name, image_aliases(project))):
        return named
    if len(project.images) == 1:
        return next(iter(project.images))
    raise InputError(
        f"{file or 'the table'} does not say which image it is of: name it with image=, one of "
        f"{format_list(project.images) or 'none yet'}."
    )


def _called_after(file: str, known: Mapping[str, str]) -> str:
    """Return the image that a file is called after: exactly, or with something behind it ("P1_A1_table.csv")."""
    if exact := find_image(file, known):
        return exact
    stem = normalize_value(file_stem(file))
    begun = [one for one in map(normalize_value, known) if stem.startswith(one) and not stem[len(one) :][:1].isalnum()]
    return find_image(max(begun, key=len), known) if begun else ""


def objects_at(project: Dataset, image: str, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the object under each pixel (n, ndim); 0 on the background and beyond the image."""
    mask = project.pair(image).mask
    inside = ((places >= 0) & (places < mask.shape)).all(axis=1)
    found = np.zeros(len(places), np.int64)
    wanted = np.flatnonzero(inside)
    order = wanted[block_order(places[wanted], processing_block_shape(mask, mask))]
    windows = [Window(tuple(place), tuple(place + 1)) for place in places[order]]
    for place, pixel in zip(order, read_regions(mask, windows)):
        found[place] = int(pixel.item())
    return found


def block_order(places: NDArray[np.int64], sides: Sequence[int]) -> NDArray[np.intp]:
    """Return the order in which places are read block after block."""
    return np.lexsort((places // np.asarray(sides)).T[::-1]) if len(places) else np.empty(0, np.intp)
