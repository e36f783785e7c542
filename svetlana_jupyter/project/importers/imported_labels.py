"""Labels of another tool, and their import as annotations."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

import numpy as np
import pandas as pd

from svetlana_jupyter.core.annotations import FLAGS, IMPORT_SOURCE_PREFIX, Label, ObjectId
from svetlana_jupyter.core.classes import check_class_name, check_color
from svetlana_jupyter.core.io.chunks import ArrayRegion, group_by_block, processing_block_shape, read_regions
from svetlana_jupyter.core.io.table_files import describe_matches, format_list, match_names, same_case, same_name
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from svetlana_jupyter.core.classes import ClassScheme
    from svetlana_jupyter.project.annotation_store import Annotations
    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.project_classes import ProjectClasses

COLUMNS = ["image", "object", "class", "flag", "outcome", "why"]
NO_CLASS = "it has no class"
NO_CLASS_NAMES = ("", "nan", "none", "-", "unlabelled", "unlabeled", "unclassified", "deselected")
_RENAMED_FLAGS = {"bad": "bad_segmentation"}  # the name in version 0.1.0


@dataclass(frozen=True)
class ImportRequest:
    """Arguments of `Project.import_annotations`, with data of the project."""

    images: ImageCollection
    classes: ClassScheme
    image: str | None = None
    column: str | None = None
    names: Mapping[int, str] | Sequence[str] | None = None

    def resolve_image(self, file: Path | None) -> str:
        """Return the image to which a source without image names belongs.

        It is the image that the caller passed, the image named like the file, or the only image of the project.
        """
        if self.image is not None:
            if self.image not in self.images:
                raise InputError(f"The project has no image {self.image!r}. Choose among {format_list(self.images)}.")
            return self.image
        if name := self.image_of_file(file):
            return name
        if len(self.images) == 1:
            return next(iter(self.images))
        raise InputError(
            f"{file or 'The table'} does not name its image. Pass image=, one of "
            f"{format_list(self.images) or 'none yet'}."
        )

    def image_of_file(self, file: Path | None) -> str:
        """Return the image with the name of a file; "" if there is none."""
        for text in () if file is None else (file.name, unquote(file.name)):  # exported files have quoted names
            if name := self.find_images([text])[0].get(text) or self._find_prefix(file_stem(text)):
                return name
        return ""

    def resolve_names(
        self, written: Sequence[str], file: Path | None, notes: list[str], is_strict: bool = True
    ) -> list[tuple[str, str]]:
        """Return the image of each row, and the reason why the row is not used, or "".

        Parameters
        ----------
        written : sequence of str
            Name of an image in each row; "" if there is none.
        file : Path, optional
            Source; its name may be that of the image.
        notes : list of str
            Sentences about names that were taken for others are added.
        is_strict : bool
            Whether an unknown image is refused if it is the only one.

        Raises
        ------
        InputError
            If no row is of an image of the project, or of the image that the caller passed.
        """
        distinct = list(dict.fromkeys(filter(None, written)))
        if not distinct:
            image = self.resolve_image(file)
            notes.append(self.describe_guess(image, file))
            return [(image, "")] * len(written)
        found, note = self.find_images(distinct)
        shown, wanted = format_list(distinct, 3), None if self.image is None else self.resolve_image(file)
        if len(distinct) == 1 and not found and not (is_strict and wanted is None):
            image = self.resolve_image(file)
            notes.append(f"It names the image {distinct[0]!r}, and was read for {image!r}.")
            return [(image, "")] * len(written)
        if wanted is not None and wanted not in found.values():
            raise InputError(
                f"The rows are of {shown}, not of {wanted!r}. Leave out image= if the project has these images, or "
                "pass the rows of one image without their names."
            )
        if not found:
            raise InputError(
                f"No image of the table ({shown}) is in the project, which has "
                f"{format_list(self.images, 3) or 'no images yet'}. Add the images first, or pass image=."
            )
        notes.append(note)
        rows = []
        for text in written:
            image = found.get(text, "")
            unknown = f"the project has no image {text!r}" if text else "it names no image"
            if wanted is None:
                rows.append((image, "" if image else unknown))
            else:
                rows.append((wanted, "" if image == wanted else f"it is of image {text!r}" if text else unknown))
        return rows

    def describe_guess(self, image: str, file: Path | None) -> str:
        """Return a sentence if a file is read for the only image by default, or ""."""
        is_named = file is None or self.image is not None or self.image_of_file(file) == image
        return "" if is_named else f"The file names no image; it was read for the only one, {image!r}."

    def find_images(self, names: Iterable[str]) -> tuple[dict[str, str], str]:
        """Return the image of each name or file that belongs to one.

        The second value lists names in another spelling (`core.io.table_files.describe_matches`).
        """
        found: dict[str, str] = {}
        aliases: dict[str, str] = {}
        names = list(names)
        for form in (same_name, same_case):
            for shorten in (str, _file_name, file_stem):
                matches = match_names(map(shorten, names), self._aliases, [form])
                for name in names:
                    if name not in found and (alias := matches.get(shorten(name))):
                        found[name], aliases[shorten(name)] = self._aliases[alias], alias
        return found, describe_matches(aliases)

    def objects_at_points(self, image: str, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the label of the object at each pixel position (n, ndim) of an image.

        The label is 0 on the background and outside the image.
        """
        mask = self.images.pair(image).mask
        labels = np.zeros(len(positions), np.int64)
        inside = np.flatnonzero(((positions >= 0) & (positions < mask.shape)).all(axis=1))
        groups = [inside[some] for some in group_by_block(positions[inside], processing_block_shape(mask, mask))]
        corners = [(positions[some].min(axis=0), positions[some].max(axis=0) + 1) for some in groups]
        regions = [ArrayRegion(tuple(low.tolist()), tuple(high.tolist())) for low, high in corners]
        for some, (low, _), pixels in zip(groups, corners, read_regions(mask, regions)):
            labels[some] = pixels[tuple((positions[some] - low).T)]
        return labels

    @cached_property
    def _aliases(self) -> Mapping[str, str]:
        """The image of each alias; aliases are image names and file names."""
        by_alias: dict[str, set[str]] = defaultdict(set)
        for name, entry in self.images.items():
            paths = entry.image if isinstance(entry.image, tuple) else (entry.image,)
            files = [Path(path).name for path in (*paths, entry.mask) if "arrays" not in Path(path).parts]
            for text in (*files, *map(file_stem, files)):
                by_alias[text].add(name)
        by_file = {alias: names.pop() for alias, names in by_alias.items() if len(names) == 1}
        return by_file | {name: name for name in self.images}

    def _find_prefix(self, stem: str) -> str:
        """Return the image whose name begins the name of a file; "" if there is none.

        For example, the file "P1_A1_table.csv" belongs to the image "P1_A1".
        """
        for form in (same_name, same_case):
            # "P1_A1" must not match "P1_A10": no letter or digit may follow.
            prefixes = [
                alias
                for alias in self._aliases
                if form(stem).startswith(form(alias)) and not form(stem)[len(form(alias)) :][:1].isalnum()
            ]
            longest = max(map(len, prefixes), default=0)
            images = {self._aliases[alias] for alias in prefixes if len(alias) == longest}
            if len(images) == 1:
                return images.pop()
        return ""


