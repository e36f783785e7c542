"""Measurement of the features of `core.features.catalog`, block by block.

Each chunk of image and mask is decoded once; only the pixels around the objects of one block and one stack of objects
are held in memory. If an image has a feature cache, cached features are reused, and new features are cached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from svetlana_jupyter.core.features.catalog import FeatureColumn, columns
from svetlana_jupyter.core.features.crops import OUTSIDE, Crops, Integers, ObjectBoxes, crop_objects
from svetlana_jupyter.core.features.intensity import ObjectChannel, annulus_features, intensity_features
from svetlana_jupyter.core.features.patch_features import group_features
from svetlana_jupyter.core.features.region import Floats, ObjectStack
from svetlana_jupyter.core.features.shape import shape_features
from svetlana_jupyter.core.features.texture import (
    PaddedStack,
    orientation_features,
    texture_features,
    texture_orientation_features,
)
from svetlana_jupyter.core.io.chunks import ArrayRegion, index_last_axes, read_regions
from svetlana_jupyter.core.normalization import dilate_masks, erode_masks
from svetlana_jupyter.core.settings import MeasureSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from svetlana_jupyter.core.io.image_pair import FeatureCache, ImagePair


CACHE_WRITE_BATCH = 10_000  # objects measured between two writes to the cache


def measure(pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings | None = None) -> Iterator[pd.DataFrame]:
    """Measure the features of objects, block by block.

    Parameters
    ----------
    pair : ImagePair
        Image to measure. If it has a ``feature_cache``, only the features that the cache lacks are measured. They are
        added to the cache, even if this generator is closed early.
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    settings : MeasureSettings, optional
        ``groups`` selects the groups to measure; ``may_use`` is ignored.

    Yields
    ------
    DataFrame
        One row per object, index ``object``, one float32 column per entry of `core.features.catalog.columns`, named by
        its key. Lengths are in units of the shortest side of a pixel. Undefined values are NaN, such as the annulus of
        an object without surroundings, the texture of a constant object, or the brightness of an object with NaN or
        infinite pixels; outside the objects, such pixels count as 0. Objects whose bounding box contains more
        than `crops.MAX_BOX_VOXELS` pixels are subsampled evenly.
    """
    settings = settings or MeasureSettings()
    if pair.feature_cache is None:
        yield from measure_objects(pair, objects, settings)
        return
    keys = [column.key for column in columns(pair.ndim, len(pair.channels), settings.groups)]
    cached = {group: cached_features(pair, group, settings) for group in settings.groups}
    missing = pd.DataFrame({group: ~objects.index.isin(table.index) for group, table in cached.items()}, objects.index)
    # Objects that lack the same groups are measured together.
    for pattern, rows in missing.groupby(list(cached)):
        absent = tuple(group for group, lacks in zip(cached, pattern, strict=True) if lacks)
        present = [table for group, table in cached.items() if group not in absent]
        absent_settings = settings.changed(groups=absent)
        for table in _measure_into_cache(pair, pair.feature_cache, objects.loc[rows.index], absent_settings):
            yield pd.concat([table, *(features.loc[table.index] for features in present)], axis=1)[keys]


def cached_features(pair: ImagePair, group: str, settings: MeasureSettings) -> pd.DataFrame:
    """Return the cached features of a group, indexed by object.

    The table is empty if the image has no cache, or if a measurement was added to the group after the cached table was
    written.
    """
    keys = _group_keys(pair, group)
    if pair.feature_cache is not None:
        table = pair.feature_cache.get_features(feature_cache_key(group, settings))
        if set(keys) <= set(table.columns):
            return table
    return pd.DataFrame(index=pd.Index([], dtype="int64", name="object"), columns=keys, dtype=np.float32)


def feature_cache_key(group: str, settings: MeasureSettings) -> str:
    """Return the cache key of a group: its name and the settings that affect it."""
    key = f"{group}_{settings.ring:g}px" if group.startswith("ring") else group
    return f"{key}_less_{settings.rim}px" if settings.rim and group not in ("shape", "position") else key


def _group_keys(pair: ImagePair, group: str) -> list[str]:
    return [column.key for column in columns(pair.ndim, len(pair.channels), [group])]


def _measure_into_cache(
    pair: ImagePair, cache: FeatureCache, objects: pd.DataFrame, settings: MeasureSettings
) -> Iterator[pd.DataFrame]:
    """Yield the features of objects, and add them to the cache in batches."""
    if not settings.groups:
        yield objects[[]]
        return
    unsaved: list[pd.DataFrame] = []

    def save(batch: int) -> None:
        if sum(map(len, unsaved)) >= batch:
            table = pd.concat(unsaved)
            for group in settings.groups:
                cache.add_features(feature_cache_key(group, settings), table[_group_keys(pair, group)])
            unsaved.clear()

    try:
        for table in measure_objects(pair, objects, settings):
            unsaved.append(table)
            save(CACHE_WRITE_BATCH)
            yield table
    finally:  # also after a stop, or an error in a later block
        save(1)


def in_um(table: pd.DataFrame, chosen: Sequence[FeatureColumn], pair: ImagePair) -> pd.DataFrame:
    """Convert columns of a table of `measure` to named columns in micrometers.

    Lengths stay in pixels if the pixel size is unknown.
    """
    pixel_size = min(pair.spacing) if pair.spacing else None
    factors = np.array([(pixel_size or 1.0) ** column.measurement.power for column in chosen])
    values = table[[column.key for column in chosen]].to_numpy(np.float64) * factors
    names = [column.name(pair.channels, pixel_size is not None) for column in chosen]
    return pd.DataFrame(values.astype(np.float32), table.index, names)


def iter_features(
    pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings, unit: Literal["px", "um"] = "px"
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield labels (n,) and the features (n, m) of a random forest, 0 if undefined.

    Parameters
    ----------
    pair : ImagePair
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    settings : MeasureSettings
        ``groups`` and the allowed cues ``may_use`` select the features.
    unit : "px" or "um"
        Unit of length; micrometers require an image whose pixel size is known.
    """
    chosen = columns(pair.ndim, len(pair.channels), settings.groups, settings.may_use)
    for table in measure(pair, objects, settings):
        values = (in_um(table, chosen, pair) if unit == "um" else table[[c.key for c in chosen]]).to_numpy(np.float32)
        yield table.index.to_numpy(np.int64), np.where(np.isnan(values), np.float32(0), values)


