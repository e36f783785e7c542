"""Cutting objects out of their image and measuring them, a group of measurements after the other.

Objects are visited block by block, each chunk of image and mask decoded once; what is held is the pixels under a
block's objects and a stack of some of them.

Measuring objects as `core.features.catalog` lists, each of them once.

Where an image brings a memory, what was measured before is taken from there, and what is new is kept in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from svetlana_jupyter.core.features.catalog import FeatureColumn, columns
from svetlana_jupyter.core.features.intensity import Channel, brightness, ring
from svetlana_jupyter.core.features.region import Floats, Region
from svetlana_jupyter.core.features.shape import shape
from svetlana_jupyter.core.features.texture import PaddedStack, direction, texture, texture_orientation_features
from svetlana_jupyter.core.io.chunks import (
    ArrayRegion,
    group_by_block,
    index_last_axes,
    processing_block_shape,
    read_regions,
)
from svetlana_jupyter.core.normalization import dilate_masks, erode_masks, to_finite_float32
from svetlana_jupyter.core.settings import MeasureSettings

if TYPE_CHECKING:
    from svetlana_jupyter.core.io.image_pair import FeatureCache, ImagePair

Integers = NDArray[np.int64]

MAX_BOX_VOXELS = (
    1 << 22
)  # of an object's box; larger ones are measured on every second, third, ... pixel along each axis
STACK_VOXELS = 1 << 18  # of the boxes of a stack, so that it stays in the processor's cache
OUTSIDE = -1  # in masks: beyond the image


def measure_objects(pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings) -> Iterator[pd.DataFrame]:
    """Measure ``settings.groups`` of the table of objects, block after block; see `core.features.compute.measure`."""
    measuring = _Measuring(pair, objects, settings)
    together = list(measuring.together())
    windows = [window for _, window in together]
    pixels, masks = read_regions(pair.image, windows), read_regions(pair.mask, windows)
    for (members, window), image, mask in zip(together, pixels, masks, strict=True):
        yield measuring.table(members, window, image, mask)


def feature_regions(pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings) -> list[ArrayRegion]:
    """Return the parts of an image that `measure_objects` reads for some objects."""
    return [window for _, window in _Measuring(pair, objects, settings).together()]


@dataclass(frozen=True, eq=False)
class _Stack:
    """Objects cut out in boxes of one shape: ``labels`` (n,), ``mask`` (n, *box), ``pixels`` (n, C, *box)."""

    labels: Integers
    mask: NDArray[Any]
    pixels: NDArray[np.float32]

    @property
    def own(self) -> NDArray[np.bool_]:
        own: NDArray[np.bool_] = self.mask == self.labels.reshape(-1, *(1 for _ in self.mask.shape[1:]))
        return own


class _Measuring:
    """The objects of one image, and what is measured of them."""

    def __init__(self, pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings) -> None:
        axes = "zyx"[-pair.ndim :]
        self._pair, self._groups = pair, set(settings.groups)
        self._ring, self._rim = settings.ring, settings.rim
        self._columns: Sequence[FeatureColumn] = columns(pair.ndim, len(pair.channels), settings.groups)
        self._labels = objects.index.to_numpy(np.int64)
        self._centers = objects[list(axes)].to_numpy(float)
        self._first = objects[[f"{axis}0" for axis in axes]].to_numpy(np.int64)
        self._last = objects[[f"{axis}1" for axis in axes]].to_numpy(np.int64)
        self._shape = np.array(pair.mask.shape)
        spacing = np.array(pair.spacing or (1.0,) * pair.ndim)
        self._step = spacing / spacing.min()
        self._strides = _strides(self._last - self._first)

    def together(self) -> Iterator[tuple[Integers, ArrayRegion]]:
        """Yield the objects to measure together, by position, and the part of the image to read for them."""
        sides = np.array(processing_block_shape(self._pair.image, self._pair.mask))
        wide = ((self._last - self._first) > sides).any(axis=1) | (self._strides > 1)
        ordinary = np.flatnonzero(~wide)
        found = [ordinary[some] for some in group_by_block(self._centers[ordinary], tuple(sides))]
        found += [np.array([one]) for one in np.flatnonzero(wide)]
        found.sort(key=lambda members: tuple(self._centers[members[0]] // sides))
        for members in found:
            stride = int(self._strides[members[0]])
            margin = self._reach(stride) * stride
            low = np.maximum(self._first[members].min(axis=0) - margin, 0)
            high = np.minimum(self._last[members].max(axis=0) + margin, self._shape)
            yield members, ArrayRegion(tuple(low.tolist()), tuple(high.tolist()), stride)

    def table(self, members: Integers, window: ArrayRegion, image: NDArray[Any], mask: NDArray[Any]) -> pd.DataFrame:
        """Measure the objects of one window."""
        found = []
        low, stride = np.array(window.low), window.stride
        first = -((low - self._first[members]) // stride)  # the first pixel read at or behind the box's first
        last = -((low - self._last[members]) // stride)
        for some in _alike(last - first):
            found.append(self._measured(members[some], first[some], last[some], stride, image, mask))
        return pd.concat(found) if len(found) > 1 else found[0]

    def _measured(
        self, members: Integers, first: Integers, last: Integers, stride: int, image: NDArray[Any], mask: NDArray[Any]
    ) -> pd.DataFrame:
        box = (last - first).max(axis=0)
        step = tuple((self._step * stride).tolist())
        inside = _cut(image, mask, self._labels[members], first, box)
        region = Region(inside.own, step)
        core = Region(_without_rim(inside.own, self._rim), step) if self._rim else region
        channels = [Channel(core, np.ascontiguousarray(plane)) for plane in np.moveaxis(inside.pixels, 1, 0)]
        near = PaddedStack.of(core) if "texture" in self._groups else None
        found: dict[str, Floats] = {}
        if "shape" in self._groups:
            found |= shape(region)
        if "orientation" in self._groups:
            found |= direction(region)
        if "position" in self._groups:
            found |= self._position(members)
        for number, channel in enumerate(channels):
            if "intensity" in self._groups:
                found |= _keyed(brightness(channel), number)
            if near is not None:
                found |= _keyed(texture(channel, near), number)
            if "orientation" in self._groups:
                found |= _keyed(texture_orientation_features(channel), number)
        if self._looks_around:
            reach = self._reach(stride)
            found |= self._around(
                _cut(image, mask, self._labels[members], first - reach, box + 2 * reach), channels, step
            )
        keys = [column.key for column in self._columns]
        values = np.stack([np.asarray(found[key], np.float32) for key in keys], axis=1)
        return pd.DataFrame(values, pd.Index(self._labels[members], name="object"), keys)

    def _around(self, wide: _Stack, channels: list[Channel], step: tuple[float, ...]) -> dict[str, Floats]:
        near_by = dilate_masks(wide.own, (self._rim,) * len(step)) if self._rim else wide.own
        zone = dilate_masks(near_by, tuple(max(self._ring, min(step)) / side for side in step)) & ~near_by
        around = Region(zone & (wide.mask == 0), step)
        near = PaddedStack.of(around) if "ring_texture" in self._groups else None
        found = {"ring_covered": _share(zone & (wide.mask > 0), zone & (wide.mask >= 0))}
        for number, channel in enumerate(channels):
            outer = Channel(around, np.ascontiguousarray(wide.pixels[:, number]))
            if "ring" in self._groups:
                found |= _keyed(ring(channel, outer), number)
            if near is not None:
                found |= _keyed({f"ring_{name}": values for name, values in texture(outer, near).items()}, number)
        return found

    def _position(self, members: Integers) -> dict[str, Floats]:
        centers = self._centers[members]
        found = {
            f"position_{axis}": place * step
            for axis, place, step in zip("zyx"[-len(self._step) :], centers.T, self._step, strict=True)
        }
        nearest = np.minimum(centers + 0.5, self._shape - 0.5 - centers) * self._step
        return found | {"border_distance": nearest[:, self._shape > 1].min(axis=1, initial=np.inf)}

    @property
    def _looks_around(self) -> bool:
        return bool(self._groups & {"ring", "ring_texture"})

    def _reach(self, stride: int) -> Integers:
        """Return how many pixels that are read the ring is wide along each axis, 0 where there is none."""
        if not self._looks_around:
            return np.zeros(len(self._step), np.int64)
        step = self._step * stride
        reach: Integers = np.floor(max(self._ring, step.min()) / step + 1e-9).astype(np.int64) + self._rim
        return reach


def _strides(sides: Integers) -> Integers:
    """Return how many pixels to step along each axis so that a box (n, ndim) holds at most `MAX_BOX_VOXELS`."""
    strides = np.ones(len(sides), np.int64)
    while (large := np.prod(-(-sides // strides[:, None]), axis=1) > MAX_BOX_VOXELS).any():
        strides[large] += 1
    return strides


def _alike(sides: Integers) -> Iterator[Integers]:
    """Yield the positions of boxes (n, ndim) of about the same shape, a stack of them at a time."""
    quantum = np.maximum(2, 2 ** np.floor(np.log2(np.maximum(sides, 1)) - 2)).astype(np.int64)
    rounded = -(-sides // quantum) * quantum
    order = np.lexsort(rounded.T[::-1])
    changes = np.flatnonzero((np.diff(rounded[order], axis=0) != 0).any(axis=1)) + 1
    for some in np.split(order, changes):
        count = max(1, STACK_VOXELS // int(rounded[some[0]].prod()))
        yield from np.split(some, range(count, len(some), count))


def _cut(image: NDArray[Any], mask: NDArray[Any], labels: Integers, first: Integers, box: Integers) -> _Stack:
    """Cut boxes that begin at ``first`` (n, ndim) and may reach beyond what was read."""
    shape = np.array(mask.shape)
    masks = np.full((len(labels), *box), OUTSIDE, np.int64)
    pixels = np.zeros((len(labels), len(image), *box), np.float32)
    low, high = np.maximum(first, 0), np.minimum(first + box, shape)
    for number, (begin, start, stop) in enumerate(zip(first, low, high, strict=True)):
        there, here = index_last_axes(map(slice, start, stop)), index_last_axes(map(slice, start - begin, stop - begin))
        masks[number][here] = mask[there]
        pixels[number][here] = image[there]
    return _Stack(labels, masks, to_finite_float32(pixels))


def _without_rim(own: NDArray[np.bool_], rim: int) -> NDArray[np.bool_]:
    """Narrow the masks (n, *box) of objects that may touch the sides of their boxes."""
    ndim = own.ndim - 1
    wide = np.pad(own, [(0, 0), *[(1, 1)] * ndim])
    narrow: NDArray[np.bool_] = erode_masks(wide, (rim,) * ndim)[index_last_axes([slice(1, -1)] * ndim)]
    return narrow


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> Floats:
    count = [np.count_nonzero(pixels.reshape(len(pixels), -1), axis=1) for pixels in (part, whole)]
    return np.where(count[1] > 0, count[0] / np.maximum(count[1], 1), np.nan)


def _keyed(found: dict[str, Floats], channel: int) -> dict[str, Floats]:
    return {f"{name}:{channel}": values for name, values in found.items()}


CACHE_WRITE_BATCH = 10_000  # objects measured before they are kept, unless there are no more


def feature_cache_key(group: str, settings: MeasureSettings) -> str:
    """Return how a memory calls a group: with another ring or rim, what they change is another."""
    key = f"{group}_{settings.ring:g}px" if group.startswith("ring") else group
    return f"{key}_less_{settings.rim}px" if settings.rim and group not in ("shape", "position") else key


def measure(pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings | None = None) -> Iterator[pd.DataFrame]:
    """Measure objects, block after block.

    Parameters
    ----------
    pair : ImagePair
        With a ``feature_cache``, only what is not in it is measured, and it is kept there, also when this generator
        is closed.
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    settings : MeasureSettings, optional
        Which groups are measured; all that ``groups`` names, whatever ``may_use`` says.

    Yields
    ------
    DataFrame
        One row an object, index ``object``, one float32 column for each of `core.features.catalog.columns`, called by
        its key. Lengths are in units of the finest side of a pixel (`finest_pixel_size_um`). What cannot be told is
        NaN: the
        ring of an object without surroundings, the texture of a flat one. An object whose box holds more than four
        million pixels is measured on an even selection of them.
    """
    settings = settings or MeasureSettings()
    if pair.feature_cache is None:
        yield from measure_objects(pair, objects, settings)
        return
    keys = [column.key for column in columns(pair.ndim, len(pair.channels), settings.groups)]
    known = {group: pair.feature_cache.get_features(feature_cache_key(group, settings)) for group in settings.groups}
    missing = pd.DataFrame({group: ~objects.index.isin(table.index) for group, table in known.items()}, objects.index)
    for pattern, rows in missing.groupby(list(known)):
        absent = [group for group, lacks in zip(known, pattern, strict=True) if lacks]
        there = [table for group, table in known.items() if group not in absent]
        for table in _kept(pair, pair.feature_cache, objects.loc[rows.index], settings.changed(groups=tuple(absent))):
            yield pd.concat([table, *(one.loc[table.index] for one in there)], axis=1)[keys]


def _kept(
    pair: ImagePair, feature_cache: FeatureCache, objects: pd.DataFrame, settings: MeasureSettings
) -> Iterator[pd.DataFrame]:
    """Measure groups of some objects, and keep them."""
    groups = settings.groups
    if not groups:
        yield objects[[]]
        return
    keys = {group: [c.key for c in columns(pair.ndim, len(pair.channels), [group])] for group in groups}
    fresh: list[pd.DataFrame] = []

    def keep() -> None:
        if fresh:
            table = pd.concat(fresh)
            for group in groups:
                feature_cache.add_features(feature_cache_key(group, settings), table[keys[group]])
            fresh.clear()

    try:
        for table in measure_objects(pair, objects, settings):
            fresh.append(table)
            if sum(map(len, fresh)) >= CACHE_WRITE_BATCH:
                keep()
            yield table
    finally:  # also of a stop, or of an error in a later block
        keep()


def finest_pixel_size_um(pair: ImagePair) -> float | None:
    """Return how many micrometres the finest side of a pixel is long, None where the spacing is not known."""
    return min(pair.spacing) if pair.spacing else None


def in_um(
    table: pd.DataFrame, found: Sequence[FeatureColumn], channels: Sequence[str], unit: float | None
) -> pd.DataFrame:
    """Return what `measure` yields for people: columns called by channel and unit; in micrometres with ``unit``."""
    factors = np.array([(unit or 1.0) ** column.measurement.power for column in found])
    values = table[[column.key for column in found]].to_numpy(np.float64) * factors
    names = [column.name(channels, unit is not None) for column in found]
    return pd.DataFrame(values.astype(np.float32), table.index, names)


def allowed_feature_columns(ndim: int, channels: int, settings: MeasureSettings) -> tuple[FeatureColumn, ...]:
    """Return the measurements of ``settings.groups`` that use no other evidence than ``settings.may_use``."""
    return columns(ndim, channels, settings.groups, settings.may_use)


def iter_features(
    pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings, unit: Literal["px", "um"] = "px"
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield labels (n,) and allowed features (n, m) of objects, undefined values as 0.

    Parameters
    ----------
    unit : "px" or "um"
        Of lengths; micrometres need an image with known spacing.
    """
    found = allowed_feature_columns(pair.ndim, len(pair.channels), settings)
    scale = finest_pixel_size_um(pair) if unit == "um" else None
    for table in measure(pair, objects, settings):
        values = in_um(table, found, pair.channels, scale).to_numpy(np.float32)
        yield table.index.to_numpy(np.int64), np.where(np.isnan(values), np.float32(0), values)
