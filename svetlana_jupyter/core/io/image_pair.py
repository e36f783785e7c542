"""Image and mask pairs: opening, consistency checks, and previews."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from svetlana_jupyter.core.io.file_pairs import find_pairs
from svetlana_jupyter.core.io.images import (
    ImageSource,
    OpenOptions,
    Source,
    format_shape,
    known_spacing,
    notes_of,
    open_image_levels,
    open_mask_levels,
    partial_spacing_note,
    spacing_of,
    with_channel_axis,
    with_spacing,
)
from svetlana_jupyter.core.io.mask_checks import check_is_label_image
from svetlana_jupyter.core.io.pixel_size import Spacing, combine_spacings
from svetlana_jupyter.core.io.swapped_pair import SWAPPED, looks_swapped
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from pathlib import Path

    import pandas as pd
    from xarray import DataArray

    from svetlana_jupyter.core.io.pyramid import PyramidLevel


class FeatureCache(Protocol):
    """Cache of the object features of one image, with a table per group of features."""

    def get_features(self, key: str) -> pd.DataFrame:
        """Return the cached features of a group, one row per object.

        ``key`` is the `feature_cache_key` of the group; columns are those of `measure`.
        """
        ...

    def add_features(self, key: str, table: pd.DataFrame) -> None:
        """Add new features of objects to the cached table of a feature group."""
        ...


@dataclass(frozen=True)
class ImagePair:
    """Image and mask of the same shape.

    ``image`` has the dims ``(c, [z,] y, x)`` and ``mask`` has ``([z,] y, x)``; both are lazy. ``groups`` contains the
    plate, well or patient of the image. ``levels`` and ``mask_levels`` are the resolutions that the viewer reads, the
    finest first; without them, the viewer reads the arrays. ``feature_cache`` stores the features of the objects.
    ``notes`` are sentences about what was converted or not used when the files were opened.
    """

    name: str
    image: DataArray
    mask: DataArray
    groups: Mapping[str, str] = field(default_factory=dict)
    levels: tuple[PyramidLevel, ...] = ()
    mask_levels: tuple[PyramidLevel, ...] = ()
    feature_cache: FeatureCache | None = field(default=None, compare=False, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions: 2 for images, 3 for volumes."""
        return len(self.mask.dims)

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Pixel size ``([z,] y, x)`` in micrometers, None if unknown."""
        return spacing_of(self.image)

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names."""
        return tuple(str(name) for name in self.image["c"].to_numpy())


def open_pair(
    name: str,
    image: ImageSource,
    mask: Source,
    axes: str | None = None,
    spacing: Spacing | None = None,
    channels: Sequence[str] | None = None,
    groups: Mapping[str, str] | None = None,
    cache: Path | None = None,
    *,
    check_mask: bool = True,
    allow_more_channels: bool = False,
) -> ImagePair:
    """Open an image and its mask, and check that they can be used together.

    Parameters
    ----------
    name : str
        Name of the image, also used in error messages.
    image, mask, axes, spacing, channels, cache
        See `open_image` and `open_mask`; ``axes`` are the axes of the image. If the image file does not state its axes,
        they are inferred from the shapes of image and mask.
    groups : mapping of str to str, optional
        Plate, well or patient of the image.
    check_mask : bool
        Whether to raise an error for a mask that is not a label image (`check_is_label_image`). This check reads as
        many blocks of the mask as are needed to find two objects; without the check, only headers are read.
    allow_more_channels : bool
        Whether the image may have more channels than ``channels`` names; the others are named by their number.

    Returns
    -------
    ImagePair

    Raises
    ------
    InputError
        If the image or the mask cannot be used, their shapes or pixel sizes differ, or the mask is binary or has no
        objects.
    """
    try:
        opened_mask, mask_levels = open_mask_levels(mask, spacing=spacing, cache=cache)
        options = OpenOptions(axes, spacing, channels, cache, opened_mask.shape, allow_more_channels)
        opened, levels = open_image_levels(image, options)
        _refuse_different_shapes(opened, opened_mask)
        if check_mask:
            if looks_swapped(opened, opened_mask):
                raise InputError(SWAPPED, remedy="swap")
            check_is_label_image(opened_mask)
        sizes = combine_spacings(known_spacing(opened), known_spacing(opened_mask), ("image", "mask"))
    except InputError as error:
        raise InputError(f"{name}: {error}", error.remedy) from error
    if spacing_of(opened) is None:
        opened = with_spacing(opened, sizes)
    notes = [*notes_of(opened), *notes_of(opened_mask), partial_spacing_note(opened)]
    notes = [f"{name}: {note}" for note in dict.fromkeys(notes) if note]
    pair = ImagePair(name, with_channel_axis(opened), opened_mask, dict(groups or {}), levels, mask_levels)
    return replace(pair, notes=tuple(notes))


