"""Which objects a gallery shows, on which page, in which order, and which are selected: values and pure functions.

A gallery is arranged when it is asked for and stays so: what is annotated meanwhile keeps its place under the hand.

Which objects a box or a lasso holds: those whose centroid lies inside.

A lasso closes itself, may cross itself and may go round twice: inside is every point that the line winds round, so that
a careless loop leaves no hole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Order = Literal["random", "uncertain", "certain", "class", "largest", "smallest", "position"]
AnnotationStatus = Literal["all", "unlabeled", "annotated", "corrected"]

_COLUMNS = ["object", "size", "y", "x", "y0", "x0", "y1", "x1", "predicted", "probability", "action", "class_id"]
_BAND = 2.0  # times a usual object: in the order of position objects come in bands this high, as lines are read


@dataclass(frozen=True)
class GalleryQuery:
    """What a gallery shows.

    Attributes
    ----------
    images : tuple of str
        Empty for all.
    which : {"all", "unlabeled", "annotated", "corrected"}
        "annotated" with a class or set aside; "corrected" with another class than the predicted one.
    class_id : int
        Only objects of this class, annotated or else predicted; 0 for every class.
    order : str
        "random"; "uncertain" or "certain", the least or most probable first; "class", and in it the most probable
        first; "largest" or "smallest" first; "position" in the images.
    seed : int
        Of the random order.
    """

    images: tuple[str, ...] = ()
    status: AnnotationStatus = "all"
    class_id: int = 0
    order: Order = "random"
    seed: int = 0


def build_gallery_table(
    objects: Mapping[str, pd.DataFrame], predictions: Mapping[str, pd.DataFrame], labels: pd.DataFrame
) -> pd.DataFrame:
    """Return one row for each object of some images, as far as a gallery looks at it.

    Parameters
    ----------
    objects : mapping of image name to DataFrame
        Object indexes.
    predictions : mapping of image name to DataFrame
        Indexed by object: ``predicted`` (class id) and ``probability``; may be empty.
    labels : DataFrame
        Indexed by ``(image, object)``: ``action`` and ``class_id``, as annotated.

    Returns
    -------
    DataFrame
        ``image`` (categorical, in the order given), ``object``, the centre and box in pixels, ``size``; ``predicted``
        (class id, 0 for none), ``probability`` (NaN for none); ``action`` ("" for none, a skipped object has none) and
        ``class_id``, as annotated.
    """
    said = labels.loc[labels["action"] != "skip", ["action", "class_id"]]
    of_image = {str(name): rows.droplevel(0) for name, rows in said.groupby(level="image")}
    nothing = said.iloc[:0].droplevel(0)
    known = {name: predictions[name][["predicted", "probability"]] for name in objects}
    tables = [
        index.join(known[name]).join(of_image.get(name, nothing)).rename_axis("object").reset_index()
        for name, index in objects.items()
    ]
    codes = np.repeat(np.arange(len(tables)), [len(one) for one in tables])
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=_COLUMNS)
    table["image"] = pd.Categorical.from_codes(codes, pd.Index(list(objects), dtype=object))
    table["action"] = table["action"].astype(object).where(table["action"].notna(), "")
    numbers = {name: table[name].astype(float).fillna(0).astype(np.int64) for name in ("predicted", "class_id")}
    return table.assign(**numbers, probability=table["probability"].astype(float))


def filter_and_sort(table: pd.DataFrame, wanted: GalleryQuery) -> NDArray[np.int64]:
    """Return the rows of a table that are wanted, in the order wanted; objects without probability come last.

    Parameters
    ----------
    table : DataFrame
        From `build_gallery_table`.
    wanted : Wanted

    Returns
    -------
    int64 array of shape (n,)
    """
    displayed_class = table["class_id"].where(table["action"] != "", table["predicted"]).to_numpy()
    keep = np.ones(len(table), bool)
    if wanted.images:
        keep &= table["image"].isin(wanted.images).to_numpy()
    if wanted.status == "unlabeled":
        keep &= (table["action"] == "").to_numpy()
    elif wanted.status == "annotated":
        keep &= (table["action"] != "").to_numpy()
    elif wanted.status == "corrected":
        differs = (table["predicted"] != 0) & (table["predicted"] != table["class_id"])
        keep &= ((table["action"] == "label") & differs).to_numpy()
    if wanted.class_id:
        keep &= displayed_class == wanted.class_id
    rows = np.flatnonzero(keep)
    if wanted.order == "random":  # the same places in every selection of the same objects
        return rows[np.argsort(np.random.default_rng(wanted.seed).permutation(len(table))[rows])]
    keys = [key[rows] for key in _keys(table, wanted.order, displayed_class)]
    return rows[np.lexsort(keys[::-1])]


def _keys(table: pd.DataFrame, order: Order, displayed_class: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """Return what to sort by, ascending, the first key first; NaN sorts last."""
    column = {name: table[name].to_numpy(float) for name in ("probability", "size", "y", "x", "z") if name in table}
    image = table["image"].cat.codes.to_numpy(float)
    if order == "uncertain":
        return [column["probability"]]
    if order == "certain":
        return [-column["probability"]]
    if order == "class":
        return [np.where(displayed_class == 0, np.inf, displayed_class), -column["probability"]]
    if order in ("largest", "smallest"):
        return [column["size"] if order == "smallest" else -column["size"]]
    plane = [np.floor(column["z"])] if "z" in column else []
    band = _BAND * float((table["y1"] - table["y0"]).median())
    return [image, *plane, column["y"] // band, column["x"]]


@dataclass(frozen=True)
class Pagination:
    """A number of places cut into pages.

    >>> pages = Pagination(total=130, size=60)
    >>> pages.count, list(pages.places(2))[:3], pages.page_containing(125), pages.nearest(9)
    (3, [120, 121, 122], 2, 2)
    """

    total: int
    size: int

    @property
    def count(self) -> int:
        """How many pages there are; an empty gallery has one."""
        return max(1, -(-self.total // self.size))

    def nearest(self, page: int) -> int:
        """Return the existing page nearest to a number."""
        return min(max(page, 0), self.count - 1)

    def places(self, page: int) -> range:
        """Return the places on a page."""
        return range(page * self.size, min((page + 1) * self.size, self.total))

    def page_containing(self, place: int) -> int:
        return self.nearest(place // self.size)


@dataclass(frozen=True)
class Selection:
    """Which cells of a page are selected.

    Attributes
    ----------
    chosen : frozenset of int
    anchor : int
        Where a range begins: the cell that was clicked last.
    cursor : int
        Where it ends: what the arrow keys move. Both are -1 before any click.

    >>> Selection().only(3).with_range(5).chosen == {3, 4, 5}
    True
    """

    chosen: frozenset[int] = frozenset()
    anchor: int = -1
    cursor: int = -1

    def only(self, cell: int) -> Selection:
        """Select one cell alone."""
        return Selection(frozenset((cell,)), cell, cell)

    def with_toggled(self, cell: int) -> Selection:
        """Add one cell, or remove it when it is selected."""
        return Selection(self.chosen ^ {cell}, cell, cell)

    def with_range(self, cell: int, keep: bool = False) -> Selection:
        """Select all from the anchor to a cell; with ``keep`` in addition to what is selected."""
        anchor = cell if self.anchor < 0 else self.anchor
        between = frozenset(range(min(anchor, cell), max(anchor, cell) + 1))
        return Selection(between | self.chosen if keep else between, anchor, cell)

    def of(self, cells: Iterable[int]) -> Selection:
        """Select these cells and no other."""
        return Selection(frozenset(cells), self.anchor, self.cursor)

    def inverted(self, count: int) -> Selection:
        """Select those of the first ``count`` cells that are not selected now."""
        return Selection(frozenset(range(count)) - self.chosen, self.anchor, self.cursor)

    def within(self, count: int) -> Selection:
        """Return what is left of it on a page of ``count`` cells."""
        last = count - 1
        return Selection(
            frozenset(cell for cell in self.chosen if cell <= last), min(self.anchor, last), min(self.cursor, last)
        )


Point = tuple[float, float]
PlaneSelection = range | int | None


def rectangle_corners(one: Point, other: Point) -> tuple[Point, ...]:
    """Return the corners of the box between two opposite ones."""
    return one, (one[0], other[1]), other, (other[0], one[1])


def points_in_polygon(points: ArrayLike, corners: Sequence[Point]) -> NDArray[np.bool_]:
    """Return which points a closed line winds round.

    Parameters
    ----------
    points : array of shape (n, 2)
        As (y, x).
    corners : sequence of (y, x)
        The line goes from each to the next, and from the last to the first.

    Returns
    -------
    array of bool, shape (n,)

    Examples
    --------
    >>> points_in_polygon([(1, 1), (1, 5)], rectangle_corners((0, 0), (4, 4))).tolist()
    [True, False]
    """
    place = np.asarray(points, float).reshape(-1, 2)
    order = np.argsort(place[:, 0], kind="stable")
    y, x = place[order].T
    line = np.asarray(corners, float).reshape(-1, 2)
    starts, ends = line, np.roll(line, -1, axis=0)
    # A side is met by the points between its ends in y; counted at its lower end alone, a corner is not met twice.
    met = np.searchsorted(y, np.stack([starts[:, 0], ends[:, 0]]))
    turns = np.zeros(len(y), np.int64)
    for (y0, x0), (y1, x1), first, last in zip(starts, ends, *met):
        if first != last:
            low, high = min(first, last), max(first, last)
            crossing = x0 + (y[low:high] - y0) * ((x1 - x0) / (y1 - y0))
            turns[low:high] += np.where(x[low:high] < crossing, np.sign(last - first), 0)
    found = np.empty(len(y), bool)
    found[order] = turns != 0
    return found


def objects_in_polygon(
    objects: pd.DataFrame, corners: Sequence[Point], planes: PlaneSelection = None
) -> NDArray[np.int64]:
    """Return the objects whose centroid lies inside a closed line.

    Parameters
    ----------
    objects : DataFrame
        The object index, as `core.objects.index_objects` makes it.
    corners : sequence of (y, x)
        Points of the image plane, in which the middle of the first pixel is at (0.5, 0.5).
    planes : int, range or None
        Of a volume: those that one plane cuts, since that is what a person sees there; those whose centroid lies in a
        range of planes, so that ranges side by side share no object; or all.

    Returns
    -------
    array of int64, shape (n,)
        Ascending.
    """
    near = np.ones(len(objects), bool)
    if isinstance(planes, int) and "z" in objects:
        near = ((objects["z0"] <= planes) & (planes < objects["z1"])).to_numpy()
    elif isinstance(planes, range) and "z" in objects:
        near = ((objects["z"] + 0.5 >= planes.start) & (objects["z"] + 0.5 < planes.stop)).to_numpy()
    some = objects[near]
    within = points_in_polygon(some[["y", "x"]].to_numpy(float) + 0.5, corners)
    return np.sort(some.index.to_numpy(np.int64)[within])
