"""A project of the napari plugin Svetlana: its images and masks, and the labels in ``Svetlana/labels``.

The labels are a pickled dictionary in a zip, as torch saves one. Nothing of it is executed (`core.io.numpy_files`).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from svetlana_jupyter.core.io.numpy_files import UnsupportedValue, load_plain_pickle
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.importers.imported_labels import Found, ImportedLabel, file_stem

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

LABELS = Path("Svetlana") / "labels"
KEYS = ("image_path", "labels_path", "regionprops", "labels_list")


def labels_file(source: Path) -> Path | None:
    """Return the labels that a folder or file of such a project leads to; None if it is none."""
    for place in (source / LABELS, source / "labels"):
        if place.is_file():
            return place
    return source if source.is_file() and source.suffix == "" and zipfile.is_zipfile(source) else None


def read_napari_svetlana(project: Project, file: Path, names: Mapping[int, str] | Sequence[str] | None) -> Found:
    """Add the images that the project lacks, and return what was said of their objects.

    Parameters
    ----------
    names : mapping of int to str or sequence of str, optional
        What the class numbers mean, from 0 on; "class 1", "class 2", ... by default.
    """
    content = _content(file)
    folder = file.parent.parent if file.parent.name == "Svetlana" else file.parent
    called = dict(enumerate(names)) if isinstance(names, Sequence) else dict(names or {})
    pairs = [
        (_place(folder, "Images", image), _place(folder, "Masks", mask))
        for image, mask in zip(content["image_path"], content["labels_path"])
    ]
    numbers = {int(number) for part in content["labels_list"] for number in part}
    if names is not None and (unnamed := sorted(numbers - set(called))):
        raise InputError(f"the class numbers {format_list(unnamed)} have no name; give names= one for each, from 0 on.")
    rows = []
    images = _added(project, pairs)
    for name, properties, labels in zip(images, content["regionprops"], content["labels_list"]):
        for one, number in zip(properties, labels, strict=True):
            rows.append(ImportedLabel(name, int(one["label"]), called.get(int(number), f"class {int(number) + 1}")))
    return Found(rows, f"napari-svetlana {folder.name}", last_wins=True)


def _content(file: Path) -> Mapping[str, Any]:
    try:
        with zipfile.ZipFile(file) as packed:
            inside = next(name for name in packed.namelist() if name.endswith("data.pkl"))
            with packed.open(inside) as stream:
                content = load_plain_pickle(stream)  # type: ignore[arg-type]
    except (OSError, zipfile.BadZipFile, StopIteration, InputError) as error:
        raise InputError(
            f"{file} cannot be read as labels of napari-svetlana ({error or 'no data.pkl in it'}). Open and save them "
            "again with a current version of it."
        ) from error
    missing = [
        key for key in KEYS if not isinstance(content, Mapping) or not isinstance(content.get(key), list | tuple)
    ]
    if missing:
        raise InputError(f"{file} holds no labels of napari-svetlana: it has no list {format_list(missing)}.")
    lengths = {key: len(content[key]) for key in KEYS}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{file} is not whole: its lists are of different lengths, {lengths}.")
    for properties, labels in zip(content["regionprops"], content["labels_list"]):
        if len(properties) != len(labels) or not all(isinstance(one, Mapping) and "label" in one for one in properties):
            raise InputError(f"{file} is not whole: its objects and their classes do not belong together.")
        if any(isinstance(number, UnsupportedValue) for number in labels):
            raise InputError(f"{file} holds class numbers of an unknown kind; save the labels again.")
    return dict(content)


def _place(folder: Path, kind: str, written: object) -> Path:
    """Return where a file is: where the labels say, or in the project's own folder."""
    name = PureWindowsPath(str(written)).name
    tried = [Path(str(written)), folder / str(written), folder / kind / name]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise InputError(f"{name} is neither where the labels say, {written}, nor in {folder / kind}; put it there.")
    return found


def _added(project: Project, pairs: Sequence[tuple[Path, Path]]) -> list[str]:
    """Return the names of images in the project; those that are new are added, all or none."""
    known = {file.resolve(): name for name in project.images for file in project.images.image_files(name)}
    names = [known.get(image.resolve(), file_stem(image.name)) for image, _ in pairs]
    project.images.add_all({name: pair for name, pair in zip(names, pairs) if pair[0].resolve() not in known})
    return names
