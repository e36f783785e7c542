"""Gallery contents, paging and selection; object selection by box or lasso.

A gallery is sorted only when the user requests it, so that objects keep their positions while they are annotated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

Order = Literal["random", "uncertain", "certain", "class", "largest", "smallest", "position"]
AnnotationStatus = Literal["all", "unlabeled", "annotated", "corrected"]
Point = tuple[float, float]
PlaneSelection = range | int | None

_COLUMNS = ["object", "size", "y", "x", "y0", "x0", "y1", "x1", "predicted", "probability", "action", "class_id"]
_BAND = 2.0  # in median object heights; sorting by position divides the image into rows of this height


@dataclass(frozen=True)
class GalleryQuery:
    """Objects to show in a gallery, and their order.

    Attributes
    ----------
    images : tuple of str
        Image names; empty for all images.
    status : {"all", "unlabeled", "annotated", "corrected"}
        "annotated": objects with a class or a flag; "corrected": objects annotated with another class than predicted.
    class_id : int
        Show only objects of this class: the annotated class or, without annotation, the predicted class. 0 shows all.
    order : str
        "random"; "uncertain" or "certain": lowest or highest probability first; "class": class by class, highest
        probability first; "largest" or "smallest": by size; "position": by position in the images.
    seed : int
        Seed of the random order.
    """

    images: tuple[str, ...] = ()
    status: AnnotationStatus = "all"
    class_id: int = 0
    order: Order = "random"
    seed: int = 0


def build_gallery_table(
    objects: Mapping[str, pd.DataFrame], predictions: Mapping[str, pd.DataFrame], labels: pd.DataFrame
) -> pd.DataFrame:
    """Join objects, predictions and annotations into one row per object.

    Parameters
    ----------
    objects : mapping of image name to DataFrame
        Object tables.
    predictions : mapping of image name to DataFrame
        Indexed by object: ``predicted`` (class id) and ``probability``; may be empty.
    labels : DataFrame
        Annotations, indexed by ``(image, object)``: ``action`` and ``class_id``.

    Returns
    -------
    DataFrame
        ``image`` (categorical, in the order given), ``object``, center and bounding box in pixels, ``size``;
        ``predicted`` (class id, 0 for none), ``probability`` (NaN for none); ``action`` ("" for none, also for skipped
        objects) and ``class_id`` of the annotation.
    """
    annotated = labels.loc[labels["action"] != "skip", ["action", "class_id"]]
    by_image = {str(name): rows.droplevel(0) for name, rows in annotated.groupby(level="image")}
    none = annotated.iloc[:0].droplevel(0)
    tables = {
        name: table.join(predictions[name][["predicted", "probability"]]).join(by_image.get(name, none))
        for name, table in objects.items()
    }
    rows = [table.rename_axis("object").reset_index() for table in tables.values()]
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=_COLUMNS)
    codes = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
    table["image"] = pd.Categorical.from_codes(codes, pd.Index(list(objects), dtype=object))
    table["action"] = table["action"].astype(object).where(table["action"].notna(), "")
    class_ids = {name: table[name].astype(float).fillna(0).astype(np.int64) for name in ("predicted", "class_id")}
    return table.assign(**class_ids, probability=table["probability"].astype(float))


def filter_and_sort(table: pd.DataFrame, query: GalleryQuery) -> NDArray[np.int64]:
    """Return the row numbers of the objects to show, in order.

    If the order depends on the probability, objects without a probability come last.

    Parameters
    ----------
    table : DataFrame
        From `build_gallery_table`.
    query : GalleryQuery

    Returns
    -------
    int64 array of shape (n,)
    """
    annotated, given, predicted = ((table[name].to_numpy()) for name in ("action", "class_id", "predicted"))
    displayed_class = np.where(annotated != "", given, predicted)
    chosen = match_objects(query.status, query.class_id, annotated != "", given, predicted)
    if query.images:
        chosen &= table["image"].isin(query.images).to_numpy()
    rows = np.flatnonzero(chosen)
    if query.order == "random":
        # The whole table is permuted, so that a filter does not change the order of the remaining objects.
        return rows[np.argsort(np.random.default_rng(query.seed).permutation(len(table))[rows])]
    keys = [key[rows] for key in _sort_keys(table, query.order, displayed_class)]
    return rows[np.lexsort(keys[::-1])]


def match_objects(
    status: AnnotationStatus,
    class_id: int,
    annotated: NDArray[np.bool_],
    given: NDArray[np.int64],
    predicted: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Return which objects a filter selects.

    Parameters
    ----------
    status, class_id
        As in `GalleryQuery`.
    annotated : array of bool, shape (n,)
        Objects with a class or a flag.
    given, predicted : array of int, shape (n,)
        Annotated and predicted class ids; 0 for none.
    """
    chosen: NDArray[np.bool_] = {
        "all": np.ones(len(annotated), bool),
        "unlabeled": ~annotated,
        "annotated": annotated.copy(),
        "corrected": (given != 0) & (predicted != 0) & (given != predicted),
    }[status]
    if class_id:
        chosen &= np.where(annotated, given, predicted) == class_id
    return chosen


