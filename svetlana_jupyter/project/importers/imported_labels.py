"""What a source says of objects, before any of it is taken in; and how its images and places are found.

Taking in what a source says: all in one edit, and nothing over what somebody said here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from svetlana_jupyter.core.annotations import IMPORT_SOURCE_PREFIX, ObjectId
from svetlana_jupyter.core.classes import check_class_name, check_color
from svetlana_jupyter.core.io.chunks import ArrayRegion, processing_block_shape, read_regions
from svetlana_jupyter.core.io.table_files import format_list, normalize_header, normalize_value
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Dataset


class ImportedLabel(NamedTuple):
    """What a source says of one thing: its object (0 where none was found), class ("" for none), and what is wrong."""

    image: str
    label: int
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
    windows = [ArrayRegion(tuple(place), tuple(place + 1)) for place in places[order]]
    for place, pixel in zip(order, read_regions(mask, windows)):
        found[place] = int(pixel.item())
    return found


def block_order(places: NDArray[np.int64], sides: Sequence[int]) -> NDArray[np.intp]:
    """Return the order in which places are read block after block."""
    return np.lexsort((places // np.asarray(sides)).T[::-1]) if len(places) else np.empty(0, np.intp)


ASIDE = ("ambiguous", "bad_segmentation")
COLUMNS = ["image", "object", "class", "outcome", "why"]


def take(project: Dataset, found: Found, overwrite: bool) -> pd.DataFrame:
    """Annotate objects as a source says, and return what became of each of its rows."""
    names = _names(project, found)
    checked = [_checked(project, row, names) for row in found.rows]
    wanted = _wanted(checked, found.last_wins)
    outcomes: dict[ObjectId, tuple[str, str]] = {}
    chosen: dict[ObjectId, str] = {}
    for id, word in wanted.items():
        stands = project.label_of(*id)
        here = project.classes.by_id(stands.class_id).name if stands.action == "label" else stands.action
        if here == word:
            outcomes[id] = "known", ""
        elif here in ("", "skip"):
            outcomes[id], chosen[id] = ("taken", ""), word
        elif overwrite:
            outcomes[id], chosen[id] = ("taken", f"was {here}"), word
        else:
            outcomes[id] = "differs", f"is {here} here"
    if chosen:
        _write(project, found, chosen)
    rows = [(*row[:3], *_outcome(row, wanted, outcomes)) for row in checked]
    report = pd.DataFrame(rows, columns=COLUMNS)
    report.attrs["summary"] = project.status = _summary(report, found)
    return report


def _names(project: Dataset, found: Found) -> Mapping[str, str]:
    """Return how each class of the source is called here: as a class that there is, in any spelling, or as it is."""
    spelled = {normalize_header(info.name): project.classes.by_id(info.id).name for info in project.classes.infos}
    exact = {info.name: project.classes.by_id(info.id).name for info in project.classes.infos}
    names: dict[str, str] = {}
    for word in dict.fromkeys(row.class_name for row in found.rows if row.class_name):
        known = exact.get(word) or (spelled.get(normalize_header(word)) if normalize_header(word) else None)
        if known is None and word.casefold() in (*ASIDE, "bad"):  # version 0.1.0 exported "bad"
            known = "bad_segmentation" if word.casefold() == "bad" else word.casefold()
        elif known is None:
            check_class_name(word)
            if normalize_header(word):
                spelled[normalize_header(word)] = word  # the next spelling of a new class is the same one
        names[word] = known or word
    return names


def _checked(project: Dataset, row: ImportedLabel, names: Mapping[str, str]) -> ImportedLabel:
    word = names.get(row.class_name, "")
    if row.problem:
        return row._replace(class_name=word)
    if not word:
        return row._replace(problem="it has no class")
    if row.label not in project.objects(row.image).index:
        return row._replace(class_name=word, problem=f"the mask has no object {row.label}")
    return row._replace(class_name=word)


def _wanted(rows: list[ImportedLabel], last_wins: bool) -> dict[ObjectId, str]:
    """Return the class that each object is to have; none of one that is given two."""
    said: dict[ObjectId, list[str]] = {}
    for row in rows:
        if not row.problem:
            said.setdefault(ObjectId(row.image, row.label), []).append(row.class_name)
    return {id: words[-1] for id, words in said.items() if last_wins or len(set(words)) == 1}


def _outcome(
    row: ImportedLabel, wanted: Mapping[ObjectId, str], outcomes: Mapping[ObjectId, tuple[str, str]]
) -> tuple[str, str]:
    id = ObjectId(row.image, row.label)
    if row.problem:
        return ("no class" if row.problem == "it has no class" else "not found"), row.problem
    if id not in wanted:
        return "contradicts", "it is given two classes"
    return outcomes[id] if wanted[id] == row.class_name else ("earlier", f"later it is given {wanted[id]}")


def _write(project: Dataset, found: Found, chosen: Mapping[ObjectId, str]) -> None:
    """Add the classes that are new, then annotate."""
    known = {info.name for info in project.classes.infos}
    for word in dict.fromkeys(chosen.values()):
        if word not in known and word not in ASIDE:
            color = found.colors.get(word, "")
            project.add_class(word, check_color(color) if color else None)
    project.say_each(
        {(id.image, id.label): word for id, word in chosen.items()}, f"{IMPORT_SOURCE_PREFIX}{found.source}"
    )


def _summary(report: pd.DataFrame, found: Found) -> str:
    objects = report.drop_duplicates(["image", "object", "outcome"])
    counts = Counter(objects["outcome"]) | Counter(
        {kind: int((report["outcome"] == kind).sum()) for kind in ("no class", "not found")}
    )
    said = [f"{counts['taken']:,} annotations are taken from {found.source}"]
    if changed := int(objects["why"].str.startswith("was ").sum()):
        said.append(f"{changed:,} of them replace another one")
    for outcome, words in (
        ("known", "were the same here already"),
        ("differs", "are another class here and were left as they are (overwrite=True takes the new ones)"),
        ("contradicts", "are given two classes, so none was taken"),
        ("no class", "have no class"),
    ):
        if counts[outcome]:
            said.append(f"{counts[outcome]:,} {words}")
    if counts["not found"]:
        why = report.loc[report["outcome"] == "not found", "why"]
        said.append(f"{counts['not found']:,} found no object ({format_list(dict.fromkeys(why), 2)})")
    return "; ".join(said) + "." + (f" {found.note}" if found.note else "")


def check_not_empty(found: Found, source: object) -> None:
    """Refuse a source that says nothing of any object."""
    if not found.rows:
        raise InputError(f"{source} says nothing of any object.")
