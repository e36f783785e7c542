"""Class images, which hold one class code per pixel.

ilastik exports object predictions as class images; this package exports class maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from tifffile import TiffFile

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
    names are those in the file (OME-TIFF), or the codes are the ids of the project's classes, as in
    `Project.class_map`; the report then lists them.
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
    names, notes = request.names, [request.describe_guess(name, file)]
    if names is None:
        classes = _names_in_file(file) or dict(zip(request.classes.ids, request.classes.names))
        ignored = {0, *UNKNOWN}
        read = [f"{code} = {classes[code]}" for code in sorted(set(pairs["new"]) & set(classes))]
        notes.append(f"Its codes were read as {format_list(read, 10)}." if read else "")
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
    return ImportedLabels(sorted(rows), f"class image {file.name}", note=" ".join(filter(None, notes)))


def _names_in_file(file: Path) -> dict[int, str]:
    """Return the class names by code in an OME-TIFF class map of this package."""
    if not file.name.endswith((".ome.tif", ".ome.tiff")):
        return {}
    with TiffFile(file) as tiff:
        entries = ElementTree.fromstring(tiff.ome_metadata).iterfind(".//{*}M") if tiff.ome_metadata else ()
        names = {str(entry.get("K")): entry.text or "" for entry in entries}
    return {int(code): name for code, name in names.items() if code.isdecimal() and int(code) not in UNKNOWN}
