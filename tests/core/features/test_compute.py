"""Feature computation: independence of chunks, cache and other objects."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import distance_transform_edt
from skimage.measure import regionprops_table
from skimage.segmentation import expand_labels

from svetlana_jupyter.core.features import compute as measuring
from svetlana_jupyter.core.features import crops
from svetlana_jupyter.core.features.catalog import GROUPS, columns
from svetlana_jupyter.core.features.compute import in_um, iter_features, measure
from svetlana_jupyter.core.io import chunks as blocks
from svetlana_jupyter.core.io.image_pair import ImagePair, open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import MeasureSettings
from tests.core.io.test_chunks import CountingArray

ALL = MeasureSettings(groups=GROUPS)
DEFAULT = MeasureSettings().groups, MeasureSettings().may_use


def blobs(
    shape: tuple[int, ...],
    chunks: int | None = None,
    seed: int = 0,
    largest: int = 40,
    channels: int = 2,
    **open_arguments,
) -> ImagePair:
    """Return ellipsoids, some overlapping or cut by the border, with gaps in the labels up to ``largest``."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.int64)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    for label in rng.permutation(np.linspace(2, largest, 13).astype(int)):
        center, radii = rng.uniform(0, shape), rng.uniform(2, 7, len(shape))
        mask[(((grid - center) / radii) ** 2).sum(-1) <= 1] = label
    image = rng.normal(200, 30, (channels, *shape)).astype(np.float32) + 50 * (mask > 0)
    if chunks:
        image, mask = (da.from_array(array, chunks=chunks, name=False) for array in (image, mask))
    return open_pair(
        "blobs", image, mask, axes="c" + "zyx"[-len(shape) :], channels=["red", "green"][:channels], **open_arguments
    )


def measured(
    image_pair: ImagePair, objects: pd.DataFrame | None = None, settings: MeasureSettings = ALL
) -> pd.DataFrame:
    tables = list(measure(image_pair, index_objects(image_pair.mask) if objects is None else objects, settings))
    return pd.concat(tables).sort_index()


