"""The settings of augmentation: how training patches are varied."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from svetlana_jupyter.core.validated import Settings


class AugmentSettings(Settings):
    """How training patches are varied; what is varied cannot decide the class.

    Parameters
    ----------
    flips : bool
        Mirror along every axis at random.
    rotation : "none", "half_turns", "right_angles" or "free"
        Half turns keep every orientation, as of stripes, but no direction.
    axes : "z" or "all"
        In 3D, turn about z alone or about any axis.
    scale, brightness, noise : float
        Relative change of size; gain and offset; and added noise, in units of each channel's deviation.
    share : float
        Share of the patches of a batch that are mirrored, turned and scaled; the rest stays as it lies.
    pipeline : dict, optional
        An Albumentations pipeline as that library itself serialises it (``to_dict``), applied to 2D patches.
    """

    flips: bool = True
    rotation: Literal["none", "half_turns", "right_angles", "free"] = "right_angles"
    axes: Literal["z", "all"] = "z"
    scale: float = Field(default=0.0, ge=0.0, lt=0.9)
    brightness: float = Field(default=0.1, ge=0.0, le=2.0)
    noise: float = Field(default=0.05, ge=0.0, le=2.0)
    share: float = Field(default=1.0, ge=0.0, le=1.0)
    pipeline: dict[str, Any] | None = None