class ImportedLabel(NamedTuple):
    """Class or flag of one object in the source of an import.

    ``label`` is the label of the object in the mask, or 0 if no object matches. ``class_name`` is "" if the source
    contains no class, and ``flag`` is one of `core.annotations.FLAGS` or "". ``problem`` is the reason why the label
    cannot be imported, or ""; ``is_set_aside`` is whether the row is of something else, such as another image.
    """

    image: str
    label: int
    class_name: str
    flag: str = ""
    problem: str = ""
    is_set_aside: bool = False

    @property
    def content(self) -> tuple[str, str]:
        """Class name and flag, of which one is ""."""
        return ("", self.flag) if self.flag else (self.class_name, "")


@dataclass(frozen=True)
class ImportedLabels:
    """All labels in one source, such as a file.

    Attributes
    ----------
    rows : sequence of ImportedLabel
        Labels, in the order of the source.
    source : str
        Description of the source for the annotation log, for example "ilastik table cells.csv".
    colors : mapping of str to str
        Color of each class, as ``"#rrggbb"``.
    last_wins : bool
        Whether the last label of an object is imported if its labels differ; otherwise none of them is imported.
    note : str
        Sentence to add to the summary of the import, or "".
    """

    rows: Sequence[ImportedLabel]
    source: str
    colors: Mapping[str, str] = field(default_factory=dict)
    last_wins: bool = False
    note: str = ""


