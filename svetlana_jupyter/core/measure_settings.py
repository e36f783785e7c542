"""What a forest measures of objects."""

from __future__ import annotations

from pydantic import Field

from svetlana_jupyter.core.measures.table import Cue, Group
from svetlana_jupyter.core.validated import Settings


class MeasureSettings(Settings):
    """Which measurements (`core.measures.table`) a forest may use.

    Parameters
    ----------
    groups : tuple of str
        Of "shape", "intensity", "texture", "ring" (brightness around the object), "ring_texture", "orientation" and
        "position". The last two are left out unless they are asked for: without them, it does not matter how objects
        are turned and where they lie.
    may_use : tuple of str
        Of "surroundings", "brightness", "orientation" and "size": what uses any other evidence is left out.
    ring : float
        Width of the ring around an object, in pixels (the finest side of one, where they are no cubes).
    rim : int
        Pixels left out along the edge of an object, on either side, where its light and that of its surroundings mix:
        in all but "shape" and "position". An object that nothing would be left of is measured whole.
    """

    groups: tuple[Group, ...] = ("shape", "intensity", "texture", "ring")
    may_use: tuple[Cue, ...] = ("surroundings", "brightness", "orientation", "size")
    ring: float = Field(default=5.0, ge=1.0, le=100.0)
    rim: int = Field(default=0, ge=0, le=20)
