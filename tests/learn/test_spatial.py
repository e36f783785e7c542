"""Views of a patch are all ways to turn and mirror it that were allowed, and no other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from svetlana_jupyter.core.settings import AugmentSettings, PatchSettings
from svetlana_jupyter.learn.spatial import apply_view, apply_views, averaging_views, symmetries, view_matrices

NOTHING = AugmentSettings.none()
EVERY = AugmentSettings(flips=True, rotation="right_angles", axes="all")


def patches_of(shape: tuple[int, ...], size: tuple[float, ...] | None = None) -> PatchSettings:
    return PatchSettings(size=size or tuple(map(float, shape)), sampling=shape)


def numbered(count: int, channels: int, *shape: int) -> torch.Tensor:
    return torch.arange(float(count * channels * np.prod(shape))).reshape(count, channels, *shape)


@pytest.mark.parametrize(
    ("shape", "values", "count"),
    [
        ((6, 6), {"flips": True}, 8),
        ((6, 6), {"flips": False}, 4),
        ((6, 8), {"flips": False}, 2),
        ((6, 8), {"flips": True}, 4),
        ((6, 6), {"flips": False, "rotation": "half_turns"}, 2),
        ((6, 6), {"flips": True, "rotation": "none"}, 4),
        ((6, 6, 6), {"flips": True}, 16),
        ((4, 6, 6), {"flips": True}, 16),
        ((6, 6, 6), {"flips": True, "axes": "all"}, 48),
        ((6, 6, 6), {"flips": False, "axes": "all"}, 24),
        ((4, 6, 6), {"flips": False, "axes": "all"}, 8),
        ((4, 5, 6), {"flips": False, "axes": "all"}, 4),
        ((6, 6, 6), {"flips": False, "axes": "all", "rotation": "half_turns"}, 4),
        ((6, 6, 6), {"flips": False, "axes": "all", "rotation": "free"}, 24),
    ],
)
def test_views_are_all_different_begin_with_the_patch_itself_and_are_a_group(shape, values, count):
    all_views = symmetries(AugmentSettings(**values), patches_of(shape))
    assert len(all_views) == count
    patch = numbered(1, 1, *shape)
    seen = {tuple(apply_view(patch, view).flatten().tolist()) for view in all_views}
    assert len(seen) == count
    assert torch.equal(apply_view(patch, all_views[0]), patch)
    for one, other in itertools.product(all_views, repeat=2):
        assert tuple(apply_view(apply_view(patch, one), other).flatten().tolist()) in seen


def test_turns_without_flips_never_mirror():
    all_views = symmetries(EVERY.changed(flips=False), patches_of((6, 6, 6)))
    torch.testing.assert_close(torch.linalg.det(view_matrices(all_views)), torch.ones(24))
    assert (torch.linalg.det(view_matrices(symmetries(EVERY, patches_of((6, 6, 6))))) < 0).sum() == 24


def test_axes_with_pixels_of_another_size_never_change_places():
    all_views = symmetries(EVERY, patches_of((6, 6, 6), (12.0, 6.0, 6.0)))
    assert len(all_views) == 16
    assert {order[0] for order, _ in all_views} == {0}


@pytest.mark.parametrize(("wider", "shape"), [((6, 6), (6, 6)), ((10, 8), (6, 6)), ((6, 8, 8), (4, 4, 4))])
def test_many_patches_are_seen_at_once_as_one_by_one(wider, shape):
    all_views = symmetries(EVERY, patches_of(shape))
    patches = numbered(len(all_views), 3, *wider)
    found = apply_views(patches, torch.arange(len(all_views)), None, all_views, shape)
    middle = tuple(slice((wide - side) // 2, (wide + side) // 2) for wide, side in zip(wider, shape, strict=True))
    for number, view in enumerate(all_views):
        assert torch.equal(found[number], apply_view(patches[number : number + 1, :, *middle], view)[0])


def test_a_shift_looks_beside_the_middle():
    patches = numbered(2, 2, 8, 8)
    all_views = symmetries(NOTHING, patches_of((4, 4)))
    found = apply_views(patches, torch.zeros(2, dtype=torch.int64), torch.tensor([[2, -1], [0, 0]]), all_views, (4, 4))
    assert torch.equal(found[0], patches[0, :, 4:8, 1:5])
    assert torch.equal(found[1], patches[1, :, 2:6, 2:6])


def test_predictions_are_averaged_over_what_was_allowed_alone():
    square, volume = patches_of((6, 6)), patches_of((6, 6, 6))
    same = ((0, 1), (1, 1))
    assert averaging_views(NOTHING, square, 8) == [same]
    assert averaging_views(EVERY.changed(share=0.5), square, 8) == [same]
    assert averaging_views(AugmentSettings(flips=False, rotation="half_turns"), square, 8) == [same, ((0, 1), (-1, -1))]
    assert all(order == (0, 1) for order, _ in averaging_views(AugmentSettings(rotation="none"), square, 8))
    assert all(order[0] == 0 for order, _ in averaging_views(AugmentSettings(), volume, 48))
    assert len(averaging_views(AugmentSettings(), volume, 5)) == 5
    assert averaging_views(AugmentSettings(), volume, 5)[0] == ((0, 1, 2), (1, 1, 1))
