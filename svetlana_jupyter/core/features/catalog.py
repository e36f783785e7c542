"""Catalog of all measurements: name, unit, meaning, and the cues that each uses.

A name never changes its meaning. If the numbers under an existing name change, increase `VERSION`, so that stored
measurements are computed again. New measurements need no new version: a stored table that lacks them is completed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import pandas as pd

VERSION = 1

QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
PIXEL_DISTANCES = (1, 2, 4)  # between pixels whose gray levels are compared, in pixels
PARTS = (8, 4, 2)  # distances between pixels as fractions of an object's diameter
BLUR_SCALES = (1, 2, 4)  # of the Gaussian blurs whose difference is the detail, in pixels
LBP_KINDS = 10  # classes of uniform local binary patterns with eight neighbors

Cue = Literal["surroundings", "brightness", "orientation", "size"]
Group = Literal["shape", "intensity", "texture", "ring", "ring_texture", "orientation", "position"]
GROUPS: tuple[Group, ...] = get_args(Group)
CUES: tuple[Cue, ...] = get_args(Cue)


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
        Cues (`CUES`) that it uses. Without *surroundings* it is computed from the object's own pixels alone; without
        *brightness* it is invariant to scaling and shifting all values of the object, or all around it; without
        *orientation* it is invariant to rotation and mirroring; without *size* it is invariant to magnification, apart
        from sampling. An annulus of a width in pixels uses size, and so does all that depends on the number of pixels:
        extremes, tails of the distribution, the surface of few voxels.
    unit : str
        "" for shares and ratios, "length", "area", "volume", "intensity", "intensity × pixels" or "degrees".
    by_channel : bool
        Whether there is one per channel.
    ndim : 2, 3 or None
        Dimensions of the images for which it is defined; None for both.
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
        """Power of length in its unit."""
        return {"length": 1, "area": 2, "volume": 3}.get(self.unit, 0)


@dataclass(frozen=True)
class FeatureColumn:
    """Measurement of one channel, or of the mask (``channel`` None)."""

    measurement: Measurement
    channel: int | None = None

    @property
    def key(self) -> str:
        """Name with the number of the channel: ``area``, ``mean:0``."""
        return self.measurement.name if self.channel is None else f"{self.measurement.name}:{self.channel}"

    def name(self, channels: Sequence[str], in_um: bool) -> str:
        """Return the name with channel name and unit, for tables: ``area_um2``, ``dna_mean``."""
        power = self.measurement.power if in_um else 0
        unit = f"_um{power if power > 1 else ''}" if power else ""
        channel = "" if self.channel is None else f"{channels[self.channel]}_"
        return f"{channel}{self.measurement.name}{unit}"


def columns(
    ndim: int, channels: int, groups: Iterable[str] = GROUPS, may_use: Iterable[str] = CUES
) -> tuple[FeatureColumn, ...]:
    """Return the measurements of an object, in the order of the table.

    Parameters
    ----------
    ndim : 2 or 3
    channels : int
        Number of channels.
    groups : iterable of str
        Of `GROUPS`.
    may_use : iterable of str
        Allowed cues: measurements that use any other are left out.
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
        "2D and 3D"), ``meaning``. `Project.measure` names its columns accordingly: with the channel name as prefix if
        there is one per channel, and with ``_um``, ``_um2`` or ``_um3`` as suffix for lengths, areas and volumes if the
        pixel size is known.

    Examples
    --------
    >>> describe_measurements().loc["eccentricity", ["group", "images"]].tolist()
    ['shape', '2D']
    """
    rows = [
        {
            "name": m.name,
            "group": m.group,
            "unit": m.unit,
            "uses": ", ".join(cue for cue in CUES if cue in m.uses),
            "by_channel": m.by_channel,
            "images": f"{m.ndim}D" if m.ndim else "2D and 3D",
            "meaning": m.meaning,
        }
        for m in MEASUREMENTS
    ]
    return pd.DataFrame(rows).set_index("name")


def _parse(group: Group, by_channel: bool, table: str) -> list[Measurement]:
    """Parse lines of ``name | images | unit | cues | meaning``; empty images mean 2D and 3D."""
    measurements = []
    for line in table.strip().splitlines():
        name, images, unit, cues, meaning = (cell.strip() for cell in line.split("|"))
        uses: frozenset[Cue] = frozenset(cues.split())  # type: ignore[arg-type]
        ndim = int(images[0]) if images else None
        measurements.append(Measurement(name, group, meaning, uses, unit, by_channel, ndim))
    return measurements


_SHAPE = """
area                | 2D | area   | size | area of the object
volume              | 3D | volume | size | volume of the object
equivalent_diameter |    | length | size | diameter of the disk or ball of the same area or volume
axis_major          |    | length | size | longest axis of the ellipse or ellipsoid with the same second moments
axis_middle         | 3D | length | size | middle axis of the ellipsoid with the same second moments
axis_minor          |    | length | size | shortest axis of that ellipse or ellipsoid, at least that of a pixel
eccentricity        | 2D |        |      | eccentricity of the ellipse: 0 for a circle, towards 1 for a line
elongation          |    |        |      | 1 - shortest axis / longest axis: 0 if round, towards 1 if elongated
flatness            | 3D |        | size | 1 - shortest axis / middle axis: 0 for a rod, towards 1 for a sheet
perimeter           | 2D | length | size | length of the outline (Crofton, 4 directions)
surface             | 3D | area   | size | area of the surface (Crofton, 13 directions)
form_factor         | 2D |        |      | 4π area / perimeter²: 1 for a disk, less for a winding outline
sphericity          | 3D |        | size | surface of the ball of the same volume / surface: 1 for a ball
solidity            |    |        |      | pixels of the object / pixels of its convex hull
radius_max          |    | length | size | largest distance of a pixel from the centroid, plus half a pixel
radius_variation    |    |        |      | coefficient of variation of that distance; undefined for a single pixel
roundness           |    |        | size | area or volume / that of the disk or ball of the largest radius
"""

_INTENSITY = """
mean          | | intensity          | brightness      | mean of the object's pixels
sd            | | intensity          | brightness      | standard deviation of the object's pixels
min           | | intensity          | brightness size | minimum of the object's pixels
max           | | intensity          | brightness size | maximum of the object's pixels
p5            | | intensity          | brightness      | 5th percentile of the object's pixels
p25           | | intensity          | brightness      | 25th percentile of the object's pixels
median        | | intensity          | brightness      | median of the object's pixels
p75           | | intensity          | brightness      | 75th percentile of the object's pixels
p95           | | intensity          | brightness      | 95th percentile of the object's pixels
total         | | intensity × pixels | brightness size | sum of the object's pixels
skewness      | |                    |                 | skewness of the pixel values: above 0 if a few are bright
kurtosis      | |                    | size            | excess kurtosis of the pixel values: above 0 for long tails
peak          | |                    | size            | (maximum - mean) / standard deviation
rim           | |                    | size            | (mean of the outermost pixels - mean) / standard deviation
radial_trend  | |                    |                 | correlation of brightness with distance from the centroid
concentration | |                    | size            | brightness-weighted mean radius / mean radius
center_shift  | |                    | size            | distance of the brightness-weighted centroid / mean radius
"""

_TEXTURE = """
contrast_1        | | | size | mean squared difference of gray levels 1 px apart (co-occurrence)
correlation_1     | | | size | correlation of gray levels 1 px apart (co-occurrence)
homogeneity_1     | | | size | mean of 1 / (1 + squared difference) of gray levels 1 px apart (co-occurrence)
entropy_1         | | | size | entropy in bits of pairs of gray levels 1 px apart (co-occurrence)
contrast_2        | | | size | mean squared difference of gray levels 2 px apart (co-occurrence)
correlation_2     | | | size | correlation of gray levels 2 px apart (co-occurrence)
homogeneity_2     | | | size | mean of 1 / (1 + squared difference) of gray levels 2 px apart (co-occurrence)
entropy_2         | | | size | entropy in bits of pairs of gray levels 2 px apart (co-occurrence)
contrast_4        | | | size | mean squared difference of gray levels 4 px apart (co-occurrence)
correlation_4     | | | size | correlation of gray levels 4 px apart (co-occurrence)
homogeneity_4     | | | size | mean of 1 / (1 + squared difference) of gray levels 4 px apart (co-occurrence)
entropy_4         | | | size | entropy in bits of pairs of gray levels 4 px apart (co-occurrence)
grain_8           | | | size | semivariance of pixels 1/8 of the object's diameter apart
grain_4           | | | size | semivariance of pixels 1/4 of the object's diameter apart
grain_2           | | |      | semivariance of pixels 1/2 of the object's diameter apart
lbp_0             | | | size | share of inner pixels with no neighbor at least as bright (local binary patterns)
lbp_1             | | | size | share of inner pixels with 1 neighbor at least as bright
lbp_2             | | | size | share of inner pixels with 2 adjacent neighbors at least as bright
lbp_3             | | | size | share of inner pixels with 3 adjacent neighbors at least as bright
lbp_4             | | | size | share of inner pixels with 4 adjacent neighbors at least as bright
lbp_5             | | | size | share of inner pixels with 5 adjacent neighbors at least as bright
lbp_6             | | | size | share of inner pixels with 6 adjacent neighbors at least as bright
lbp_7             | | | size | share of inner pixels with 7 adjacent neighbors at least as bright
lbp_8             | | | size | share of inner pixels with all 8 neighbors at least as bright
lbp_9             | | | size | share of inner pixels with any other pattern of brighter neighbors
detail_1          | | | size | standard deviation of the detail removed by a blur of 1 px
detail_skewness_1 | | | size | skewness of the detail removed by a blur of 1 px
detail_peak_1     | | | size | maximum of the detail removed by a blur of 1 px / its sd
detail_2          | | | size | standard deviation of the detail removed by a blur of 2 px after that of 1 px
detail_skewness_2 | | | size | skewness of the detail removed by a blur of 2 px after that of 1 px
detail_peak_2     | | | size | maximum of the detail removed by a blur of 2 px after that of 1 px / its sd
detail_4          | | | size | standard deviation of the detail removed by a blur of 4 px after that of 2 px
detail_skewness_4 | | | size | skewness of the detail removed by a blur of 4 px after that of 2 px
detail_peak_4     | | | size | maximum of the detail removed by a blur of 4 px after that of 2 px / its sd
"""

_ANNULUS_OF_MASK = """
ring_covered | | | surroundings size | share of the annulus around the object that other objects cover
"""

_ANNULUS = """
ring_mean      | | intensity | surroundings brightness size | mean of the background pixels in the annulus
ring_sd        | | intensity | surroundings brightness size | standard deviation of the background pixels in the annulus
ring_median    | | intensity | surroundings brightness size | median of the background pixels in the annulus
ring_contrast  | | intensity | surroundings brightness size | mean of the object - mean of the annulus
ring_ratio     | |           | surroundings brightness size | mean of the object / mean of the annulus
ring_step      | |           | surroundings brightness size | ring_contrast / standard deviation of the object
ring_roughness | |           | surroundings brightness size | standard deviation of the annulus / that of the object
ring_skewness  | |           | surroundings size            | skewness of the background pixels in the annulus
"""

_ORIENTATION_OF_MASK = """
angle    | 2D | degrees | orientation | angle of the longest axis to the x axis, towards higher rows; 0 to 180
extent   |    |         | orientation | object / its bounding box
shape_zz | 3D |         | orientation | zz component of the second moments / their trace
shape_zy | 3D |         | orientation | zy component of the second moments / their trace
shape_zx | 3D |         | orientation | zx component of the second moments / their trace
shape_yy |    |         | orientation | yy component of the second moments / their trace
shape_yx |    |         | orientation | yx component of the second moments / their trace
"""

_ORIENTATION = """
gradient_zz | 3D | | orientation      | zz component of the structure tensor / its trace
gradient_zy | 3D | | orientation      | zy component of the structure tensor / its trace
gradient_zx | 3D | | orientation      | zx component of the structure tensor / its trace
gradient_yy |    | | orientation      | yy component of the structure tensor / its trace
gradient_yx |    | | orientation      | yx component of the structure tensor / its trace
shift_z     | 3D | | orientation size | brightness-weighted centroid - centroid along z / mean radius
shift_y     |    | | orientation size | brightness-weighted centroid - centroid along y / mean radius
shift_x     |    | | orientation size | brightness-weighted centroid - centroid along x / mean radius
"""

_POSITION = """
position_z      | 3D | length | surroundings orientation | z of the centroid in the image
position_y      |    | length | surroundings orientation | y of the centroid in the image
position_x      |    | length | surroundings orientation | x of the centroid in the image
border_distance |    | length | surroundings             | distance from the centroid to the nearest image border
"""

_TEXTURES = _parse("texture", True, _TEXTURE)
_ANNULUS_TEXTURES = [
    replace(
        m,
        name=f"ring_{m.name}",
        group="ring_texture",
        uses=m.uses | {"surroundings", "size"},
        meaning=f"{m.meaning}; of the background pixels in the annulus around the object",
    )
    for m in _TEXTURES
]

# The order is that of the columns in tables and of the features that saved forests expect.
MEASUREMENTS: tuple[Measurement, ...] = (
    *_parse("shape", False, _SHAPE),
    *_parse("intensity", True, _INTENSITY),
    *_TEXTURES,
    *_parse("ring", False, _ANNULUS_OF_MASK),
    *_parse("ring", True, _ANNULUS),
    *_ANNULUS_TEXTURES,
    *_parse("orientation", False, _ORIENTATION_OF_MASK),
    *_parse("orientation", True, _ORIENTATION),
    *_parse("position", False, _POSITION),
)