def measure_objects(pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings) -> Iterator[pd.DataFrame]:
    """Measure the features of objects without using a cache; see `measure`."""
    measurer = _Measurer(pair, objects, settings)
    batches = list(measurer.batches())
    regions = [region for _, region in batches]
    pixels, masks = read_regions(pair.image, regions), read_regions(pair.mask, regions)
    for (members, region), image, mask in zip(batches, pixels, masks, strict=True):
        yield measurer.measure(members, region, image, mask)


def feature_regions(pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings) -> list[ArrayRegion]:
    """Return the regions of an image that `measure_objects` reads."""
    return [region for _, region in _Measurer(pair, objects, settings).batches()]


class _Measurer:
    """Measurement of the objects of one image with the given settings."""

    def __init__(self, pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings) -> None:
        self._objects = ObjectBoxes(pair, objects)
        self._groups = set(settings.groups)
        self._annulus_width, self._margin = settings.ring, settings.rim
        self._needs_annulus = not self._groups.isdisjoint(("ring", "ring_texture"))
        self._keys = [column.key for column in columns(pair.ndim, len(pair.channels), settings.groups)]
        self._step = self._objects.step

    def batches(self) -> Iterator[tuple[Integers, ArrayRegion]]:
        """Yield row numbers of objects to measure together, and the region to read."""
        return self._objects.batches(self._reach)

    def measure(self, members: Integers, region: ArrayRegion, image: NDArray[Any], mask: NDArray[Any]) -> pd.DataFrame:
        """Measure the objects of one region, given its image and mask pixels."""
        stacks = self._objects.stacks(members, region)
        tables = [self._measure_stack(*stack, region.stride, image, mask) for stack in stacks]
        return pd.concat(tables) if len(tables) > 1 else tables[0]

    def _measure_stack(
        self, members: Integers, first: Integers, last: Integers, stride: int, image: NDArray[Any], mask: NDArray[Any]
    ) -> pd.DataFrame:
        box = (last - first).max(axis=0)
        step = tuple((self._step * stride).tolist())
        own, _, planes, invalid = crop_objects(image, mask, self._objects.labels[members], first, box)
        region = ObjectStack(own, step)
        core = ObjectStack(_erode_in_boxes(own, self._margin), step) if self._margin else region
        channels = [ObjectChannel(core, plane) for plane in planes]
        features = shape_features(region) if "shape" in self._groups else {}
        if "orientation" in self._groups:
            features |= orientation_features(region)
        if "position" in self._groups:
            features |= self._position_features(members)
        padded = PaddedStack(core) if "texture" in self._groups else None
        for number, channel in enumerate(channels):
            if "intensity" in self._groups:
                features |= _with_channel(intensity_features(channel), number)
            if padded is not None:
                features |= _with_channel(texture_features(channel, padded), number)
            if "orientation" in self._groups:
                features |= _with_channel(texture_orientation_features(channel), number)
        if self._needs_annulus:
            reach = self._reach(stride)
            wide = crop_objects(image, mask, self._objects.labels[members], first - reach, box + 2 * reach)
            features |= self._annulus_features(wide, channels, step)
        if not self._groups.isdisjoint(("blob", "oriented")):
            planes = [channel.standardized_stack for channel in channels]
            features |= group_features(planes, core.own, last - first, step, self._groups)
        for key in features:
            _, _, of_channel = key.partition(":")
            if of_channel and invalid[int(of_channel)].any():
                features[key] = np.where(invalid[int(of_channel)], np.nan, features[key])
        values = np.stack([np.asarray(features[key], np.float32) for key in self._keys], axis=1)
        return pd.DataFrame(values, pd.Index(self._objects.labels[members], name="object"), self._keys)

    def _annulus_features(
        self, crops: Crops, channels: list[ObjectChannel], step: tuple[float, ...]
    ) -> dict[str, Floats]:
        own, mask, planes, _ = crops
        inner = dilate_masks(own, (self._margin,) * len(step)) if self._margin else own
        width = max(self._annulus_width, min(step))
        zone = dilate_masks(inner, tuple(width / side for side in step)) & ~inner
        annulus = ObjectStack(zone & (mask == 0), step)
        padded = PaddedStack(annulus) if "ring_texture" in self._groups else None
        features = {"ring_covered": _share(zone & (mask > 0), zone & (mask != OUTSIDE))}
        for number, (channel, plane) in enumerate(zip(channels, planes, strict=True)):
            outer = ObjectChannel(annulus, plane)
            if "ring" in self._groups:
                features |= _with_channel(annulus_features(channel, outer), number)
            if padded is not None:
                textures = texture_features(outer, padded)
                features |= _with_channel({f"ring_{name}": values for name, values in textures.items()}, number)
        return features

    def _position_features(self, members: Integers) -> dict[str, Floats]:
        centers, shape = self._objects.centers[members], self._objects.shape
        features = {f"position_{axis}": x for axis, x in zip("zyx"[-len(self._step) :], (centers * self._step).T)}
        distances = np.minimum(centers + 0.5, shape - 0.5 - centers) * self._step
        # A single plane has no border along z.
        return features | {"border_distance": distances[:, shape > 1].min(axis=1, initial=np.inf)}

    def _reach(self, stride: int) -> Integers:
        """Return how many pixels to read around an object for its annulus, per axis."""
        if not self._needs_annulus:
            return np.zeros(len(self._step), np.int64)
        step = self._step * stride
        reach: Integers = np.floor(max(self._annulus_width, step.min()) / step + 1e-9).astype(np.int64) + self._margin
        return reach


def _erode_in_boxes(own: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """Erode object masks (n, *box) that may touch the border of their bounding box."""
    ndim = own.ndim - 1
    padded = np.pad(own, [(0, 0), *[(1, 1)] * ndim])
    return np.asarray(erode_masks(padded, (margin,) * ndim)[index_last_axes([slice(1, -1)] * ndim)])


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> Floats:
    counts, totals = (np.count_nonzero(pixels.reshape(len(pixels), -1), axis=1) for pixels in (part, whole))
    return np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)


def _with_channel(features: dict[str, Floats], channel: int) -> dict[str, Floats]:
    return {f"{name}:{channel}": values for name, values in features.items()}
