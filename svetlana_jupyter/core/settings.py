"""What decides a training, as validated data that goes to JSON and back: patches, network, optimisation, augmentation.

Importing this module loads no torch, so a project and its panels can show and edit settings at once.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from svetlana_jupyter.errors import SettingsError

ARCHITECTURES = ("small_cnn", "forest")


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys by name and speak in sentences.

    Raises
    ------
    SettingsError
        If a key is unknown (the nearest known one is named) or a value is out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_in_words(error)) from None

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key in values:
                if key not in cls.model_fields:
                    raise ValueError(_unknown_key(str(key), list(cls.model_fields)))
        return values

    def changed(self, **changes: Any) -> Self:
        """Return these settings with some values replaced; a mapping changes only the keys it names.

        >>> TrainingSettings().changed(epochs=5, patches={"size": 32}).patches.size
        32.0
        """
        return type(self)(**_merged(self.model_dump(), changes))

    def to_json(self) -> str:
        """Return every setting, defaults included, as indented JSON."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote, perhaps edited by hand since."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise SettingsError(
                f"settings must be valid JSON, but line {error.lineno}, column {error.colno} is not: {error.msg}."
            ) from None
        if not isinstance(values, dict):
            raise SettingsError(f"settings must be a JSON object in braces, got {type(values).__name__}.")
        return cls(**values)


class PatchSettings(Settings):
    """What a classifier sees of one object.

    Parameters
    ----------
    size : "auto", number or tuple of numbers ``([z,] y, x)``
        The field of view, in ``unit``. *auto* is the longest box side times ``margin``; it becomes concrete
        (`core.patches.freeze_patches`) when a training starts.
    unit : "px" or "um"
        Micrometres need an image with known spacing, and make anisotropic voxels isotropic.
    margin : float
        How much wider than the longest object an *auto* size is.
    sampling : None, int or tuple of int
        Pixels the field of view is resampled to. None keeps its own pixels, or for an *auto* size at most 48 a side
        in 2D and 24 in 3D.
    context : "keep" or "hide"
        *hide* multiplies the patch by the object's mask, widened by ``dilation`` pixels, so that the surroundings
        cannot count (problem b of the paper, section 2.5).
    mask_channel : bool
        Give the object's own mask as the last channel (the paper's default).
    normalize : str
        "none"; "minmax" and "max" (the paper's, section 4.1); "percentile", between the image's 1st and 99.8th
        percentile; "object", by mean and deviation of the object's own pixels; "both", every channel twice: the whole
        patch as by "percentile", then the object alone as by "object", so that brightness and surroundings may count
        and faint texture is not drowned by them. Each channel on its own; what is flat becomes zeros.
    scope : "patch" or "image"
        Where minimum and maximum are taken from.
    padding : "reflect" or "zeros"
        What stands beyond the image's border.
    """

    size: Literal["auto"] | float | tuple[float, ...] = "auto"
    unit: Literal["px", "um"] = "px"
    margin: float = Field(default=1.5, ge=1.0, le=10.0)
    sampling: int | tuple[int, ...] | None = None
    context: Literal["keep", "hide"] = "keep"
    dilation: int = Field(default=2, ge=0, le=100)
    mask_channel: bool = True
    normalize: Literal["none", "minmax", "max", "percentile", "object", "both"] = "both"
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
        """Whether size and sampling are concrete, one number an axis."""
        return isinstance(self.size, tuple) and isinstance(self.sampling, tuple)


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


