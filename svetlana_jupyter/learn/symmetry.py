"""The ways a patch can be turned and mirrored pixel by pixel, and patches seen in those ways."""

from __future__ import annotations

import functools
import itertools
import math

import torch
from torch import Tensor

from svetlana_jupyter.core.settings import AugmentSettings, PatchSettings

# For every axis of the view, the axis of the patch that lies along it, and whether it runs forward (1) or back (-1).
View = tuple[tuple[int, ...], tuple[int, ...]]


def symmetries(augmentation: AugmentSettings, patches: PatchSettings) -> tuple[View, ...]:
    """Return all views of a patch that the settings make equal, the patch itself first.

    Parameters
    ----------
    augmentation : AugmentSettings
        A free rotation includes the right angles.
    patches : PatchSettings
        With concrete size and sampling. Axes change places only where both have as many pixels, equally far apart.
    """
    size, shape = patches.size, patches.sampling
    assert isinstance(size, tuple)
    assert isinstance(shape, tuple)
    ndim, steps = len(shape), [side / count for side, count in zip(size, shape, strict=True)]
    same = tuple(range(ndim)), (1,) * ndim
    turns = [same]
    if augmentation.rotation != "none":
        movable = range(ndim) if augmentation.axes == "all" else range(ndim - 2, ndim)
        turns = [view for view in _cube(ndim) if _determinant(view) > 0 and _moves_only(view, movable)]
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


def views(augmentation: AugmentSettings, patches: PatchSettings, limit: int) -> list[View]:
    """Return up to ``limit`` views, the patch itself first, that training has declared equivalent."""
    every = symmetries(augmentation, patches)
    if augmentation.share < 1:
        return [every[0]]
    return list(every[:: max(1, len(every) // limit)][:limit])


def look(patches: Tensor, view: View) -> Tensor:
    """Return patches (n, C, [z,] y, x) as one view shows them."""
    order, signs = view
    turned = patches.permute(0, 1, *(axis + 2 for axis in order))
    mirrored = [axis + 2 for axis, sign in enumerate(signs) if sign < 0]
    return turned.flip(mirrored) if mirrored else turned


def looked(
    patches: Tensor, chosen: Tensor, shifts: Tensor | None, every: tuple[View, ...], shape: tuple[int, ...]
) -> Tensor:
    """Return each patch as a view of its own shows it, cut to ``shape``.

    A turned patch is its pixels read in another order: one step along an axis of the view is a constant step through
    memory. So all patches are read at once, whatever their views.

    Parameters
    ----------
    patches : Tensor of shape (n, C, *wider)
    chosen : int64 Tensor of shape (n,)
        Which of ``every`` view.
    shifts : int64 Tensor of shape (n, ndim), optional
        Pixels along each axis of the patch by which the part that is seen lies off the middle.
    every : tuple of View
    shape : tuple of int

    Returns
    -------
    Tensor of shape (n, C, *shape)
    """
    wider = tuple(patches.shape[2:])
    firsts, steps = _walks(every, shape, wider)
    at = firsts[chosen]
    if shifts is not None:
        at = at + (shifts * torch.tensor(_strides(wider))).sum(dim=1)
    along = steps[chosen]
    for axis, side in enumerate(shape):
        at = at[..., None] + (along[:, axis, None] * torch.arange(side)).view(-1, *(1,) * axis, side)
    at = at.flatten(1).to(patches.device)[:, None].expand(-1, patches.shape[1], -1)
    return patches.flatten(2).gather(2, at).view(len(patches), -1, *shape)


def matrices(every: tuple[View, ...]) -> Tensor:
    """Return each view as a matrix (len(every), ndim, ndim) from places in the view to places in the patch."""
    ndim = len(every[0][0])
    found = torch.zeros(len(every), ndim, ndim)
    for number, (order, signs) in enumerate(every):
        for axis, (source, sign) in enumerate(zip(order, signs, strict=True)):
            found[number, source, axis] = sign
    return found


@functools.lru_cache(maxsize=64)
def _walks(every: tuple[View, ...], shape: tuple[int, ...], wider: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return for every view the number of the pixel it begins at (v,), and its steps along each axis (v, ndim)."""
    strides = _strides(wider)
    firsts, steps = [], []
    for order, signs in every:
        first = 0
        for axis, (source, sign) in enumerate(zip(order, signs, strict=True)):
            first += strides[source] * ((wider[source] - shape[source]) // 2 + (shape[axis] - 1) * (sign < 0))
        firsts.append(first)
        steps.append([strides[source] * sign for source, sign in zip(order, signs, strict=True)])
    return torch.tensor(firsts), torch.tensor(steps)


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _cube(ndim: int) -> list[View]:
    return [
        (order, signs)
        for order in itertools.permutations(range(ndim))
        for signs in itertools.product((1, -1), repeat=ndim)
    ]


def _moves_only(view: View, axes: range) -> bool:
    return all(view[0][axis] == axis and view[1][axis] == 1 for axis in range(len(view[0])) if axis not in axes)


def _determinant(view: View) -> int:
    order, signs = view
    swaps = sum(a > b for a, b in itertools.combinations(order, 2))
    return math.prod(signs) * (-1 if swaps % 2 else 1)
