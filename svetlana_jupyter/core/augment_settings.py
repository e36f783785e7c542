"""The settings of augmentation: how training patches are varied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator

from svetlana_jupyter.core.validated import Settings

TRANSFORM = "__class_fullname__"  # the key under which Albumentations keeps the name of a transform


class AugmentSettings(Settings):
    """How training patches are varied; what is varied cannot decide the class.

    Every patch is varied anew each time it is drawn, by amounts drawn evenly up to those given here.

    Parameters
    ----------
    flips : bool
        Mirror along every axis at random.
    rotation : "none", "half_turns", "right_angles" or "free"
        Half turns keep every orientation, as of stripes, but no direction. Right angles move pixels without changing
        them; where two axes differ in pixels or in their distance, half turns are all that is left of them.
    axes : "z" or "all"
        In 3D, turn about z alone or about any axis. Turns are made in the patches' unit: where planes lie further apart
        than pixels, ``unit="um"`` makes them real ones.
    scale : float
        Relative change of size.
    shift : float
        Shift along each axis, as a share of the field of view; by whole pixels unless patches are also scaled or turned
        freely.
    brightness : float
        Change of gain, relative, and offset, in units of a channel's deviation; of each channel on its own.
    gamma : float
        Bend of the curve from a patch's least to its greatest value, of each channel on its own: exponents go from
        ``1 / (1 + gamma)`` to ``1 + gamma``.
    color : float
        How much of every other channel is mixed into each, as when stains differ in strength; nothing where there is
        but one channel.
    noise : float
        Deviation of normal noise, in units of a channel's deviation.
    blur : float
        Deviation of a Gaussian blur, in pixels of the patch.
    share : float
        Share of the patches of a batch that are mirrored, turned, scaled and shifted; the rest stays as it lies.
    pipeline : dict, optional
        An Albumentations pipeline as that library itself serialises it (``to_dict``), applied last, to images or
        volumes. It sees each channel from 0 to 1, the mask as mask, and keeps the shape.

    Raises
    ------
    SettingsError
        If a pipeline is not such a dictionary, or names what is not part of Albumentations.
    """

    flips: bool = True
    rotation: Literal["none", "half_turns", "right_angles", "free"] = "right_angles"
    axes: Literal["z", "all"] = "z"
    scale: float = Field(default=0.0, ge=0.0, lt=0.9)
    shift: float = Field(default=0.0, ge=0.0, le=0.5)
    brightness: float = Field(default=0.1, ge=0.0, le=2.0)
    gamma: float = Field(default=0.0, ge=0.0, le=4.0)
    color: float = Field(default=0.0, ge=0.0, le=1.0)
    noise: float = Field(default=0.05, ge=0.0, le=2.0)
    blur: float = Field(default=0.0, ge=0.0, le=10.0)
    share: float = Field(default=1.0, ge=0.0, le=1.0)
    pipeline: dict[str, Any] | None = None

    @classmethod
    def none(cls) -> Self:
        """Return settings that leave every patch as it is.

        >>> AugmentSettings.none().varies
        False
        """
        return cls(flips=False, rotation="none", brightness=0.0, noise=0.0)

    @property
    def varies(self) -> bool:
        """Whether any patch is ever changed."""
        moves = self.share > 0 and (self.flips or self.rotation != "none" or self.scale > 0 or self.shift > 0)
        lights = (self.brightness, self.gamma, self.color, self.noise, self.blur)
        return moves or any(lights) or self.pipeline is not None

    @field_validator("pipeline")
    @classmethod
    def _a_pipeline_is_plain_data(cls, pipeline: dict[str, Any] | None) -> dict[str, Any] | None:
        if pipeline is None:
            return None
        _check_transform(pipeline.get("transform"))
        try:
            plain: dict[str, Any] = json.loads(json.dumps(pipeline))
        except (TypeError, ValueError) as error:
            raise ValueError(f"augmentation.pipeline must be data that JSON can hold, but {error}.") from None
        return plain


def _check_transform(transform: object) -> None:
    """Refuse what is no serialised transform, or of another package than Albumentations."""
    name = transform.get(TRANSFORM) if isinstance(transform, Mapping) else None
    if not isinstance(transform, Mapping) or not isinstance(name, str):
        raise ValueError(
            "augmentation.pipeline must be a dictionary as albumentations.to_dict(pipeline) gives it, with a transform "
            f'that is named by "{TRANSFORM}".'
        )
    if "." in name and not name.startswith("albumentations."):
        raise ValueError(
            f"augmentation.pipeline may only use transforms of Albumentations itself, got {name!r}. Leave it out."
        )
    inside = transform.get("transforms", [])
    for inner in inside if isinstance(inside, list | tuple) else [inside]:
        _check_transform(inner)
