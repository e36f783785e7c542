"""Pixels that are not numbers: what is computed from an object that has some cannot be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from svetlana_jupyter.core.windows import Window, read_regions
from svetlana_jupyter.errors import InputError

if TYPE_CHECKING:
    from svetlana_jupyter.core.pairing import ImagePair

NAMED = 5  # objects that the sentence names


def check_finite(pair: ImagePair, objects: pd.DataFrame) -> None:
    """Refuse objects with pixels of their own that are NaN or infinite; of integer images nothing is read.

    Around the objects such pixels are common, beyond the border of a registered image for example, and count as 0.

    Parameters
    ----------
    objects : DataFrame
        Rows of `core.objects.index_objects`.

    Raises
    ------
    InputError
        With the image and the objects.
    """
    if not np.issubdtype(pair.image.dtype, np.inexact):
        return
    axes = "zyx"[-pair.ndim :]
    lows, highs = (objects[[f"{axis}{end}" for axis in axes]].to_numpy(np.int64).tolist() for end in (0, 1))
    windows = [Window(tuple(low), tuple(high)) for low, high in zip(lows, highs, strict=True)]
    found = zip(objects.index, read_regions(pair.image, windows), read_regions(pair.mask, windows), strict=True)
    holes = [str(label) for label, pixels, mask in found if not np.isfinite(pixels[:, mask == label]).all()]
    if holes:
        more = f" and {len(holes) - NAMED} more" if len(holes) > NAMED else ""
        raise InputError(
            f"{pair.name!r} has pixels that are no numbers (NaN or infinite) inside the annotated objects "
            f"{', '.join(holes[:NAMED])}{more}. Mark these as bad segmentation, or replace such pixels and add the "
            "image again, for example numpy.nan_to_num(image)."
        )
