"""Matching of objects between an old and a new mask."""

from __future__ import annotations

from collections import Counter

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from xarray import DataArray

from svetlana_jupyter.core.io import chunks as blocks
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.relabeling import (
    MIN_PART_FRACTION,
    LabelMapping,
    match_bounding_boxes,
    match_overlaps,
    object_statuses,
    overlap_table,
)


def masks(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.uint16, shape, elements=st.sampled_from([0, 1, 2, 3, 900]))


two_masks = st.sampled_from([(5, 7), (1, 1), (2, 3, 4)]).flatmap(lambda shape: st.tuples(masks(shape), masks(shape)))


def lazy(mask: np.ndarray, chunk: int = 100) -> DataArray:
    return DataArray(da.from_array(mask, chunks=chunk), dims=tuple("zyx"[-mask.ndim :]))


def counted(old: np.ndarray, new: np.ndarray) -> Counter[tuple[int, int]]:
    pairs = Counter(zip(old.ravel().tolist(), new.ravel().tolist()))
    del pairs[0, 0]
    return pairs


@settings(max_examples=50)
@given(two_masks, st.integers(1, 4), st.integers(1, 4))
def test_overlaps_do_not_depend_on_chunks(both, old_chunk: int, new_chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "MIN_BLOCK_SHAPE", {2: (2, 2), 3: (2, 2, 2)})
        patch.setattr("svetlana_jupyter.core.objects.MAX_PENDING_SIZE", 9)
        table = overlap_table(lazy(both[0], old_chunk), lazy(both[1], new_chunk))
    result = {(old, new): pixels for old, new, pixels in table.to_numpy().tolist()}
    assert result == dict(counted(*both))
    assert len(table) == len(result)


def naive_links(old: np.ndarray, new: np.ndarray) -> set[tuple[int, int]]:
    old_pixels = {n: set(map(tuple, np.argwhere(old == n))) for n in np.unique(old[old > 0]).tolist()}
    new_pixels = {n: set(map(tuple, np.argwhere(new == n))) for n in np.unique(new[new > 0]).tolist()}
    links = set()
    for o, a in old_pixels.items():
        same = {n for n, b in new_pixels.items() if len(a & b) > len(a | b) / 2}
        assert len(same) <= 1
        parts = {
            n
            for n, b in new_pixels.items()
            if len(a & b) > min(len(a), len(b)) / 2 and len(a & b) >= MIN_PART_FRACTION * len(a)
        }
        links |= {(o, n) for n in same or parts}
    return links


@given(two_masks)
def test_links_equal_those_of_a_naive_loop_over_pixels(both) -> None:
    table = match_overlaps(overlap_table(*map(lazy, both)))
    assert set(zip(table["old"].tolist(), table["new"].tolist())) == naive_links(*both)


def statuses(old: list[int], new: list[int]) -> dict[int, tuple[str, tuple[int, ...], float]]:
    """Return the status of the objects in a row of pixels."""
    before, after = np.array([old], np.uint8), np.array([new], np.uint8)
    sizes = Counter(before.ravel().tolist())
    table = object_statuses(
        LabelMapping(match_overlaps(overlap_table(lazy(before), lazy(after)))), sizes, sorted(set(old) - {0})
    )
    return {o: (status, n, round(share, 2)) for o, status, n, share in table.itertuples()}


def test_every_status_has_a_name() -> None:
    assert statuses([1, 1, 1, 0], [1, 1, 1, 1]) == {1: ("kept", (1,), 1.0)}
    assert statuses([1, 1, 1, 1, 0], [0, 9, 9, 9, 9]) == {1: ("relabeled", (9,), 0.75)}
    assert statuses([1, 1, 1, 1], [3, 3, 4, 4]) == {1: ("split", (3, 4), 1.0)}
    assert statuses([1, 1, 2, 2], [7, 7, 7, 7]) == {1: ("merged", (7,), 1.0), 2: ("merged", (7,), 1.0)}
    assert statuses([1, 1, 0, 0], [0, 0, 1, 1]) == {1: ("lost", (), 0.0)}


def test_a_tiny_overlap_does_not_count_as_a_part() -> None:
    assert statuses([1] * 20, [5] * 19 + [6]) == {1: ("relabeled", (5,), 0.95)}


def test_a_nucleus_is_matched_to_its_cell() -> None:
    assert statuses([0, 0, 1, 1, 0, 0, 0], [4] * 7) == {1: ("relabeled", (4,), 1.0)}


boxes = st.tuples(st.integers(0, 12), st.integers(1, 6), st.integers(0, 12), st.integers(1, 6))


@given(st.lists(boxes, max_size=6), st.lists(boxes, max_size=6))
def test_matches_of_bounding_boxes_equal_those_of_a_naive_loop(before, after) -> None:
    def table(rows):
        columns = ["y0", "x0", "y1", "x1"]
        rectangles = [(y, x, y + height, x + width) for y, height, x, width in rows]
        return pd.DataFrame(rectangles, pd.RangeIndex(1, len(rows) + 1), columns, dtype="int64")

    def pixels(box):
        y, height, x, width = box
        return {(i, j) for i in range(y, y + height) for j in range(x, x + width)}

    expected = {}
    for o, a in enumerate(map(pixels, before), 1):
        shares = {n: len(a & b) / len(a | b) for n, b in enumerate(map(pixels, after), 1)}
        best = max(shares.values(), default=0)
        if best > 0.5:
            expected[o] = {n for n, share in shares.items() if share == best}
    result = match_bounding_boxes(table(before), table(after))
    assert sorted(result["old"]) == sorted(expected)
    assert result["old"].is_unique
    assert all(new in expected[old] for old, new in zip(result["old"], result["new"]))


def test_bounding_boxes_of_volumes_are_matched() -> None:
    mask = np.zeros((6, 8, 8), np.uint8)
    mask[1:4, 1:5, 1:5], mask[4:6, 5:8, 5:8] = 3, 7
    old, new = index_objects(lazy(mask)), index_objects(lazy(np.where(mask > 0, mask + 10, 0).astype(np.uint8)))
    assert match_bounding_boxes(old, new)[["old", "new"]].to_numpy().tolist() == [[3, 13], [7, 17]]
