"""Pixel sizes in micrometers, from the numbers and units that files state.

A size that a file states and that is not used, because its unit is unknown or because it cannot be true, is reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias
from unicodedata import normalize

from svetlana_jupyter.errors import InputError

Spacing: TypeAlias = float | Sequence[float]
StatedSizes: TypeAlias = Mapping[str, tuple[object, object]]  # number and unit by axis; the number may be None

PLAUSIBLE_UM = (1e-6, 1e6)  # from a tenth of the finest electron micrograph to one meter per pixel
MAX_PRINT_FREE_UM = 10.0  # 2540 dpi; a coarser resolution without a unit of length may be that of a printer
EQUAL_SIZES = 5e-3  # relative difference that rounding to three digits explains
PREFIXES = {
    **{"Y": 24, "Z": 21, "E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "da": 1, "": 0},
    **{"d": -1, "c": -2, "m": -3, "u": -6, "μ": -6, "n": -9, "p": -12, "f": -15, "a": -18, "z": -21, "y": -24},
}
PREFIX_WORDS = {
    **{"yotta": 24, "zetta": 21, "exa": 18, "peta": 15, "tera": 12, "giga": 9, "mega": 6, "kilo": 3, "hecto": 2},
    **{"deca": 1, "deka": 1, "": 0, "deci": -1, "centi": -2, "milli": -3, "micro": -6, "nano": -9, "pico": -12},
    **{"femto": -15, "atto": -18, "zepto": -21, "yocto": -24},
}
INCH = 25_400.0
# The symbols distinguish Mm from mm and Pm from pm. These are all lengths of OME-XML and of UDUNITS, as in OME-Zarr.
UM_PER_SYMBOL = {
    **{f"{prefix}m": 10.0 ** (exponent + 6) for prefix, exponent in PREFIXES.items()},
    **{"Å": 1e-4, "in": INCH, '"': INCH, "thou": INCH / 1000, "li": INCH / 12, "ft": 12 * INCH, "yd": 36 * INCH},
    **{"mi": 63_360 * INCH, "pt": INCH / 72, "ua": 149_597_870_700e6, "ly": 9_460_730_472_580_800e6},
    "pc": 648_000 / math.pi * 149_597_870_700e6,
}
UM_PER_WORD = {
    **{f"{word}{m}": 10.0 ** (exponent + 6) for word, exponent in PREFIX_WORDS.items() for m in ("meter", "metre")},
    **{"micron": 1.0, "um": 1.0, "μm": 1.0, "angstrom": 1e-4, "ångström": 1e-4, "ångstrom": 1e-4, "inch": INCH},
    **{"inche": INCH, "foot": 12 * INCH, "feet": 12 * INCH, "yard": 36 * INCH, "mile": 63_360 * INCH},
    "parsec": UM_PER_SYMBOL["pc"],
}
NO_LENGTH = {"pixel", "px", "voxel", "reference frame", "referenceframe"}


def micrometers_per(unit: object) -> float | None:
    """Return the micrometers in a unit of length, None for an unknown unit.

    >>> micrometers_per("Å"), micrometers_per("millimeters"), micrometers_per("mm"), micrometers_per("parsnip")
    (0.0001, 1000.0, 1000.0, None)
    """
    symbol = normalize("NFKC", str(unit)).strip()  # one micro sign and one letter Å, of two each
    word = symbol.lower()
    return UM_PER_SYMBOL.get(symbol) or UM_PER_WORD.get(word) or UM_PER_WORD.get(word.removesuffix("s"))


def to_micrometers(length: object, unit: object) -> float | None:
    """Return a length in micrometers.

    Return None if the unit is unknown, or if the length is not a positive number that a pixel can measure.
    """
    factor = micrometers_per(unit)
    try:
        size = float(str(length)) * (factor or math.nan)
    except ValueError:
        return None
    return size if PLAUSIBLE_UM[0] <= size <= PLAUSIBLE_UM[1] else None


def read_spacing(stated: StatedSizes) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the micrometers per pixel by axis, and sentences on unused sizes.

    A number without a unit that is 1 states nothing, and neither does a size in pixels.

    Examples
    --------
    >>> read_spacing({"z": (None, "µm"), "y": (500, "nm"), "x": (500, "nm")})
    ({'y': 0.5, 'x': 0.5}, ())
    >>> read_spacing({"y": (2, "parsnip"), "x": (2, "parsnip")})[1]
    ("The pixel size along y and x (2 'parsnip') is not used: the unit is unknown. Pass `spacing=` in micrometers.",)
    """
    known = {axis: size for axis, (number, unit) in stated.items() if (size := to_micrometers(number, unit))}
    unused: dict[str, dict[str, str]] = {}
    for axis, (number, unit) in stated.items():
        if axis not in known and _states_size(number, unit):
            has_unit = unit is not None and str(unit).strip() != ""
            reason = "the unit is unknown" if has_unit else "it has no unit"
            reason = "it cannot be true" if micrometers_per(unit) else reason
            unused.setdefault(reason, {})[axis] = _format_size(number, str(unit) if has_unit else "")
    notes = []
    for reason, sizes in unused.items():
        stated_sizes = ", ".join(dict.fromkeys(sizes.values()))
        notes.append(
            f"The pixel size along {join_words(list(sizes))} ({stated_sizes}) is not used: {reason}. "
            "Pass `spacing=` in micrometers."
        )
    return known, tuple(notes)


