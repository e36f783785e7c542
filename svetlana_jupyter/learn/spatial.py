"""Patch geometry of augmentation: channel layout, free transformations, and flips and right-angle rotations.

Flips and right-angle rotations only permute pixels and are read by index; all other transformations interpolate.
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
        Number of image channels, counting every copy.
    copies : int
        Copies of each channel of the image: two if the patches have doubled channels.
    hidden : int
        Number of image channels, counted from the last, that show only the object.
    has_mask : bool
        True if the mask of the object follows as the last channel.
    has_eroded_margin : bool
        True if a margin along the edge of the object is left out of the image channels.
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
        copies = 2 if settings.has_doubled_channels else 1
        hidden = count_object_only_channels(image, settings)
        return cls(image, copies, hidden, settings.mask_channel, has_eroded_margin=settings.rim != 0)

    @property
    def colors(self) -> int:
        """Number of channels of the image itself."""
        return self.image // self.copies

    def content_masks(self, patches: Tensor) -> tuple[Tensor | None, ...]:
        """Return a mask of the visible pixels (n, 1, [z,] y, x) for each copy, None if all are visible.

        Hidden pixels are zero in every channel. Inside the mask of the object a zero is a dark pixel, unless a margin
        was left out there.
        """
        image = patches[:, : self.image].chunk(self.copies, dim=1)
        return tuple(
            self._visible(copy, patches[:, -1:]) if self.has_eroded_margin or self._is_hidden(number) else None
            for number, copy in enumerate(image)
        )

    def join_channels(self, image: Tensor, content_masks: tuple[Tensor | None, ...], masks: Tensor) -> Tensor:
        """Return patches of image channels, zero outside the content of their copy, and masks."""
        copies = [
            copy if seen is None else torch.where(seen, copy, 0.0)
            for copy, seen in zip(image.chunk(self.copies, dim=1), content_masks, strict=True)
        ]
        return torch.cat([*copies, masks], dim=1)

    def _is_hidden(self, copy: int) -> bool:
        return copy >= self.copies - self.hidden // self.colors

    def _visible(self, copy: Tensor, last: Tensor) -> Tensor:
        visible = [copy[:, channel : channel + 1] for channel in range(self.colors)]
        if self.has_mask and not self.has_eroded_margin:
            visible.append(last)
        # Faster than a reduction over so few channels; logical_or is faster on booleans than on numbers.
        return reduce(Tensor.logical_or, (channel != 0 for channel in visible))


def augmentation_margin(augmentation: AugmentSettings, patches: PatchSettings) -> tuple[float, ...]:
    """Return the factor per axis by which patches must be cut wider to leave no empty corner.

    In 3D the corners of a free rotation about any axis are left to padding: they would nearly double the memory again.

    Parameters
    ----------
    augmentation : AugmentSettings
    patches : PatchSettings
        With concrete size and sampling.
    """
    size = patches.size
    assert isinstance(size, tuple)
    wider = [1.0] * len(size)
    if patches.context == "keep":  # beyond a hidden context all pixels are zero anyway
        rotated = range(len(size)) if augmentation.axes == "all" else range(len(size) - 2, len(size))
        if augmentation.rotation == "free":
            for axis in rotated:
                longest = max(size[other] for other in rotated if other != axis)
                wider[axis] = math.hypot(size[axis], longest) / size[axis]
        wider = [side * (1.0 + augmentation.scale) for side in wider]
    return tuple(side + 2 * augmentation.shift for side in wider)


def random_rotations(count: int, patches: PatchSettings, any_axis: bool, generator: torch.Generator) -> Tensor:
    """Return random rotation matrices (count, ndim, ndim) for positions ``([z,] y, x)`` in pixels of a patch.

    They are rotations in the unit of the field of view, so that anisotropic pixels keep their shape.
    """
    size, shape = patches.size, patches.sampling
    assert isinstance(size, tuple)
    assert isinstance(shape, tuple)
    rotate = _rotations_3d if len(size) == 3 and any_axis else _rotations_in_plane
    steps = [side / pixels for side, pixels in zip(size, shape, strict=True)]
    matrices = rotate(count, len(size), generator)
    if max(steps) == min(steps):
        return matrices
    return matrices * torch.tensor(steps) / torch.tensor(steps)[:, None]


def warp_patches(
    patches: Tensor, matrices: Tensor, shifts: Tensor, shape: tuple[int, ...], layout: PatchLayout
) -> Tensor:
    """Warp each patch with its own matrix, to shape (n, C, *shape).

    Parameters
    ----------
    patches : Tensor of shape (n, C, *wider)
    matrices : Tensor of shape (n, ndim, ndim)
        From a position in the output patch, relative to its center, to the position in the input patch.
    shifts : Tensor of shape (n, ndim)
        Added to that position, in pixels.
    shape : tuple of int
    layout : PatchLayout

    Notes
    -----
    Image channels are interpolated linearly and reflected beyond the border. Hidden channels and the mask, which uses
    the nearest pixel, are zero there.
    """
    if len(shape) == 3 and torch.equal(matrices[:, 0].abs(), torch.eye(3)[0].expand(len(patches), 3)):
        return _warp_planes(patches, matrices, shifts, shape, layout)
    return _sample(patches, matrices, shifts, shape, layout)


def _warp_planes(
    patches: Tensor, matrices: Tensor, shifts: Tensor, shape: tuple[int, ...], layout: PatchLayout
) -> Tensor:
    """Transform volumes whose planes stay planes as images with many channels, which is several times faster."""
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
    # Zero padding is faster than reflection, and the same if nothing beyond the border is sampled.
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
    """Return the positions (n, *shape, ndim) for `grid_sample`, in the order x, y(, z).

    One sum per axis makes it three times faster than ``affine_grid``.
    """
    positions = shifts.flip(1)
    for axis, side in enumerate(shape):
        along = matrices[:, :, axis, None].flip(1) * (torch.arange(side) - (side - 1) / 2)
        positions = positions[..., None] + along.view(len(matrices), -1, *(1,) * axis, side)
    return positions.movedim(1, -1)


def _rotations_3d(count: int, ndim: int, generator: torch.Generator) -> Tensor:
    """Return uniform random rotations from unit quaternions (Shoemake, Graphics Gems III, 1992)."""
    w, x, y, z = functional.normalize(torch.randn(count, 4, generator=generator), dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _rotations_in_plane(count: int, ndim: int, generator: torch.Generator) -> Tensor:
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    cos, sin = angle.cos(), angle.sin()
    plane = torch.stack([cos, sin, -sin, cos], dim=1).view(count, 2, 2)
    if ndim == 2:
        return plane
    matrices = torch.eye(ndim).repeat(count, 1, 1)
    matrices[:, -2:, -2:] = plane
    return matrices


# For every axis of the view, the axis of the patch that lies along it, and its direction: forward (1) or backward (-1).
Symmetry = tuple[tuple[int, ...], tuple[int, ...]]


def symmetries(augmentation: AugmentSettings, patches: PatchSettings) -> tuple[Symmetry, ...]:
    """Return all flips and right-angle rotations that the settings allow, the identity first.

    Parameters
    ----------
    augmentation : AugmentSettings
        A free rotation includes the right angles.
    patches : PatchSettings
        With concrete size and sampling. Axes are swapped only if both have as many pixels of the same size.
    """
    size, shape = patches.size, patches.sampling
    assert isinstance(size, tuple)
    assert isinstance(shape, tuple)
    ndim, steps = len(shape), [side / count for side, count in zip(size, shape, strict=True)]
    same = tuple(range(ndim)), (1,) * ndim
    turns = [same]
    if augmentation.rotation != "none":
        movable = range(ndim) if augmentation.axes == "all" else range(ndim - 2, ndim)
        turns = [view for view in _all_symmetries(ndim) if _determinant(view) > 0 and _moves_only(view, movable)]
        if augmentation.rotation == "half_turns":
            turns = [view for view in turns if view[0] == same[0]]
        turns = [
            view
            for view in turns
            if all(shape[a] == shape[b] and math.isclose(steps[a], steps[b]) for a, b in enumerate(view[0]))
        ]
    mirrors = list(itertools.product((1, -1), repeat=ndim)) if augmentation.flips else [same[1]]
    found = {
        (order, tuple(sign * mirror for sign, mirror in zip(signs, each, strict=True)))
        for order, signs in turns
        for each in mirrors
    }
    return tuple(sorted(found, key=lambda view: (view != same, view[0], tuple(-sign for sign in view[1]))))


def averaging_views(augmentation: AugmentSettings, patches: PatchSettings, limit: int) -> list[Symmetry]:
    """Return up to ``limit`` views to average predictions over, the identity first."""
    all_views = symmetries(augmentation, patches)
    if augmentation.share < 1:
        return [all_views[0]]
    return list(all_views[:: max(1, len(all_views) // limit)][:limit])


def apply_view(patches: Tensor, view: Symmetry) -> Tensor:
    """Flip and rotate patches (n, C, [z,] y, x) as one view."""
    order, signs = view
    rotated = patches.permute(0, 1, *(axis + 2 for axis in order))
    flipped = [axis + 2 for axis, sign in enumerate(signs) if sign < 0]
    return rotated.flip(flipped) if flipped else rotated


def apply_views(
    patches: Tensor, chosen: Tensor, shifts: Tensor | None, all_views: tuple[Symmetry, ...], shape: tuple[int, ...]
) -> Tensor:
    """Flip and rotate each patch by its own view and crop it to ``shape``.

    A rotated patch is its pixels read in another order: one step along an axis of the view is a constant step in
    memory. So all patches are read at once, whatever their views.

    Parameters
    ----------
    patches : Tensor of shape (n, C, *wider)
    chosen : int64 Tensor of shape (n,)
        Position of the view of each patch in ``all_views``.
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
    """Return the matrix of each view (count, ndim, ndim), from positions in the view to those in the patch."""
    ndim = len(all_views[0][0])
    found = torch.zeros(len(all_views), ndim, ndim)
    for number, (order, signs) in enumerate(all_views):
        for axis, (source, sign) in enumerate(zip(order, signs, strict=True)):
            found[number, source, axis] = sign
    return found


