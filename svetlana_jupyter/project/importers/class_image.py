"""Class images: each pixel has the class of its object, as in ilastik's object predictions and in our own exports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from svetlana_jupyter.core.io.images import format_shape, open_mask
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.core.relabeling import overlap
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.importers.imported_labels import Found, ImportedLabel, resolve_image

if TYPE_CHECKING:
    from svetlana_jupyter.project.project import Project

UNKNOWN = (255, 65535)  # the code of objects without a class in the class maps of this package


def read_class_image(project: Project, file: Path, image: str | None, names: Mapping[int, str] | None) -> Found:
    """Return the class of each object: the code of most of its pixels.

    ``names`` says what the codes mean; by default they are the ids of the project's classes, as in
    `Project.class_map`.
    """
    name = resolve_image(project, image, file)
    codes, mask = open_mask(file), project.pair(name).mask
    if codes.shape != mask.shape:
        raise InputError(
            f"{file} is {format_shape(codes.shape, codes.dims)}, and the mask of {name!r} is "
            f"{format_shape(mask.shape, mask.dims)}; a class image has the shape of the mask."
        )
    pairs = overlap(mask, codes)
    pairs = pairs[pairs["old"] > 0].sort_values("pixels", ascending=False, kind="stable").drop_duplicates("old")
    known = dict(zip(project.classes.ids, project.classes.names)) if names is None else dict(names)
    unknown = sorted(set(pairs["new"]) - set(known) - {0} - (set(UNKNOWN) if names is None else set()))
    if unknown:
        raise InputError(
            f"{file} has pixels of the value {format_list(unknown)}, and it is not known which "
            f"classes these are: say it "
            f'with names={{{unknown[0]}: "…"}}. If this is a mask, add it with project.add(name, image, mask).'
        )
    rows = [
        ImportedLabel(name, int(label), known.get(int(code), "")) for label, code in zip(pairs["old"], pairs["new"])
    ]
    return Found(sorted(rows), f"class image {file.name}")