def assert_same(actual: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(actual, expected, rtol=1e-4, atol=1e-4)


class DictFeatureCache(dict):
    """Feature cache in a dictionary."""

    def get_features(self, key: str) -> pd.DataFrame:
        return self.get(key, pd.DataFrame(index=pd.Index([], dtype="int64", name="object")))

    def add_features(self, key: str, table: pd.DataFrame) -> None:
        assert not table.index.isin(self.get_features(key).index).any()
        self[key] = pd.concat([self.get_features(key), table])


@pytest.mark.parametrize(("shape", "spacing"), [((60, 70), (0.5, 0.5)), ((16, 30, 32), (2.0, 0.5, 0.5))])
def test_a_table_in_micrometers_agrees_with_scikit_image(shape, spacing):
    image_pair = blobs(shape, spacing=spacing)
    chosen = columns(len(shape), 2)
    table = in_um(measured(image_pair), chosen, image_pair)
    mask, image = np.asarray(image_pair.mask), np.moveaxis(np.asarray(image_pair.image), 0, -1)
    names = (
        "label",
        "area",
        "equivalent_diameter_area",
        "centroid",
        "intensity_mean",
        "intensity_min",
        "intensity_max",
    )
    reference = regionprops_table(mask, image, properties=names, spacing=spacing)
    size = "area_um2" if len(shape) == 2 else "volume_um3"
    expected = {
        size: reference["area"],
        "equivalent_diameter_um": reference["equivalent_diameter_area"],
        "position_y_um": reference[f"centroid-{len(shape) - 2}"],
        "position_x_um": reference[f"centroid-{len(shape) - 1}"],
        "green_mean": reference["intensity_mean-1"],
        "green_min": reference["intensity_min-1"],
        "red_max": reference["intensity_max-0"],
        "red_total": reference["intensity_mean-0"] * reference["area"] / np.prod(spacing),
    }
    assert table.index.tolist() == reference["label"].tolist()
    for name, values in expected.items():
        np.testing.assert_allclose(table[name], values, rtol=1e-5, err_msg=name)


def test_without_spacing_lengths_are_pixels():
    image_pair = blobs((60, 70))
    table = in_um(measured(image_pair), columns(2, 2), image_pair)
    np.testing.assert_array_equal(table["area"], index_objects(image_pair.mask)["size"])


@pytest.mark.parametrize("shape", [(60, 70), (16, 30, 32)])
def test_the_annulus_is_the_background_within_its_width(shape):
    image_pair = blobs(shape)
    image, mask = np.asarray(image_pair.image), np.asarray(image_pair.mask)
    table = measured(image_pair, settings=MeasureSettings(ring=3))
    for label in table.index:
        zone = (expand_labels(np.where(mask == label, mask, 0), 3) > 0) & (mask != label)
        around = image[1][zone & (mask == 0)]
        assert table.loc[label, "ring_mean:1"] == pytest.approx(around.mean(), rel=1e-5)
        assert table.loc[label, "ring_covered"] == pytest.approx((mask[zone] > 0).mean(), abs=1e-6)


@pytest.mark.parametrize(("shape", "chunks"), [((60, 70), 17), ((60, 70), 33), ((16, 30, 32), 9)])
def test_features_do_not_depend_on_chunks(shape, chunks, monkeypatch):
    whole = measured(blobs(shape))
    monkeypatch.setitem(blocks.MIN_BLOCK_SHAPE, len(shape), (chunks,) * len(shape))
    assert_same(measured(blobs(shape, chunks)), whole)


def test_every_chunk_of_image_and_mask_is_decoded_once(monkeypatch):
    monkeypatch.setitem(blocks.MIN_BLOCK_SHAPE, 2, (15, 15))
    image_pair = blobs((60, 70))
    image, mask = CountingArray(np.asarray(image_pair.image)), CountingArray(np.asarray(image_pair.mask))
    lazy = ImagePair("blobs", image.to_lazy((2, 15, 15)).assign_coords(c=["red", "green"]), mask.to_lazy((15, 15)))
    assert_same(measured(lazy, index_objects(image_pair.mask)), measured(image_pair))
    for source in (image, mask):
        assert len(source.reads) > 15
        assert set(source.reads.values()) == {1}


def test_a_subset_of_objects_gets_the_same_values():
    image_pair = blobs((60, 70))
    objects = index_objects(image_pair.mask)
    assert_same(measured(image_pair, objects.iloc[[1, 4]]), measured(image_pair).iloc[[1, 4]])


def test_labels_can_be_huge():
    small, huge = blobs((60, 70)), blobs((60, 70), largest=2**40)
    assert_same(measured(huge).reset_index(drop=True), measured(small).reset_index(drop=True))
    assert measured(huge).index.max() == 2**40


def test_an_object_at_the_border_is_measured_by_its_existing_pixels():
    image = np.random.default_rng(0).normal(100, 20, (30, 30))
    mask = np.zeros((30, 30), np.uint8)
    mask[:9, 20:] = 7
    cut = open_pair("cut", image, mask, axes="yx")
    whole = open_pair("whole", np.pad(image, 9), np.pad(mask, 9), axes="yx")
    own = [column.key for column in columns(2, 1, ("shape", "intensity", "texture", "orientation"))]
    assert_same(measured(cut)[own], measured(whole)[own])
    zone = np.zeros((30, 30), bool)
    zone[:14, 15:] = True
    zone &= mask == 0
    zone[9:14, 15:20] &= np.add.outer(np.arange(1, 6) ** 2, np.arange(5, 0, -1) ** 2) <= 25
    assert measured(cut)["ring_mean:0"].item() == pytest.approx(image[zone].mean(), rel=1e-5)


@pytest.mark.parametrize("settings", [MeasureSettings(), ALL])
def test_features_of_single_pixels_flat_images_and_full_images_are_finite(settings):
    for mask in (np.eye(5, dtype=np.uint8), np.ones((5, 5), np.uint8), np.stack([np.eye(3, dtype=np.uint8)] * 2)):
        for image in (
            np.zeros((1, *mask.shape)),
            np.full((1, *mask.shape), np.nan),
            np.arange(mask.size).reshape(1, *mask.shape),
        ):
            image_pair = open_pair("tiny", image, mask, axes="c" + "zyx"[-mask.ndim :])
            for _, values in iter_features(image_pair, index_objects(image_pair.mask), settings):
                assert np.isfinite(values).all()


def test_undefined_values_are_nan_in_the_table_and_zero_for_a_forest():
    image_pair = open_pair("full", np.arange(25.0).reshape(1, 5, 5), np.ones((5, 5), np.uint8), axes="cyx")
    objects = index_objects(image_pair.mask)
    table = measured(image_pair, objects, MeasureSettings())
    assert table["ring_mean:0"].isna().all()
    assert table["ring_covered"].isna().all()
    ((_, values),) = iter_features(image_pair, objects, MeasureSettings())
    keys = [column.key for column in columns(2, 1, *DEFAULT)]
    np.testing.assert_array_equal(values, table[keys].fillna(0))


def test_features_of_a_forest_are_in_the_unit_of_its_patches():
    image_pair = blobs((60, 70), spacing=0.5)
    objects = index_objects(image_pair.mask)
    (labels, pixels), (_, to_micrometers) = (
        next(iter_features(image_pair, objects, MeasureSettings(), unit)) for unit in ("px", "um")
    )
    keys = [column.key for column in columns(2, 2, *DEFAULT)]
    area = keys.index("area")
    np.testing.assert_allclose(pixels[:, area], objects.loc[labels, "size"])
    np.testing.assert_allclose(to_micrometers[:, area], objects.loc[labels, "size"] / 4)
    assert pixels.dtype == np.float32


def test_a_huge_object_is_subsampled_evenly(monkeypatch):
    rows, columns_ = np.mgrid[-100:101, -120:121]
    mask = ((rows / 90) ** 2 + (columns_ / 110) ** 2 <= 1).astype(np.uint8)
    image = (100 + 40 * np.sin(rows / 20) + columns_)[None].astype(np.float32)
    image_pair = open_pair("huge", image, mask, axes="cyx")
    exact = measured(image_pair)
    monkeypatch.setattr(crops, "MAX_BOX_VOXELS", 5000)
    rough = measured(image_pair)
    for name in ("area", "axis_major", "axis_minor", "perimeter", "mean:0", "sd:0", "median:0", "position_y"):
        assert rough[name].item() == pytest.approx(exact[name].item(), rel=0.02), name
    assert rough["solidity"].item() == pytest.approx(1, abs=0.01)


def test_cached_features_are_not_measured_again_and_stay_the_same(monkeypatch):
    image_pair = blobs((60, 70))
    objects, expected = index_objects(image_pair.mask), measured(image_pair)
    calls: list[tuple[set[str], int]] = []
    measure_objects = measuring.measure_objects
    monkeypatch.setattr(
        measuring,
        "measure_objects",
        lambda pair, objects, settings: (
            calls.append((set(settings.groups), len(objects))),
            measure_objects(pair, objects, settings),
        )[1],
    )
    with_cache = replace(image_pair, feature_cache=DictFeatureCache())
    measured(with_cache, objects.iloc[:3], MeasureSettings(groups=("shape", "ring")))
    measured(with_cache, objects.iloc[2:5], MeasureSettings(groups=("texture", "shape")))
    assert_same(measured(with_cache), expected)
    assert_same(measured(with_cache), expected)
    seen = {group: sum(count for groups, count in calls if group in groups) for group in GROUPS}
    assert seen == dict.fromkeys(GROUPS, len(objects))
    measured(with_cache, objects, MeasureSettings(groups=("shape", "ring"), ring=3))
    assert calls[-1] == ({"ring"}, len(objects))
    measured(with_cache, objects, MeasureSettings(groups=("shape", "texture"), rim=1))
    assert calls[-1] == ({"texture"}, len(objects)), "an eroded margin does not change shape"


@pytest.mark.parametrize("batch", [1, 10_000])
def test_features_measured_before_a_stop_are_cached(batch, monkeypatch):
    monkeypatch.setitem(blocks.MIN_BLOCK_SHAPE, 2, (20, 20))
    monkeypatch.setattr(measuring, "CACHE_WRITE_BATCH", batch)
    image_pair = replace(blobs((60, 70), 20), feature_cache=DictFeatureCache())
    tables = measure(image_pair, index_objects(image_pair.mask), MeasureSettings())
    done = pd.concat([next(tables), next(tables)])
    tables.close()
    assert_same(
        image_pair.feature_cache.get_features("shape").sort_index(),
        done[["area", *image_pair.feature_cache.get_features("shape").columns[1:]]].sort_index(),
    )


@pytest.mark.parametrize("shape", [(60, 70), (20, 24, 28)])
def test_the_eroded_margin_is_left_out_of_the_object_and_of_the_annulus(shape):
    image_pair = blobs(shape, channels=1, seed=3)
    settings = MeasureSettings(groups=("shape", "intensity", "ring"), ring=3, rim=2)
    table, whole = measured(image_pair, settings=settings), measured(image_pair, settings=settings.changed(rim=0))
    mask, image = image_pair.mask.to_numpy(), image_pair.image.to_numpy()[0]
    left = 0
    for label, row in table.iterrows():
        own = np.pad(mask == label, 1)
        inner = (distance_transform_edt(own) > 2)[(slice(1, -1),) * mask.ndim]
        left += inner.any()
        chosen = inner if inner.any() else mask == label
        assert row["mean:0"] == pytest.approx(image[chosen].mean(), rel=1e-5)
        distance = distance_transform_edt(mask != label)
        # The annulus is as wide around the dilated object as around the object itself.
        far = distance_transform_edt(distance > 2)
        ring = image[(far > 0) & (far <= 3) & (mask == 0)]
        assert row["ring_mean:0"] == pytest.approx(ring.mean(), rel=1e-5)
    assert left > 5
    assert table["area" if mask.ndim == 2 else "volume"].equals(whole["area" if mask.ndim == 2 else "volume"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_object_with_invalid_pixels_has_no_brightness_in_this_channel(value):
    mask = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((8, 8), int))
    image = np.random.default_rng(1).normal(200, 30, (2, 16, 16)).astype(np.float32)
    spoiled = image.copy()
    spoiled[1, 2, 3] = value
    expected, table = (
        pd.concat(measure(pair, index_objects(pair.mask), ALL))
        for pair in (open_pair("a", pixels, mask, axes="cyx") for pixels in (image, spoiled))
    )

    hit = [key for key in table if key.endswith(":1")]
    assert len(hit) > 10
    assert table.loc[1, hit].isna().all()
    pd.testing.assert_frame_equal(table.drop(index=1), expected.drop(index=1))
    pd.testing.assert_series_equal(table.loc[1].drop(hit), expected.loc[1].drop(hit))
