"""Detection of masks whose numbers do not name objects.

In a label image, each number is one object. A few objects may have several pieces: cells cut by a fold, several nuclei
of one cell, stray pixels. Pieces of one object lie close together, though. If the bounding box of a number also holds
the centers of more other objects than it has pieces, its pieces are scattered. In simulated dense tissue in which all
nuclei belong to cells of 2 to 5 nuclei, this holds for less than 1 % of the objects; in masks of classes, in tiles that
were put together, and in numbers that started again from 0, it holds for nearly all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from svetlana_jupyter.core.pieces import SPECK_PIXELS

if TYPE_CHECKING:
    import pandas as pd

Repair = Literal["components", "foreground", "unsigned"]
REPAIRS: tuple[str, ...] = get_args(Repair)

TYPE_LIMITS = (255, 65_535)  # largest numbers of 8 and 16 bits
MAX_CLASSES = 12  # a mask of classes rarely has more
SPECK_FRACTION = 0.3  # of the additional pieces; interpolation and JPEG scatter pixels of wrong numbers
STRAY_OBJECTS, STRAY_FRACTION = 2, 0.05  # scattered objects that are accidents, such as stray pixels
MAX_COMPARED = 256  # objects with several pieces that are compared with all others


@dataclass(frozen=True)
class NumberingProblem:
    """Reason to doubt that the numbers in a mask name objects.

    Attributes
    ----------
    text : str
        Sentences that state the problem and its likely cause.
    repair : {"components", "foreground"} or None
        The repair that fits the cause; None if the mask must be exported again.
    """

    text: str
    repair: Repair | None


def find_numbering_problem(table: pd.DataFrame, mask_size: int, file_suffix: str = "") -> NumberingProblem | None:
    """Return the reason to doubt that numbers in a mask name objects, if any.

    Parameters
    ----------
    table : DataFrame
        Object table with ``pieces`` (`core.objects.index_objects`).
    mask_size : int
        Number of pixels of the mask.
    file_suffix : str
        Suffix of the mask's file, such as ``".jpg"``.
    """
    labels, pieces = table.index.to_numpy(), table["pieces"].to_numpy()
    n, split = len(table), int((pieces > 1).sum())
    if not split:
        return None
    scattered, largest = _count_scattered(table), int(labels[-1])
    at_limit = largest in TYPE_LIMITS
    is_cut_off = at_limit and pieces[-1] > 2 and n > 2
    starts_again = scattered >= 1 and at_limit and n >= 0.95 * largest
    # Numbers that were used twice, by two tiles or after an overflow, are the lowest ones.
    are_lowest = scattered >= 1 and 3 <= split < 0.7 * n and (pieces[:split] > 1).mean() >= 0.8
    are_few = n < 3 and pieces.sum() >= 2 * n
    are_most = scattered >= n / 2 or scattered > STRAY_OBJECTS + STRAY_FRACTION * n
    if not (is_cut_off or starts_again or are_lowest or are_few or are_most):
        return None
    worst = int(pieces.argmax())
    text = (
        f"{split:,} of {n:,} numbers in the mask lie in several places (number {labels[worst]} in {pieces[worst]:,} "
        "pieces), so they do not name objects."
    )
    if file_suffix.lower() in (".jpg", ".jpeg"):
        return NumberingProblem(
            f"{text} The mask is a JPEG file, and JPEG changes numbers. Save it as TIFF or PNG.", None
        )
    are_tiny = table["size"].median() <= 4 * SPECK_PIXELS
    if n > 3 and not are_tiny and table.attrs.get("specks", 0) >= SPECK_FRACTION * (pieces.sum() - n):
        cause = (
            "Interpolation or lossy compression (JPEG) probably changed the numbers; where possible, export the mask "
            "again, as TIFF or PNG, and resize it with order=0."
        )
        return NumberingProblem(f"{text} {cause}", "foreground")
    if starts_again and not is_cut_off:
        cause = (
            f"The numbers probably started again from 0 after {largest:,}, the limit of the file's data type, and "
            f"object {largest + 1:,} is lost; where possible, export the mask again with 32 bits."
        )
        return NumberingProblem(f"{text} {cause}", "components")
    if is_cut_off and n > MAX_CLASSES:
        cause = f"Numbers above {largest:,} were probably cut off, or {largest:,} marks pixels of no object."
        return NumberingProblem(f"{text} {cause}", "components")
    if n > MAX_CLASSES:
        return NumberingProblem(
            f"{text} Tiles or images that each count from 1 were probably put together.", "components"
        )
    cause, background = "They are probably classes.", probable_background(table, mask_size)
    if background:
        cover = f"{100 * int(table['size'].max()) / mask_size:.0f} % of the image"
        cause += f" No pixel is 0; number {background}, which covers {cover}, is probably the background."
    return NumberingProblem(f"{text} {cause}", "components")


def counts_pieces(table: pd.DataFrame) -> bool:
    """Return whether an object table counts pieces; those of version 0.1.0 do not."""
    return "pieces" in table and table["pieces"].dtype.kind == "i" and isinstance(table.attrs.get("specks"), int)


def probable_background(table: pd.DataFrame, mask_size: int) -> int:
    """Return the largest class if a mask of classes has no 0, otherwise 0."""
    sizes = table["size"].to_numpy()
    has_zero = sizes.sum() < mask_size
    return 0 if has_zero or not 1 < len(sizes) <= MAX_CLASSES else int(table.index.to_numpy()[sizes.argmax()])


def _count_scattered(table: pd.DataFrame) -> float:
    """Return the number of objects whose pieces are scattered among other objects.

    If very many objects have several pieces, some of them are compared, and the number is extrapolated.
    """
    pieces = table["pieces"].to_numpy()
    split = np.flatnonzero(pieces > 1)
    chosen = split[np.unique(np.linspace(0, len(split) - 1, min(len(split), MAX_COMPARED)).astype(int))]
    axes = [axis for axis in "zyx" if axis in table]
    centers = [table[axis].to_numpy() for axis in axes]
    low, high = ([table[f"{axis}{end}"].to_numpy() for axis in axes] for end in "01")
    count = 0
    for i in chosen:
        inside = np.ones(len(table), bool)
        for center, first, last in zip(centers, low, high):
            inside &= (center >= first[i]) & (center < last[i])
        inside[i] = False
        count += bool(inside.sum() >= min(pieces[i] + 1, len(table) / 2))
    return count * len(split) / max(1, len(chosen))