def apply_import(
    images: ImageCollection,
    classes: ProjectClasses,
    annotations: Annotations,
    imported: ImportedLabels,
    overwrite: bool,
) -> pd.DataFrame:
    """Annotate objects with imported labels, all in one edit.

    Returns
    -------
    DataFrame
        One row per label of the source, see `Project.import_annotations`; ``attrs["summary"]`` summarizes them
        in a sentence.
    """
    names = _match_class_names(classes, imported)
    objects = {image: images.objects(image).index for image in {row.image for row in imported.rows if not row.problem}}
    rows = [_check_row(objects, row, names) for row in imported.rows]
    wanted = _consistent_labels(rows, imported.last_wins)
    outcomes: dict[ObjectId, tuple[str, str]] = {}
    chosen: dict[ObjectId, tuple[str, str]] = {}
    for key, content in wanted.items():
        label = annotations.label_of(*key)
        name = classes.by_id(label.class_id).name if label.action == "label" else ""
        present = (name, "" if name else label.action)
        is_free = present[1] == "skip" or not any(present)
        if present == content:
            outcomes[key] = "known", ""
        elif not is_free and (content[1] == "skip" or not overwrite):
            outcomes[key] = "differs", f"{_describe_label(present)} in this project"
        else:
            outcomes[key] = "taken", "" if is_free else f"was {''.join(present)}"
            chosen[key] = content
    added: dict[str, None] = {}
    if chosen:
        known = {info.name for info in classes.infos}
        added = dict.fromkeys(name for name, _ in chosen.values() if name and name not in known)
        for name in added:
            color = imported.colors.get(name, "")
            classes.add(name, check_color(color) if color else None)
        labels: dict[tuple[str, int], Label] = {
            key: Label(flag) if flag else Label("label", classes.by_name(name).id)  # type: ignore[arg-type]
            for key, (name, flag) in chosen.items()
        }
        annotations.apply(labels, f"{IMPORT_SOURCE_PREFIX}{imported.source}")
    report = [(row.image, row.label, *row.content, *_outcome(row, wanted, outcomes)) for row in rows]
    table = pd.DataFrame(report, columns=COLUMNS)
    sentences = [_summary(table, imported), describe_matches(names), _describe_added(list(added))]
    table.attrs["summary"] = " ".join(filter(None, sentences))
    return table


def _describe_label(content: tuple[str, str]) -> str:
    name, flag = content
    return f"labeled {name}" if name else f"flagged as {flag}"


def _describe_added(names: Sequence[str]) -> str:
    """Return a sentence about the classes that an import added, "" without any."""
    if not names:
        return ""
    quoted = [f"“{name}”" for name in names]
    return f"New {'class' if len(names) == 1 else 'classes'}: {format_list(quoted, 10)}."


def _match_class_names(classes: ProjectClasses, imported: ImportedLabels) -> Mapping[str, str]:
    """Return the class name in the project for each class name of the source.

    The two may differ in case, where this is unambiguous.
    """
    exact = {info.name: classes.by_id(info.id).name for info in classes.infos}
    given = list(dict.fromkeys(row.class_name for row in imported.rows if row.class_name and not row.problem))
    names = {name: exact[known] for name, known in match_names(given, exact).items()}
    for name in given:
        if name not in names:
            names[name] = check_class_name(name)
    return names


