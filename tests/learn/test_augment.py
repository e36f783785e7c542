"""Augmentation moves image and mask alike, and only as far as it was allowed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import rotate

from svetlana_jupyter.core.settings import AugmentSettings, PatchSettings
from svetlana_jupyter.learn.augment import Augmenter, center_crop, look, margin_for, views

NOTHING = {"flips": False, "rotation": "none", "brightness": 0.0, "noise": 0.0}


def augmented(patches: torch.Tensor, shape: tuple[int, ...], seed: int = 0, masked: bool = True, **values):
    settings = AugmentSettings(**{**NOTHING, **values})
    augment = Augmenter(settings, shape, masked, torch.ones(patches.shape[1]))
    return augment(patches, torch.Generator().manual_seed(seed))


def numbered(count: int, channels: int, *shape: int) -> torch.Tensor:
    return torch.arange(float(count * channels * np.prod(shape))).reshape(count, channels, *shape)


def test_nothing_allowed_changes_nothing_but_the_margin():
    patches = numbered(3, 2, 9, 9)
    assert torch.equal(augmented(patches, (5, 5)), patches[:, :, 2:7, 2:7])


@pytest.mark.parametrize("shape", [(6, 6), (4, 6, 6)])
@pytest.mark.parametrize("rotation", ["none", "right_angles"])
def test_flips_and_quarter_turns_only_permute_pixels_and_move_mask_with_image(shape, rotation):
    image = numbered(16, 1, *shape)
    out = augmented(torch.cat([image, image], dim=1), shape, flips=True, rotation=rotation)
    assert torch.equal(out[:, 0], out[:, 1])
    for before, after in zip(image, out[:, :1], strict=True):
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)
    assert not torch.equal(out[:, :1], image)


def test_half_turns_keep_stripes_of_any_orientation():
    rows, columns = np.mgrid[:9, :9]
    for along in (rows, rows + columns):
        stripes = torch.from_numpy(np.cos(along - along[4, 4])).float().expand(16, 1, 9, 9)
        torch.testing.assert_close(augmented(stripes, (9, 9), masked=False, rotation="half_turns"), stripes)
    patches = numbered(16, 1, 9, 9)
    turned = augmented(patches, (9, 9), masked=False, rotation="half_turns")
    same = (turned == patches).flatten(1).all(dim=1)
    assert 0 < same.sum() < 16
    assert torch.equal(turned[~same], patches[~same].flip(2, 3))


def test_turning_about_z_keeps_every_plane_and_about_all_axes_does_not():
    planes = torch.arange(6.0).view(1, 1, 6, 1, 1).expand(32, 1, 6, 6, 6)
    assert torch.equal(augmented(planes, (6, 6, 6), masked=False, rotation="right_angles"), planes)
    turned = augmented(planes, (6, 6, 6), masked=False, rotation="right_angles", axes="all")
    assert not torch.equal(turned, planes)


def test_a_share_of_zero_leaves_every_patch_as_it_lies():
    patches = numbered(8, 2, 6, 6)
    for rotation in ("right_angles", "free"):
        out = augmented(patches, (6, 6), flips=True, rotation=rotation, share=0.0)
        torch.testing.assert_close(out, patches, atol=1e-3, rtol=1e-5)


def test_a_free_rotation_is_the_one_scipy_makes():
    rng = np.random.default_rng(0)
    smooth = torch.from_numpy(rng.normal(size=(1, 1, 8, 8))).float()
    patch = torch.nn.functional.interpolate(smooth, size=(41, 41), mode="bicubic")
    out = augmented(patch, (21, 21), masked=False, rotation="free")
    errors = []
    for angle in range(360):
        turned = rotate(patch[0, 0].numpy(), angle, reshape=False, order=1)[10:31, 10:31]
        errors.append(np.abs(turned - out[0, 0].numpy()).max())
    assert min(errors) < 0.1 < np.median(errors)


@pytest.mark.parametrize("axes", ["z", "all"])
def test_free_rotations_in_3d_keep_a_ball_and_its_mask(axes):
    grid = np.stack(np.meshgrid(*[np.arange(21) - 10] * 3, indexing="ij"))
    distance = np.sqrt((grid**2).sum(axis=0))
    ball = torch.from_numpy(np.stack([np.exp(-((distance / 5) ** 2)), distance <= 6])).float()[None]
    out = augmented(ball.repeat(4, 1, 1, 1, 1), (15, 15, 15), rotation="free", axes=axes)
    expected = center_crop(ball, (15, 15, 15))
    assert (out[:, 0] - expected[:, 0]).abs().max() < 0.05
    assert set(out[:, 1].unique().tolist()) == {0.0, 1.0}
    assert (out[:, 1] != expected[:, 1]).float().mean() < 0.05


def test_scaling_changes_the_area_of_the_mask_by_about_its_square():
    patch = torch.zeros(64, 2, 40, 40)
    patch[:, 1, 12:28, 12:28] = 1
    areas = augmented(patch, (28, 28), scale=0.3)[:, 1].sum(dim=(1, 2))
    assert areas.min() > 256 / 1.35**2
    assert areas.max() < 256 / 0.65**2
    assert areas.max() / areas.min() > 1.5


def test_brightness_and_noise_never_touch_the_mask():
    patches = torch.cat([torch.rand(8, 1, 9, 9), (torch.rand(8, 1, 9, 9) > 0.5).float()], dim=1)
    out = augmented(patches, (9, 9), brightness=0.5, noise=0.5)
    assert torch.equal(out[:, 1], patches[:, 1])
    assert (out[:, 0] - patches[:, 0]).abs().mean() > 0.1


@pytest.mark.parametrize(("shape", "count"), [((6, 6), 8), ((6, 8), 4), ((6, 6, 6), 16)])
def test_views_are_all_different_and_begin_with_the_patch_itself(shape, count):
    patch = numbered(1, 1, *shape)
    chosen = views(AugmentSettings(flips=True, rotation="right_angles"), shape, limit=48)
    assert len(chosen) == count
    seen = [look(patch, view) for view in chosen]
    assert torch.equal(seen[0], patch)
    assert len({tuple(view.flatten().tolist()) + tuple(view.shape) for view in seen}) == count


def test_views_show_only_what_augmentation_allows():
    assert views(AugmentSettings(**NOTHING), (6, 6), 8) == [(0, ())]
    assert views(AugmentSettings(share=0.5), (6, 6), 8) == [(0, ())]
    assert len(views(AugmentSettings(rotation="none"), (6, 6), 8)) == 4
    assert len(views(AugmentSettings(flips=False, rotation="free"), (6, 6), 8)) == 4
    assert views(AugmentSettings(flips=False, rotation="half_turns"), (6, 6), 8) == [(0, ()), (2, ())]
    assert len(views(AugmentSettings(), (6, 6, 6), 5)) == 5


def test_the_margin_is_what_rotation_and_scale_need():
    keep = PatchSettings()
    assert margin_for(AugmentSettings(rotation="right_angles"), keep) == 1.0
    assert margin_for(AugmentSettings(rotation="free"), keep) == pytest.approx(2**0.5)
    assert margin_for(AugmentSettings(rotation="none", scale=0.25), keep) == 1.25
    assert margin_for(AugmentSettings(rotation="free"), PatchSettings(context="hide")) == 1.0
