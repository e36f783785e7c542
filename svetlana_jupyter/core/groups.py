"""What objects have in common that may make them alike: their patient, plate or well, their image, their region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from svetlana_jupyter.errors import InputError

SPATIAL_BLOCKS = 4  # a single image counts as 4 x 4 regions


def name_groups(
    image: str,
    groups: Mapping[str, str],
    objects: pd.DataFrame,
    shape: Sequence[int],
    is_only_image: bool,
    by: Sequence[str] | None = None,
) -> pd.Series[str]:
    """Return the name of the group of each object of an image.

    Parameters
    ----------
    image : str
    groups : mapping of str to str
        The grouping columns of the image.
    objects : DataFrame
        The object index of the image.
    shape : sequence of int
        Of the image, ``([z,] y, x)``.
    sole : bool
        Whether no other image counts: then its regions are the groups.
    by : sequence of str, optional
        The columns that make the groups; all by default. "image" is the image itself.

    Raises
    ------
    InputError
        If the image has no such column.

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
        raise InputError(
            f"image {image!r} has no column {unknown[0]!r} to hold out by; choose among {', '.join(known)}."
        )
    chosen = {column: known[column] for column in by} if by else dict(groups)
    name = " ".join(f"{column}={value}" for column, value in chosen.items()) if set(chosen) - {"image"} else image
    named = pd.Series(name, objects.index, "object")
    if not is_only_image:
        return named
    for axis, size in zip("yx", shape[-2:], strict=True):
        named += (" " if axis == "y" else ",") + (objects[axis] * SPATIAL_BLOCKS // size).astype(int).astype(str)
    return named
