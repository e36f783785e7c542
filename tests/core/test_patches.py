"""Patch extraction, sampling, normalization and normalized object size."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter
from xarray import DataArray

from svetlana_jupyter.core import normalization
from svetlana_jupyter.core.io.chunks import group_by_block, read_padded
from svetlana_jupyter.core.io.image_pair import ImagePair, open_pair
from svetlana_jupyter.core.normalization import (
    BLUR_SIGMAS,
    blur_masks,
    compute_image_statistics,
    fit_blurred_masks,
    unmixing_residual,
)
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.patch_geometry import patch_geometry, resolve_patch_settings
from svetlana_jupyter.core.patches import cut_patches, normalize_object_size, resample_nearest, take_patch
from svetlana_jupyter.core.settings import PatchSettings
from svetlana_jupyter.errors import PatchError

COUNT = 14  # patch pixels per side


def geometry(radius: float, ndim: int, margin: float = 1.0):
    size = (3 * radius,) * ndim
    return patch_geometry(PatchSettings(size=size, sampling=(COUNT,) * ndim, view="object"), None, margin)


def balls(radius: float, ndim: int, count: int = 1, margin: float = 1.0) -> np.ndarray:
    """Return balls (count, *window) with random centers within the middle pixel."""
    rng, side = np.random.default_rng(0), geometry(radius, ndim, margin).window[0]
    centers = rng.uniform(-0.5, 0.5, (count, ndim)) + (side - 1) / 2
    positions = np.stack(np.meshgrid(*[np.arange(side)] * ndim, indexing="ij"))
    distances = [((positions - middle.reshape(-1, *[1] * ndim)) ** 2).sum(0) for middle in centers]
    return np.array(distances) <= radius**2


def blurred_image(own: np.ndarray, inside: float = 100.0, outside: float = 20.0, blur: float = 0.8) -> np.ndarray:
    """Return a blurred image of uniform objects on a uniform background."""
    shown = [gaussian_filter(np.where(mask_of_ball, inside, outside), blur, mode="nearest") for mask_of_ball in own]
    return np.array(shown, np.float32)[:, None]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("radius", [5.0, 8.0, 20.0])
@pytest.mark.parametrize("blur", [0.5, 0.8, 1.3])
def test_a_uniform_object_is_uniform_up_to_its_edge_at_any_size_and_blur(ndim, radius, blur):
    own = balls(radius, ndim, 3)
    pixels, fills = normalize_object_size(blurred_image(own, blur=blur), own, geometry(radius, ndim))
    shown = pixels[:, 0][fills]
    assert np.ptp(shown) < 2.5
    assert 88 < shown.mean() < 101
    assert np.ptp(blurred_image(own, blur=blur)[:, 0][own]) > 15, "there is mixed light to remove"


@pytest.mark.parametrize("ndim", [2, 3])
def test_small_and_large_objects_fill_the_same_number_of_pixels(ndim):
    shares = [
        normalize_object_size(blurred_image(own), own, geometry(radius, ndim))[1].mean()
        for radius, own in radii_and_balls(ndim)
    ]
    assert shares[0] == pytest.approx(shares[1], rel=0.06)


def radii_and_balls(ndim: int) -> list[tuple[float, np.ndarray]]:
    return [(radius, balls(radius, ndim, 40)) for radius in (5.0, 15.0)]


def test_corners_are_rounded_but_sides_stay():
    geo = geometry(5.0, 3)
    own = np.zeros((1, *geo.window), bool)
    own[0, *(slice(side // 2 - 5, side // 2 + 6) for side in geo.window)] = True
    fills, unsmoothed = (
        normalize_object_size(blurred_image(own), own, geo)[1][0],
        resample_nearest(own, geo.sampling_step, geo.shape)[0],
    )
    first, middle = np.argwhere(unsmoothed)[0], COUNT // 2
    assert unsmoothed[*first]
    assert not fills[*first]
    np.testing.assert_array_equal(fills[middle, middle], unsmoothed[middle, middle])


def test_pixels_outside_the_object_are_picked_unchanged():
    own, geo = balls(8.0, 2, 2), geometry(8.0, 2)
    pixels = np.random.default_rng(1).normal(100, 10, (2, 3, *own.shape[1:])).astype(np.float32)
    result, fills = normalize_object_size(pixels, own, geo)
    outside = np.repeat((~fills & ~resample_nearest(own, geo.sampling_step, geo.shape))[:, None], 3, axis=1)
    np.testing.assert_array_equal(result[outside], resample_nearest(pixels, geo.sampling_step, geo.shape)[outside])


@pytest.mark.parametrize("radius", [7.0, 40.0])
def test_a_margin_changes_nothing_in_the_field_of_view(radius):
    narrow, wide = (balls(radius, 2, 2, margin) for margin in (1.0, 1.4))
    more = (wide.shape[1] - narrow.shape[1]) // 2
    noise = np.random.default_rng(2).normal(0, 5, (2, 1, *wide.shape[1:])).astype(np.float32)
    pixels = blurred_image(wide) + noise
    inner = (..., *[slice(more, more + narrow.shape[1])] * 2)
    result, fills = normalize_object_size(pixels[inner], wide[inner], geometry(radius, 2))
    wider, more_fills = normalize_object_size(pixels, wide, geometry(radius, 2, 1.4))
    view = (..., *[slice((wider.shape[-1] - COUNT) // 2, (wider.shape[-1] + COUNT) // 2)] * 2)
    np.testing.assert_array_equal(more_fills[view], fills)
    np.testing.assert_allclose(wider[view], result, atol=1e-3)


@pytest.mark.parametrize("ndim", [2, 3])
def test_noise_and_texture_remain(ndim):
    own = balls(9.0, ndim)
    noise = np.random.default_rng(3).normal(0, 5, own.shape)[:, None].astype(np.float32)
    geo = geometry(9.0, ndim)
    result, fills = normalize_object_size(blurred_image(own) + noise, own, geo)
    inside = fills & resample_nearest(own, geo.sampling_step, geo.shape)
    assert (
        np.corrcoef(result[:, 0][inside], resample_nearest(noise, geo.sampling_step, geo.shape)[:, 0][inside])[0, 1]
        > 0.95
    )


@pytest.mark.parametrize("ndim", [2, 3])
def test_blurred_masks_are_fitted_by_least_squares(ndim):
    own, view = balls(6.0, ndim, 2), tuple(slice(0, side) for side in geometry(6.0, ndim).window)
    pixels = np.random.default_rng(4).normal(500, 40, (2, 2, *own.shape[1:])).astype(np.float32)
    soft = blur_masks(own, view)
    coefficients, level = fit_blurred_masks(pixels, own, soft)
    left = unmixing_residual(pixels, own, soft, coefficients)
    for label, mask in enumerate(own):
        blurred = [gaussian_filter(mask.astype(float), blur, mode="nearest", truncate=3)[mask] for blur in BLUR_SIGMAS]
        design = np.stack([np.ones(mask.sum()), *blurred], axis=1)
        for channel, values in enumerate(pixels[label].astype(float)):
            expected = values[mask] - design @ np.linalg.lstsq(design, values[mask], rcond=None)[0]
            np.testing.assert_allclose(left[label, channel][mask], expected, atol=1e-2)
            assert level[label, channel] == pytest.approx(np.average(values[mask], weights=blurred[-1] ** 4), rel=1e-5)
        assert (left[label][:, ~mask] == 0).all()


def test_an_object_outside_the_window_leaves_the_pixels_unchanged():
    geo = geometry(6.0, 2)
    own, pixels = np.zeros((1, *geo.window), bool), np.ones((1, 1, *geo.window), np.float32)
    result, fills = normalize_object_size(pixels, own, geo)
    assert not fills.any()
    assert (result == 1).all()


def scene(seed: int, shape: tuple[int, ...], channels: int = 1, chunks: int | None = None) -> ImagePair:
    """Return rectangles with random labels on noise."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 4000, (channels, *shape)).astype(np.uint16)
    mask = np.zeros(shape, np.uint16)
    for label in rng.permutation(np.arange(1, 60, 5))[:8]:
        corner = [int(rng.integers(0, side)) for side in shape]
        mask[tuple(slice(a, a + int(rng.integers(1, 8))) for a in corner)] = label
    dims = ["z", "y", "x"][-len(shape) :]
    if chunks:
        image = da.from_array(image, chunks=(1, *(chunks + n for n in range(len(shape)))))
        mask = da.from_array(mask, chunks=chunks + 1)
    names = [f"channel {number}" for number in range(channels)]
    return ImagePair("scene", DataArray(image, dims=["c", *dims], coords={"c": names}), DataArray(mask, dims=dims))


