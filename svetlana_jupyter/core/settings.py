"""Named presets: what each changes of the default settings.

Settings as validated, frozen data that goes to JSON and back and says in a sentence what it refuses.

The settings of patches: what a classifier sees of one object.

The settings of augmentation: how training patches are varied.

What a forest measures of objects.

What decides a training, as validated data that goes to JSON and back: patches, network, optimisation, augmentation.

Importing this module loads no torch, so a project and its panels can show and edit settings at once.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator, model_validator

from svetlana_jupyter.core.features.catalog import CUES, Cue, Group
from svetlana_jupyter.errors import SettingsError

DEFAULT = "default"
AUTO_PRESET = "auto"  # the best of those that are tried; before it is known, the values of the default one

# In the words of a person who sees which was chosen; what may not count stays varied whatever the preset.
PRESET_DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        DEFAULT: "turned by right angles and mirrored",
        "oriented": "turned by half turns alone",
        "plain": "as it lies, nothing varied",
        "free": "turned by any angle",
        "object": "without the surroundings",
        "texture": "without surroundings and brightness",
        "grain": "the faint texture of small objects",
        "wide": "with more of the surroundings",
        "forest": "measurements, no network",
        "paper": "as the paper describes it (section 4.1, Fig. 7)",
    }
)
# What each preset changes of the defaults.
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        DEFAULT: {},
        "oriented": {"augmentation": {"flips": False, "rotation": "half_turns"}},
        "plain": {"augmentation": {"flips": False, "rotation": "none", "brightness": 0.0, "noise": 0.0}},
        "free": {"augmentation": {"rotation": "free", "axes": "all"}},
        "object": {"patches": {"context": "hide"}},
        "texture": {
            "patches": {"context": "hide", "normalize": "object"},
            "augmentation": {"rotation": "free", "axes": "all"},
        },
        "grain": {  # it is faint, so learning it takes many looks, and telling it several; it is local, so no depth
            "patches": {"context": "hide", "normalize": "grain"},
            "augmentation": {"rotation": "free", "axes": "all"},
            "depth": 2,
            "steps": 30,
            "batch_size": 48,
            "views": 48,
        },
        "wide": {"patches": {"margin": 3.0}},
        "forest": {"architecture": "forest"},
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
# Those that a search tries; of equally good ones it takes the first.
CANDIDATE_PRESETS = (DEFAULT, "oriented", "free", "plain", "object", "texture", "grain", "wide", "forest")
PRESET_NAMES = (AUTO_PRESET, *PRESETS)


NESTED_SETTINGS = ("patches", "augmentation", "measurements")  # settings within settings


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
                    raise ValueError(unknown_key_message(str(key), list(cls.model_fields)))
        return values

    def changed(self, **changes: Any) -> Self:
        """Return these settings with some values replaced; a mapping changes only the keys it names.

        >>> from svetlana_jupyter.core.settings import TrainingSettings
        >>> TrainingSettings().changed(epochs=5, patches={"size": 32}).patches.size
        32.0
        """
        return type(self)(**merged(self.model_dump(), changes))

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


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` with ``changes``; where both hold settings, key by key."""
    result = dict(values)
    for key, change in changes.items():
        if isinstance(change, Settings):
            change = change.model_dump()
        if key in NESTED_SETTINGS and isinstance(change, Mapping):
            change = merged(result.get(key, {}), change)
        result[key] = change
    return result


def unknown_key_message(key: str, known: list[str], what: str = "setting") -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
    return f"there is no {what} {key!r}; {hint}"


def _in_words(error: ValidationError) -> str:
    """Return the first problem as one sentence that names the setting."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    # Members of a union appear in the location as type names; only field names mean something to the user.
    names = [str(part) for part in first["loc"] if isinstance(part, str) and part.isidentifier()]
    name = ".".join(names[: 2 if names and names[0] in NESTED_SETTINGS else 1])
    if first["type"] == "value_error":
        return message
    return f"the setting {name!r} cannot be {first['input']!r}: {message[:1].lower()}{message[1:]}."


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
        in 2D and 24 in 3D; more where a network needs more. *auto* keeps no more than a search for a preset has time
        for of a size that is given, 96 a side in 2D and 24 in 3D, and where the context is hidden, no wider a field of
        view than an *auto* size.
    view : "fixed" or "object"
        *object* widens or narrows the field of view to each object's longest box side times ``margin``, so that small
        and large objects fill their patches alike; ``size`` is then what an object of ``size / margin`` is given.
        How coarse and how sharp an object is would tell its size, too: so pixels are picked, not averaged, and by
        themselves so few that hardly an object is enlarged; the light that mixes along its edge is taken away
        (`core.normalization`); its outline is rounded.
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
        what its outline explains, in units of its level (`core.normalization`). Each channel on its own; what is flat
        becomes
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


class MeasureSettings(Settings):
    """Which measurements (`core.features.catalog`) a forest may use.

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