@functools.lru_cache(maxsize=64)
def _memory_steps(
    all_views: tuple[Symmetry, ...], shape: tuple[int, ...], wider: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Return the first pixel index (v,) and the step along each axis (v, ndim) of every view."""
    strides = _strides(wider)
    firsts, steps = [], []
    for order, signs in all_views:
        first = 0
        for axis, (source, sign) in enumerate(zip(order, signs, strict=True)):
            first += strides[source] * ((wider[source] - shape[source]) // 2 + (shape[axis] - 1) * (sign < 0))
        firsts.append(first)
        steps.append([strides[source] * sign for source, sign in zip(order, signs, strict=True)])
    return torch.tensor(firsts), torch.tensor(steps)


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _all_symmetries(ndim: int) -> list[Symmetry]:
    return [
        (order, signs)
        for order in itertools.permutations(range(ndim))
        for signs in itertools.product((1, -1), repeat=ndim)
    ]


def _moves_only(view: Symmetry, axes: range) -> bool:
    return all(view[0][axis] == axis and view[1][axis] == 1 for axis in range(len(view[0])) if axis not in axes)


def _determinant(view: Symmetry) -> int:
    order, signs = view
    swaps = sum(a > b for a, b in itertools.combinations(order, 2))
    return math.prod(signs) * (-1 if swaps % 2 else 1)
