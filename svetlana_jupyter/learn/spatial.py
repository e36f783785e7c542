"""Geometric augmentation of patches: channel layout and spatial transformations.

Flips and right-angle rotations only reorder pixels and use indexing; all other transformations interpolate.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor
from torch.nn import functional

from svetlana_jupyter.core.patches import count_object_only_channels

if TYPE_CHECKING:
    from svetlana_jupyter.core.settings import AugmentSettings, PatchSettings


@dataclass(frozen=True)
class PatchLayout:
    """Channel layout of patches (n, C', [z,] y, x).

    Parameters
    ----------
    image : int
        Number of image channels, including all copies.
    copies : int
        Number of copies of each image channel: 2 if the normalization is "both" or "both_raw", else 1.
    hidden : int
        Number of image channels that show only the object. These are the last of the image channels.
    has_mask : bool
        True if the mask of the object is the last channel.
    has_eroded_margin : bool
        True if the image channels are zero in a margin along the edge of the object.
    """

    image: int
    copies: int
    hidden: int
    has_mask: bool
    has_eroded_margin: bool = False

    @classmethod
    def from_settings(cls, settings: PatchSettings, channels: int) -> Self:
        """Return the layout of patches with ``channels`` channels in total."""
        image = channels - settings.mask_channel
        hidden = count_object_only_channels(image, settings)
        return cls(image, 1 + settings.has_doubled_channels, hidden, settings.mask_channel, settings.rim != 0)

    @property
    def colors(self) -> int:
        """Number of channels of the image, without copies and the mask."""
        return self.image // self.copies

    def content_masks(self, patches: Tensor) -> tuple[Tensor | None, ...]:
        """Return masks (n, 1, [z,] y, x) of visible pixels, one per image in the patch.

        A patch holds an image once, or twice where a normalization doubles its channels. A mask is None if no pixels
        are hidden. Hidden pixels are zero in every channel. Pixels inside the object count as visible even if they are
        zero, unless the patches have an eroded margin.
        """
        masks: list[Tensor | None] = []
        for number, copy in enumerate(patches[:, : self.image].chunk(self.copies, dim=1)):
            visible = list(copy.chunk(self.colors, dim=1))
            if self.has_mask and not self.has_eroded_margin:
                visible.append(patches[:, -1:])
            has_hidden = self.has_eroded_margin or number >= self.copies - self.hidden // self.colors
            # For so few channels, this is faster than a reduction; logical_or is faster on booleans than on numbers.
            masks.append(reduce(Tensor.logical_or, (channel != 0 for channel in visible)) if has_hidden else None)
        return tuple(masks)

    def join_channels(self, image: Tensor, content_masks: tuple[Tensor | None, ...], masks: Tensor) -> Tensor:
        """Set hidden pixels of the image channels to zero and append the mask channel."""
        copies = [
            copy if seen is None else torch.where(seen, copy, 0.0)
            for copy, seen in zip(image.chunk(self.copies, dim=1), content_masks, strict=True)
        ]
        return torch.cat([*copies, masks], dim=1)


def augmentation_margin(augmentation: AugmentSettings, patches: PatchSettings) -> tuple[float, ...]:
    """Return the factor per axis by which patches must be cut larger to be augmented.

    With this margin, augmented patches have no empty corners. Only free 3D rotations about any axis need padding in the
    corners, because a sufficient margin would nearly double the memory again.

    Parameters
    ----------
    augmentation : AugmentSettings
    patches : PatchSettings
        Its size and sampling must be resolved.
    """
    size = patches.size
    assert isinstance(size, tuple)
    wider = [1.0] * len(size)
    if patches.context == "keep":  # with hidden context, pixels outside are zero anyway
        rotated = range(len(size)) if augmentation.axes == "all" else range(len(size) - 2, len(size))
        if augmentation.rotation == "free":
            for axis in rotated:
                longest = max(size[other] for other in rotated if other != axis)
                wider[axis] = math.hypot(size[axis], longest) / size[axis]
        wider = [side * (1.0 + augmentation.scale) for side in wider]
    return tuple(side + 2 * augmentation.shift for side in wider)


def random_rotations(count: int, patches: PatchSettings, any_axis: bool, generator: torch.Generator) -> Tensor:
    """Return random rotation matrices (count, ndim, ndim).

    The matrices rotate positions ``([z,] y, x)`` given in pixels of a patch. They take the pixel size along each axis
    into account, so that objects keep their shape in patches with anisotropic pixels.
    """
    steps = _pixel_sizes(patches)
    is_3d = any_axis and len(steps) == 3
    matrices = _rotations_3d(count, generator) if is_3d else _rotations_in_plane(count, len(steps), generator)
    if max(steps) == min(steps):
        return matrices
    return matrices * torch.tensor(steps) / torch.tensor(steps)[:, None]


def _pixel_sizes(patches: PatchSettings) -> list[float]:
    """Return the length of a pixel along each axis, in the unit of the settings."""
    assert isinstance(patches.size, tuple)
    return [side / pixels for side, pixels in zip(patches.size, patches.shape, strict=True)]


def warp_patches(
    patches: Tensor, matrices: Tensor, shifts: Tensor, shape: tuple[int, ...], layout: PatchLayout
) -> Tensor:
    """Warp each patch with its own matrix and shift, to shape (n, C, *shape).

    Parameters
    ----------
    patches : Tensor of shape (n, C, *wider)
    matrices : Tensor of shape (n, ndim, ndim)
        Each matrix maps positions in the output patch to positions in the input patch, both relative to the center.
    shifts : Tensor of shape (n, ndim)
        Shift of each patch in pixels, which is added to the positions in the input patch.
    shape : tuple of int
    layout : PatchLayout

    Notes
    -----
    Image channels are interpolated linearly, the mask by nearest neighbor. Beyond the border of the patch, image
    channels are reflected, but the mask and channels that show only the object are zero.
    """
    if len(shape) == 3 and torch.equal(matrices[:, 0].abs(), torch.eye(3)[0].expand(len(patches), 3)):
        return _warp_planes(patches, matrices, shifts, shape, layout)
    return _sample(patches, matrices, shifts, shape, layout)


def _warp_planes(
    patches: Tensor, matrices: Tensor, shifts: Tensor, shape: tuple[int, ...], layout: PatchLayout
) -> Tensor:
    """Warp volumes plane by plane, as 2D images with many channels.

    This is several times faster than a 3D warp. The matrices must map every z plane to a z plane.
    """
    count, channels, deep = patches.shape[:3]
    forward = matrices[:, 0, 0:1].round().long()
    planes = (torch.arange(shape[0]) - (shape[0] - 1) / 2) * forward + (shape[0] - 1) / 2
    planes = planes.long() + (deep - shape[0]) // 2 + shifts[:, 0:1].round().long()
    kept = patches[torch.arange(count)[:, None], :, planes].transpose(1, 2)  # (n, C, z, y, x)
    flat = PatchLayout(layout.image * shape[0], layout.copies, layout.hidden * shape[0], layout.has_mask)
    transformed = _sample(kept.flatten(1, 2), matrices[:, 1:, 1:], shifts[:, 1:], shape[1:], flat)
    return transformed.view(count, channels, *shape)


def _sample(patches: Tensor, matrices: Tensor, shifts: Tensor, shape: tuple[int, ...], layout: PatchLayout) -> Tensor:
    into = torch.tensor(patches.shape[2:], dtype=torch.float32)
    reach = matrices.abs() @ ((torch.tensor(shape) - 1) / 2) + shifts.abs()
    # Zero padding is faster than reflection, and has the same result if no positions are beyond the border.
    reflected = 0 if bool((reach <= (into - 1) / 2).all()) else layout.image - layout.hidden
    grid = _grid(2 * matrices / into[:, None], 2 * shifts / into, shape).to(patches.device)
    kinds = [
        (patches[:, :reflected], "bilinear", "reflection"),
        (patches[:, reflected : layout.image], "bilinear", "zeros"),
        (patches[:, layout.image :], "nearest", "zeros"),
    ]
    return torch.cat(
        [
            functional.grid_sample(channels, grid, mode, padding, align_corners=False)
            for channels, mode, padding in kinds
            if channels.shape[1]
        ],
        dim=1,
    )


def _grid(matrices: Tensor, shifts: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the positions (n, *shape, ndim) for `grid_sample`, in order x, y(, z).

    Adding the contribution of one axis at a time is three times faster than ``affine_grid``.
    """
    positions = shifts.flip(1)
    for axis, side in enumerate(shape):
        along = matrices[:, :, axis, None].flip(1) * (torch.arange(side) - (side - 1) / 2)
        positions = positions[..., None] + along.view(len(matrices), -1, *(1,) * axis, side)
    return positions.movedim(1, -1)


def _rotations_3d(count: int, generator: torch.Generator) -> Tensor:
    """Return uniform random rotations (Shoemake, Graphics Gems III, 1992)."""
    w, x, y, z = functional.normalize(torch.randn(count, 4, generator=generator), dim=1).unbind(1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        *(2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        *(2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=1).view(count, 3, 3)


def _rotations_in_plane(count: int, ndim: int, generator: torch.Generator) -> Tensor:
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    cos, sin = angle.cos(), angle.sin()
    matrices = torch.eye(ndim).repeat(count, 1, 1)
    matrices[:, -2:, -2:] = torch.stack([cos, sin, -sin, cos], dim=1).view(count, 2, 2)
    return matrices


# A view is a patch after flips and right-angle rotations. For every axis of the view, it consists of the axis of the
# patch that lies along it, and of its direction: forward (1) or backward (-1).
Symmetry = tuple[tuple[int, ...], tuple[int, ...]]


def symmetries(augmentation: AugmentSettings, patches: PatchSettings) -> tuple[Symmetry, ...]:
    """Return the flips and right-angle rotations of the settings, identity first.

    Parameters
    ----------
    augmentation : AugmentSettings
        Free rotation includes right-angle rotations.
    patches : PatchSettings
        Its size and sampling must be resolved. Two axes are swapped only if they agree in number and size of pixels.
    """
    shape, steps = patches.shape, _pixel_sizes(patches)
    ndim = len(shape)
    same = tuple(range(ndim)), (1,) * ndim
    fixed = range(0 if augmentation.axes == "all" else ndim - 2)

    def is_rotation(view: Symmetry) -> bool:
        order, signs = view
        swaps = sum(a > b for a, b in itertools.combinations(order, 2))
        if math.prod(signs) != (-1) ** swaps or any((order[axis], signs[axis]) != (axis, 1) for axis in fixed):
            return False
        if augmentation.rotation == "half_turns" and order != same[0]:
            return False
        return all(shape[a] == shape[b] and math.isclose(steps[a], steps[b]) for a, b in enumerate(order))

    every = list(itertools.product(itertools.permutations(same[0]), itertools.product((1, -1), repeat=ndim)))
    views = [same] if augmentation.rotation == "none" else [view for view in every if is_rotation(view)]
    if augmentation.flips:
        orders = {order for order, _ in views}
        views = [view for view in every if view[0] in orders]
    return tuple(sorted(views, key=lambda view: (view != same, view[0], tuple(-sign for sign in view[1]))))


def averaging_views(augmentation: AugmentSettings, patches: PatchSettings, limit: int) -> list[Symmetry]:
    """Return up to ``limit`` views for averaging predictions, the identity first.

    If training does not flip and rotate every patch, only the identity is returned.
    """
    all_views = symmetries(augmentation, patches)
    if augmentation.share < 1:
        return [all_views[0]]
    return list(all_views[:: max(1, len(all_views) // limit)][:limit])


def apply_view(patches: Tensor, view: Symmetry) -> Tensor:
    """Flip and rotate all patches (n, C, [z,] y, x) in the same way."""
    order, signs = view
    rotated = patches.permute(0, 1, *(axis + 2 for axis in order))
    flipped = [axis + 2 for axis, sign in enumerate(signs) if sign < 0]
    return rotated.flip(flipped) if flipped else rotated


def apply_views(
    patches: Tensor, chosen: Tensor, shifts: Tensor | None, all_views: tuple[Symmetry, ...], shape: tuple[int, ...]
) -> Tensor:
    """Flip and rotate each patch by its own view and crop it to ``shape``.

    Flips and right-angle rotations only change the order in which pixels are read: one step along an axis of the view
    is a constant step in memory. So all patches are read in one operation, even with different views.

    Parameters
    ----------
    patches : Tensor of shape (n, C, *wider)
    chosen : int64 Tensor of shape (n,)
        Index of the view of each patch in ``all_views``.
    shifts : int64 Tensor of shape (n, ndim), optional
        Offset of the crop from the center along each axis of the patch, in pixels.
    all_views : tuple of Symmetry
    shape : tuple of int

    Returns
    -------
    Tensor of shape (n, C, *shape)
    """
    wider = tuple(patches.shape[2:])
    firsts, steps = _memory_steps(all_views, shape, wider)
    at = firsts[chosen]
    if shifts is not None:
        at = at + (shifts * torch.tensor(_strides(wider))).sum(dim=1)
    along = steps[chosen]
    for axis, side in enumerate(shape):
        at = at[..., None] + (along[:, axis, None] * torch.arange(side)).view(-1, *(1,) * axis, side)
    at = at.flatten(1).to(patches.device)[:, None].expand(-1, patches.shape[1], -1)
    return patches.flatten(2).gather(2, at).view(len(patches), -1, *shape)


def view_matrices(all_views: tuple[Symmetry, ...]) -> Tensor:
    """Return one matrix per view, as an array (count, ndim, ndim).

    Each matrix maps positions in the view to positions in the patch.
    """
    ndim = len(all_views[0][0])
    matrices = torch.zeros(len(all_views), ndim, ndim)
    for matrix, (order, signs) in zip(matrices, all_views):
        matrix[list(order), list(range(ndim))] = torch.tensor(signs, dtype=torch.float32)
    return matrices


@functools.lru_cache(maxsize=64)
def _memory_steps(
    all_views: tuple[Symmetry, ...], shape: tuple[int, ...], wider: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Return each view's first pixel index (v,) and step along each axis (v, ndim)."""
    strides, margins = _strides(wider), [(wide - side) // 2 for wide, side in zip(wider, shape, strict=True)]
    firsts, steps = [], []
    for order, signs in all_views:
        starts = [(side - 1) * (sign < 0) for side, sign in zip(shape, signs)]
        firsts.append(sum(strides[source] * (margins[source] + start) for source, start in zip(order, starts)))
        steps.append([strides[source] * sign for source, sign in zip(order, signs)])
    return torch.tensor(firsts), torch.tensor(steps)


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