__all__ = [
    "ARCHITECTURES",
    "PRESETS",
    "AugmentSettings",
    "MeasureSettings",
    "PatchSettings",
    "Settings",
    "TrainingSettings",
]

# Of torchvision, for 2D images, and the least side of a patch of each family.
MIN_PATCH_SIDES = {"resnet": 32, "densenet": 32, "alexnet": 63}
TORCHVISION_ARCHITECTURES = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    "alexnet",
)
ARCHITECTURES = ("small_cnn", *TORCHVISION_ARCHITECTURES, "forest")
PRESET_INDEPENDENT_FIELDS = ("may_use", "exclude_border", "size")  # what counts, whatever the preset
OWN = "own"  # a module of the user's, given as an object
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class TrainingSettings(Settings):
    """Everything that decides a training; the same settings, seed and threads give the same weights.

    Covers section 4.1 of the paper. Defaults are those of the "default" preset; others by `from_preset`.

    Parameters
    ----------
    preset : str
        One of `PRESETS`: the values of whatever is not given. "auto", the default: a project tries several of them
        within what may count, keeps what is given, trains no longer than the planned time allows, and uses the best;
        anywhere else its values are those of "default".
    may_use : set of "brightness", "orientation", "size" and "surroundings"
        The evidence that may decide a class; all by default. What is left out cannot count, whatever the other
        settings say (`core.allowed_cues`).
    exclude_border : bool
        Learn nothing from objects that touch the border of their image; they are predicted all the same.
    size : pair of float or none, optional
        Learn from objects of so many pixels (voxels) alone, at least and at most: (50, none) leaves out small ones.
        None: of any size.
    architecture : str
        One of `ARCHITECTURES`: "small_cnn" in 2D and 3D, a ResNet, DenseNet or AlexNet in 2D, or "forest". Or a
        `torch.nn.Module` of one's own, by its import path ``"package.module:Name"``, whose module must be imported
        already: settings alone import nothing; "own" where it was given as an object. AlexNet, which has no
        normalisation, learns at rates of 0.0005 and below.
    depth, width : int
        Blocks of "small_cnn", and channels of its first block; every block doubles them (the paper's Fig. 7).
    norm : "batch" or "group"
        *group* normalises each patch by itself, without running averages.
    pretrained : bool
        Begin a published network with the weights its authors give, which are fetched from the internet once.
    start_from : str, optional
        Begin with the weights of an earlier run, by its name in the project or its folder, or of a ``.safetensors``
        file; those whose shapes fit are taken, and what was not is said.
    body : "train" or "frozen"
        *frozen* trains the last layer alone.
    body_rate : float, optional
        Learning rate of all but the last layer; None is that of the rest.
    optimizer : "adamw" or "adam"
        *adamw* shrinks weights by themselves, *adam* adds ``weight_decay`` to their gradients.
    learning_rate : float
        How far one step goes; with "one_cycle" and "cosine" its largest value.
    betas : pair of float
        Adam's momenta.
    weight_decay : float
        How strongly weights are pulled towards zero.
    schedule : "one_cycle", "cosine", "step" or "constant"
        *step* multiplies the learning rate by ``decay`` every ``decay_every`` epochs, by 0.1 every 100 in the paper.
    decay : float
        Of the learning rate, at each of the steps that the schedule "step" makes.
    decay_every : int
        Epochs between two of these steps.
    epochs : int
        Rounds of training, after each of which loss and score are shown; the schedule spans them.
    patience : int, optional
        End after so many epochs without a better score on what is held out, or a lower loss where nothing is.
    steps : int, optional
        Batches an epoch, whatever the number of annotations. None: as many as one pass over the patches takes.
    batch_size : int
        Patches a step; halved once where the memory does not hold them.
    loss : str
        "cross_entropy" and "binary_cross_entropy" compare logits, the others probabilities, with 0 and 1.
    label_smoothing : float
        Share of each wanted probability that is spread evenly over all classes.
    class_weights : "none", "softened", "balanced" or a number for each class, by name or id
        How much more often the patches of a class are drawn: as often as they were annotated; by the root of that,
        which helps rare classes without finding them everywhere; equally often; or so many times as often as they were
        annotated, once where a class is not named. A forest takes *softened* for *balanced*.
    held_out : float
        Share of the annotations kept aside to score each epoch, by whole groups...
    held_out_from : int
        ...once there are this many. With fewer, all train and the score comes from cross-validation.
    folds : int
        Parts that cross-validation holds out in turn: more take longer, fewer leave less to train on.
    hold_out_by : tuple of str, optional
        Grouping columns whose groups are held out whole, for example ``("patient",)``, or "image". None: all columns
        together; the images where there are none; the regions of a single image.
    views : int
        Predictions are averaged over up to this many mirrored and turned views, of those that augmentation allows;
        every view costs a prediction, and a trained network rarely gains by them.
    measurements : MeasureSettings
        What a forest measures of objects.
    trees : int
        Trees of the forest.
    seed : int
        Of everything that is drawn at random: the same one gives the same weights.
    device : "auto", "cpu", "cuda" or "mps"
        *auto* is a CUDA GPU where there is one, else an Apple GPU for 2D images, else the processor.
    precision : "auto", "full" or "mixed"
        *mixed* computes in 16 bits where that is safe; *auto* does so on a CUDA GPU alone.
    threads : int, optional
        torch threads; None leaves them as they are.
    """

    preset: str = AUTO_PRESET
    may_use: frozenset[Cue] = frozenset(CUES)
    exclude_border: bool = False
    size: tuple[float | None, float | None] | None = None
    patches: PatchSettings = PatchSettings()
    architecture: str = "small_cnn"
    depth: int = Field(default=3, ge=1, le=8)
    width: int = Field(default=16, ge=1, le=512)
    norm: Literal["batch", "group"] = "batch"
    pretrained: bool = False
    start_from: str | None = Field(default=None, min_length=1)
    body: Literal["train", "frozen"] = "train"
    body_rate: float | None = Field(default=None, gt=0.0, le=10.0)
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = Field(default=0.005, gt=0.0, le=10.0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0.0)
    schedule: Literal["one_cycle", "cosine", "step", "constant"] = "one_cycle"
    decay: float = Field(default=0.1, gt=0.0, le=1.0)
    decay_every: int = Field(default=100, ge=1)
    epochs: int = Field(default=40, ge=1)
    patience: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=10, ge=1)
    batch_size: int = Field(default=16, ge=1, le=4096)
    loss: Literal["cross_entropy", "binary_cross_entropy", "l1", "smooth_l1", "mse"] = "cross_entropy"
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    class_weights: Literal["none", "softened", "balanced"] | dict[int | str, float] = "softened"
    augmentation: AugmentSettings = AugmentSettings()
    held_out: float = Field(default=0.2, ge=0.0, le=0.5)
    held_out_from: int = Field(default=400, ge=10)
    folds: int = Field(default=4, ge=2, le=20)
    hold_out_by: tuple[str, ...] | None = None
    views: int = Field(default=1, ge=1, le=48)
    measurements: MeasureSettings = MeasureSettings()
    trees: int = Field(default=300, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "full", "mixed"] = "auto"
    threads: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "recipe" in values:  # the name that version 0.1.0 wrote
            values = {"preset" if key == "recipe" else key: value for key, value in values.items()}
        name = values.get("preset", AUTO_PRESET) if isinstance(values, Mapping) else AUTO_PRESET
        if not isinstance(name, str) or name not in PRESET_NAMES:
            raise ValueError(unknown_key_message(str(name), list(PRESET_NAMES), what="preset"))
        return merged(PRESETS.get(name, {}), values) if isinstance(values, Mapping) else values

    @field_validator("class_weights", mode="before")
    @classmethod
    def _numbers_are_ids(cls, value: Any) -> Any:
        """Turn the text that JSON makes of ids back into numbers."""
        if not isinstance(value, Mapping):
            return value
        return {int(key) if str(key).isdecimal() else key: weight for key, weight in value.items()}

    @field_serializer("may_use", when_used="json")
    def _in_order(self, may_use: frozenset[str]) -> list[str]:
        return sorted(may_use)

    @model_validator(mode="after")
    def _values_are_usable(self) -> Self:
        if not (self.architecture in (*ARCHITECTURES, OWN) or _IMPORT_PATH.fullmatch(self.architecture)):
            raise ValueError(unknown_key_message(self.architecture, list(ARCHITECTURES), what="architecture"))
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be at least 0 and below 1, got {self.betas}.")
        low, high = self.size or (None, None)
        if (low is not None and low < 0) or (high is not None and high < (low or 0)):
            raise ValueError(
                f"size should be the least and the most pixels of an object, (50, 2000) or (50, None), got {self.size}."
            )
        if isinstance(self.class_weights, dict) and not all(weight > 0 for weight in self.class_weights.values()):
            raise ValueError(f"class_weights must be more than 0, got {self.class_weights}.")
        return self

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> Self:
        """Return the settings of a named preset, with some values replaced.

        >>> TrainingSettings.from_preset("paper", epochs=20).optimizer
        'adam'
        """
        return cls(preset=name).changed(**changes)

    @property
    def min_patch_side(self) -> int:
        """Pixels that a patch needs along its sides, or nothing is left of it after the network's strides."""
        if self.architecture == "small_cnn":
            return 1 << self.depth
        return next((side for family, side in MIN_PATCH_SIDES.items() if self.architecture.startswith(family)), 1)

    def changed(self, **changes: Any) -> Self:
        """Return these settings with some values replaced; another preset begins anew, within what may count."""
        if changes.get("preset", self.preset) != self.preset:
            kept = {name: getattr(self, name) for name in PRESET_INDEPENDENT_FIELDS}
            return type(self)(preset=changes.pop("preset"), **kept).changed(**changes)
        return super().changed(**changes)
