"""Lengths as files write them, in micrometres."""

from __future__ import annotations

import math

UM_PER_UNIT = {
    **dict.fromkeys(
        ["um", "µm", "μm", "micron", "microns", "micrometer", "micrometre", "micrometers", "micrometres"], 1.0
    ),
    **dict.fromkeys(["nm", "nanometer", "nanometre"], 1e-3),
    **dict.fromkeys(["mm", "millimeter", "millimetre"], 1e3),
    **dict.fromkeys(["cm", "centimeter", "centimetre"], 1e4),
    **dict.fromkeys(["m", "meter", "metre"], 1e6),
}


def to_micrometers(length: object, unit: object) -> float | None:
    """Length in micrometres, or None where it or its unit is missing, is not a length or is not positive."""
    factor = UM_PER_UNIT.get(str(unit).strip().lower())
    try:
        size = float(str(length))
    except ValueError:
        return None
    return size * factor if factor and math.isfinite(size) and size > 0 else None
