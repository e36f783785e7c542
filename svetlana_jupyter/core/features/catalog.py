"""Everything that is measured: its name, its unit, what it means, and which evidence it uses.

A name never changes its meaning. `VERSION` counts up when numbers under a known name do change, so that what was
measured before is measured again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import pandas as pd

VERSION = 1

QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
PIXEL_DISTANCES = (1, 2, 4)  # of the pixels whose grey levels are compared
PARTS = (8, 4, 2)  # of an object's diameter, as other distances between pixels
BLUR_SCALES = (1, 2, 4)  # of the blurs that take away detail
LBP_KINDS = 10  # kinds of local binary patterns with eight neighbours

Cue = Literal["surroundings", "brightness", "orientation", "size"]
Group = Literal["shape", "intensity", "texture", "ring", "ring_texture", "orientation", "position"]
GROUPS: tuple[Group, ...] = get_args(Group)
CUES: tuple[Cue, ...] = get_args(Cue)
FINE_FRACTIONS = (8, 4)  # parts of a diameter: in small objects hardly a pixel


@dataclass(frozen=True)
class Measurement:
    """One measurement.

    Attributes
    ----------
    name : str
    group : str
        One of `GROUPS`.
    meaning : str
    uses : frozenset of str
        Which of `CUES` it uses. What does not use *surroundings* is computed from the object's own pixels alone;
        what does not use *brightness* stays the same when all values of the object, or all around it, are multiplied
        and shifted; what does not use *orientation*, when everything is turned or mirrored; what does not use *size*,
        but for the coarseness of pixels, when everything is enlarged: a ring of so many pixels uses it, and what
        depends on how many pixels there are (the least of them, tails of their distribution, a surface of few voxels).
    unit : str
        "" for shares and ratios, "length", "area", "volume", "intensity", "intensity × pixels" or "degrees".
    by_channel : bool
        Whether there is one for each channel.
    ndim : 2, 3 or None
        Dimensions of the images that it exists for; None for both.
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
        """How often a length is a factor of it."""
        return {"length": 1, "area": 2, "volume": 3}.get(self.unit, 0)


@dataclass(frozen=True)
class FeatureColumn:
    """A measurement of one channel, or of the mask (``channel`` None)."""

    measurement: Measurement
    channel: int | None = None

    @property
    def key(self) -> str:
        """How it is called where channels go by number: ``area``, ``mean:0``."""
        return self.measurement.name if self.channel is None else f"{self.measurement.name}:{self.channel}"

    def name(self, channels: Sequence[str], in_um: bool) -> str:
        """Return how it is called in a table for people: ``area_um2``, ``dna_mean``."""
        power = self.measurement.power if in_um else 0
        unit = f"_um{power if power > 1 else ''}" if power else ""
        channel = "" if self.channel is None else f"{channels[self.channel]}_"
        return f"{channel}{self.measurement.name}{unit}"


def columns(
    ndim: int, channels: int, groups: Iterable[str] = GROUPS, may_use: Iterable[str] = CUES
) -> tuple[FeatureColumn, ...]:
    """Return what is measured of an object, in the order of the table.

    Parameters
    ----------
    ndim : 2 or 3
    channels : int
        Number of channels.
    groups : iterable of str
        Of `GROUPS`.
    may_use : iterable of str
        Evidence that may count: a measurement that uses any other is left out.
    """
    groups, may_use = set(groups), set(may_use)
    chosen = [one for one in MEASUREMENTS if one.group in groups and one.uses <= may_use and one.ndim in (None, ndim)]
    whole = [FeatureColumn(one) for one in chosen if not one.by_channel]
    return (*whole, *(FeatureColumn(one, channel) for channel in range(channels) for one in chosen if one.by_channel))