def _states_size(number: object, unit: object) -> bool:
    if number is None or str(unit).strip().lower().removesuffix("s") in NO_LENGTH:
        return False
    return not ((unit is None or str(unit).strip() == "") and str(number) in ("0", "1", "0.0", "1.0"))


def _format_size(number: object, unit: str) -> str:
    size = f"{number:.6g}" if isinstance(number, (int, float)) else str(number)[:40]
    return f"{size} '{unit[:40]}'" if unit else size


def join_words(words: Sequence[str]) -> str:
    """Return words as an enumeration.

    >>> join_words(["z", "y", "x"])
    'z, y and x'
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def parse_spacing(spacing: Spacing, axes: str, source_name: str) -> dict[str, float]:
    """Return the pixel size by axis, from one number for all axes or one per axis."""
    sizes = [float(spacing)] * len(axes) if isinstance(spacing, (int, float)) else [float(size) for size in spacing]
    if len(sizes) != len(axes) or not all(PLAUSIBLE_UM[0] <= size <= PLAUSIBLE_UM[1] for size in sizes):
        raise InputError(
            f"The spacing of {source_name} must be {len(axes)} positive numbers in micrometers, ({', '.join(axes)}), "
            f"got {spacing}. Pass one number for all axes or one per axis."
        )
    return dict(zip(axes, sizes))


def combine_spacings(
    first: Mapping[str, float], second: Mapping[str, float], names: tuple[str, str], advice: str = ""
) -> dict[str, float]:
    """Return the pixel size by axis of two arrays that show the same pixels.

    Each array may know other axes. ``names`` are the names of the arrays in the error, and ``advice`` says how to pass
    the right size; by default with ``spacing=``.

    Raises
    ------
    InputError
        If the sizes along an axis differ by more than rounding explains.
    """
    differing = [
        axis for axis in first if axis in second and not math.isclose(first[axis], second[axis], rel_tol=EQUAL_SIZES)
    ]
    if differing:
        sizes = [", ".join(f"{sizes[axis]:.6g} µm along {axis}" for axis in differing) for sizes in (first, second)]
        choices = [f"spacing={format_spacing(sizes)}" for sizes in ({**second, **first}, {**first, **second})]
        raise InputError(
            f"The pixel sizes of {names[0]} ({sizes[0]}) and {names[1]} ({sizes[1]}) differ. Check that they belong "
            f"together, and {advice or f'pass the right size: `{choices[0]}` or `{choices[1]}`'}."
        )
    return {**second, **first}


def format_spacing(spacing: Mapping[str, float], axes: str = "") -> str:
    """Return the pixel sizes along axes as an argument.

    Unknown sizes are the names of their axes.

    >>> format_spacing({"y": 0.5, "x": 0.25}, "zyx")
    '(z, 0.5, 0.25)'
    """
    axes = axes or "".join(axis for axis in "zyx" if axis in spacing)
    return f"({', '.join(f'{spacing[axis]:.6g}' if axis in spacing else axis for axis in axes)})"


def describe_partial_spacing(spacing: Mapping[str, float], axes: str) -> str:
    """Return a sentence about axes without a pixel size, "" if all or none have one."""
    missing = [axis for axis in axes if axis not in spacing]
    if not missing or not spacing:
        return ""
    known = join_words([f"{axis} ({spacing[axis]:.6g} µm)" for axis in axes if axis in spacing])
    return (
        f"The pixel size is known along {known}, but not along {join_words(missing)}, so all lengths are in pixels. "
        f"Pass `spacing={format_spacing(spacing, axes)}` with all sizes in micrometers."
    )
