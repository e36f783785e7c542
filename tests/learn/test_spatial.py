"""Views of a patch: allowed rotations and reflections."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from svetlana_jupyter.core.settings import AugmentSettings, PatchSettings
from svetlana_jupyter.learn.spatial import apply_view, apply_views, averaging_views, symmetries, view_matrices

NO_AUGMENTATION = AugmentSettings.none()
ALL_VIEWS = AugmentSettings(flips=True, rotation="right_angles", axes="all")


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
def test_views_are_a_group_of_distinct_transforms_starting_with_the_identity(shape, values, count):
    all_views = symmetries(AugmentSettings(**values), patches_of(shape))
    assert len(all_views) == count
    patch = numbered(1, 1, *shape)
    views_of_patch = {tuple(apply_view(patch, view).flatten().tolist()) for view in all_views}
    assert len(views_of_patch) == count
    assert torch.equal(apply_view(patch, all_views[0]), patch)
    for view, other in itertools.product(all_views, repeat=2):
        assert tuple(apply_view(apply_view(patch, view), other).flatten().tolist()) in views_of_patch


def test_rotations_without_flips_never_mirror():
    all_views = symmetries(ALL_VIEWS.changed(flips=False), patches_of((6, 6, 6)))
    torch.testing.assert_close(torch.linalg.det(view_matrices(all_views)), torch.ones(24))
    assert (torch.linalg.det(view_matrices(symmetries(ALL_VIEWS, patches_of((6, 6, 6))))) < 0).sum() == 24


def test_axes_of_different_pixel_size_are_never_swapped():
    all_views = symmetries(ALL_VIEWS, patches_of((6, 6, 6), (12.0, 6.0, 6.0)))
    assert len(all_views) == 16
    assert {order[0] for order, _ in all_views} == {0}


@pytest.mark.parametrize(("wider", "shape"), [((6, 6), (6, 6)), ((10, 8), (6, 6)), ((6, 8, 8), (4, 4, 4))])
def test_views_of_a_batch_equal_those_of_single_patches(wider, shape):
    all_views = symmetries(ALL_VIEWS, patches_of(shape))
    patches = numbered(len(all_views), 3, *wider)
    result = apply_views(patches, torch.arange(len(all_views)), None, all_views, shape)
    middle = tuple(slice((wide - side) // 2, (wide + side) // 2) for wide, side in zip(wider, shape, strict=True))
    for number, view in enumerate(all_views):
        assert torch.equal(result[number], apply_view(patches[number : number + 1, :, *middle], view)[0])


def test_a_shifted_view_is_cut_off_center():
    patches = numbered(2, 2, 8, 8)
    all_views = symmetries(NO_AUGMENTATION, patches_of((4, 4)))
    result = apply_views(patches, torch.zeros(2, dtype=torch.int64), torch.tensor([[2, -1], [0, 0]]), all_views, (4, 4))
    assert torch.equal(result[0], patches[0, :, 4:8, 1:5])
    assert torch.equal(result[1], patches[1, :, 2:6, 2:6])


def test_predictions_are_averaged_over_allowed_views_only():
    square, volume = patches_of((6, 6)), patches_of((6, 6, 6))
    same = ((0, 1), (1, 1))
    assert averaging_views(NO_AUGMENTATION, square, 8) == [same]
    assert averaging_views(ALL_VIEWS.changed(share=0.5), square, 8) == [same]
    assert averaging_views(AugmentSettings(flips=False, rotation="half_turns"), square, 8) == [same, ((0, 1), (-1, -1))]
    assert all(order == (0, 1) for order, _ in averaging_views(AugmentSettings(rotation="none"), square, 8))
    assert all(order[0] == 0 for order, _ in averaging_views(AugmentSettings(), volume, 48))
    assert len(averaging_views(AugmentSettings(), volume, 5)) == 5
    assert averaging_views(AugmentSettings(), volume, 5)[0] == ((0, 1, 2), (1, 1, 1))
