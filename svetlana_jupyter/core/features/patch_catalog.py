"""Names and meanings of the blob and oriented features of one channel.

This module is separate from the computation, so that reading the catalog of measurements imports no image library.
"""

from __future__ import annotations

SCALES = {2: (0.8, 1.6, 3.2, 6.4), 3: (0.8, 1.6, 3.2)}  # standard deviations of the blurs, in patch pixels
# Statistics that are ranks: the share of the pixels that are higher.
RANKS = {2: {"max": 0.0, "p98": 0.02, "p2": 0.98, "min": 1.0}, 3: {"max": 0.0, "min": 1.0}}
DERIVATIVES = {2: ("curvature_max", "curvature_min", "slope"), 3: ("curvature", "slope")}
OWN_BRIGHTNESS = 2  # the first blob features: mean and standard deviation of the object
PEAKS = (1, 2, 4)  # ranks of the peaks besides the highest one
ANGLES = 8  # between 0 and 180 degrees
FREQUENCIES = (0.08, 0.13, 0.2, 0.3)  # cycles per patch pixel

_KINDS = {
    "detail": "detail that a blur of {0} removes after the next finer one",
    "curvature_max": "larger principal curvature after a blur of {0}",
    "curvature_min": "smaller principal curvature after a blur of {0}",
    "curvature": "sum of the curvatures after a blur of {0}",
    "slope": "steepness after a blur of {0}",
}
_STATISTICS = {
    "sd": "standard deviation",
    "max": "maximum",
    "min": "minimum",
    "p98": "98th percentile",
    "p2": "2nd percentile",
    **{f"peak_{rank + 1}": f"height of peak number {rank + 1}" for rank in PEAKS},
    **{f"pit_{rank + 1}": f"depth of pit number {rank + 1}" for rank in PEAKS},
}


def blob_names(ndim: int) -> tuple[str, ...]:
    """Return the names of the blob features of one channel, in order.

    >>> blob_names(2)[:3]
    ('mean', 'log_sd', 'detail_0.8_mean')
    """
    statistics = ("mean", "sd", "skewness", *RANKS[ndim])
    peaks = tuple(f"{kind}_{rank + 1}" for kind in ("peak", "pit") for rank in PEAKS)
    kinds = {"detail": statistics + peaks, **dict.fromkeys(DERIVATIVES[ndim], statistics)}
    by_scale = (f"{kind}_{scale:g}_{name}" for scale in SCALES[ndim] for kind, names in kinds.items() for name in names)
    return "mean", "log_sd", *by_scale


def describe_blob_feature(name: str) -> str:
    """Return the meaning of a blob feature other than "mean" and "log_sd".

    >>> describe_blob_feature("slope_1.6_p98")
    '98th percentile of the steepness after a blur of 1.6'
    """
    kind = next(kind for kind in _KINDS if name.startswith(f"{kind}_") and name[len(kind) + 1].isdigit())
    scale, _, statistic = name.removeprefix(f"{kind}_").partition("_")
    return f"{_STATISTICS.get(statistic, statistic)} of the {_KINDS[kind].format(scale)}"


# Names and meanings of the oriented features of one channel, in order.
ORIENTED_FEATURES = {
    f"{frequency:g}_{180 * angle / ANGLES:g}": f"logarithm of the mean response to waves of {frequency:g} cycles per "
    f"patch pixel that run at {180 * angle / ANGLES:g} degrees from the x axis toward higher rows (Gabor filter)"
    for frequency in FREQUENCIES
    for angle in range(ANGLES)
}
