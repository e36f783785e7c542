"""Geometric and intensity augmentation.

Geometric augmentation transforms image and mask together; intensity augmentation keeps mask and hidden pixels.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, rotate

from svetlana_jupyter.core.settings import AugmentSettings, PatchSettings, TrainingSettings
from svetlana_jupyter.learn.augmentation import Augmenter, augment_intensity, center_crop
from svetlana_jupyter.learn.spatial import (
    PatchLayout,
    augmentation_margin,
    random_rotations,
    symmetries,
    view_matrices,
    warp_patches,
)

NO_AUGMENTATION = AugmentSettings.none().model_dump()


def augmented(patches: torch.Tensor, shape: tuple[int, ...], seed: int = 0, has_mask: bool = True, cut=None, **values):
    """Augment patches without hidden pixels, or with the patch settings ``cut``."""
    patch_values = {
        "size": tuple(map(float, shape)),
        "sampling": shape,
        "normalize": "percentile",
        "mask_channel": has_mask,
    }
    settings = TrainingSettings(patches={**patch_values, **(cut or {})}, augmentation={**NO_AUGMENTATION, **values})
    augment = Augmenter(settings, torch.zeros(patches.shape[1]), torch.ones(patches.shape[1]))
    return augment(patches, torch.Generator().manual_seed(seed))


def numbered(count: int, channels: int, *shape: int) -> torch.Tensor:
    return torch.arange(float(count * channels * np.prod(shape))).reshape(count, channels, *shape)


def test_without_augmentation_only_the_margin_is_cropped():
    patches = numbered(3, 2, 9, 9)
    assert torch.equal(augmented(patches, (5, 5)), patches[:, :, 2:7, 2:7])


@pytest.mark.parametrize("shape", [(6, 6), (6, 8), (4, 6, 6)])
@pytest.mark.parametrize("rotation", ["none", "right_angles"])
def test_flips_and_quarter_turns_only_permute_pixels_and_move_mask_with_image(shape, rotation):
    image = numbered(16, 1, *shape)
    out = augmented(torch.cat([image, image], dim=1), shape, flips=True, rotation=rotation)
    assert torch.equal(out[:, 0], out[:, 1])
    for before, after in zip(image, out[:, :1], strict=True):
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)
    assert not torch.equal(out[:, :1], image)


def test_every_allowed_view_is_drawn_about_equally_often():
    patches = numbered(1, 1, 5, 5, 5).expand(4800, 1, 5, 5, 5)
    out = augmented(patches, (5, 5, 5), has_mask=False, flips=True, rotation="right_angles", axes="all")
    _, counts = out.flatten(1).unique(dim=0, return_counts=True)
    assert len(counts) == 48
    assert counts.min() > 60
    assert counts.max() < 145


def test_half_turns_keep_stripes_of_any_orientation():
    rows, columns = np.mgrid[:9, :9]
    for along in (rows, rows + columns):
        stripes = torch.from_numpy(np.cos(along - along[4, 4])).float().expand(16, 1, 9, 9)
        torch.testing.assert_close(augmented(stripes, (9, 9), has_mask=False, rotation="half_turns"), stripes)
    patches = numbered(16, 1, 9, 9)
    turned = augmented(patches, (9, 9), has_mask=False, rotation="half_turns")
    same = (turned == patches).flatten(1).all(dim=1)
    assert 0 < same.sum() < 16
    assert torch.equal(turned[~same], patches[~same].flip(2, 3))


def test_rotation_about_z_keeps_every_plane_and_about_all_axes_does_not():
    planes = torch.arange(6.0).view(1, 1, 6, 1, 1).expand(32, 1, 6, 6, 6)
    for rotation in ("right_angles", "free"):
        torch.testing.assert_close(augmented(planes, (6, 6, 6), has_mask=False, rotation=rotation), planes)
        turned = augmented(planes, (6, 6, 6), has_mask=False, rotation=rotation, axes="all")
        assert (turned - planes).abs().max() > 1


def test_share_is_the_fraction_of_augmented_patches():
    patches = numbered(64, 2, 6, 6)
    for rotation in ("right_angles", "free"):
        out = augmented(patches, (6, 6), flips=True, rotation=rotation, scale=0.2, shift=0.3, share=0.0)
        torch.testing.assert_close(out, patches, atol=1e-2, rtol=1e-5)
        out = augmented(patches, (6, 6), rotation=rotation, scale=0.2, share=0.5)
        same = torch.isclose(out, patches, atol=1e-2).flatten(1).all(dim=1)
        assert 16 < same.sum() < 48


def test_a_free_rotation_agrees_with_scipy():
    rng = np.random.default_rng(0)
    smooth = torch.from_numpy(rng.normal(size=(1, 1, 8, 8))).float()
    patch = torch.nn.functional.interpolate(smooth, size=(41, 41), mode="bicubic")
    out = augmented(patch, (21, 21), has_mask=False, rotation="free")
    errors = []
    for angle in range(360):
        turned = rotate(patch[0, 0].numpy(), angle, reshape=False, order=1)[10:31, 10:31]
        errors.append(np.abs(turned - out[0, 0].numpy()).max())
    assert min(errors) < 0.1 < np.median(errors)


@pytest.mark.parametrize("axes", ["z", "all"])
@pytest.mark.parametrize("steps", [(1, 1, 1), (2, 1, 1)])
def test_free_rotations_in_3d_keep_a_ball_and_its_mask_for_any_plane_spacing(axes, steps):
    shape = tuple(15 // step for step in steps)
    wide = tuple(2 * (11 // step) + side % 2 for side, step in zip(shape, steps, strict=True))
    positions = [(np.arange(side) - (side - 1) / 2) * step for side, step in zip(wide, steps, strict=True)]
    distance = np.sqrt(sum(axis**2 for axis in np.meshgrid(*positions, indexing="ij")))
    ball = torch.from_numpy(np.stack([np.exp(-((distance / 5) ** 2)), distance <= 6])).float()[None]
    cut = {"size": tuple(float(side * step) for side, step in zip(shape, steps, strict=True))}
    out = augmented(ball.repeat(4, 1, 1, 1, 1), shape, rotation="free", axes=axes, cut=cut)
    expected = center_crop(ball, shape)
    assert (out[:, 0] - expected[:, 0]).abs().max() < 0.06
    assert set(out[:, 1].unique().tolist()) == {0.0, 1.0}
    assert (out[:, 1] != expected[:, 1]).float().mean() < 0.05


def test_random_rotations_are_orthogonal_and_uniform():
    patches = PatchSettings(size=(12.0, 12.0, 12.0), sampling=(12, 12, 12))
    turned = random_rotations(4000, patches, True, torch.Generator().manual_seed(0))
    torch.testing.assert_close(turned @ turned.transpose(1, 2), torch.eye(3).expand(4000, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(4000))
    # Each entry of an even rotation has mean 0 and variance 1/3.
    assert turned.mean(dim=0).abs().max() < 0.05
    assert (turned.var(dim=0) - 1 / 3).abs().max() < 0.03


def test_interpolated_views_agree_with_exact_views():
    patches = torch.rand(48, 3, 6, 6, 6)
    all_views = symmetries(AugmentSettings(axes="all"), PatchSettings(size=(6.0,) * 3, sampling=(6,) * 3))
    layout = PatchLayout(image=2, copies=1, hidden=0, has_mask=True)
    result = warp_patches(patches, view_matrices(all_views), torch.zeros(48, 3), (6, 6, 6), layout)
    for number, (order, signs) in enumerate(all_views):
        turned = patches[number].permute(0, *(axis + 1 for axis in order))
        turned = turned.flip([axis + 1 for axis, sign in enumerate(signs) if sign < 0])
        torch.testing.assert_close(result[number], turned, atol=1e-5, rtol=0)


def test_rotating_volumes_plane_by_plane_equals_rotating_them_as_a_whole():
    smooth = torch.nn.functional.interpolate(torch.rand(6, 3, 4, 4, 4), size=(10, 14, 14), mode="trilinear")
    smooth[:, 2] = (smooth[:, 2] > 0.5).float()
    layout = PatchLayout(image=2, copies=2, hidden=1, has_mask=True)
    cut = PatchSettings(size=(6.0, 8.0, 8.0), sampling=(6, 8, 8))
    turned = random_rotations(6, cut, False, torch.Generator().manual_seed(0))
    turned[::2, 0] *= -1
    shifts = torch.tensor([[1.0, 0.5, -2.0]]).repeat(6, 1)
    tilted = turned.clone()
    tilted[:, 0, 1] = 1e-6  # slightly out of plane, which selects the general rotation
    planes, whole = (warp_patches(smooth, each, shifts, (6, 8, 8), layout) for each in (turned, tilted))
    torch.testing.assert_close(planes[:, :2], whole[:, :2], atol=1e-4, rtol=0)
    assert (planes[:, 2] != whole[:, 2]).float().mean() < 0.01


@pytest.mark.parametrize("rotation", ["none", "right_angles", "free"])
def test_scaling_changes_the_mask_area_by_its_square_and_combines_with_rotation(rotation):
    patch = torch.zeros(64, 2, 40, 40)
    patch[:, 1, 12:28, 8:32] = 1
    out = augmented(patch, (28, 28), scale=0.3, rotation=rotation)[:, 1]
    areas = out.sum(dim=(1, 2))
    assert areas.min() > 384 / 1.35**2
    assert areas.max() < 384 / 0.65**2
    assert areas.max() / areas.min() > 1.5
    upright = (out.amax(dim=2).sum(dim=1) > out.amax(dim=1).sum(dim=1)).float().mean()
    assert upright == 0 if rotation == "none" else 0.2 < upright < 0.8


@pytest.mark.parametrize("shape", [(20, 20), (8, 20, 20)])
@pytest.mark.parametrize("scale", [0.0, 1e-6])
def test_shifts_reach_their_fraction_of_the_field_of_view_and_move_image_and_mask_together(shape, scale):
    wider = tuple(side + 2 * side // 4 for side in shape)
    patch = torch.zeros(200, 2, *wider)
    patch[:, :, *(side // 2 for side in wider)] = 1
    out = augmented(patch, shape, shift=0.25, scale=scale)
    positions = torch.stack([image.flatten().argmax() for image in out[:, 0]])
    assert torch.equal(positions, torch.stack([mask.flatten().argmax() for mask in out[:, 1]])) or scale
    for axis, side in enumerate(shape):
        along = np.array(np.unravel_index(positions.numpy(), shape))[axis] - side // 2
        assert along.min() == -(side // 4)
        assert along.max() == side // 4
    if not scale:
        assert torch.equal(out.flatten(2).sum(dim=2), torch.ones(200, 2))


def test_a_shift_never_exceeds_the_cut_region():
    patches = numbered(32, 1, 10, 10)
    out = augmented(patches, (8, 8), has_mask=False, shift=0.5)
    for patch, shifted in zip(patches, out, strict=True):
        assert shifted.min() >= patch.min()
        assert shifted.max() <= patch.max()


@pytest.mark.parametrize("values", [{"rotation": "free"}, {"scale": 0.5}, {"rotation": "free", "axes": "all"}])
@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 8)])
def test_beyond_the_cut_region_hidden_channels_are_zero_and_others_are_reflected(values, shape):
    patches = torch.ones(32, 3, *shape)
    out = augmented(patches, shape, **values, cut={"normalize": "both"})
    torch.testing.assert_close(out[:, 0], torch.ones_like(out[:, 0]))
    beyond = out[:, 2] == 0
    assert (out[:, 1][beyond] == 0).float().mean() > 0.1
    assert out[:, 1][beyond].max() <= 0.5 + 1e-5
    assert out[:, 1][~beyond].min() >= 0.5 ** len(shape) - 1e-5


def test_all_randomness_comes_from_the_generator():
    patches, settings = torch.rand(4, 3, 20, 20), {"flips": True, "rotation": "free", "scale": 0.2, "shift": 0.1}
    settings |= {"brightness": 0.2, "gamma": 0.2, "color": 0.2, "noise": 0.1, "blur": 1.0, "share": 0.7}
    first, second = (augmented(patches, (12, 12), seed=3, **settings) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, augmented(patches, (12, 12), seed=4, **settings))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(8, 8), (6, 8, 8)])
@pytest.mark.parametrize("cut", [{}, {"normalize": "both"}, {"context": "hide"}], ids=str)
@pytest.mark.parametrize("rotation", ["right_angles", "free"])
def test_any_number_of_channels_and_a_batch_of_one_can_be_augmented(channels, shape, cut, rotation):
    count = channels * (2 if "normalize" in cut else 1) + 1
    patches = torch.rand(1, count, *(side + 4 for side in shape))
    patches[:, -1] = (patches[:, -1] > 0.5).float()
    values = {"flips": True, "rotation": rotation, "shift": 0.1, "brightness": 0.2, "gamma": 0.3, "color": 0.2}
    out = augmented(patches, shape, cut=cut, noise=0.1, blur=1.0, **values)
    assert out.shape == (1, count, *shape)
    assert out.isfinite().all()
    assert set(out[:, -1].unique().tolist()) <= {0.0, 1.0}


def test_the_margin_accounts_for_rotation_scale_and_shift():
    keep = PatchSettings(size=(20.0, 20.0), sampling=(10, 10))
    assert augmentation_margin(AugmentSettings(rotation="right_angles"), keep) == (1.0, 1.0)
    assert augmentation_margin(AugmentSettings(rotation="free"), keep) == pytest.approx((2**0.5, 2**0.5))
    assert augmentation_margin(AugmentSettings(rotation="none", scale=0.25, shift=0.1), keep) == pytest.approx(
        (1.45, 1.45)
    )
    assert augmentation_margin(AugmentSettings(rotation="free", scale=0.5), keep.changed(context="hide")) == (1.0, 1.0)
    assert augmentation_margin(AugmentSettings(shift=0.1), keep.changed(context="hide")) == (1.2, 1.2)
    long = PatchSettings(size=(10.0, 30.0, 40.0), sampling=(10, 30, 40))
    assert augmentation_margin(AugmentSettings(rotation="free"), long) == pytest.approx((1.0, 50 / 30, 50 / 40))
    assert augmentation_margin(AugmentSettings(rotation="free", axes="all"), long)[0] == pytest.approx(17**0.5)


ONE_COPY = PatchLayout(image=3, copies=1, hidden=0, has_mask=True)
TWO_COPIES = PatchLayout(image=6, copies=2, hidden=3, has_mask=True)
INTENSITY_SETTINGS = [{"brightness": 0.3}, {"gamma": 0.5}, {"color": 0.3}, {"noise": 0.2}, {"blur": 1.5}]


def augmented_intensity(
    patches: torch.Tensor, layout: PatchLayout, mean: float = 0.0, deviation: float = 1.0, **values
) -> torch.Tensor:
    settings = AugmentSettings(**{**AugmentSettings.none().model_dump(), **values})
    channels = torch.ones(patches.shape[1])
    return augment_intensity(
        patches, settings, layout, mean * channels, deviation * channels, torch.Generator().manual_seed(0)
    )


def random_patches(layout: PatchLayout, count: int = 8, shape: tuple[int, ...] = (12, 12)) -> torch.Tensor:
    """Return patches whose hidden channels show a disk that contains a zero."""
    patches = torch.rand(count, layout.image + 1, *shape, generator=torch.Generator().manual_seed(1)) + 0.5
    middle = torch.zeros(shape)
    middle[tuple(slice(3, -3) for _ in shape)] = 1
    patches[:, -1] = middle
    if layout.hidden:
        patches[:, layout.image - layout.hidden : -1] *= middle
        patches[:, layout.image - layout.hidden : -1, *(side // 2 for side in shape)] = 0
    return patches


@pytest.mark.parametrize("values", INTENSITY_SETTINGS, ids=str)
@pytest.mark.parametrize("layout", [ONE_COPY, TWO_COPIES], ids=["once", "twice"])
@pytest.mark.parametrize("shape", [(12, 12), (8, 12, 12)])
def test_intensity_augmentation_changes_neither_the_mask_nor_hidden_pixels(values, layout, shape):
    patches = random_patches(layout, shape=shape)
    out = augmented_intensity(patches, layout, **values)
    assert torch.equal(out[:, -1], patches[:, -1])
    assert torch.isclose(out[:, :3], patches[:, :3], atol=1e-3).float().mean() < 0.6
    hidden = (patches[:, -1:] == 0).expand(-1, layout.hidden, *shape)
    assert (out[:, layout.image - layout.hidden : -1][hidden] == 0).all()


@pytest.mark.parametrize("values", [{"brightness": 0.3}, {"noise": 0.2}], ids=str)
def test_a_dark_pixel_of_the_object_does_not_count_as_hidden(values):
    out = augmented_intensity(random_patches(TWO_COPIES), TWO_COPIES, **values)
    assert (out[:, 3:6, 6, 6] != 0).all()


@pytest.mark.parametrize("values", INTENSITY_SETTINGS, ids=str)
@pytest.mark.parametrize("hidden", [0, 3, 6])
def test_the_eroded_margin_stays_zero(values, hidden):
    layout = PatchLayout(image=6, copies=2, hidden=hidden, has_mask=True, has_eroded_margin=True)
    patches = random_patches(ONE_COPY, count=8)
    inner = torch.zeros(12, 12)
    inner[4:8, 4:8] = 1
    around = 1 - patches[0, -1]
    copies = [patches[:, :3] * (inner if hidden > 3 * copy else inner + around) for copy in (1, 0)]
    has_eroded_margin = torch.cat([*copies, patches[:, -1:]], dim=1)
    out = augmented_intensity(has_eroded_margin, layout, **values)
    assert torch.equal(out == 0, has_eroded_margin == 0)
    assert not torch.equal(out, has_eroded_margin)


def test_hidden_pixels_stay_zero_without_a_mask_channel():
    layout = PatchLayout(image=2, copies=2, hidden=1, has_mask=False)
    patches = random_patches(TWO_COPIES)[:, [0, 3]]
    out = augmented_intensity(patches, layout, noise=0.5, blur=2.0)
    assert torch.equal(out[:, 1] == 0, patches[:, 1] == 0)


def test_brightness_is_a_gain_and_an_offset_of_each_channel_within_bounds():
    patches = random_patches(ONE_COPY, count=64)
    out = augmented_intensity(patches, ONE_COPY, brightness=0.2, deviation=2.0)
    gains, offsets = [], []
    for before, after in zip(patches[:, :3].flatten(0, 1), out[:, :3].flatten(0, 1), strict=True):
        gain, offset = np.polyfit(before.flatten(), after.flatten(), 1)
        torch.testing.assert_close(after, before * gain + offset, atol=1e-4, rtol=0)
        gains.append(gain)
        offsets.append(offset)
    assert 0.8 <= min(gains) < 0.82
    assert 1.18 < max(gains) <= 1.2
    assert -0.4 - 1e-4 <= min(offsets) < -0.36
    assert 0.36 < max(offsets) <= 0.4 + 1e-4
    assert len(np.unique(np.round(gains, 6))) > 180


@pytest.mark.parametrize("values", [{"brightness": 0.3}, {"color": 0.3}, {"noise": 0.2}, {"gamma": 0.5}], ids=str)
def test_both_copies_of_a_channel_change_equally(values):
    single_copy = random_patches(ONE_COPY)
    both = torch.cat([single_copy[:, :3], single_copy], dim=1)
    out = augmented_intensity(both, PatchLayout(image=6, copies=2, hidden=0, has_mask=True), **values)
    torch.testing.assert_close(out[:, :3], out[:, 3:6])


def test_gamma_keeps_order_and_extremes_and_stays_within_bounds():
    patches = random_patches(ONE_COPY, count=64)
    out = augmented_intensity(patches, ONE_COPY, gamma=1.0)
    exponents = []
    for before, after in zip(patches[:, :3].flatten(0, 1).flatten(1), out[:, :3].flatten(0, 1).flatten(1), strict=True):
        assert torch.equal(before.argsort(), after.argsort())
        span = before.max() - before.min()
        torch.testing.assert_close((after.min(), after.max()), (before.min(), before.max()))
        middle = before.argsort()[len(before) // 2]
        exponents.append(
            float(((after[middle] - before.min()) / span).log() / ((before[middle] - before.min()) / span).log())
        )
    assert 0.5 - 1e-3 <= min(exponents) < 0.55
    assert 1.8 < max(exponents) <= 2 + 1e-3


def test_a_flat_patch_stays_flat_under_gamma_and_an_empty_one_empty():
    flat = torch.full((2, 4, 6, 6), 3.0)
    assert torch.equal(augmented_intensity(flat, ONE_COPY, gamma=1.0), flat)
    empty = torch.zeros(2, 7, 6, 6)
    assert torch.equal(augmented_intensity(empty, TWO_COPIES, gamma=1.0, blur=1.0, noise=0.0)[:, 3:], empty[:, 3:])


def test_color_mixes_channels_linearly_about_the_mean_color():
    patches = random_patches(ONE_COPY, count=32)
    out = augmented_intensity(patches, ONE_COPY, color=0.25, mean=0.7, deviation=2.0)
    result = []
    for before, after in zip(patches[:, :3], out[:, :3], strict=True):
        centered = (before - 0.7).flatten(1)
        matrix = torch.linalg.lstsq(centered.T, (after - before).flatten(1).T).solution.T
        torch.testing.assert_close((after - before).flatten(1), matrix @ centered, atol=1e-4, rtol=0)
        torch.testing.assert_close(matrix.diagonal(), torch.zeros(3), atol=1e-4, rtol=0)
        result.append(matrix)
    assert 0.2 < torch.stack(result).abs().max() <= 0.25 + 1e-4
    assert torch.allclose(
        augmented_intensity(torch.full((2, 4, 6, 6), 0.7), ONE_COPY, color=0.5, mean=0.7), torch.tensor(0.7)
    )


def test_color_does_not_change_a_single_channel():
    patches = random_patches(ONE_COPY)[:, [0, 3]]
    assert torch.equal(augmented_intensity(patches, PatchLayout(1, 1, 0, True), color=1.0), patches)


def test_noise_has_the_requested_standard_deviation():
    patches = random_patches(ONE_COPY, count=64)
    noise = (augmented_intensity(patches, ONE_COPY, noise=0.1, deviation=3.0) - patches)[:, :3]
    assert float(noise.std()) == pytest.approx(0.3, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.01)
    assert np.abs(np.corrcoef(noise.transpose(0, 1).flatten(1))[np.triu_indices(3, 1)]).max() < 0.05


@pytest.mark.parametrize("shape", [(31, 31), (21, 21, 21)])
def test_blur_is_a_gaussian_of_at_most_the_requested_width(shape):
    point = torch.zeros(16, 2, *shape)
    middle = tuple(side // 2 for side in shape)
    point[:, 0, *middle] = 1
    out = augmented_intensity(point, PatchLayout(1, 1, 0, True), blur=2.0)[:, 0]
    widths = np.linspace(0.02, 2.0, 100)
    spread = np.stack([gaussian_filter(point[0, 0].numpy(), width, truncate=8) for width in widths])
    errors = np.abs(out.numpy()[:, None] - spread).reshape(16, 100, -1).max(axis=2)
    assert errors.min(axis=1).max() < 0.02
    assert np.ptp(widths[errors.argmin(axis=1)]) > 1
    flat = torch.full((2, 4, 9, 9), 5.0)
    torch.testing.assert_close(augmented_intensity(flat, ONE_COPY, blur=3.0), flat)


def test_blur_of_the_object_ignores_hidden_pixels():
    patches = random_patches(TWO_COPIES)
    patches[:, 3:6] = 2.0 * patches[:, -1:]
    out = augmented_intensity(patches, TWO_COPIES, blur=3.0)
    torch.testing.assert_close(out[:, 3:6], patches[:, 3:6])


def test_zero_settings_change_nothing():
    patches = random_patches(ONE_COPY)
    assert augmented_intensity(patches, ONE_COPY) is patches
