"""Groups of objects of the same patient, plate, well, image or image region.

Objects of one group resemble each other, so that cross-validation keeps each group in one fold, and intervals of counts
treat the groups as the sampling units. Several sites of one well are a single group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SPATIAL_BLOCKS = 4  # a single image is divided into 4 x 4 regions
# Columns that tell apart several images of one well or patient, without underscores, blanks and a final "id" or "no".
SITE_COLUMNS = frozenset(
    {"site", "field", "fieldofview", "fov", "position", "pos", "tile", "view", "frame", "time", "timepoint"}
    | {"t", "z", "slice", "plane"}
)


def group_columns(columns: Iterable[str]) -> list[str]:
    """Return the grouping columns but those that number the images of a well.

    >>> group_columns(["plate", "well", "Site", "z"])
    ['plate', 'well']
    """
    return [column for column in columns if _plain_name(column) not in SITE_COLUMNS]


def _plain_name(column: str) -> str:
    name = "".join(character for character in column.casefold() if character.isalnum())
    return name.removesuffix("id").removesuffix("no").removesuffix("number")


def unit_columns(columns: Iterable[str], by: Sequence[str] = ()) -> list[str]:
    """Return the columns that name the sampling units; [] if images are the units.

    Parameters
    ----------
    columns : iterable of str
        The grouping columns.
    by : sequence of str
        Columns that define the counted groups. If they contain all others, such as a treatment, each group would be a
        single unit; then its images are the units, except for the images of one well.

    >>> unit_columns(["drug", "well", "site"], ["drug"]), unit_columns(["drug"], ["drug"])
    (['drug', 'well'], [])
    """
    chosen = group_columns(columns)
    return [] if set(chosen) <= set(by) and "well" not in map(_plain_name, chosen) else chosen


def sampling_units(images: Mapping[str, Mapping[str, object]], columns: Sequence[str]) -> dict[str, str]:
    """Return the name of the sampling unit of each image.

    Parameters
    ----------
    images : mapping of image name to mapping
        The values of the columns; an image that lacks one is a unit of its own.
    columns : sequence of str
        The `unit_columns`.

    Examples
    --------
    >>> images = {"a": {"well": "A1", "site": "1"}, "b": {"well": "A1", "site": "2"}, "c": {}}
    >>> sampling_units(images, ["well"])
    {'a': 'well=A1', 'b': 'well=A1', 'c': 'c'}
    """
    return {
        name: " ".join(f"{column}={values[column]}" for column in columns)
        if columns and all(column in values for column in columns)
        else name
        for name, values in images.items()
    }


def name_groups(
    image: str,
    groups: Mapping[str, str],
    objects: pd.DataFrame,
    shape: Sequence[int],
    is_only_image: bool,
    by: Sequence[str] | None = None,
) -> pd.Series[str]:
    """Return the group name of each object of an image.

    Parameters
    ----------
    image : str
    groups : mapping of str to str
        Value of each grouping column for this image.
    objects : DataFrame
        Object table of the image.
    shape : sequence of int
        Shape of the image, ``([z,] y, x)``.
    is_only_image : bool
        Whether there is no other image; then each group is one region of the image.
    by : sequence of str, optional
        Columns that form the groups; the `group_columns` by default. "image" is the name of the image.

    Raises
    ------
    InputError
        If the image lacks one of the columns.

    Examples
    --------
    >>> objects = pd.DataFrame({"y": [3.0], "x": [90.0]}, index=[7])
    >>> columns = {"plate": "P1", "well": "A1", "site": "3"}
    >>> name_groups("P1_A1_3", columns, objects, (100, 100), is_only_image=False, by=["plate", "well"])
    7    plate=P1 well=A1
    dtype: object
    """
    known = {**groups, "image": image}
    unknown = [column for column in by or () if column not in known]
    if unknown:
        raise InputError(f"Image {image!r} has no column {unknown[0]!r} to group by. Choose among {', '.join(known)}.")
    chosen = {column: known[column] for column in by or group_columns(groups)}
    name = " ".join(f"{column}={value}" for column, value in chosen.items()) if set(chosen) - {"image"} else image
    named = pd.Series(name, objects.index, "object")
    if not is_only_image:
        return named
    for axis, size in zip("yx", shape[-2:], strict=True):
        named += (" " if axis == "y" else ",") + (objects[axis] * SPATIAL_BLOCKS // size).astype(int).astype(str)
    return named
