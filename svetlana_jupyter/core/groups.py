"""Groups of objects of the same patient, plate, well, image or image region.

Objects of one group resemble each other, so that cross-validation keeps each group in one fold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SPATIAL_BLOCKS = 4  # a single image is divided into 4 x 4 regions


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
        Columns that form the groups; all by default. "image" is the name of the image.

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
    chosen = {column: known[column] for column in by} if by else dict(groups)
    name = " ".join(f"{column}={value}" for column, value in chosen.items()) if set(chosen) - {"image"} else image
    named = pd.Series(name, objects.index, "object")
    if not is_only_image:
        return named
    for axis, size in zip("yx", shape[-2:], strict=True):
        named += (" " if axis == "y" else ",") + (objects[axis] * SPATIAL_BLOCKS // size).astype(int).astype(str)
    return named
