"""Validation of ``project.json``, which may be damaged or come from a stranger.

Its texts are shown in panels and become parts of file names, so that each is checked when the file is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

MAX_NAME = 1000  # characters of a name
MAX_PATH = 32_767  # characters of a path, the limit of Windows
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
FilePath = Annotated[str, Field(min_length=1, max_length=MAX_PATH, pattern=r"^[^\x00]+$")]
Length = Annotated[float, Field(gt=0, lt=1e12, allow_inf_nan=False)]
Side = Annotated[int, Field(gt=0, lt=2**40)]


class _Stored(BaseModel):
    model_config = {"strict": True, "extra": "allow"}


class _Class(_Stored):
    id: Annotated[int, Field(ge=1, lt=2**31)]
    name: Annotated[str, Field(max_length=MAX_NAME, pattern=r"\S")]
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
    key: Annotated[str, Field(max_length=1)]
    into: Annotated[int, Field(ge=0, lt=2**31)] = 0


class _FormerMask(_Stored):
    mask: FilePath
    fingerprint: Name


class _Image(_Stored):
    image: FilePath | Annotated[list[FilePath], Field(min_length=1)]
    mask: FilePath
    axes: Annotated[str, Field(max_length=10)] | None
    spacing: Annotated[list[Length], Field(min_length=2, max_length=3)] | None
    channels: Annotated[list[Annotated[str, Field(max_length=MAX_NAME)]], Field(max_length=10_000)]
    groups: dict[Name, Annotated[str, Field(max_length=MAX_NAME)] | int | Annotated[float, Field(allow_inf_nan=False)]]
    shape: Annotated[list[Side], Field(min_length=2, max_length=3)]
    dtype: Annotated[str, Field(max_length=20)]
    fingerprint: Name
    replaced: list[_FormerMask] = []
    accepted: Annotated[str, Field(max_length=MAX_NAME)] = ""


class _Document(_Stored):
    format: int
    classes: list[_Class]
    images: dict[Name, _Image]
    last_class_id: Annotated[int, Field(ge=0, lt=2**31)] = 0
    current_run: Annotated[str, Field(max_length=MAX_NAME)] = ""
    current_reason: Annotated[str, Field(max_length=MAX_NAME)] = ""


def format_of(document: object) -> int:
    """Return the format version of a document; raise a `ValueError` if it has none."""
    version = document.get("format") if isinstance(document, Mapping) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"it states the format {version!r:.80}, not a number")
    return version


def check_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document; raise a `ValueError` that names the first invalid field."""
    validate_fields(_Document, document)
    for name in document["images"]:
        if not name.isprintable():
            raise ValueError(f"the name of image {name!r:.80} is not printable")
    classes = {info["id"]: info.get("into", 0) for info in document["classes"]}
    for what in ("id", "name"):
        value, count = max(Counter(info[what] for info in document["classes"]).items(), key=_count, default=("", 1))
        if count > 1:
            raise ValueError(f"{count} classes have the {what} {value!r:.80}")
    for class_id in classes:
        chain, target = {class_id}, classes[class_id]
        while target:
            if target in chain or target not in classes:
                raise ValueError(f"class {class_id} was merged into class {target}, which is not a class of its own")
            chain.add(target)
            target = classes[target]
    return dict(document)


def _count(item: tuple[Any, int]) -> int:
    return item[1]


def validate_fields(model: type[BaseModel], values: object) -> None:
    """Raise a `ValueError` that names the first invalid field of values from a file."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part)[:80] for part in first["loc"])
        raise ValueError(f"{place or 'the file'} is {first['input']!r:.80} ({first['msg']})") from None
