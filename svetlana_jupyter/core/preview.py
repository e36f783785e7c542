"""What two patterns would add to a project: the pairs they find, with what the headers of the first ones say."""

from __future__ import annotations

from os import PathLike

import pandas as pd

from svetlana_jupyter.core.finding import find_pairs
from svetlana_jupyter.core.pairing import ImagePair, open_pair
from svetlana_jupyter.core.spacing import Spacing
from svetlana_jupyter.errors import InputError

SAID = ("shape", "dtype", "spacing")


def preview_pairs(
    images: str | PathLike[str],
    masks: str | PathLike[str],
    axes: str | None = None,
    spacing: Spacing | None = None,
    most: int = 12,
) -> pd.DataFrame:
    """Pair images with masks as `find_pairs` does, and look at the headers of the first ``most`` pairs.

    Parameters
    ----------
    images, masks : str or path
        Patterns.
    axes, spacing
        As for `open_image`.
    most : int
        How many pairs are opened; no pixel is read.

    Returns
    -------
    DataFrame
        What `find_pairs` returns, with ``shape`` (``"2 channels, 1,200 × 1,600"``), ``dtype`` and ``spacing`` (a tuple
        in micrometres, or None) of the pairs that were opened; ``problem`` also says why files cannot be used together.

    Raises
    ------
    InputError
        If nothing matches a pattern, or the patterns have no placeholder in common.
    """
    table = find_pairs(images, masks).reset_index(drop=True)
    said: dict[int, dict[str, object]] = {}
    for row in table.index[table["problem"] == ""][:most]:
        found = table.loc[row]
        try:
            opened = open_pair(found["name"], found["image"], found["mask"], axes, spacing, found["channels"])
        except InputError as error:
            table.at[row, "problem"] = str(error).removeprefix(f"{found['name']}: ")
            continue
        except Exception as error:  # a broken file fails in its own way in every reader
            table.at[row, "problem"] = f"It cannot be read: {error}"
            continue
        said[row] = {"shape": format_pair_shape(opened), "dtype": str(opened.image.dtype), "spacing": opened.spacing}
    return table.assign(
        **{column: pd.Series([said.get(row, {}).get(column) for row in table.index], dtype=object) for column in SAID}
    )


def format_pair_shape(pair: ImagePair) -> str:
    """Say how large an image is.

    >>> import numpy as np
    >>> format_pair_shape(open_pair("a", np.zeros((2, 30, 1200)), np.ones((30, 1200), int), axes="cyx"))
    '2 channels, 30 × 1,200'
    """
    sides = " × ".join(f"{side:,}" for side in pair.mask.shape)
    return f"{len(pair.channels)} channels, {sides}" if len(pair.channels) > 1 else sides
