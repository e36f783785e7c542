"""Object table compared with scikit-image and naive loops for any chunks."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import regionprops_table
from xarray import DataArray

from svetlana_jupyter.core import objects
from svetlana_jupyter.core.objects import bbox_columns, centroid_columns, index_objects
from svetlana_jupyter.errors import InputError


def as_mask(pixels, chunks=-1):
    return DataArray(da.from_array(pixels, chunks=chunks), dims=("z", "y", "x")[-pixels.ndim :])


@st.composite
def masks_and_chunks(draw):
    ndim = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.integers(1, 9)) for _ in range(ndim))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    names = np.concatenate([[0], rng.choice(2**20, size=draw(st.integers(1, 6)), replace=False) + 1])
    pixels = rng.choice(names, size=shape).astype(draw(st.sampled_from([np.uint32, np.int64, np.uint64])))
    pixels[(0,) * ndim] = names[-1]
    chunks = tuple(draw(st.integers(1, length)) for length in shape)
    return pixels, chunks


@settings(deadline=None, max_examples=80)
@given(masks_and_chunks(), st.sampled_from([1, 5, 1 << 20]))
def test_the_object_table_agrees_with_scikit_image_for_any_chunks(case, slab):
    pixels, chunks = case
    ndim = pixels.ndim
    neighbors = np.ones((3,) * ndim)
    labels = np.unique(pixels[pixels > 0])
    numbered = np.searchsorted(labels, pixels, "right")  # regionprops is slow for large labels
    expected = regionprops_table(numbered, properties=["label", "num_pixels", "centroid", "bbox"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "SLAB_PIXELS", slab)
        table = index_objects(as_mask(pixels, chunks))

    assert table.index.tolist() == labels[expected["label"] - 1].tolist()
    assert table["size"].tolist() == expected["num_pixels"].tolist()
    for axis, name in enumerate(centroid_columns(ndim)):
        np.testing.assert_allclose(table[name], expected[f"centroid-{axis}"], rtol=1e-12)
    for position, name in enumerate(bbox_columns(ndim)):
        np.testing.assert_array_equal(table[name], expected[f"bbox-{position}"])
    assert table["pieces"].tolist() == [ndimage.label(pixels == name, neighbors)[1] for name in labels]
    ends = [  # of the axes that are longer than a pixel
        np.isin(places, (0, length - 1)) & (length > 1)
        for places, length in zip(np.indices(pixels.shape), pixels.shape)
    ]
    assert table["on_border"].tolist() == [np.any(ends, axis=0)[pixels == name].any() for name in labels]


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_diagonal_contact_at_the_corner_of_blocks_joins_pieces(ndim):
    pixels = np.zeros((4,) * ndim, np.uint64)
    pixels[(1,) * ndim] = pixels[(2,) * ndim] = 2**63 - 1
    pixels[(0,) * ndim] = pixels[(3,) * ndim] = 5

    assert index_objects(as_mask(pixels, 2))["pieces"].to_dict() == {5: 2, 2**63 - 1: 1}


@pytest.mark.parametrize(
    ("before", "after", "pieces"),
    [
        ([0, 7, 7, 7, 0, 0], [7, 0, 0, 7, 0, 0], 1),  # the first piece below touches at a corner only
        ([7, 7, 7, 7, 0, 7], [7, 0, 0, 0, 0, 0], 2),
        ([7, 0, 7, 0, 7, 0], [0, 7, 0, 7, 0, 0], 1),
        ([7, 0, 0, 0, 0, 7], [7, 7, 7, 7, 7, 7], 1),  # touches at the ends of the longest run, but not in its middle
        ([7, 7, 0, 0, 0, 7], [0, 0, 0, 7, 7, 7], 2),
    ],
)
@pytest.mark.parametrize("axes", [(0, 1), (1, 0), (0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_pieces_with_several_contacts_are_joined_across_a_seam(before, after, pieces, axes):
    pixels = np.array([before, after]).reshape((2, 6, 1)[: len(axes)]).transpose(axes)

    for chunks in (1, pixels.shape, tuple(min(2, side) for side in pixels.shape)):
        assert index_objects(as_mask(pixels, chunks))["pieces"].to_dict() == {7: pieces}
    seam = tuple(1 if side == 2 else side for side in pixels.shape)
    assert index_objects(as_mask(pixels, seam))["pieces"].to_dict() == {7: pieces}


def test_a_snake_through_many_blocks_is_one_piece_and_a_cut_makes_two():
    snake = np.zeros((41, 60), np.uint8)
    snake[::4, :58] = snake[2::8, 57] = snake[1::8, 57] = snake[3::8, 57] = snake[5::8, 0] = 7
    snake[6::8, 0] = snake[7::8, 0] = 7

    assert index_objects(as_mask(snake, 7)).loc[7, "pieces"] == 1
    snake[20, 30] = 0
    assert index_objects(as_mask(snake, 7)).loc[7, "pieces"] == 2


def test_columns_have_the_documented_names_order_and_types():
    table = index_objects(as_mask(np.ones((2, 3, 4), np.uint8)))

    assert list(table) == ["size", "z", "y", "x", "z0", "y0", "x0", "z1", "y1", "x1", "on_border", "pieces"]
    assert table.index.name == "object"
    assert table.index.dtype == np.int64
    assert [table[c].dtype for c in ("size", "x0", "y1")] == [np.int64] * 3
    assert table["z"].dtype == np.float64
    assert table["on_border"].dtype == bool


def test_seventy_thousand_labels_are_all_found():
    names = np.arange(1, 70_001, dtype=np.uint32).reshape(250, 280)

    table = index_objects(as_mask(np.kron(names, np.ones((2, 2), np.uint32)), chunks=(128, 128)))

    assert table.index.tolist() == list(range(1, 70_001))
    assert (table["size"] == 4).all()


def test_labels_beyond_32_bits_keep_their_numbers():
    pixels = np.zeros((4, 5), np.uint64)
    pixels[1, 2], pixels[3] = 2**31 + 5, 2**62

    assert index_objects(as_mask(pixels, (2, 2)))["size"].to_dict() == {2**31 + 5: 1, 2**62: 5}


def test_labels_beyond_63_bits_are_refused():
    with pytest.raises(InputError, match=r"9223372036854775808 is not below 2\*\*63"):
        index_objects(as_mask(np.full((2, 2), 2**63, np.uint64)))


def test_an_object_scattered_over_distant_blocks_is_one_row():
    pixels = np.zeros((100, 100), np.uint16)
    pixels[0, 0] = pixels[99, 99] = 9

    row = index_objects(as_mask(pixels, (10, 10))).loc[9]

    assert row[["size", "y", "x", "y0", "x0", "y1", "x1"]].tolist() == [2, 49.5, 49.5, 0, 0, 100, 100]


def test_each_chunk_is_read_once_and_progress_counts_them():
    reads, progress = [], []
    pixels = np.arange(1, 65, dtype=np.int32).reshape(8, 8)

    def read(block, block_info=None):
        if block_info:
            reads.append(tuple(block_info[0]["chunk-location"]))
        return block

    mask = da.from_array(pixels, chunks=(2, 4)).map_blocks(read, dtype=np.int32, meta=np.empty((0, 0), np.int32))
    index_objects(DataArray(mask, dims=("y", "x")), progress=lambda done, total: progress.append((done, total)))

    assert sorted(reads) == [(i, j) for i in range(4) for j in range(2)]
    assert progress == [(n, 8) for n in range(1, 9)]


def test_a_failing_block_raises_its_own_error():
    def fail(block):
        raise OSError("disk is gone")

    mask = da.zeros((4, 4), chunks=2, dtype=int).map_blocks(fail, dtype=int, meta=np.empty((0, 0), int))
    with pytest.raises(OSError, match="disk is gone"):
        index_objects(DataArray(mask, dims=("y", "x")))


def test_an_empty_mask_is_refused():
    with pytest.raises(InputError, match="has no object, only 0"):
        index_objects(as_mask(np.zeros((3, 3), int)))


def test_negative_numbers_are_refused():
    with pytest.raises(InputError, match="positive integers for objects, got -3"):
        index_objects(as_mask(np.array([[0, -3], [1, 1]])))


def test_a_binary_mask_of_255_is_refused_with_a_way_to_label_it():
    with pytest.raises(InputError, match=r"its only label is 255.*skimage\.measure\.label\(mask > 0\)"):
        index_objects(as_mask(np.array([[0, 255], [0, 255]], np.uint8)))
