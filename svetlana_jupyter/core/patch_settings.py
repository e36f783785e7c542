"""The settings of patches: what a classifier sees of one object."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from svetlana_jupyter.core.validated import Settings


class PatchSettings(Settings):
    """What a classifier sees of one object.

    Parameters
    ----------
    size : "auto", number or tuple of numbers ``([z,] y, x)``
        The field of view, in ``unit``. *auto* is the longest box side times ``margin``; it becomes concrete
        (`core.patches.resolve_patch_settings`) when a training starts.
    unit : "px" or "um"
        Micrometres need an image with known spacing, and make anisotropic voxels isotropic.
    margin : float
        How much wider than the longest object an *auto* size is.
    sampling : None, "auto", int or tuple of int
        Pixels the field of view is resampled to. None keeps its own pixels, or for an *auto* size at most 48 a side
        in 2D and 24 in 3D; more where a network needs more. *auto* keeps no more than a search for a recipe has time
        for of a size that is given, 96 a side in 2D and 24 in 3D, and where the context is hidden, no wider a field of
        view than an *auto* size.
    view : "fixed" or "object"
        *object* widens or narrows the field of view to each object's longest box side times ``margin``, so that small
        and large objects fill their patches alike; ``size`` is then what an object of ``size / margin`` is given.
        How coarse and how sharp an object is would tell its size, too: so pixels are picked, not averaged, and by
        themselves so few that hardly an object is enlarged; the light that mixes along its edge is taken away
        (`core.unmixing`); its outline is rounded.
    context : "keep" or "hide"
        *hide* multiplies the patch by the object's mask, widened by ``dilation`` pixels, so that the surroundings
        cannot count (problem b of the paper, section 2.5).
    dilation : int
        How far beyond its mask a hidden context still shows the object, in pixels of the image.
    rim : int or "auto"
        Where the object is shown without its surroundings, or "apart" from them: pixels left out along its edge, on
        either side, where the light of both mixes. More than 0 takes the place of ``dilation``. *auto* is 2, less if
        that would leave little of most objects. Where the view follows the object, twice as many pixels of the patch
        are left out around it, and none of its own; *auto* is then 1.
    mask_channel : bool
        Give the object's own mask as the last channel (the paper's default).
    normalize : str
        "none"; "minmax" and "max" (the paper's, section 4.1); "percentile", between the image's 1st and 99.8th
        percentile; "object", by mean and deviation of the object's own pixels; "both", every channel twice: the whole
        patch as by "percentile", then the object alone as by "object", so that brightness and surroundings may count
        and faint texture is not drowned by them; "both_raw", the same without "percentile", which tells of the whole
        image; "apart", the object by its own pixels and the surroundings by theirs; "grain", the object alone, without
        what its outline explains, in units of its level (`core.grain`). Each channel on its own; what is flat becomes
        zeros.
    scope : "patch" or "image"
        Where minimum and maximum are taken from.
    padding : "reflect" or "zeros"
        What stands beyond the image's border.
    """

    size: Literal["auto"] | float | tuple[float, ...] = "auto"
    unit: Literal["px", "um"] = "px"
    margin: float = Field(default=1.5, ge=1.0, le=10.0)
    sampling: Literal["auto"] | int | tuple[int, ...] | None = None
    view: Literal["fixed", "object"] = "fixed"
    context: Literal["keep", "hide"] = "keep"
    dilation: int = Field(default=2, ge=0, le=100)
    rim: Literal["auto"] | Annotated[int, Field(ge=0, le=100)] = 0
    mask_channel: bool = True
    normalize: Literal["none", "minmax", "max", "percentile", "object", "both", "both_raw", "apart", "grain"] = "both"
    scope: Literal["patch", "image"] = "patch"
    padding: Literal["reflect", "zeros"] = "reflect"

    @model_validator(mode="after")
    def _sizes_are_usable(self) -> Self:
        for name, smallest in (("size", 0.0), ("sampling", 4.0)):
            value = getattr(self, name)
            if value is None or value == "auto":
                continue
            sides = value if isinstance(value, tuple) else (value,)
            if len(sides) not in ((2, 3) if isinstance(value, tuple) else (1,)):
                raise ValueError(f"{name} must be one number or one for each of (z,) y, x, got {value}.")
            if min(sides) <= smallest and not (name == "sampling" and min(sides) == smallest):
                raise ValueError(f"{name} must be {'at least 4' if smallest else 'more than 0'}, got {value}.")
        return self

    @property
    def is_frozen(self) -> bool:
        """Whether size, sampling and rim are concrete."""
        return isinstance(self.size, tuple) and isinstance(self.sampling, tuple) and self.rim != "auto"

    @property
    def has_doubled_channels(self) -> bool:
        """Whether the patch shows every channel twice."""
        return self.normalize in ("both", "both_raw")