def describe_measurements() -> pd.DataFrame:
    """Return the table of all measurements.

    Returns
    -------
    DataFrame
        Indexed by ``name``: ``group``, ``unit``, ``uses`` (comma separated), ``by_channel``, ``images`` ("2D", "3D" or
        "2D and 3D"), ``meaning``. A column of `Project.measure` is called by the name, with the channel's name before
        it where there is one for each channel, and ``_um``, ``_um2`` or ``_um3`` behind it for lengths, areas and
        volumes where the size of a pixel is known.

    Examples
    --------
    >>> describe_measurements().loc["eccentricity", ["group", "images"]].tolist()
    ['shape', '2D']
    """
    rows = [
        {
            "name": one.name,
            "group": one.group,
            "unit": one.unit,
            "uses": ", ".join(name for name in CUES if name in one.uses),
            "by_channel": one.by_channel,
            "images": f"{one.ndim}D" if one.ndim else "2D and 3D",
            "meaning": one.meaning,
        }
        for one in MEASUREMENTS
    ]
    return pd.DataFrame(rows).set_index("name")


def _of(group: Group, *entries: tuple[str, str, str, str], by_channel: bool = False) -> list[Measurement]:
    """Build the entries (name, unit, evidence, meaning) of a group; "2D " or "3D " before a name limits it."""
    found = []
    for name, unit, uses, meaning in entries:
        ndim = int(name[0]) if name[1:3] == "D " else None
        evidence: frozenset[Cue] = frozenset(uses.split())  # type: ignore[arg-type]
        found.append(Measurement(name[3:] if ndim else name, group, meaning, evidence, unit, by_channel, ndim))
    return found


_SHAPE = _of(
    "shape",
    ("2D area", "area", "size", "area of its pixels"),
    ("3D volume", "volume", "size", "volume of its voxels"),
    ("equivalent_diameter", "length", "size", "diameter of the disc or ball of the same area or volume"),
    ("axis_major", "length", "size", "longest axis of the ellipse or ellipsoid with the same second moments"),
    ("3D axis_middle", "length", "size", "middle axis of that ellipsoid"),
    (
        "axis_minor",
        "length",
        "size",
        "shortest axis of that ellipse or ellipsoid; pixels are little bricks, so never 0",
    ),
    ("2D eccentricity", "", "", "of that ellipse: 0 for a circle, towards 1 for a line"),
    ("elongation", "", "", "1 less the shortest over the longest axis: 0 if round, towards 1 if drawn out"),
    ("3D flatness", "", "size", "1 less the shortest over the middle axis: 0 for a rod, towards 1 for a sheet"),
    ("2D perimeter", "length", "size", "length of the outline (Crofton, 4 directions)"),
    ("3D surface", "area", "size", "area of the surface (Crofton, 13 directions)"),
    ("2D form_factor", "", "", "4π area / perimeter²: 1 for a disc, less the more the outline winds"),
    ("3D sphericity", "", "size", "surface of the ball of the same volume over the surface: 1 for a ball"),
    ("solidity", "", "", "share of the pixels in its convex hull that are its own"),
    ("radius_max", "length", "size", "largest distance of a pixel from the centroid, and half a pixel"),
    ("radius_variation", "", "", "deviation of that distance over its mean; not known of a single pixel"),
    ("roundness", "", "size", "area or volume over that of the disc or ball of the largest radius"),
)

_QUANTILES = tuple(
    (name, "intensity", "brightness", f"{share:.0%} of its pixels are at most this bright".replace("50%", "half"))
    for name, share in QUANTILES.items()
)

_INTENSITY = _of(
    "intensity",
    ("mean", "intensity", "brightness", "mean of its pixels"),
    ("sd", "intensity", "brightness", "their standard deviation"),
    ("min", "intensity", "brightness size", "the least of them"),
    ("max", "intensity", "brightness size", "the largest of them"),
    *_QUANTILES,
    ("total", "intensity × pixels", "brightness size", "their sum"),
    ("skewness", "", "", "of their distribution: above 0 where a few are bright"),
    ("kurtosis", "", "size", "of their distribution, 0 for a normal one: above where it has long tails"),
    ("peak", "", "size", "largest less mean, in deviations"),
    ("rim", "", "size", "mean of the outermost pixels less that of all, in deviations"),
    ("radial_trend", "", "", "correlation of brightness with the distance from the centroid: -1 for a bright middle"),
    (
        "concentration",
        "",
        "size",
        "mean distance from the centroid, weighted by brightness above the least, over the plain",
    ),
    ("center_shift", "", "size", "distance from the centroid to that weighted by brightness, over the mean radius"),
    by_channel=True,
)