class TrainingSettings(Settings):
    """Everything that decides a training; the same settings, seed and threads give the same weights.

    Covers section 4.1 of the paper. Defaults are the "default" recipe; others by `from_recipe`.

    Parameters
    ----------
    recipe : str
        One of `RECIPES`: the values of whatever is not given.
    architecture : "small_cnn" or "forest"
    depth, width : int
        Blocks of the network, and channels of its first block; every block doubles them (the paper's Fig. 7).
    optimizer : "adamw" or "adam"
    betas : pair of float
        Adam's momenta.
    schedule : "one_cycle", "step" or "constant"
        *step* multiplies the learning rate by 0.1 every 100 epochs, as the paper does.
    steps : int, optional
        Batches an epoch, whatever the number of annotations. None: as many as one pass over the patches takes.
    loss : str
        All but "cross_entropy" compare probabilities with 0 and 1.
    class_weights : "none", "softened", "balanced" or a number for each class id
        How much more often the patches of a class are drawn: as often as they were annotated; by the root of that,
        which helps rare classes without finding them everywhere; equally often.
    held_out : float
        Share of the annotations kept aside to score each epoch, by whole groups...
    held_out_from : int
        ...once there are this many. With fewer, all train and the score comes from cross-validation.
    views : int
        Predictions are averaged over up to this many mirrored and turned views, of those that augmentation allows;
        every view costs a prediction, and a trained network rarely gains by them.
    trees : int
        Trees of the forest.
    threads : int, optional
        torch threads; None leaves them as they are.
    """

    recipe: str = "default"
    patches: PatchSettings = PatchSettings()
    architecture: str = "small_cnn"
    depth: int = Field(default=3, ge=1, le=8)
    width: int = Field(default=16, ge=1, le=512)
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = Field(default=0.005, gt=0.0, le=10.0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0.0)
    schedule: Literal["one_cycle", "step", "constant"] = "one_cycle"
    epochs: int = Field(default=40, ge=1)
    steps: int | None = Field(default=10, ge=1)
    batch_size: int = Field(default=16, ge=1, le=4096)
    loss: Literal["cross_entropy", "binary_cross_entropy", "l1", "smooth_l1", "mse"] = "cross_entropy"
    class_weights: Literal["none", "softened", "balanced"] | dict[int, float] = "softened"
    augmentation: AugmentSettings = AugmentSettings()
    held_out: float = Field(default=0.2, ge=0.0, le=0.5)
    held_out_from: int = Field(default=400, ge=10)
    views: int = Field(default=1, ge=1, le=48)
    trees: int = Field(default=300, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _begin_with_the_recipe(cls, values: Any) -> Any:
        name = values.get("recipe", "default") if isinstance(values, Mapping) else "default"
        if not isinstance(name, str) or name not in RECIPES:
            raise ValueError(_unknown_key(str(name), list(RECIPES), what="recipe"))
        return _merged(RECIPES[name], values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _values_are_usable(self) -> Self:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {self.architecture!r}.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be at least 0 and below 1, got {self.betas}.")
        if isinstance(self.class_weights, dict) and not all(weight > 0 for weight in self.class_weights.values()):
            raise ValueError(f"class_weights must be more than 0, got {self.class_weights}.")
        return self

    @classmethod
    def from_recipe(cls, name: str, **changes: Any) -> Self:
        """Return the settings of a named recipe, with some values replaced.

        >>> TrainingSettings.from_recipe("paper", epochs=20).optimizer
        'adam'
        """
        return cls(recipe=name).changed(**changes)

    def changed(self, **changes: Any) -> Self:
        """Return these settings with some values replaced; another recipe begins anew with its own."""
        if changes.get("recipe", self.recipe) != self.recipe:
            return type(self)(recipe=changes.pop("recipe")).changed(**changes)
        return super().changed(**changes)


# What each recipe changes of the defaults. "default": whatever the patch shows may count, but not how it is turned.
# "oriented": so may orientation. "object": not the surroundings. "texture": neither the surroundings nor brightness.
# "paper": as the paper describes it (section 4.1, Fig. 7).
RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "default": {},
        "oriented": {"augmentation": {"flips": False, "rotation": "half_turns"}},
        "object": {"patches": {"context": "hide"}},
        "texture": {
            "patches": {"context": "hide", "normalize": "object"},
            "augmentation": {"rotation": "free", "axes": "all"},
        },
        "paper": {
            "patches": {"normalize": "minmax"},
            "width": 32,
            "optimizer": "adam",
            "learning_rate": 0.001,
            "weight_decay": 0.0,
            "schedule": "step",
            "epochs": 200,
            "steps": None,
            "batch_size": 8,
            "class_weights": "none",
            "augmentation": {"rotation": "none", "brightness": 0.0, "noise": 0.0},
        },
    }
)


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` with ``changes``; where both hold settings, key by key."""
    merged = dict(values)
    for key, change in changes.items():
        if isinstance(change, Settings):
            change = change.model_dump()
        if key in ("patches", "augmentation") and isinstance(change, Mapping):
            change = _merged(merged.get(key, {}), change)
        merged[key] = change
    return merged


def _unknown_key(key: str, known: list[str], what: str = "setting") -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
    return f"there is no {what} {key!r}; {hint}"


def _in_words(error: ValidationError) -> str:
    """Return the first problem as one sentence that names the setting."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    # Members of a union appear in the location as type names; only field names mean something to the user.
    names = [str(part) for part in first["loc"] if isinstance(part, str) and part.isidentifier()]
    name = ".".join(names[:2] if names[:1] in (["patches"], ["augmentation"]) else names[:1])
    if first["type"] == "value_error":
        return message
    return f"the setting {name!r} cannot be {first['input']!r}: {message[:1].lower()}{message[1:]}."
