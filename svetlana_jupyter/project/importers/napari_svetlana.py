"""Projects of the napari plugin Svetlana, with their labels.

The plugin saves the labels with torch, in the file ``Svetlana/labels``. It is a zip archive that contains a pickled
dictionary. Code in the pickle is never executed (`core.io.numpy_files`).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from svetlana_jupyter.core.io.numpy_files import UnsupportedValue, load_plain_pickle
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.importers.imported_labels import ImportedLabel, ImportedLabels, ImportRequest, file_stem

if TYPE_CHECKING:
    from svetlana_jupyter.project.image_collection import ImageCollection

LABELS = Path("Svetlana") / "labels"
KEYS = ("image_path", "labels_path", "regionprops", "labels_list")


def is_napari_svetlana(source: Path) -> bool:
    """Return whether a folder or file belongs to a project of the plugin."""
    return _labels_file(source) is not None


def _labels_file(source: Path) -> Path | None:
    for file in (source / LABELS, source / "labels"):
        if file.is_file():
            return file
    return source if source.is_file() and source.suffix == "" and zipfile.is_zipfile(source) else None


def read_napari_svetlana(request: ImportRequest, source: Path) -> ImportedLabels:
    """Return the labels in a project of the plugin.

    Images of the plugin's project are added to this project if they are missing.

    ``request.names`` holds the names of the class numbers, from 0 on; by default "class 1", "class 2", ...
    """
    file = _labels_file(source)
    assert file is not None
    content, names = _read_content(file), request.names
    folder = file.parent.parent if file.parent.name == "Svetlana" else file.parent
    classes = dict(names if isinstance(names, Mapping) else enumerate(names or ()))
    pairs = [
        (_find_file(folder, "Images", image), _find_file(folder, "Masks", mask))
        for image, mask in zip(content["image_path"], content["labels_path"])
    ]
    numbers = {int(number) for part in content["labels_list"] for number in part}
    if names is not None and (unnamed := sorted(numbers - set(classes))):
        raise InputError(f"The class numbers {format_list(unnamed)} have no name. Pass names= for each, from 0 on.")
    images = _add_missing(request.images, pairs)
    rows = [
        ImportedLabel(image, int(properties["label"]), classes.get(int(number), f"class {int(number) + 1}"))
        for image, objects, labels in zip(images, content["regionprops"], content["labels_list"])
        for properties, number in zip(objects, labels, strict=True)
    ]
    return ImportedLabels(rows, f"napari-svetlana {folder.name}", last_wins=True)


def _read_content(file: Path) -> Mapping[str, Any]:
    try:
        with zipfile.ZipFile(file) as archive:
            member = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(member) as stream:
                content = load_plain_pickle(stream)  # type: ignore[arg-type]
    except (OSError, zipfile.BadZipFile, StopIteration, InputError) as error:
        raise InputError(
            f"{file} cannot be read as labels of napari-svetlana ({str(error) or 'it contains no data.pkl'}). Open and "
            "save them with a current version of the plugin."
        ) from error
    content = content if isinstance(content, Mapping) else {}
    missing = [key for key in KEYS if not isinstance(content.get(key), list | tuple)]
    if missing:
        raise InputError(
            f"{file} contains no labels of napari-svetlana: the list {format_list(missing)} is missing. Pass the "
            "folder of the plugin's project."
        )
    lengths = {key: len(content[key]) for key in KEYS}
    problem = "" if len(set(lengths.values())) == 1 else f"its lists have different lengths, {lengths}"
    for objects, labels in zip(content["regionprops"], content["labels_list"]):
        if len(objects) != len(labels) or not all(isinstance(item, Mapping) and "label" in item for item in objects):
            problem = problem or "its objects and classes do not match"
        elif any(isinstance(number, UnsupportedValue) for number in labels):
            problem = problem or "it contains class numbers of an unknown type"
    if problem:
        raise InputError(f"{file} is damaged: {problem}. Save the labels again in the plugin.")
    return dict(content)


def _find_file(folder: Path, kind: str, written: object) -> Path:
    """Find a file at its path in the labels, or in the folder of the plugin project."""
    name = PureWindowsPath(str(written)).name
    candidates = [Path(str(written)), folder / str(written), folder / kind / name]
    file = next((path for path in candidates if path.is_file()), None)
    if file is None:
        raise InputError(f"{name} is neither at {written} nor in {folder / kind}. Copy the file to that folder.")
    return file


def _add_missing(images: ImageCollection, pairs: Sequence[tuple[Path, Path]]) -> list[str]:
    """Add the images that the project lacks, all or none; return all image names."""
    known = {file.resolve(): name for name in images for file in images.image_files(name)}
    names = [known.get(image.resolve(), file_stem(image.name)) for image, _ in pairs]
    images.add_all({name: pair for name, pair in zip(names, pairs) if pair[0].resolve() not in known})
    return names
