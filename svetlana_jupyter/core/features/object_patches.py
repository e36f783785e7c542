"""Patches of objects for blob and oriented features.

Each patch shows the pixels of one object alone, on the most informative axes of the channels. What the patches of a
project have in common, their side and these axes, is fitted once to a sample of its objects.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from svetlana_jupyter.core.allowed_cues import CUES_IN_MARGIN, MIN_ERODED_MARGIN
from svetlana_jupyter.core.features.catalog import CUES
from svetlana_jupyter.core.features.crops import OUTSIDE, Integers, ObjectBoxes, crop_objects
from svetlana_jupyter.core.io.chunks import ArrayRegion, index_last_axes, read_regions
from svetlana_jupyter.core.normalization import dilate_masks, normalize
from svetlana_jupyter.core.patch_geometry import COARSENING_OBJECT_VIEW, PatchGeometry, window_starts
from svetlana_jupyter.core.patches import normalize_object_size
from svetlana_jupyter.core.settings import PatchSettings
from svetlana_jupyter.errors import PatchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from svetlana_jupyter.core.io.image_pair import ImagePair

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

SAMPLING = {2: 56, 3: 28}  # patch pixels per side
MARGIN = {2: 1.5, 3: 1.3}  # side of the patches, in longest sides of the object at `QUANTILE`
QUANTILE = 0.9
# If size is no allowed cue, objects are sampled as coarsely as those at this quantile. Below this number of pixels per
# side, outlines and noise would still tell the size (balanced accuracy 0.8 for disks 10 and 14 pixels wide, 0.5 for 12
# and 16), so that nothing is shown.
SMALL_QUANTILE, MIN_COARSE = 0.05, {2: 13, 3: 10}
MIN_MARGIN = 1.15  # side of the patch of a larger object, in its own longest sides
MAX_AXES = 3
LEAST_VARIANCE = 1e-3  # added to the variance along each axis, as a share of the largest, so that noise stays small
MAX_STACK = 256  # objects per stack of patches, to limit memory
FLAT = 1e-6  # standard deviation, relative to the mean, up to which an object counts as uniform


def fit_patches(
    sample: Sequence[tuple[ImagePair, pd.DataFrame]], may_use: Iterable[str] = CUES
) -> dict[str, NDArray[np.float64]]:
    """Fit the side of patches and the axes of their channels to a sample of objects.

    Parameters
    ----------
    sample : sequence of (ImagePair, DataFrame)
        Images with the same channels, and rows of `core.objects.index_objects` of each; 2,000 objects are enough.
    may_use : iterable of str
        Allowed cues, as in `iter_patches`.

    Returns
    -------
    dict of float64 arrays
        ``side`` (): side of the patches, in lengths of the shortest side of a pixel. ``mean`` (C,) and ``axes``
        (C, k): patches are ``(pixels - mean) @ axes``, with k = min(C, 3). The axes are the principal components of
        the standardized channels, and every object has the same weight. ``pixels`` (): coarse pixels per side of a
        patch if size is no allowed cue.

    Raises
    ------
    PatchError
        If the sample has no objects, or images have different numbers of channels or dimensions.
    """
    allowed, sample = frozenset(may_use), [(pair, objects) for pair, objects in sample if len(objects)]
    kinds = sorted({(pair.ndim, len(pair.channels)) for pair, _ in sample})
    if len(kinds) != 1:
        found = " and ".join(f"{ndim}D images with {count} channels" for ndim, count in kinds) or "no objects"
        raise PatchError(f"Patches need objects in images of one kind, got {found}. Pass images of the same kind.")
    ((ndim, count),) = kinds
    boxes = [ObjectBoxes(*given) for given in sample]
    longest = np.concatenate([((box.last - box.first) * box.step).max(axis=1) for box in boxes])
    weight, total, products = 0, np.zeros(count), np.zeros((count, count))
    for (pair, _), box in zip(sample, boxes, strict=True):
        for crops in _iter_crops(pair, box, allowed):
            pixels = _standardize(crops.pixels, crops.own) if "brightness" not in allowed else crops.pixels
            usable = crops.valid & ~crops.uniform
            counts = np.count_nonzero(crops.own.reshape(len(crops.own), -1), axis=1)[usable]
            values = np.moveaxis(pixels, 1, -1)[usable][crops.own[usable]].astype(np.float64)
            shares = np.repeat(1 / counts, counts)
            weight += len(counts)
            total += shares @ values
            products += (values * shares[:, None]).T @ values
    mean = total / max(weight, 1)
    covariance = products / max(weight, 1) - np.outer(mean, mean)
    side = MARGIN[ndim] * np.quantile(longest, QUANTILE)
    coarse = MARGIN[ndim] * np.quantile(longest, SMALL_QUANTILE) / COARSENING_OBJECT_VIEW
    pixels = np.clip(np.rint(coarse), 3, SAMPLING[ndim])
    return {
        "side": np.asarray(side),
        "mean": mean,
        "axes": _principal_axes(mean, covariance),
        "pixels": np.asarray(pixels),
    }


def check_patches(fitted: Mapping[str, NDArray[np.float64]], ndim: int) -> None:
    """Raise a `ValueError` unless this may be a result of `fit_patches`."""
    if set(fitted) != {"side", "mean", "axes", "pixels"}:
        raise ValueError("its patches lack a side, axes or a number of pixels")
    axes, mean = fitted["axes"], fitted["mean"]
    if mean.ndim != 1 or axes.ndim != 2 or axes.shape != (len(mean), min(len(mean), MAX_AXES)):
        raise ValueError("the axes of its channels do not fit together")
    if fitted["side"].shape or fitted["pixels"].shape or fitted["side"] <= 0:
        raise ValueError("the side of its patches is not a positive number")
    if not 3 <= fitted["pixels"] <= SAMPLING[ndim]:
        raise ValueError("its patches have an impossible number of pixels")


def _principal_axes(mean: Doubles, covariance: Doubles) -> Doubles:
    """Return the axes (C, k) that standardize the main components of the channels."""
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0))
    flat = deviation <= FLAT * np.maximum(np.abs(mean), 1e-30)
    scale = np.where(flat, 0, 1 / np.where(flat, 1, deviation))
    variances, axes = np.linalg.eigh(covariance * np.outer(scale, scale))
    chosen = np.argsort(-variances, kind="stable")[:MAX_AXES]
    variances, axes = variances[chosen], axes[:, chosen]
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), np.arange(len(chosen))] < 0, -1, 1)  # the signs are arbitrary
    added = LEAST_VARIANCE * variances[0] if len(mean) > 1 else 0
    spread = np.sqrt(np.maximum(variances, 0) + added)
    return np.asarray(scale[:, None] * axes / np.where(spread > 0, spread, 1))


def iter_patches(
    pair: ImagePair, objects: pd.DataFrame, fitted: Mapping[str, NDArray[np.float64]], may_use: Iterable[str] = CUES
) -> Iterator[tuple[Integers, Floats, Bools]]:
    """Yield patches of objects, each chunk of the image being read once.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    fitted : mapping of str to array
        Result of `fit_patches` with the same allowed cues.
    may_use : iterable of str
        Allowed cues (`core.features.catalog.CUES`). Unless surroundings, brightness and size are all allowed, the
        outermost pixels of an object are left out, since blur mixes light from outside into them: 2 pixels, or 1 if
        nothing else would remain. Without brightness, each channel of each object is standardized by its own mean and
        standard deviation. Without size, all objects are sampled as coarsely as the smallest, and fill their patches
        alike; if the smallest are narrower than about 12 pixels, the patches of all objects are 0.

    Yields
    ------
    labels : int64 of shape (n,)
        At most 256 objects of similar size. Objects of one block of the image follow each other.
    patches : float32 of shape (n, k, 56, 56), or (n, k, 28, 28, 28) in 3D
        Centered on the bounding box, isotropic, and antialiased; 0 outside the object. NaN for an object with NaN or
        infinite pixels. An object narrower than 3 pixels, of which no pixel would remain, is uniform: its patch is 0.
    masks : bool of shape (n, 56, 56) or (n, 28, 28, 28)
        The pixels of the object that count; at least one per object.
    """
    allowed, boxes, count = frozenset(may_use), ObjectBoxes(pair, objects), SAMPLING[pair.ndim]
    mean, axes = fitted["mean"].astype(np.float32), fitted["axes"].astype(np.float32)
    longest = ((boxes.last - boxes.first) * boxes.step).max(axis=1)
    sides = np.maximum(float(fitted["side"]), MIN_MARGIN * longest)
    hidden = "size" not in allowed and int(fitted["pixels"]) < MIN_COARSE[pair.ndim]
    for crops in _iter_crops(pair, boxes, allowed):
        if "size" not in allowed:
            crops = _normalize_size(crops, MARGIN[pair.ndim] * longest[crops.members], int(fitted["pixels"]))
            scale = np.full((len(crops.members), pair.ndim), int(fitted["pixels"]) / count)
        else:
            scale = sides[crops.members, None] / crops.step / count
        pixels = _standardize(crops.pixels, crops.own) if "brightness" not in allowed else crops.pixels
        channels = np.moveaxis(np.tensordot(pixels - mean.reshape(-1, *(1 for _ in crops.step)), axes, (1, 0)), -1, 1)
        patches, masks = resample_objects(channels, crops.own, crops.centers, scale, count)
        patches[crops.uniform | hidden] = 0
        patches[~crops.valid] = np.nan
        yield boxes.labels[crops.members], patches, masks


class _Crops(NamedTuple):
    """Stack of n objects, cropped from the image.

    Attributes
    ----------
    members : int64 of shape (n,)
        Row numbers.
    pixels : float32 of shape (n, C, *box)
    own : bool of shape (n, *box)
        The pixels of each object that count.
    centers : float64 of shape (n, ndim)
        Centers of the bounding boxes, in pixels of the crops.
    step : float64 of shape (ndim,)
        Distances between pixels along each axis, in shortest sides of a pixel of the image.
    valid : bool of shape (n,)
        Whether all pixels of the object are finite.
    uniform : bool of shape (n,)
        Whether light from outside is mixed into all pixels of the object, so that none of them may be seen.
    """

    members: Integers
    pixels: Floats
    own: Bools
    centers: Doubles
    step: Doubles
    valid: Bools
    uniform: Bools


def crop_regions(pair: ImagePair, objects: pd.DataFrame, may_use: Iterable[str] = CUES) -> list[ArrayRegion]:
    """Return the regions of the image that `iter_patches` reads for these objects."""
    reach = np.full(pair.ndim, _seen_margin(frozenset(may_use)))
    return [region for _, region in ObjectBoxes(pair, objects).batches(lambda _: reach)]


def _seen_margin(allowed: frozenset[str]) -> int:
    """Return how many pixels around an object are read, to leave out its own margin."""
    return 0 if allowed.issuperset(CUES_IN_MARGIN) or "size" not in allowed else MIN_ERODED_MARGIN


def _iter_crops(pair: ImagePair, boxes: ObjectBoxes, allowed: frozenset[str]) -> Iterator[_Crops]:
    """Yield the objects stack by stack; without their margin, unless it may be seen."""
    margin = _seen_margin(allowed)
    batches = list(boxes.batches(lambda _: np.full(pair.ndim, margin)))
    regions = [region for _, region in batches]
    images, masks = read_regions(pair.image, regions), read_regions(pair.mask, regions)
    for (batch, region), image, mask in zip(batches, images, masks, strict=True):
        for stack in boxes.stacks(batch, region):
            for start in range(0, len(stack[0]), MAX_STACK):
                members, first, last = (part[start : start + MAX_STACK] for part in stack)
                box = (last - first).max(axis=0) + 2 * margin
                own, labels, planes, invalid = crop_objects(image, mask, boxes.labels[members], first - margin, box)
                uniform: Bools = np.zeros(len(own), bool)
                if margin:
                    own, uniform = _leave_out_margin(own, labels == OUTSIDE)
                centers = margin + (last - first - 1) / 2
                valid: Bools = np.all(~invalid, axis=0)
                pixels = np.stack(planes, axis=1)
                yield _Crops(members, pixels, own, centers, boxes.step * region.stride, valid, uniform)


def _leave_out_margin(own: Bools, beyond: Bools) -> tuple[Bools, Bools]:
    """Erode objects by 2 pixels, or by 1 if nothing would remain of them.

    Parameters
    ----------
    own : bool of shape (n, *box)
    beyond : bool of shape (n, *box)
        Pixels beyond the image, from which no light comes.

    Returns
    -------
    own : bool of shape (n, *box)
        The eroded objects; unchanged if nothing remains.
    vanished : bool of shape (n,)
        Whether nothing remains.
    """
    axes = tuple(range(1, own.ndim))
    outside = ~(own | beyond)
    result, vanished = own.copy(), np.ones(len(own), bool)
    for reach in range(MIN_ERODED_MARGIN, 0, -1):
        inner = own[vanished] & ~dilate_masks(outside[vanished], (reach,) * len(axes))
        remains = inner.any(axis=axes)
        found = np.flatnonzero(vanished)[remains]
        result[found], vanished[found] = inner[remains], False
    return result, vanished


def _normalize_size(crops: _Crops, sides: Doubles, count: int) -> _Crops:
    """Resample objects to ``count`` coarse pixels per patch side.

    See `core.patches.normalize_object_size` for how size, noise and light of the surroundings are hidden.
    """
    ndim = crops.own.ndim - 1
    pixels = np.empty((*crops.pixels.shape[:2], *(count,) * ndim), np.float32)
    own = np.empty((len(pixels), *(count,) * ndim), bool)
    for side in np.unique(sides):
        chosen = np.flatnonzero(sides == side)
        geometry = _coarse_geometry(side / crops.step, count)
        starts = window_starts(crops.centers[chosen], geometry.window)
        windows = np.zeros((len(chosen), pixels.shape[1], *geometry.window), np.float32)
        masks = np.zeros((len(chosen), *geometry.window), bool)
        for number, start in enumerate(starts):
            low, high = np.maximum(start, 0), np.minimum(start + geometry.window, crops.own.shape[1:])
            source, target = (index_last_axes(map(slice, low - at, high - at)) for at in (0, start))
            windows[number][target] = crops.pixels[chosen[number]][source]
            masks[number][target] = crops.own[chosen[number]][source]
        pixels[chosen], own[chosen] = normalize_object_size(windows, masks, geometry)
    centers = np.full((len(pixels), ndim), (count - 1) / 2)
    return crops._replace(pixels=pixels, own=own, centers=centers, step=np.ones(ndim))


def _coarse_geometry(sizes: Doubles, count: int) -> PatchGeometry:
    """Return the geometry of patches of ``sizes`` pixels in ``count`` steps per axis."""
    axes = []
    for size in sizes.tolist():
        step = size / count
        side = 2 * math.ceil((count - 1) / 2 * step + max(1.0, step)) + 1
        seen = min(side, 2 * math.floor(size / 2) + 1)
        axes.append((step, count, side, slice((side - seen) // 2, (side + seen) // 2)))
    return PatchGeometry(*zip(*axes))


def _standardize(pixels: Floats, own: Bools) -> Floats:
    """Standardize each channel of each object; uniform channels become 0."""
    whole = (slice(None),) * (own.ndim - 1)
    return normalize(pixels, own, whole, PatchSettings(normalize="object"), None, np.empty_like(pixels))


def resample_objects(pixels: Floats, own: Bools, centers: Doubles, scale: Doubles, count: int) -> tuple[Floats, Bools]:
    """Resample objects with triangular weights, each by its own factor.

    Only the object's own pixels are averaged, so that nothing around it matters.

    Parameters
    ----------
    pixels : float32 of shape (n, k, *box)
    own : bool of shape (n, *box)
    centers : float64 of shape (n, ndim)
        Position of the center of the patch in the crop.
    scale : float64 of shape (n, ndim)
        Pixels of the crop per pixel of the patch.
    count : int
        Pixels per side of the patch.

    Returns
    -------
    patches : float32 of shape (n, k, *(count,) * ndim)
    masks : bool of shape (n, *(count,) * ndim)
        Pixels that the object fills by half; at least one per object.
    """
    sampled = np.concatenate([pixels * own[:, None], own[:, None]], axis=1, dtype=np.float32)
    for axis in range(centers.shape[1]):
        side, step = sampled.shape[axis + 2], scale[:, axis, None, None]
        at = centers[:, axis, None, None] + (np.arange(count)[:, None] - (count - 1) / 2) * step
        reach = np.maximum(step, 1)
        weights = (np.maximum(1 - np.abs(np.arange(side) - at) / reach, 0) / reach).astype(np.float32)
        weights = weights.reshape(len(weights), 1, count, side)
        lines = sampled.reshape(*sampled.shape[:2], -1, side, math.prod(sampled.shape[axis + 3 :]))
        sampled = np.matmul(weights[:, :, None], lines)
        shape = (count,) * (axis + 1) + pixels.shape[axis + 3 :]
        sampled = sampled.reshape(*sampled.shape[:2], *shape)
    coverage = sampled[:, -1:]
    most = coverage.max(axis=tuple(range(2, coverage.ndim)), keepdims=True)
    masks = coverage >= np.minimum(0.5, most / 2)
    patches = np.divide(sampled[:, :-1], coverage, out=np.zeros_like(sampled[:, :-1]), where=masks)
    return patches, masks[:, 0]