def _check_row(objects: Mapping[str, pd.Index], row: ImportedLabel, names: Mapping[str, str]) -> ImportedLabel:
    name = names.get(row.class_name, row.class_name)
    problem = row.problem if row.is_set_aside or any(row.content) else NO_CLASS
    if not problem and row.label not in objects[row.image]:
        problem = f"the mask has no object {row.label}"
    is_same = (name, problem) == (row.class_name, row.problem)
    return row if is_same else row._replace(class_name=name, problem=problem)


def _consistent_labels(rows: Sequence[ImportedLabel], last_wins: bool) -> dict[ObjectId, tuple[str, str]]:
    """Return the class name and flag of each object.

    Objects with contradicting labels are left out, unless ``last_wins``: then the last label counts.
    """
    labels: dict[ObjectId, list[tuple[str, str]]] = {}
    for row in rows:
        if not row.problem:
            labels.setdefault(ObjectId(row.image, row.label), []).append(row.content)
    return {key: given[-1] for key, given in labels.items() if last_wins or len(set(given)) == 1}


def _outcome(
    row: ImportedLabel, wanted: Mapping[ObjectId, tuple[str, str]], outcomes: Mapping[ObjectId, tuple[str, str]]
) -> tuple[str, str]:
    key = ObjectId(row.image, row.label)
    if row.is_set_aside:
        return "set aside", row.problem
    if row.problem:
        return ("no class" if row.problem == NO_CLASS else "not found"), row.problem
    if key not in wanted:
        return "contradicts", "it has two classes"
    if wanted[key] == row.content:
        return outcomes[key]
    return "earlier", f"a later row has the class {''.join(wanted[key])}"


def _summary(report: pd.DataFrame, imported: ImportedLabels) -> str:
    counted_by_row = report["outcome"].isin(["no class", "not found", "set aside"])
    objects = report[counted_by_row | ~report.duplicated(["image", "object", "outcome"])]
    counts = Counter(objects["outcome"])
    parts = [f"Imported {counts['taken']:,} annotations from {imported.source}"]
    if changed := int(objects["why"].str.startswith("was ").sum()):
        parts.append(f"{changed:,} replaced another label")
    for outcome, text in (
        ("known", "unchanged"),
        ("differs", "not imported, as the project has another label (pass overwrite=True to replace it)"),
        ("contradicts", "skipped because of two classes in the source"),
        ("no class", "without a class"),
    ):
        if counts[outcome]:
            parts.append(f"{counts[outcome]:,} {text}")
    for outcome, text in (("not found", "without a matching object"), ("set aside", "set aside")):
        if counts[outcome]:
            whys = report.loc[report["outcome"] == outcome, "why"]
            groups = whys.groupby(whys.str.replace(r"\d+", "", regex=True)).agg(["size", "nunique", "first"])
            groups = groups.sort_values("size", ascending=False, kind="stable")
            texts = [
                (f"{size:,} × " if len(groups) > 1 else "") + ("such as: " if distinct > 1 else "") + first
                for size, distinct, first in groups.itertuples(index=False)
            ]
            parts.append(f"{counts[outcome]:,} {text} ({format_list(texts, 3)})")
    return "; ".join(parts) + "." + (f" {imported.note}" if imported.note else "")


def split_flag(annotation: str, flag: str | None, has_class: bool) -> tuple[str, str]:
    """Return the class name and the flag in a row that this package exported.

    Earlier exports have no column of flags, but the flag as the annotation of an object without a class.

    >>> split_flag("bad", None, has_class=False), split_flag("bad", "", has_class=True)
    (('', 'bad_segmentation'), ('bad', ''))
    """
    if flag is None:
        flag = "" if has_class else _RENAMED_FLAGS.get(annotation, annotation)
    return ("", flag) if flag in FLAGS else (annotation, "")


def _file_name(name: str) -> str:
    return PureWindowsPath(name).name  # splits at slashes of both kinds


def file_stem(name: str) -> str:
    r"""Return a file name without folders and suffixes; accepts paths of any platform.

    >>> file_stem("C:\\\\plates\\\\P1_A1.ome.tif"), file_stem("P1_A1.geojson.gz")
    ('P1_A1', 'P1_A1')
    """
    name = _file_name(name).removesuffix(".gz")
    return (name.rpartition(".")[0] or name).removesuffix(".ome")