def cut_all(
    pair: ImagePair, objects: pd.DataFrame, resolved: PatchSettings, margin: float = 1.0
) -> dict[int, np.ndarray]:
    cut = {}
    for labels, patches in cut_patches(pair, objects, resolved, margin):
        cut.update(zip(labels.tolist(), patches, strict=True))
    return cut


def cut_by_hand(
    pair: ImagePair, center: np.ndarray, label: int, side: int, padding: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return raw pixels and mask of a patch by padding and slicing the whole image."""
    image, mask = np.asarray(pair.image), np.asarray(pair.mask)
    around = [(side, side)] * mask.ndim
    start = [int(np.floor(c - (side - 1) / 2 + 0.5)) + side for c in center]
    window = tuple(slice(a, a + side) for a in start)
    image = np.pad(image, [(0, 0), *around], mode="reflect" if padding == "reflect" else "constant")
    mask = np.pad(mask, around)
    return image[(slice(None), *window)].astype(np.float32), mask[window] == label


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 100),
    shape=st.one_of(st.tuples(*[st.integers(5, 60)] * 2), st.tuples(*[st.integers(4, 20)] * 3)),
    side=st.integers(4, 31),
    chunks=st.integers(3, 40),
    padding=st.sampled_from(["reflect", "zeros"]),
)
def test_patches_of_any_chunking_equal_those_cut_by_hand(seed, shape, side, chunks, padding):
    pair = scene(seed, shape, channels=2, chunks=chunks)
    objects = index_objects(pair.mask)
    resolved = resolve_patch_settings(PatchSettings(size=side, normalize="none", padding=padding), objects, None, None)
    cut = cut_all(pair, objects, resolved)
    assert sorted(cut) == objects.index.tolist()
    for label, patch in cut.items():
        center = objects.loc[label, ["z", "y", "x"][-len(shape) :]].to_numpy(float)
        image, own = cut_by_hand(pair, center, label, side, padding)
        np.testing.assert_array_equal(patch[:-1], image)
        np.testing.assert_array_equal(patch[-1], own)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 100),
    chunks=st.integers(5, 40),
    normalize=st.sampled_from(["none", "minmax", "max", "percentile", "object", "both"]),
    context=st.sampled_from(["keep", "hide"]),
    scope=st.sampled_from(["patch", "image"]),
    sampling=st.sampled_from([None, 7, 16, 30]),
    margin=st.sampled_from([1.0, 1.2, 1.5]),
)
def test_neither_a_margin_nor_cutting_many_at_once_changes_a_patch(
    seed, chunks, normalize, context, scope, sampling, margin
):
    pair = scene(seed, (50, 60), chunks=chunks)
    objects = index_objects(pair.mask)
    requested = PatchSettings(size=16, sampling=sampling, normalize=normalize, context=context, scope=scope)
    resolved = resolve_patch_settings(requested, objects, None, None)
    whole = scene(seed, (50, 60))
    wide = cut_all(pair, objects, resolved, margin)
    for label, patch in wide.items():
        edge = (patch.shape[-1] - resolved.sampling[-1]) // 2
        middle = patch[:, edge : edge + resolved.sampling[0], edge : edge + resolved.sampling[1]]
        alone = take_patch(whole.image, whole.mask, objects.loc[label, ["y", "x"]].to_numpy(float), resolved, label)
        np.testing.assert_allclose(middle, alone, rtol=1e-5, atol=1e-4)
        assert alone.dtype == np.float32


def one_disk(value: float = 50.0, background: float = 10.0) -> ImagePair:
    rows, columns = np.mgrid[:41, :41]
    mask = ((rows - 20) ** 2 + (columns - 20) ** 2 <= 64).astype(np.uint8)
    image = np.where(mask, value, background).astype(np.float32)
    return ImagePair("disk", DataArray(image[None], dims=["c", "y", "x"]), DataArray(mask, dims=["y", "x"]))


def patch_of(pair: ImagePair, **values) -> np.ndarray:
    objects = index_objects(pair.mask)
    resolved = resolve_patch_settings(PatchSettings(**{"size": 31, **values}), objects, None, None)
    return take_patch(pair.image, pair.mask, (20.0, 20.0), resolved, 1)


@pytest.mark.parametrize(
    ("normalize", "inside", "outside"),
    [("none", 50.0, 10.0), ("minmax", 1.0, 0.0), ("max", 1.0, 0.2), ("percentile", 1.0, 0.0)],
)
def test_each_normalization_of_a_bright_disk(normalize, inside, outside):
    patch = patch_of(one_disk(), normalize=normalize)
    assert patch[0, 15, 15] == pytest.approx(inside)
    assert patch[0, 0, 0] == pytest.approx(outside)


def test_object_normalization_standardizes_the_objects_own_pixels():
    pair = scene(3, (60, 60))
    objects = index_objects(pair.mask)
    resolved = resolve_patch_settings(PatchSettings(size=25, normalize="object"), objects, None, None)
    for patch in cut_all(pair, objects[objects["size"] > 4], resolved).values():
        own = patch[0][patch[-1] > 0]
        assert own.mean() == pytest.approx(0.0, abs=1e-4)
        assert own.std() == pytest.approx(1.0, abs=1e-3)


def test_scope_both_normalizes_the_patch_by_percentiles_and_the_object_by_its_own_pixels():
    pair = scene(3, (60, 60), channels=2)
    objects = index_objects(pair.mask)
    parts = {
        name: cut_all(
            pair, objects, resolve_patch_settings(PatchSettings(size=20, normalize=name), objects, None, None)
        )
        for name in ("both", "percentile", "object")
    }
    for label, patch in parts["both"].items():
        np.testing.assert_array_equal(patch[:2], parts["percentile"][label][:2])
        own = parts["object"][label]
        near = distance_transform_edt(own[-1] == 0) <= 2
        np.testing.assert_array_equal(patch[2:4], own[:2] * near)
        np.testing.assert_array_equal(patch[-1], own[-1])


@pytest.mark.parametrize("scope", ["patch", "image"])
@pytest.mark.parametrize("normalize", ["minmax", "max", "percentile", "object", "both"])
@pytest.mark.parametrize("value", [0.0, 123.0, 65535.0])
def test_a_flat_patch_gives_zeros_or_ones_but_never_nan(normalize, scope, value):
    patch = patch_of(one_disk(value, value), normalize=normalize, scope=scope)
    expected = 1.0 if normalize == "max" and value else 0.0
    np.testing.assert_array_equal(patch[:-1], expected)


def test_pixels_that_are_not_finite_become_zero():
    pair = one_disk()
    pair.image[0, 20, 20] = np.nan
    assert np.isfinite(patch_of(pair, normalize="object")).all()


@pytest.mark.parametrize("dilation", [0, 1, 3, 40])
def test_hidden_context_is_zero_outside_the_dilated_mask(dilation):
    pair = one_disk(50.0, 10.0)
    patch = patch_of(pair, context="hide", dilation=dilation, normalize="none")
    own = patch[-1] > 0
    near = distance_transform_edt(~own) <= dilation
    np.testing.assert_array_equal(patch[0], np.where(near, np.where(own, 50, 10), 0))
    if dilation:
        assert near.sum() >= binary_dilation(own).sum()


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_a_3d_mask_is_dilated_by_a_ball(dilation):
    pair = scene(5, (16, 18, 20))
    objects = index_objects(pair.mask)
    requested = PatchSettings(size=15, context="hide", dilation=dilation, normalize="none")
    for patch in cut_all(pair, objects, resolve_patch_settings(requested, objects, None, None)).values():
        hidden = distance_transform_edt(patch[-1] == 0) > dilation
        assert (patch[0][hidden] == 0).all()
        assert (patch[0][~hidden] != 0).mean() > 0.5


def test_the_mask_channel_shows_only_the_object_itself():
    mask = np.zeros((30, 30), np.uint8)
    mask[10:20, 5:15], mask[10:20, 15:25] = 1, 2
    pair = ImagePair("two", DataArray(np.ones((1, 30, 30)), dims=["c", "y", "x"]), DataArray(mask, dims=["y", "x"]))
    objects = index_objects(pair.mask)
    cut = cut_all(pair, objects, resolve_patch_settings(PatchSettings(size=24), objects, None, None))
    assert cut[1][-1].sum() == cut[2][-1].sum() == 100
    without = resolve_patch_settings(PatchSettings(size=24, mask_channel=False, normalize="none"), objects, None, None)
    assert cut_all(pair, objects, without)[1].shape == (1, 24, 24)


def test_resampling_keeps_a_slope():
    slope = np.tile(np.arange(100.0), (100, 1)).astype(np.float32)
    mask = np.zeros((100, 100), np.uint8)
    mask[45:56, 45:56] = 1
    pair = ImagePair("slope", DataArray(slope[None], dims=["c", "y", "x"]), DataArray(mask, dims=["y", "x"]))
    for sampling in (10, 40, 80):
        resolved = PatchSettings(size=(40.0, 40.0), sampling=(sampling, sampling), normalize="none")
        patch = take_patch(pair.image, pair.mask, (50.0, 50.0), resolved, 1)
        step = 40 / sampling
        expected = patch_geometry(resolved, None).coordinates((50.0, 50.0))["x"]
        assert expected.mean() == pytest.approx(50, abs=0.5)
        np.testing.assert_allclose(patch[0], np.tile(expected, (sampling, 1)), rtol=1e-4)
        assert np.sqrt(patch[-1].sum()) == pytest.approx(11 / step, abs=1.0)


def test_micrometers_make_anisotropic_voxels_isotropic():
    zz, yy, xx = np.mgrid[:20, :60, :60]
    ball = ((zz - 10) * 4) ** 2 + (yy - 30) ** 2 + (xx - 30) ** 2 <= 20**2
    pair = open_pair("ball", ball.astype(np.float32), ball.astype(np.uint8), axes="zyx", spacing=(2.0, 0.5, 0.5))
    objects = index_objects(pair.mask)
    resolved = resolve_patch_settings(
        PatchSettings(unit="um", normalize="none", sampling=24), objects, None, pair.spacing
    )
    patch = next(cut_patches(pair, objects, resolved))[1][0]
    assert patch.shape == (2, 24, 24, 24)
    spans = [np.ptp(np.nonzero(patch[-1].any(axis=other_axes))[0]) for other_axes in ((1, 2), (0, 2), (0, 1))]
    assert max(spans) - min(spans) <= 2


def test_micrometers_without_pixel_size_are_refused():
    pair = one_disk()
    with pytest.raises(PatchError, match="known pixel size"):
        resolve_patch_settings(PatchSettings(unit="um"), index_objects(pair.mask), None, None)


def boxes(*sides: tuple[int, int]) -> pd.DataFrame:
    rows = [{"y0": 0, "x0": 0, "y1": height, "x1": width, "y": 0.0, "x": 0.0} for height, width in sides]
    return pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="object"))


def test_an_automatic_size_does_not_crop_a_rare_large_class():
    objects = boxes(*[(10, 8)] * 99, (40, 50))
    classes = pd.Series([1] * 99 + [2], index=objects.index)
    resolved = PatchSettings(margin=1.0)
    assert resolve_patch_settings(resolved, objects, None, None).size == (10.0, 10.0)
    assert resolve_patch_settings(resolved, objects, classes, None).size == (50.0, 50.0)
    assert resolve_patch_settings(resolved, objects, classes[:99], None).size == (10.0, 10.0)


def test_an_automatic_size_is_sampled_coarsely_and_a_given_size_with_its_own_pixels():
    objects = boxes((200, 100))
    assert resolve_patch_settings(PatchSettings(), objects, None, None).sampling == (48, 48)
    assert resolve_patch_settings(PatchSettings(size=200), objects, None, None).sampling == (200, 200)
    assert resolve_patch_settings(PatchSettings(size=200, sampling=20), objects, None, None).sampling == (20, 20)


@pytest.mark.parametrize(
    ("values", "size", "sampling"),
    [
        ({"size": 90}, (90, 90), (90, 90)),
        ({"size": 200}, (200, 200), (96, 96)),
        ({"size": (50, 200)}, (50, 200), (24, 96)),
        ({"size": 200, "context": "hide"}, (30, 30), (30, 30)),
        ({"size": (20, 200), "context": "hide"}, (20, 30), (20, 30)),
        ({"size": 20, "context": "hide"}, (20, 20), (20, 20)),
        ({}, (30, 30), (30, 30)),
        ({"size": 200, "view": "object"}, (200, 200), (22, 22)),
    ],
)
def test_automatic_sampling_limits_a_given_size(values, size, sampling):
    resolved = resolve_patch_settings(PatchSettings(sampling="auto", **values), boxes((20, 10)), None, None)
    assert (resolved.size, resolved.sampling) == (size, sampling)


def test_automatic_sampling_is_coarser_in_volumes():
    objects = pd.DataFrame([{"z0": 0, "y0": 0, "x0": 0, "z1": 5, "y1": 10, "x1": 8}], index=[1])
    objects[["z", "y", "x"]] = 0.0
    resolved = PatchSettings(size=45, sampling="auto")
    assert resolve_patch_settings(resolved, objects, None, None).sampling == (24,) * 3
    assert resolve_patch_settings(resolved.changed(context="hide"), objects, None, None).size == (15.0,) * 3
    flat = resolve_patch_settings(resolved.changed(unit="um"), objects, None, (2.0, 1.0, 1.0))
    assert (flat.size, flat.sampling) == ((45.0,) * 3, (24,) * 3)
    assert resolve_patch_settings(PatchSettings(size=45), objects, None, None).sampling == (45,) * 3


@pytest.mark.parametrize(
    ("values", "sampling"),
    [
        ({}, (63, 63)),
        ({"size": (20, 40)}, (32, 63)),
        ({"size": 200}, (200, 200)),
        ({"sampling": 20}, (20, 20)),
        ({"view": "object"}, (63, 63)),
    ],
)
def test_an_automatic_sampling_is_as_fine_as_a_network_needs(values, sampling):
    settings = PatchSettings(**values)
    resolved, default = (resolve_patch_settings(settings, boxes((60, 30)), None, None, side) for side in (63, 1))
    assert resolved.sampling == sampling
    assert resolved.size == default.size


def test_resolving_twice_changes_nothing():
    once = resolve_patch_settings(PatchSettings(), boxes((20, 10)), None, None)
    assert once.is_frozen
    assert resolve_patch_settings(once, boxes((200, 100)), None, None) == once


def test_cutting_needs_concrete_settings_matching_dimensions_and_a_center_inside():
    pair = one_disk()
    with pytest.raises(PatchError, match="Call resolve_patch_settings"):
        next(cut_patches(pair, index_objects(pair.mask), PatchSettings()))
    with pytest.raises(PatchError, match="3D objects, but 'disk' is 2D"):
        next(cut_patches(pair, index_objects(pair.mask), PatchSettings(size=(9.0,) * 3, sampling=(9,) * 3)))
    with pytest.raises(PatchError, match=r"center \(50, 0\) lies outside the image of shape \(41, 41\)"):
        take_patch(pair.image, pair.mask, (50, 0), PatchSettings(size=(9.0, 9.0), sampling=(9, 9)), 1)


def test_the_coordinates_begin_at_the_first_pixel():
    pair = scene(1, (60, 60))
    resolved = PatchSettings(size=(15.0, 15.0), sampling=(15, 15), normalize="none")
    patch = take_patch(pair.image, pair.mask, (30.2, 29.7), resolved, 1)
    y, x = (along[0] for along in patch_geometry(resolved, None).coordinates((30.2, 29.7)).values())
    assert patch[0, 0, 0] == pair.image[0, int(y), int(x)]


def test_every_chunk_under_an_object_is_read_once_per_block():
    reads = []
    image = np.zeros((1, 2048, 2048), np.uint8)

    def note(block, block_info=None):
        if block_info:
            reads.append(block_info[0]["chunk-location"])
        return block

    lazy = da.from_array(image, chunks=(1, 512, 512)).map_blocks(note, dtype=image.dtype, meta=image[:0, :0, :0])
    mask = np.zeros((2048, 2048), np.uint16)
    positions = np.arange(100, 900, 50)
    for number, (row, column) in enumerate([(r, c) for r in positions for c in positions], start=1):
        mask[row : row + 5, column : column + 5] = number
    pair = ImagePair("many", DataArray(lazy, dims=["c", "y", "x"]), DataArray(mask, dims=["y", "x"]))
    objects = index_objects(pair.mask)
    resolved = PatchSettings(size=(21.0, 21.0), sampling=(21, 21), normalize="object")
    assert sum(len(labels) for labels, _ in cut_patches(pair, objects, resolved)) == len(objects)
    assert sorted(reads) == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]


def test_statistics_of_a_large_image_come_from_a_bounded_sample(monkeypatch):
    rng = np.random.default_rng(0)
    image = DataArray(rng.normal(100, 10, (1, 400, 500)).astype(np.float32), dims=["c", "y", "x"])
    whole = compute_image_statistics(image)
    monkeypatch.setattr(normalization, "SAMPLED_PIXELS", 20_000)
    sampled = compute_image_statistics(image)
    assert sampled.low[0] == pytest.approx(whole.low[0], abs=2.0)
    assert sampled.high[0] == pytest.approx(whole.high[0], abs=3.0)
    assert sampled != whole


@given(
    length=st.integers(1, 12),
    start=st.integers(-30, 11),
    width=st.integers(1, 50),
    padding=st.sampled_from(["reflect", "zeros"]),
)
def test_reading_beyond_the_border_equals_padding_the_whole_image(length, start, width, padding):
    if start >= length or start + width <= 0:
        return
    array = DataArray(np.arange(1, length + 1), dims=["x"])
    padded = np.pad(array.values, 60, mode="reflect" if padding == "reflect" else "constant")
    window = read_padded(array, np.array([start]), np.array([start + width]), padding)
    np.testing.assert_array_equal(window, padded[60 + start : 60 + start + width])


def test_grouping_by_block_visits_every_point_once():
    points = np.random.default_rng(0).uniform(0, 100, (200, 2))
    groups = list(group_by_block(points, (30, 40)))
    assert sorted(np.concatenate(groups).tolist()) == list(range(200))
    keys = [{tuple(key) for key in (points[group] // (30, 40)).tolist()} for group in groups]
    assert all(len(key) == 1 for key in keys)
    assert len({next(iter(key)) for key in keys}) == len(groups)
