"""Entry of an image in ``project.json``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Item = TypeVar("Item")


@dataclass(frozen=True)
class ImageEntry:
    """One image and its mask, as written to ``project.json``.

    Attributes
    ----------
    name : str
    image : str or tuple of str
        Path, relative to the project if possible; several if each channel has its own file.
    mask : str
    axes : str or None
        Axes passed by the user because the file does not define them.
    spacing : tuple of float or None
        Micrometers per pixel, ``([z,] y, x)``.
    channels : tuple of str
    groups : dict of str to str
        Values of the grouping columns: plate, well, ...
    shape : tuple of int
        Shape of the mask, ``([z,] y, x)``.
    dtype : str
    fingerprint : str
        Hash that identifies the files or arrays of image and mask.
    replaced : tuple of dict
        Earlier masks, oldest first: path ("mask") and fingerprint of image and mask ("fingerprint"). The links between
        the objects of two successive masks are stored in ``masks/<image>.<n>.csv``: pairs of old and new object with
        the number of shared pixels.
    accepted : str
        Fingerprint of the mask whose warning the user has accepted.
    """

    name: str
    image: str | tuple[str, ...]
    mask: str
    axes: str | None
    spacing: tuple[float, ...] | None
    channels: tuple[str, ...]
    groups: Mapping[str, str]
    shape: tuple[int, ...]
    dtype: str
    fingerprint: str
    replaced: tuple[Mapping[str, str], ...] = ()
    accepted: str = field(default="", compare=False)

    @property
    def mask_number(self) -> int:
        """The number of the current mask; the first mask has the number 0."""
        return len(self.replaced)


def entry_to_json(entry: ImageEntry) -> dict[str, Any]:
    """Return an entry as written to ``project.json``, without empty optional fields."""
    left_out = {"name", *(key for key in ("replaced", "accepted") if not getattr(entry, key))}
    return {key: value for key, value in vars(entry).items() if key not in left_out}


def entry_from_json(name: str, document: dict[str, Any]) -> ImageEntry:
    """Return the entry that ``project.json`` contains for an image."""
    plain: dict[str, Any] = {
        field.name: tuple(value) if isinstance(value := document[field.name], list) else value
        for field in fields(ImageEntry)
        if field.name in document
    }
    if plain.get("channels") == ("grey",):  # of a gray image that an earlier version has added
        plain["channels"] = ("gray",)
    return ImageEntry(name, **plain)


def as_tuple(image: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths of an image, of which there may be one per channel."""
    return image if isinstance(image, tuple) else (image,)


def for_each(convert: Callable[[Any], Item], image: Any) -> Item | tuple[Item, ...]:
    """Convert a path, or each path of a sequence."""
    return tuple(map(convert, image)) if isinstance(image, tuple | list) else convert(image)