def _refuse_different_shapes(image: DataArray, mask: DataArray) -> None:
    spatial = tuple(str(dim) for dim in image.dims if dim != "c")
    shape = tuple(image.sizes[dim] for dim in spatial)
    if shape == mask.shape:
        return
    hint = "Check that they belong together and have the same scale."
    if mask.ndim == 2 and shape[-2:] == mask.shape:
        hint = 'If the planes are channels, pass `axes="cyx"`; a volume needs a mask of all its planes.'
    elif mask.shape == (image.sizes.get("c"), *shape):
        hint = 'If the channels are planes, pass `axes="zyx"`.'
    elif sorted(shape) == sorted(mask.shape):
        hint = "One of them is transposed. Name the axes of the image with `axes=`."
    raise InputError(
        "Image and mask must have the same shape, got "
        f"{format_shape(shape, spatial)} for the image and {format_shape(mask.shape, mask.dims)} for the mask. {hint}"
    )


def preview_pairs(
    images: str | PathLike[str],
    masks: str | PathLike[str],
    axes: str | None = None,
    spacing: Spacing | None = None,
    max_pairs: int = 12,
) -> pd.DataFrame:
    """Pair images with masks, and read the headers of the first pairs.

    Parameters
    ----------
    images, masks : str or path
        Patterns.
    axes, spacing
        See `open_image`.
    max_pairs : int
        Number of pairs to open. Pixels are read of the first pair only, to see whether image and mask are swapped.

    Returns
    -------
    DataFrame
        The table of `find_pairs` with more columns for the opened pairs: ``shape`` (such as ``"2 channels, 1,200 ×
        1,600"``), ``dtype``, ``spacing`` (a tuple in micrometers, or None) and ``note``, what was converted or not
        used. ``problem`` also states why opened files cannot be used together; ``attrs["remedies"]`` maps the name
        of a swapped pair to "swap".

    Raises
    ------
    InputError
        If nothing matches a pattern, or the patterns have no placeholder in common.
    """
    table = find_pairs(images, masks).reset_index(drop=True).assign(shape=None, dtype=None, spacing=None, note="")
    for row in table.index[table["problem"] == ""][:max_pairs]:
        name, image, mask, channels = table.loc[row, ["name", "image", "mask", "channels"]]
        try:
            opened = open_pair(name, image, mask, axes, spacing, channels, check_mask=False)
        except InputError as error:
            table.at[row, "problem"] = str(error).removeprefix(f"{name}: ")
        except Exception as error:  # every reader fails in its own way on a damaged file
            table.at[row, "problem"] = f"The image or the mask cannot be read: {error}"
        else:
            if not table["shape"].notna().any() and looks_swapped(opened.image, opened.mask):  # of the first pair only
                table.at[row, "problem"] = SWAPPED
                table.attrs["remedies"] = {name: "swap"}
            table.at[row, "shape"], table.at[row, "dtype"] = format_pair_shape(opened), str(opened.image.dtype)
            spacing_um: Any = opened.spacing  # a tuple in one cell
            table.at[row, "spacing"] = spacing_um
            table.at[row, "note"] = format_notes(opened)
    return table


def format_notes(pair: ImagePair) -> str:
    """Return the notes of an image pair as one text, without the name of the image."""
    return " ".join(note.removeprefix(f"{pair.name}: ") for note in pair.notes)


def format_pair_shape(pair: ImagePair) -> str:
    """Return the number of channels and the shape of an image as text.

    >>> import numpy as np
    >>> format_pair_shape(open_pair("a", np.zeros((2, 30, 1200)), np.ones((30, 1200), int), axes="cyx"))
    '2 channels, 30 × 1,200'
    """
    sides = " × ".join(f"{side:,}" for side in pair.mask.shape)
    return f"{len(pair.channels)} channels, {sides}" if len(pair.channels) > 1 else sides
