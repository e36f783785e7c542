"""Measuring objects as `core.measures.table` lists, each of them once.

Where an image brings a memory, what was measured before is taken from there, and what is new is kept in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from svetlana_jupyter.core.measure_settings import MeasureSettings
from svetlana_jupyter.core.measures.objects import measure_objects
from svetlana_jupyter.core.measures.table import FeatureColumn, columns

if TYPE_CHECKING:
    from svetlana_jupyter.core.pairing import ImagePair

CACHE_WRITE_BATCH = 10_000  # objects measured before they are kept, unless there are no more


class FeatureCache(Protocol):
    """Where what was measured of the objects of one image is kept, by group (`feature_cache_key`)."""

    def recall(self, key: str) -> pd.DataFrame:
        """Return what is known of a group of measurements: `measure`'s columns, one row an object."""
        ...

    def keep(self, key: str, table: pd.DataFrame) -> None:
        """Add objects of which this group was not known."""
        ...


def feature_cache_key(group: str, settings: MeasureSettings) -> str:
    """Return how a memory calls a group: with another ring or rim, what they change is another."""
    key = f"{group}_{settings.ring:g}px" if group.startswith("ring") else group
    return f"{key}_less_{settings.rim}px" if settings.rim and group not in ("shape", "position") else key


def measure(pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings | None = None) -> Iterator[pd.DataFrame]:
    """Measure objects, block after block.

    Parameters
    ----------
    pair : ImagePair
        With a ``feature_cache``, only what is not in it is measured, and it is kept there, also when this generator is closed.
    objects : DataFrame
        Rows of `core.objects.index_objects`.
    settings : MeasureSettings, optional
        Which groups are measured; all that ``groups`` names, whatever ``may_use`` says.

    Yields
    ------
    DataFrame
        One row an object, index ``object``, one float32 column for each of `core.measures.table.columns`, called by
        its key. Lengths are in units of the finest side of a pixel (`finest_pixel_size_um`). What cannot be told is NaN: the
        ring of an object without surroundings, the texture of a flat one. An object whose box holds more than four
        million pixels is measured on an even selection of them.
    """
    settings = settings or MeasureSettings()
    if pair.feature_cache is None:
        yield from measure_objects(pair, objects, settings)
        return
    keys = [column.key for column in columns(pair.ndim, len(pair.channels), settings.groups)]
    known = {group: pair.feature_cache.recall(feature_cache_key(group, settings)) for group in settings.groups}
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
                feature_cache.keep(feature_cache_key(group, settings), table[keys[group]])
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


def features(ndim: int, channels: int, settings: MeasureSettings) -> tuple[FeatureColumn, ...]:
    """Return the measurements of ``settings.groups`` that use no other evidence than ``settings.may_use``."""
    return columns(ndim, channels, settings.groups, settings.may_use)


def iter_features(
    pair: ImagePair, objects: pd.DataFrame, settings: MeasureSettings, unit: Literal["px", "um"] = "px"
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield what a forest sees of objects: labels (n,) and the `features` (n, m), 0 for what cannot be told.

    Parameters
    ----------
    unit : "px" or "um"
        Of lengths; micrometres need an image with known spacing.
    """
    found = features(pair.ndim, len(pair.channels), settings)
    scale = finest_pixel_size_um(pair) if unit == "um" else None
    for table in measure(pair, objects, settings):
        values = in_um(table, found, pair.channels, scale).to_numpy(np.float32)
        yield table.index.to_numpy(np.int64), np.where(np.isnan(values), np.float32(0), values)
