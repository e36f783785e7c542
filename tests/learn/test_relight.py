"""Light, stain, focus and noise change as far as they may; masks and what is hidden stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from svetlana_jupyter.core.settings import AugmentSettings
from svetlana_jupyter.learn.layout import PatchLayout
from svetlana_jupyter.learn.relight import augment_intensity

ONCE = PatchLayout(image=3, copies=1, hidden=0, masked=True)
TWICE = PatchLayout(image=6, copies=2, hidden=3, masked=True)
EACH = [{"brightness": 0.3}, {"gamma": 0.5}, {"color": 0.3}, {"noise": 0.2}, {"blur": 1.5}]


def lit(
    patches: torch.Tensor, layout: PatchLayout, mean: float = 0.0, deviation: float = 1.0, **values
) -> torch.Tensor:
    settings = AugmentSettings(**{**AugmentSettings.none().model_dump(), **values})
    channels = torch.ones(patches.shape[1])
    return augment_intensity(
        patches, settings, layout, mean * channels, deviation * channels, torch.Generator().manual_seed(0)
    )


def random_patches(layout: PatchLayout, count: int = 8, shape: tuple[int, ...] = (12, 12)) -> torch.Tensor:
    """Return patches whose hidden channels show a disc, with a zero inside it."""
    patches = torch.rand(count, layout.image + 1, *shape, generator=torch.Generator().manual_seed(1)) + 0.5
    middle = torch.zeros(shape)
    middle[tuple(slice(3, -3) for _ in shape)] = 1
    patches[:, -1] = middle
    if layout.hidden:
        patches[:, layout.image - layout.hidden : -1] *= middle
        patches[:, layout.image - layout.hidden : -1, *(side // 2 for side in shape)] = 0
    return patches


@pytest.mark.parametrize("values", EACH, ids=str)
@pytest.mark.parametrize("layout", [ONCE, TWICE], ids=["once", "twice"])
@pytest.mark.parametrize("shape", [(12, 12), (8, 12, 12)])
def test_each_changes_the_image_but_never_the_mask_nor_what_is_hidden(values, layout, shape):
    patches = random_patches(layout, shape=shape)
    out = lit(patches, layout, **values)
    assert torch.equal(out[:, -1], patches[:, -1])
    assert torch.isclose(out[:, :3], patches[:, :3], atol=1e-3).float().mean() < 0.6
    hidden = (patches[:, -1:] == 0).expand(-1, layout.hidden, *shape)
    assert (out[:, layout.image - layout.hidden : -1][hidden] == 0).all()


@pytest.mark.parametrize("values", [{"brightness": 0.3}, {"noise": 0.2}], ids=str)
def test_a_dark_pixel_of_the_object_is_not_taken_for_hidden(values):
    out = lit(random_patches(TWICE), TWICE, **values)
    assert (out[:, 3:6, 6, 6] != 0).all()


@pytest.mark.parametrize("values", EACH, ids=str)
@pytest.mark.parametrize("hidden", [0, 3, 6])
def test_the_rim_that_was_left_out_stays_zero(values, hidden):
    layout = PatchLayout(image=6, copies=2, hidden=hidden, masked=True, has_eroded_margin=True)
    patches = random_patches(ONCE, count=8)
    inner = torch.zeros(12, 12)
    inner[4:8, 4:8] = 1
    around = 1 - patches[0, -1]
    copies = [patches[:, :3] * (inner if hidden > 3 * copy else inner + around) for copy in (1, 0)]
    has_eroded_margin = torch.cat([*copies, patches[:, -1:]], dim=1)
    out = lit(has_eroded_margin, layout, **values)
    assert torch.equal(out == 0, has_eroded_margin == 0)
    assert not torch.equal(out, has_eroded_margin)


def test_a_layout_without_a_mask_still_knows_what_is_hidden():
    layout = PatchLayout(image=2, copies=2, hidden=1, masked=False)
    patches = random_patches(TWICE)[:, [0, 3]]
    out = lit(patches, layout, noise=0.5, blur=2.0)
    assert torch.equal(out[:, 1] == 0, patches[:, 1] == 0)


def test_brightness_is_a_gain_and_an_offset_of_each_channel_within_bounds():
    patches = random_patches(ONCE, count=64)
    out = lit(patches, ONCE, brightness=0.2, deviation=2.0)
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
def test_both_copies_of_a_channel_change_alike(values):
    one = random_patches(ONCE)
    both = torch.cat([one[:, :3], one], dim=1)
    out = lit(both, PatchLayout(image=6, copies=2, hidden=0, masked=True), **values)
    torch.testing.assert_close(out[:, :3], out[:, 3:6])


def test_gamma_keeps_order_and_extremes_and_bends_within_bounds():
    patches = random_patches(ONCE, count=64)
    out = lit(patches, ONCE, gamma=1.0)
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
    assert torch.equal(lit(flat, ONCE, gamma=1.0), flat)
    empty = torch.zeros(2, 7, 6, 6)
    assert torch.equal(lit(empty, TWICE, gamma=1.0, blur=1.0, noise=0.0)[:, 3:], empty[:, 3:])


def test_color_mixes_channels_linearly_about_the_mean_color():
    patches = random_patches(ONCE, count=32)
    out = lit(patches, ONCE, color=0.25, mean=0.7, deviation=2.0)
    found = []
    for before, after in zip(patches[:, :3], out[:, :3], strict=True):
        centered = (before - 0.7).flatten(1)
        matrix = torch.linalg.lstsq(centered.T, (after - before).flatten(1).T).solution.T
        torch.testing.assert_close((after - before).flatten(1), matrix @ centered, atol=1e-4, rtol=0)
        torch.testing.assert_close(matrix.diagonal(), torch.zeros(3), atol=1e-4, rtol=0)
        found.append(matrix)
    assert 0.2 < torch.stack(found).abs().max() <= 0.25 + 1e-4
    assert torch.allclose(lit(torch.full((2, 4, 6, 6), 0.7), ONCE, color=0.5, mean=0.7), torch.tensor(0.7))


def test_color_does_nothing_where_there_is_one_channel():
    patches = random_patches(ONCE)[:, [0, 3]]
    assert torch.equal(lit(patches, PatchLayout(1, 1, 0, True), color=1.0), patches)


def test_noise_has_the_deviation_asked_for():
    patches = random_patches(ONCE, count=64)
    noise = (lit(patches, ONCE, noise=0.1, deviation=3.0) - patches)[:, :3]
    assert float(noise.std()) == pytest.approx(0.3, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.01)
    assert np.abs(np.corrcoef(noise.transpose(0, 1).flatten(1))[np.triu_indices(3, 1)]).max() < 0.05


@pytest.mark.parametrize("shape", [(31, 31), (21, 21, 21)])
def test_blur_is_a_gaussian_no_wider_than_asked(shape):
    point = torch.zeros(16, 2, *shape)
    middle = tuple(side // 2 for side in shape)
    point[:, 0, *middle] = 1
    out = lit(point, PatchLayout(1, 1, 0, True), blur=2.0)[:, 0]
    widths = np.linspace(0.02, 2.0, 100)
    spread = np.stack([gaussian_filter(point[0, 0].numpy(), width, truncate=8) for width in widths])
    errors = np.abs(out.numpy()[:, None] - spread).reshape(16, 100, -1).max(axis=2)
    assert errors.min(axis=1).max() < 0.02
    assert np.ptp(widths[errors.argmin(axis=1)]) > 1
    flat = torch.full((2, 4, 9, 9), 5.0)
    torch.testing.assert_close(lit(flat, ONCE, blur=3.0), flat)


def test_blur_of_the_object_alone_takes_nothing_from_the_dark_around_it():
    patches = random_patches(TWICE)
    patches[:, 3:6] = 2.0 * patches[:, -1:]
    out = lit(patches, TWICE, blur=3.0)
    torch.testing.assert_close(out[:, 3:6], patches[:, 3:6])


def test_nothing_asked_for_is_nothing_done():
    patches = random_patches(ONCE)
    assert lit(patches, ONCE) is patches