_TEXTURE = _of(
    "texture",
    *(
        (f"{name}_{distance}", "", "size", f"{meaning}, of pixels about {distance} px apart (grey levels in common)")
        for distance in PIXEL_DISTANCES
        for name, meaning in (
            ("contrast", "mean squared difference of grey levels"),
            ("correlation", "correlation of grey levels"),
            ("homogeneity", "mean of 1 / (1 + squared difference of grey levels)"),
            ("entropy", "bits that describe a pair of grey levels"),
        )
    ),
    *(
        (
            f"grain_{part}",
            "",
            "size" if part in FINE_FRACTIONS else "",
            f"half the mean squared difference of pixels 1/{part} of its diameter apart",
        )
        for part in PARTS
    ),
    *(
        (
            f"lbp_{kind}",
            "",
            "size",
            "share of its inner pixels with "
            + (f"{kind} neighbours at least as bright, side by side" if kind < LBP_KINDS - 1 else "any other pattern"),
        )
        for kind in range(LBP_KINDS)
    ),
    *(
        (f"{name}_{scale}", "", "size", f"{meaning} detail that a blur of {scale} px takes away, after the one before")
        for scale in BLUR_SCALES
        for name, meaning in (
            ("detail", "deviation of the"),
            ("detail_skewness", "skewness of the"),
            ("detail_peak", "largest value, in its own deviations, of the"),
        )
    ),
    by_channel=True,
)

_RING = [
    *_of(
        "ring",
        ("ring_covered", "", "surroundings size", "share of the ring around it that other objects cover"),
    ),
    *_of(
        "ring",
        (
            "ring_mean",
            "intensity",
            "surroundings brightness size",
            "mean of the pixels around it that belong to no object",
        ),
        ("ring_sd", "intensity", "surroundings brightness size", "their standard deviation"),
        ("ring_median", "intensity", "surroundings brightness size", "their median"),
        ("ring_contrast", "intensity", "surroundings brightness size", "mean of the object less mean of the ring"),
        ("ring_ratio", "", "surroundings brightness size", "mean of the object over mean of the ring"),
        (
            "ring_step",
            "",
            "surroundings brightness size",
            "mean of the object less mean of the ring, in deviations of the object",
        ),
        ("ring_roughness", "", "surroundings brightness size", "deviation in the ring over that in the object"),
        ("ring_skewness", "", "surroundings size", "skewness of the pixels of the ring"),
        by_channel=True,
    ),
]

_RING_TEXTURE = [
    replace(
        one,
        name=f"ring_{one.name}",
        group="ring_texture",
        uses=one.uses | {"surroundings", "size"},
        meaning=f"{one.meaning}; of the pixels around the object that belong to no object",
    )
    for one in _TEXTURE
]

_TENSOR = (("3D ", "zz"), ("3D ", "zy"), ("3D ", "zx"), ("", "yy"), ("", "yx"))

_ORIENTATION = [
    *_of(
        "orientation",
        ("2D angle", "degrees", "orientation", "of the longest axis against the rows, towards higher rows; 0 to 180"),
        ("extent", "", "orientation", "share of its bounding box that it fills"),
        *((f"{only}shape_{pair}", "", "orientation", f"part {pair} of its second moments") for only, pair in _TENSOR),
    ),
    *_of(
        "orientation",
        *(
            (f"{only}gradient_{pair}", "", "orientation", f"part {pair} of the squared slopes of its texture")
            for only, pair in _TENSOR
        ),
        *(
            (name, "", "orientation size", f"how far brightness moves its centroid along {axis}, over the mean radius")
            for name, axis in (("3D shift_z", "z"), ("shift_y", "y"), ("shift_x", "x"))
        ),
        by_channel=True,
    ),
]

_POSITION = _of(
    "position",
    *(
        (name, "length", "surroundings orientation", f"place of its centroid along {axis} in the image")
        for name, axis in (("3D position_z", "z"), ("position_y", "y"), ("position_x", "x"))
    ),
    ("border_distance", "length", "surroundings", "from its centroid to the nearest border of the image"),
)

MEASUREMENTS: tuple[Measurement, ...] = (
    *_SHAPE,
    *_INTENSITY,
    *_TEXTURE,
    *_RING,
    *_RING_TEXTURE,
    *_ORIENTATION,
    *_POSITION,
)
