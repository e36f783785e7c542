"""Class images, which hold one class code per pixel.

ilastik exports object predictions as class images; this package exports class maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from svetlana_jupyter.core.io.images import format_shape, open_mask
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.core.relabeling import overlap_table
from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project.importers.imported_labels import ImportedLabel, ImportedLabels, ImportRequest

if TYPE_CHECKING:
    from pathlib import Path

UNKNOWN = (255, 65535)  # code of objects without a class in this package's class maps


def read_class_image(request: ImportRequest, file: Path) -> ImportedLabels:
    """Return the class of each object: the most frequent class code of its pixels.

    ``request.names`` holds the class names by code; the first name of a sequence belongs to code 1. By default, the
    codes are the ids of the project's classes, as in `Project.class_map`.
    """
    name = request.resolve_image(file)
    codes, mask = open_mask(file), request.images.pair(name).mask
    if codes.shape != mask.shape:
        raise InputError(
            f"Class image {file} has shape {format_shape(codes.shape, codes.dims)}, but the mask of {name!r} has "
            f"{format_shape(mask.shape, mask.dims)}. Pass a class image of the same shape."
        )
    pairs = overlap_table(mask, codes)
    pairs = pairs[pairs["old"] > 0].sort_values("pixels", ascending=False, kind="stable").drop_duplicates("old")
    names = request.names
    if names is None:
        classes, ignored = dict(zip(request.classes.ids, request.classes.names)), {0, *UNKNOWN}
    else:
        classes, ignored = dict(names if isinstance(names, Mapping) else enumerate(names, 1)), {0}
    unknown = sorted(set(pairs["new"]) - set(classes) - ignored)
    if unknown:
        raise InputError(
            f"{file} contains the codes {format_list(unknown)}, which belong to no class. Pass their names with "
            f'names={{{unknown[0]}: "…"}}. If this is a mask, add it with project.add(name, image, mask).'
        )
    rows = [
        ImportedLabel(name, int(label), classes.get(int(code), "")) for label, code in zip(pairs["old"], pairs["new"])
    ]
    return ImportedLabels(sorted(rows), f"class image {file.name}", note=request.describe_guess(name, file))
