"""Measured properties agree with scikit-image's, depend on no position and on no chunking."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy.stats import skew
from skimage.measure import regionprops
from skimage.segmentation import expand_labels
from xarray import DataArray

from svetlana_jupyter.core import blocks
from svetlana_jupyter.core.measure import cut_features, measure
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.pairing import ImagePair


def blobs(shape: tuple[int, ...], chunks: int | None = None, seed: int = 0, channels: int = 2) -> ImagePair:
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.int32)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    for label in rng.permutation(np.arange(2, 40, 3)):
        center, radii = rng.uniform(0, shape), rng.uniform(2, 7, len(shape))
        mask[(((grid - center) / radii) ** 2).sum(-1) <= 1] = label
    image = rng.normal(200, 30, (channels, *shape)).astype(np.float32) + 50 * (mask > 0)
    if chunks:
        image, mask = da.from_array(image, chunks=chunks), da.from_array(mask, chunks=chunks)
    dims = ["z", "y", "x"][-len(shape) :]
    names = ["red", "green"][:channels]
    return ImagePair("blobs", DataArray(image, dims=["c", *dims], coords={"c": names}), DataArray(mask, dims=dims))


def measured(found: ImagePair, objects: pd.DataFrame | None = None) -> pd.DataFrame:
    return pd.concat(list(measure(found, index_objects(found.mask) if objects is None else objects))).sort_index()


@pytest.mark.parametrize("shape", [(60, 70), (16, 30, 32)])
def test_measurements_agree_with_scikit_image(shape):
    found = blobs(shape)
    table = measured(found)
    image, mask = np.asarray(found.image), np.asarray(found.mask)
    ring = np.where(mask == 0, expand_labels(mask, 5), 0)
    for region in regionprops(mask, intensity_image=np.moveaxis(image, 0, -1)):
        row = table.loc[region.label]
        green = image[1][mask == region.label]
        around = image[1][ring == region.label]
        expected = {
            "size": region.area,
            "extent": region.extent,
            "green_mean": region.intensity_mean[1],
            "green_p0": region.intensity_min[1],
            "green_p100": region.intensity_max[1],
            "green_sd": green.std(),
            "green_p25": np.percentile(green, 25),
            "green_skew": skew(green) if len(green) > 1 else 0.0,
            "green_ring_mean": around.mean(),
            "green_contrast": green.mean() - around.mean(),
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
        if len(shape) == 2:
            # scikit-image takes pixels for points, we for little squares.
            axes = np.array([region.axis_major_length, region.axis_minor_length]) / 4
            np.testing.assert_allclose(row[["axis_1", "axis_2"]], np.sqrt(axes**2 + 1 / 12), rtol=1e-6)


@pytest.mark.parametrize(("shape", "chunks"), [((60, 70), 17), ((60, 70), 33), ((16, 30, 32), 9)])
def test_chunks_change_nothing(shape, chunks, monkeypatch):
    whole = measured(blobs(shape))
    monkeypatch.setitem(blocks.SIDES, len(shape), (chunks,) * len(shape))
    pd.testing.assert_frame_equal(measured(blobs(shape, chunks)), whole, rtol=1e-4, atol=1e-3)


def test_some_objects_are_measured_as_among_all():
    found = blobs((60, 70))
    objects = index_objects(found.mask)
    pd.testing.assert_frame_equal(
        measured(found, objects.iloc[[1, 4]]), measured(found).iloc[[1, 4]], rtol=1e-4, atol=1e-3
    )


def test_moving_or_mirroring_everything_changes_nothing():
    found = blobs((60, 70))
    image, mask = np.asarray(found.image), np.asarray(found.mask)
    around = ((30, 10), (0, 40))
    moved = ImagePair(
        "moved",
        DataArray(np.pad(image, ((0, 0), *around), mode="symmetric")[:, :, ::-1], dims=["c", "y", "x"]).assign_coords(
            c=["red", "green"]
        ),
        DataArray(np.pad(mask, around)[:, ::-1], dims=["y", "x"]),
    )
    objects = index_objects(found.mask)
    inner = objects.index[~objects["on_border"]]
    keep = [name for name in measured(found) if "ring" not in name and "contrast" not in name and "ratio" not in name]
    pd.testing.assert_frame_equal(
        measured(moved).loc[inner, keep], measured(found).loc[inner, keep], rtol=1e-3, atol=1e-2
    )


def test_a_single_pixel_a_flat_image_and_no_surroundings_give_finite_numbers():
    for mask in (np.eye(5, dtype=np.uint8), np.ones((5, 5), np.uint8)):
        image = DataArray(np.zeros((1, 5, 5)), dims=["c", "y", "x"], coords={"c": ["grey"]})
        found = ImagePair("flat", image, DataArray(mask, dims=["y", "x"]))
        assert np.isfinite(measured(found).to_numpy()).all()


def test_features_for_a_forest_are_the_measured_table_as_numbers():
    found = blobs((60, 70))
    objects = index_objects(found.mask)
    labels, values = next(cut_features(found, objects))
    np.testing.assert_allclose(values, measured(found).loc[labels], rtol=1e-6)
    assert values.dtype == np.float32
