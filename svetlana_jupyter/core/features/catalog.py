"""Catalog of all measurements, with the cues that each measurement uses.

``catalog.csv`` lists one measurement per line; if the column ``images`` is empty, the measurement is defined in 2D and
3D. Cues are the kinds of information that a user can forbid a classifier to use, such as brightness.

The meaning of a name never changes. If the numbers under an existing name change, increase `VERSION`, so that stored
measurements are computed again. New measurements need no new version: stored tables without them are computed again.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd

from svetlana_jupyter.core.features.patch_catalog import (
    ORIENTED_FEATURES,
    OWN_BRIGHTNESS,
    blob_names,
    describe_blob_feature,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

VERSION = 1

QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
PIXEL_DISTANCES = (1, 2, 4)  # distances between pixels whose gray levels are compared, in pixels
PARTS = (8, 4, 2)  # distances between compared pixels: 1/8, 1/4 and 1/2 of the diameter of an object
BLUR_SCALES = (1, 2, 4)  # standard deviations of the Gaussian blurs whose differences are the detail, in pixels
LBP_KINDS = 10  # classes of uniform local binary patterns with eight neighbors

Cue = Literal["surroundings", "brightness", "orientation", "size"]
Group = Literal["shape", "intensity", "texture", "ring", "ring_texture", "orientation", "position", "blob", "oriented"]
GROUPS: tuple[Group, ...] = get_args(Group)
CUES: tuple[Cue, ...] = get_args(Cue)
_ANNULUS_CUES: frozenset[Cue] = frozenset(("surroundings", "size"))


@dataclass(frozen=True)
class Measurement:
    """Measurement of objects, with its meaning and the cues that it uses.

    Attributes
    ----------
    name : str
    group : str
        One of `GROUPS`.
    meaning : str
        Definition in words.
    uses : frozenset of str
        Cues (`CUES`) that the measurement uses. Without *surroundings*, it is computed from the object's own pixels
        alone. Without *brightness*, it is invariant to scaling and shifting the values of all pixels of the object, or
        of all pixels around the object. Without *orientation*, it is invariant to rotation and mirroring. Without
        *size*, it is invariant to magnification, apart from sampling. Size is used by an annulus whose width is in
        pixels, and by everything that depends on the number of pixels: extremes, tails of the distribution, the surface
        of few voxels.
    unit : str
        "" for fractions and ratios, "length", "area", "volume", "intensity", "intensity × pixels" or "degrees".
    by_channel : bool
        Whether there is one value per channel.
    ndim : 2, 3 or None
        Number of dimensions of the images for which the measurement is defined; None for 2 and 3.
    """

    name: str
    group: Group
    meaning: str
    uses: frozenset[Cue] = frozenset()
    unit: str = ""
    by_channel: bool = False
    ndim: int | None = None

    @property
    def power(self) -> int:
        """Exponent of length in the unit: 1 for a length, 2 for an area, 3 for a volume."""
        return {"length": 1, "area": 2, "volume": 3}.get(self.unit, 0)


@dataclass(frozen=True)
class FeatureColumn:
    """Feature column: measurement of one channel, or of the mask (``channel`` None)."""

    measurement: Measurement
    channel: int | None = None

    @property
    def key(self) -> str:
        """Name, followed by the channel number if there is one: ``area``, ``mean:0``."""
        return self.measurement.name if self.channel is None else f"{self.measurement.name}:{self.channel}"

    def name(self, channels: Sequence[str], in_um: bool) -> str:
        """Return the name with channel and unit, such as ``area_um2`` or ``dna_mean``."""
        power = self.measurement.power if in_um else 0
        unit = f"_um{power if power > 1 else ''}" if power else ""
        channel = "" if self.channel is None else f"{channels[self.channel]}_"
        return f"{channel}{self.measurement.name}{unit}"


def columns(
    ndim: int, channels: int, groups: Iterable[str] = GROUPS, may_use: Iterable[str] = CUES
) -> tuple[FeatureColumn, ...]:
    """Return the columns of a feature table, in order.

    Parameters
    ----------
    ndim : 2 or 3
        Number of dimensions of the image.
    channels : int
        Number of channels.
    groups : iterable of str
        Groups of measurements, from `GROUPS`.
    may_use : iterable of str
        Allowed cues; measurements that use any other cue are left out.
    """
    groups, may_use = set(groups), set(may_use)
    chosen = [m for m in MEASUREMENTS if m.group in groups and m.uses <= may_use and m.ndim in (None, ndim)]
    whole = [FeatureColumn(m) for m in chosen if not m.by_channel]
    return (*whole, *(FeatureColumn(m, channel) for channel in range(channels) for m in chosen if m.by_channel))


def describe_measurements() -> pd.DataFrame:
    """Return a table of all measurements.

    Returns
    -------
    DataFrame
        Indexed by ``name``: ``group``, ``unit``, ``uses`` (comma separated), ``by_channel``, ``images`` ("2D", "3D" or
        "2D and 3D"), ``meaning``. The columns of `Project.measure` have these names, with the channel name as prefix if
        ``by_channel`` is True, and with ``_um``, ``_um2`` or ``_um3`` as suffix for lengths, areas and volumes if the
        pixel size is known.

    Examples
    --------
    >>> describe_measurements().loc["eccentricity", ["group", "images"]].tolist()
    ['shape', '2D']
    """
    table = pd.DataFrame(MEASUREMENTS).set_index("name")
    table["uses"] = [", ".join(cue for cue in CUES if cue in m.uses) for m in MEASUREMENTS]
    table["images"] = [f"{m.ndim}D" if m.ndim else "2D and 3D" for m in MEASUREMENTS]
    return table[["group", "unit", "uses", "by_channel", "images", "meaning"]]


def _read_catalog() -> Iterator[Measurement]:
    """Yield the measurements in ``catalog.csv`` and those that are derived."""
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            group: Group = row["group"]  # type: ignore[assignment]
            cues: frozenset[Cue] = frozenset(row["cues"].split())  # type: ignore[arg-type]
            ndim = int(row["images"][0]) if row["images"] else None
            m = Measurement(row["name"], group, row["meaning"], cues, row["unit"], row["by_channel"] == "yes", ndim)
            yield m
            if group == "texture":
                meaning = f"{m.meaning}; measured on the background pixels in the surrounding annulus"
                uses = m.uses | _ANNULUS_CUES
                yield replace(m, name=f"ring_{m.name}", group="ring_texture", uses=uses, meaning=meaning)
    yield from _patch_measurements()


def _patch_measurements() -> Iterator[Measurement]:
    """Yield the measurements of objects resampled to patches of their own size."""
    where = "; each channel is standardized within the object, whose longest side is resampled to {} patch pixels"
    names = {ndim: blob_names(ndim)[OWN_BRIGHTNESS:] for ndim in (2, 3)}
    for name in names[2] + tuple(name for name in names[3] if name not in names[2]):
        ndim = None if name in names[2] and name in names[3] else 2 if name in names[2] else 3
        sides = {2: "37", 3: "22", None: "37 (3D: 22)"}[ndim]
        meaning = describe_blob_feature(name) + where.format(sides)
        yield Measurement(f"blob_{name}", "blob", meaning, frozenset(("size",)), by_channel=True, ndim=ndim)
    for name, meaning in ORIENTED_FEATURES.items():
        uses: frozenset[Cue] = frozenset(("orientation", "size"))
        yield Measurement(f"gabor_{name}", "oriented", meaning + where.format(37), uses, by_channel=True, ndim=2)


# Tables have their columns in this order, and saved random forests expect their features in it.
MEASUREMENTS: tuple[Measurement, ...] = tuple(sorted(_read_catalog(), key=lambda m: GROUPS.index(m.group)))