def _sort_keys(table: pd.DataFrame, order: Order, displayed_class: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """Return ascending sort keys, the most significant first; NaN sorts last."""
    column = {name: table[name].to_numpy(float) for name in ("probability", "size", "y", "x", "z") if name in table}
    if order == "position":
        plane = [np.floor(column["z"])] if "z" in column else []
        band = _BAND * float((table["y1"] - table["y0"]).median())
        return [table["image"].cat.codes.to_numpy(float), *plane, column["y"] // band, column["x"]]
    return {
        "uncertain": [column["probability"]],
        "certain": [-column["probability"]],
        "class": [np.where(displayed_class == 0, np.inf, displayed_class), -column["probability"]],
        "largest": [-column["size"]],
        "smallest": [column["size"]],
    }[order]


@dataclass(frozen=True)
class Pagination:
    """Division of the objects of a gallery into pages.

    >>> pages = Pagination(total=130, size=60)
    >>> pages.count, list(pages.places(2))[:3], pages.page_containing(125), pages.nearest(9)
    (3, [120, 121, 122], 2, 2)
    """

    total: int
    size: int

    @property
    def count(self) -> int:
        """Number of pages; an empty gallery has one."""
        return max(1, -(-self.total // self.size))

    def nearest(self, page: int) -> int:
        """Return the nearest page number that exists."""
        return min(max(page, 0), self.count - 1)

    def places(self, page: int) -> range:
        """Return the positions, in the gallery, of the objects on a page."""
        return range(page * self.size, min((page + 1) * self.size, self.total))

    def page_containing(self, place: int) -> int:
        """Return the page that contains a position of the gallery."""
        return self.nearest(place // self.size)


@dataclass(frozen=True)
class Selection:
    """Selected cells of a gallery page.

    Attributes
    ----------
    chosen : frozenset of int
        Selected cells.
    anchor : int
        Cell where a range begins: the cell that was clicked last; -1 before any click.
    cursor : int
        Cell where a range ends. The arrow keys move it; it is -1 before any click.

    >>> Selection().only(3).with_range(5).chosen == {3, 4, 5}
    True
    """

    chosen: frozenset[int] = frozenset()
    anchor: int = -1
    cursor: int = -1

    def only(self, cell: int) -> Selection:
        """Return the selection of a single cell."""
        return Selection(frozenset((cell,)), cell, cell)

    def with_toggled(self, cell: int) -> Selection:
        """Return the selection with a cell added, or removed if it was selected."""
        return Selection(self.chosen ^ {cell}, cell, cell)

    def with_range(self, cell: int, keep: bool = False) -> Selection:
        """Return the selection of all cells from the anchor to ``cell``.

        With ``keep``, previously selected cells stay selected.
        """
        anchor = cell if self.anchor < 0 else self.anchor
        between = frozenset(range(min(anchor, cell), max(anchor, cell) + 1))
        return Selection(between | self.chosen if keep else between, anchor, cell)

    def of(self, cells: Iterable[int]) -> Selection:
        """Return the selection of exactly the given cells."""
        return replace(self, chosen=frozenset(cells))

    def inverted(self, count: int) -> Selection:
        """Return the inverse selection among the first ``count`` cells."""
        return self.of(frozenset(range(count)) - self.chosen)

    def within(self, count: int) -> Selection:
        """Return the selection restricted to a page of ``count`` cells."""
        last = count - 1
        chosen = frozenset(cell for cell in self.chosen if cell <= last)
        return Selection(chosen, min(self.anchor, last), min(self.cursor, last))


def rectangle_corners(first: Point, opposite: Point) -> tuple[Point, ...]:
    """Return the four corners of a rectangle, given two opposite corners."""
    return first, (first[0], opposite[1]), opposite, (opposite[0], first[1])


def points_in_polygon(points: ArrayLike, corners: Sequence[Point]) -> NDArray[np.bool_]:
    """Return which points lie inside a closed polygon.

    The polygon may cross itself: a point is inside if its winding number is not zero, so that a lasso that crosses
    itself leaves no hole. `skimage.measure.points_in_poly` and OpenCV use the even-odd rule, which would leave one.

    Parameters
    ----------
    points : array of shape (n, 2)
        As (y, x).
    corners : sequence of (y, x)
        Consecutive corners; the last is connected to the first.

    Returns
    -------
    array of bool, shape (n,)

    Examples
    --------
    >>> points_in_polygon([(1, 1), (1, 5)], rectangle_corners((0, 0), (4, 4))).tolist()
    [True, False]
    """
    points = np.asarray(points, float).reshape(-1, 2)
    order = np.argsort(points[:, 0], kind="stable")
    y, x = points[order].T
    starts = np.asarray(corners, float).reshape(-1, 2)
    ends = np.roll(starts, -1, axis=0)
    # Each side counts for the points between its ends in y. Only its lower end is included, so that no corner counts
    # twice.
    ranges = np.searchsorted(y, np.stack([starts[:, 0], ends[:, 0]]))
    winding = np.zeros(len(y), np.int64)
    for (y0, x0), (y1, x1), first, last in zip(starts, ends, *ranges):
        if first != last:
            low, high = min(first, last), max(first, last)
            crossing = x0 + (y[low:high] - y0) * ((x1 - x0) / (y1 - y0))
            winding[low:high] += np.where(x[low:high] < crossing, np.sign(last - first), 0)
    inside = np.empty(len(y), bool)
    inside[order] = winding != 0
    return inside


def objects_in_polygon(
    objects: pd.DataFrame, corners: Sequence[Point], planes: PlaneSelection = None
) -> NDArray[np.int64]:
    """Return the objects whose centroid lies inside a closed polygon.

    Parameters
    ----------
    objects : DataFrame
        Object table, from `core.objects.index_objects`.
    corners : sequence of (y, x)
        Points of the image plane, in which the center of the first pixel is at (0.5, 0.5).
    planes : int, range or None
        For volumes: a plane selects among the objects that are visible in it; a range of planes selects among the
        objects whose centroid lies in the range, so that adjacent ranges share no object; None selects among all
        objects.

    Returns
    -------
    array of int64, shape (n,)
        Labels, ascending.
    """
    if isinstance(planes, int) and "z" in objects:
        objects = objects[(objects["z0"] <= planes) & (planes < objects["z1"])]
    elif isinstance(planes, range) and "z" in objects:
        middle = objects["z"] + 0.5
        objects = objects[(middle >= planes.start) & (middle < planes.stop)]
    inside = points_in_polygon(objects[["y", "x"]].to_numpy(float) + 0.5, corners)
    return np.sort(objects.index.to_numpy(np.int64)[inside])
