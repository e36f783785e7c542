"""Validated training settings.

Settings can be written to JSON and read back; an unknown key or invalid value raises a one-sentence error. Importing
this module does not import torch, so that projects and panels can show and edit settings without delay.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import textwrap
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer, ValidationError, model_validator

from svetlana_jupyter.core.features.catalog import CUES, Cue, Group
from svetlana_jupyter.core.io.bounded_files import parse_json
from svetlana_jupyter.errors import SettingsError

DEFAULT_PRESET = "default"
AUTO_PRESET = "auto"  # the best preset of the model selection; before it has run, the default preset

_FREE_ROTATION = {"rotation": "free", "axes": "all"}
_NOT_VARIED = {"rotation": "none", "brightness": 0.0, "noise": 0.0}
# Description of each preset (shown if the model selection chooses it), and its values that differ from the defaults.
# Augmentation that hides a cue that is not allowed is applied in every preset.
_PRESETS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    DEFAULT_PRESET: ("rotated by right angles and mirrored", {}),
    "oriented": ("rotated by half turns only", {"augmentation": {"flips": False, "rotation": "half_turns"}}),
    "plain": ("no augmentation", {"augmentation": {"flips": False, **_NOT_VARIED}}),
    "free": ("rotated by any angle", {"augmentation": _FREE_ROTATION}),
    "object": ("surroundings hidden", {"patches": {"context": "hide"}}),
    "texture": (
        "surroundings hidden, brightness standardized per object",
        {"patches": {"context": "hide", "normalize": "object"}, "augmentation": _FREE_ROTATION},
    ),
    # Residual texture is faint, so that training needs many steps and prediction needs several views; it is local, so
    # that a shallow network suffices.
    "grain": (
        "faint texture of small objects",
        {"patches": {"context": "hide", "normalize": "grain"}, "augmentation": _FREE_ROTATION}
        | {"depth": 2, "steps": 30, "batch_size": 48, "views": 48},
    ),
    "wide": ("wider surroundings", {"patches": {"margin": 3.0}}),
    "forest": ("random forest on measurements, no network", {"architecture": "forest"}),
    "live": ("the classifier of live predictions: least squares and 60 trees, no network", {"architecture": "live"}),
    "paper": (
        "settings of the Svetlana paper (section 4.1, Fig. 7)",
        {"patches": {"normalize": "minmax"}, "augmentation": _NOT_VARIED, "width": 32, "class_weights": "none"}
        | {"optimizer": "adam", "learning_rate": 0.001, "weight_decay": 0.0, "schedule": "step"}
        | {"epochs": 200, "steps": None, "batch_size": 8},
    ),
}
PRESET_DESCRIPTIONS = {name: description for name, (description, _) in _PRESETS.items()}
PRESETS = {name: values for name, (_, values) in _PRESETS.items()}
# Presets that the model selection compares. Of equally good presets, it selects the first.
CANDIDATE_PRESETS = (
    *(DEFAULT_PRESET, "oriented", "free", "plain", "object", "texture", "grain", "wide"),
    *("forest", "live"),
)
PRESET_NAMES = (AUTO_PRESET, *PRESETS)

NESTED_SETTINGS = ("patches", "augmentation", "measurements")  # fields that hold settings objects

# torchvision networks, for 2D images, and the smallest patch side of each family in pixels.
MIN_PATCH_SIDES = {"resnet": 32, "densenet": 32, "alexnet": 63}
TORCHVISION_ARCHITECTURES = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    "alexnet",
)
FOREST, LIVE_CLASSIFIER = "forest", "live"
FEATURE_ARCHITECTURES = (FOREST, LIVE_CLASSIFIER)  # classifiers of features, without a network
ARCHITECTURES = ("small_cnn", *TORCHVISION_ARCHITECTURES, *FEATURE_ARCHITECTURES)
USER_ARCHITECTURE = "own"  # a torch.nn.Module that the user passed as an object
PRESET_INDEPENDENT_FIELDS = ("may_use", "exclude_border", "size")  # kept when another preset is chosen
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
TRANSFORM = "__class_fullname__"  # the key under which Albumentations stores the name of a transform


def parse_allowed_cues(stored: Any) -> Any:
    """Convert a stored value to the set of allowed cues.

    Parameters
    ----------
    stored : mapping of str to bool, or iterable of str
        Files hold one truth value per cue, so that a cue that is added in a later version counts as allowed in older
        runs. Files of version 0.1.0, and Python code, list the allowed cues instead.

    Examples
    --------
    >>> sorted(parse_allowed_cues({"size": False, "brightness": False}))
    ['orientation', 'surroundings']
    """
    if not isinstance(stored, Mapping):
        return stored
    unknown = [cue for cue in stored if cue not in CUES]  # kept, so that the validation error names them
    return frozenset([*(cue for cue in CUES if stored.get(cue, True)), *unknown])


AllowedCues = Annotated[
    frozenset[Cue],
    BeforeValidator(parse_allowed_cues),
    PlainSerializer(lambda allowed: {cue: cue in allowed for cue in CUES}, when_used="json"),
]


class Settings(BaseModel):
    """Immutable settings with readable errors.

    Raises
    ------
    SettingsError
        If a key is unknown (the error names the most similar known key) or a value is invalid.
    """

    model_config = {"frozen": True, "extra": "forbid", "allow_inf_nan": False, "use_attribute_docstrings": True}

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_error_message(error)) from None

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse the change, since settings are immutable."""
        raise SettingsError(
            f"Settings cannot be changed in place. Make a changed copy, for example project.settings = "
            f"project.settings.changed({name}={value!r})."
        )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """List the fields in the class docstring, for `help`."""
        fields = [
            f"{name}\n{textwrap.indent(field.description, '    ')}"
            for name, field in cls.model_fields.items()
            if field.description
        ]
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Parameters", "----------", *fields])

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        for key in values if isinstance(values, Mapping) else ():
            if key not in cls.model_fields:
                raise ValueError(unknown_key_message(str(key), list(cls.model_fields)))
        return values

    def changed(self, **changes: Any) -> Self:
        """Return a copy with some values replaced.

        A mapping for nested settings changes only the keys that it contains.

        >>> from svetlana_jupyter.core.settings import TrainingSettings
        >>> TrainingSettings().changed(epochs=5, patches={"size": 32}).patches.size
        32.0
        """
        return type(self)(**merge_settings(self.model_dump(), changes))

    def to_json(self) -> str:
        """Return all settings, defaults included, as indented JSON."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the output of `to_json`, possibly edited by hand."""
        try:
            values = parse_json(text, strict=True)
        except json.JSONDecodeError as error:
            raise SettingsError(
                f"Settings are not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}. "
                "Correct the JSON and try again."
            ) from None
        except ValueError as error:
            raise SettingsError(f"Settings are not valid JSON: {error}. Correct the JSON and try again.") from None
        if not isinstance(values, dict):
            raise SettingsError(f"Settings must be a JSON object in braces, got {type(values).__name__}.")
        return cls(**values)


def merge_settings(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` with ``changes``; nested settings are merged key by key."""
    result = dict(values)
    for key, change in changes.items():
        value = change.model_dump() if isinstance(change, Settings) else change
        if key in NESTED_SETTINGS and isinstance(value, Mapping):
            value = merge_settings(result.get(key, {}), value)
        result[key] = value
    return result


SIMILAR = 0.6  # similarity from which a key is suggested; lower ones suggest unrelated keys


def unknown_key_message(key: str, known: list[str], kind: str = "setting") -> str:
    """Return an error message that suggests the most similar known key."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=SIMILAR)
    hint = f"Did you mean {near[0]!r}?" if near else f"Choose among {', '.join(known)}."
    return f"Unknown {kind} {key!r}. {hint}"


def _error_message(error: ValidationError) -> str:
    """Return the first validation error as one sentence that names the setting."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    # Members of a union appear in the location as type names; only field names mean something to the user.
    names = [str(part) for part in first["loc"] if isinstance(part, str) and part.isidentifier()]
    name = ".".join(names[: 2 if names and names[0] in NESTED_SETTINGS else 1])
    return f"Setting {name!r} cannot be {first['input']!r}: {message[:1].lower()}{message[1:]}."


class PatchSettings(Settings):
    """Settings of the object-centered patches that a network sees."""

    size: Literal["auto"] | float | tuple[float, ...] = "auto"
    """Field of view in the given unit: one number, or one per axis ([z,] y, x). "auto" is the longest bounding box side
    of the annotated objects times the margin, and is computed when training starts."""
    unit: Literal["px", "um"] = "px"
    """Unit of the size: pixels or micrometers. Micrometers need an image with known pixel size, and make anisotropic
    voxels isotropic."""
    margin: float = Field(default=1.5, ge=1.0, le=10.0)
    """Automatic size, relative to the longest bounding box side."""
    sampling: Literal["auto"] | int | tuple[int, ...] | None = None
    """Pixels per side to which the field of view is resampled. None keeps the image's pixels, but an automatic size is
    limited to 48 pixels per side in 2D and 24 in 3D, or more if a network needs more. "auto" limits a given size, so
    that model selection stays fast: to 96 pixels per side in 2D and 24 in 3D and, if the context is hidden, to a field
    of view no wider than an automatic size."""
    view: Literal["fixed", "object"] = "fixed"
    """Scaling of the field of view. "fixed" is the same for all objects. "object" sets it to the longest
    bounding box side of each object times the margin, so that every object fills the same fraction of its patch. Blur
    and noise could still reveal the object's size. To prevent this, patches are resampled by nearest neighbor to so few
    pixels that almost no object is enlarged, light of the surroundings is removed from the object's edge, and outlines
    are smoothed."""
    context: Literal["keep", "hide"] = "keep"
    """Use of the surroundings. "keep" shows them. "hide" multiplies the patch by the object's dilated mask, so that the
    surroundings cannot influence the predicted class (problem b of the paper, section 2.5)."""
    dilation: int = Field(default=2, ge=0, le=100)
    """Pixels by which the mask is dilated if the context is hidden."""
    rim: Literal["auto"] | Annotated[int, Field(ge=0, le=100)] = 0
    """Eroded margin: pixels left out on either side of the object's edge, where blur mixes the light of the object and
    its surroundings. Use it if the context is hidden or the normalization is "apart"; a value above 0 replaces the
    dilation. "auto" is 2, or less if 2 would leave little of most objects. If the view is "object", twice as many
    pixels of the patch are left out around the object and none inside it, and "auto" is 1."""
    mask_channel: bool = True
    """Add the object's own mask as the last channel (the paper's default)."""
    normalize: Literal["none", "minmax", "max", "percentile", "object", "both", "both_raw", "apart", "grain"] = "both"
    """Normalization of each channel; constant channels become zero. "none" keeps the values. "minmax" and "max" are the
    methods of the paper (section 4.1). "percentile" scales between the image's 1st and 99.8th percentiles. "object"
    standardizes by the mean and standard deviation of the object's own pixels. "both" includes every channel twice: the
    whole patch as by "percentile", then the object alone as by "object", so that brightness and surroundings can be
    used and faint texture remains visible. "both_raw" does the same with original values in place of "percentile",
    which depends on the whole image. "apart" standardizes the object and its surroundings separately, each by its own
    pixels. "grain" shows only the residual texture of the object, relative to its brightness: a fitted blurred outline
    is subtracted."""
    scope: Literal["patch", "image"] = "patch"
    """Pixels whose extremes the normalizations "minmax" and "max" use: those of the patch or of the whole image."""
    padding: Literal["reflect", "zeros"] = "reflect"
    """Values beyond the border of the image."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        for name, value in (("size", self.size), ("sampling", self.sampling)):
            if isinstance(value, tuple) and len(value) not in (2, 3):
                raise ValueError(f"Setting 'patches.{name}' must be one number or one per axis, got {value}.")
            sides = value if isinstance(value, tuple) else (value,) if isinstance(value, int | float) else ()
            if any(side <= 0 if name == "size" else side < 4 for side in sides):
                least = "more than 0" if name == "size" else "at least 4"
                raise ValueError(f"Setting 'patches.{name}' must be {least}, got {value}.")
        return self

    @property
    def is_frozen(self) -> bool:
        """Whether size, sampling and ``rim`` are given as numbers, none as "auto"."""
        return isinstance(self.size, tuple) and isinstance(self.sampling, tuple) and self.rim != "auto"

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each axis of concrete patches."""
        assert isinstance(self.sampling, tuple)
        return self.sampling

    @property
    def has_doubled_channels(self) -> bool:
        """Whether the patch shows every channel twice."""
        return self.normalize in ("both", "both_raw")


def _parse_class_ids(value: Any) -> Any:
    """Convert class ids, which are text in JSON, to numbers."""
    if not isinstance(value, Mapping):
        return value
    return {int(key) if str(key).isdecimal() else key: weight for key, weight in value.items()}


def _check_pipeline(pipeline: Any) -> Any:
    """Return a serialized Albumentations pipeline as JSON stores it."""
    if not isinstance(pipeline, Mapping):
        return pipeline
    _check_transform(pipeline.get("transform"))
    try:
        return json.loads(json.dumps(dict(pipeline)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"Setting 'augmentation.pipeline' cannot be stored as JSON: {error}.") from None


def _check_transform(transform: object) -> None:
    """Raise an error unless this is a serialized Albumentations transform."""
    name = transform.get(TRANSFORM) if isinstance(transform, Mapping) else None
    if not isinstance(transform, Mapping) or not isinstance(name, str):
        raise ValueError(
            "Setting 'augmentation.pipeline' must be the dictionary that albumentations.to_dict(pipeline) returns, "
            f'with a transform named by "{TRANSFORM}".'
        )
    if "." in name and not name.startswith("albumentations."):
        raise ValueError(
            f"Setting 'augmentation.pipeline' may only use transforms of Albumentations itself, got {name!r}. "
            "Leave that transform out."
        )
    nested = transform.get("transforms", [])
    for inner in nested if isinstance(nested, list | tuple) else [nested]:
        _check_transform(inner)


class AugmentSettings(Settings):
    """Augmentation of training patches.

    The classifier learns to ignore properties that augmentation varies. Each time a patch is used for training, it is
    varied by new random amounts, uniformly distributed up to the given values.

    Raises
    ------
    SettingsError
        If a pipeline is not a serialized Albumentations transform, or names a transform of another package.
    """

    flips: bool = True
    """Mirror along every axis at random."""
    rotation: Literal["none", "half_turns", "right_angles", "free"] = "right_angles"
    """Random rotation. "half_turns" preserves orientation, such as that of stripes, but not direction. "right_angles"
    needs no interpolation; between axes with different numbers of pixels or pixel sizes, only half turns are used.
    "free" rotates by any angle."""
    axes: Literal["z", "all"] = "z"
    """In 3D, rotate about z only or about any axis. For anisotropic voxels, choose the unit "um" for patches: with
    "px", rotations distort the objects."""
    scale: float = Field(default=0.0, ge=0.0, lt=0.9)
    """Maximum relative change of size."""
    shift: float = Field(default=0.0, ge=0.0, le=0.5)
    """Shift along each axis as a fraction of the field of view; by whole pixels unless patches are also scaled or
    rotated freely."""
    brightness: float = Field(default=0.1, ge=0.0, le=2.0)
    """Maximum relative change of gain, and maximum offset in units of the channel's standard deviation; drawn for each
    channel separately."""
    gamma: float = Field(default=0.0, ge=0.0, le=4.0)
    """Gamma correction between a patch's minimum and maximum, per channel: exponents from 1 / (1 + gamma) to 1 +
    gamma."""
    color: float = Field(default=0.0, ge=0.0, le=1.0)
    """Maximum fraction of every other channel that is mixed into each channel, which imitates stains of different
    strength; no effect on images of a single channel."""
    noise: float = Field(default=0.05, ge=0.0, le=2.0)
    """Standard deviation of Gaussian noise, in units of a channel's standard deviation."""
    blur: float = Field(default=0.0, ge=0.0, le=10.0)
    """Standard deviation of a Gaussian blur, in pixels of the patch."""
    share: float = Field(default=1.0, ge=0.0, le=1.0)
    """Fraction of a batch's patches that are mirrored, rotated, scaled and shifted."""
    pipeline: Annotated[dict[str, Any] | None, BeforeValidator(_check_pipeline)] = None
    """An Albumentations pipeline as serialized by albumentations.to_dict, applied last, to images or volumes. Its input
    is the patch, with each channel scaled to 0 to 1, and the object's mask as "mask"; it must keep the shape."""

    @classmethod
    def none(cls) -> Self:
        """Return settings that leave every patch unchanged.

        >>> AugmentSettings.none().varies
        False
        """
        return cls(flips=False, rotation="none", brightness=0.0, noise=0.0)

    @property
    def varied_properties(self) -> list[str]:
        """Properties of patches that are varied, such as "rotation" and "brightness"."""
        moves = self.share > 0
        is_varied = {
            "rotation": moves and self.rotation != "none",
            "mirroring": moves and self.flips,
            "size": moves and self.scale > 0,
            "position": moves and self.shift > 0,
            "brightness": self.brightness > 0 or self.gamma > 0,
            "color": self.color > 0,
            "noise": self.noise > 0,
            "sharpness": self.blur > 0,
            "the effect of the Albumentations pipeline": self.pipeline is not None,
        }
        return [name for name in is_varied if is_varied[name]]

    @property
    def varies(self) -> bool:
        """Whether augmentation changes patches."""
        return bool(self.varied_properties)


class MeasureSettings(Settings):
    """Measurements (`core.features.catalog`) that a random forest uses."""

    groups: tuple[Group, ...] = Field(default=("shape", "intensity", "texture", "ring"), title="Measurements")
    """Groups of measurements: "shape", "intensity", "texture", "ring" (brightness around the object), "ring_texture",
    "orientation", "position", "blob" (small structures at several scales) and "oriented" (Gabor filters, 2D only).
    Without "orientation", "position" and "oriented", rotating and moving objects does not change the prediction."""
    may_use: AllowedCues = frozenset(CUES)
    """Cues that measurements may use; measurements that use any other cue are left out."""
    ring: float = Field(default=5.0, ge=1.0, le=100.0, title="Ring width")
    """Width of the surrounding annulus in pixels (of the finest axis, if voxels are anisotropic)."""
    rim: int = Field(default=0, ge=0, le=20)
    """Eroded margin: pixels left out on either side of the object's edge, where blur mixes the light of the object and
    its surroundings. It applies to all groups but "shape" and "position". Objects of which no pixel would remain are
    measured whole."""


class TrainingSettings(Settings):
    """All settings of a training run.

    The same settings, seed and number of threads give the same weights. The settings cover section 4.1 of the paper.
    The defaults are those of the preset "default"; see `from_preset`.
    """

    preset: str = AUTO_PRESET
    """Preset that supplies all values that are not given. With "auto", the default, a project compares several presets
    within the allowed cues, without changing given values, and trains with the best one, in fewer epochs if time is
    short. Outside a project, "auto" has the values of "default"."""
    may_use: AllowedCues = frozenset(CUES)
    """Cues that the classifier may use: "brightness", "orientation", "size" and "surroundings"; all by default. No
    other setting can reveal a cue that is not allowed."""
    exclude_border: bool = False
    """Do not train on objects that touch the border of their image; they are predicted nevertheless."""
    size: tuple[float | None, float | None] | None = Field(default=None, title="Pixels")
    """Minimum and maximum number of pixels (voxels) of the objects to train on: (50, none) leaves out small objects.
    None accepts any size."""
    patches: PatchSettings = PatchSettings()
    """Settings of the patches that a network sees."""
    architecture: str = "small_cnn"
    """The classifier: the network "small_cnn" in 2D and 3D; a ResNet, DenseNet or AlexNet in 2D; "forest", a random
    forest on measurements; or "live", least squares averaged with 60 trees on measurements and features of patches, as
    in live predictions. Your own torch.nn.Module is given by its path "package.module:Name"; import its module first,
    since settings never import code. "own" means a torch.nn.Module that was passed as an object. AlexNet has no
    normalization layers and needs learning rates of 0.0005 or less."""
    depth: int = Field(default=3, ge=1, le=8)
    """Blocks of small_cnn."""
    width: int = Field(default=16, ge=1, le=512)
    """Channels of the first block of small_cnn; every further block doubles their number (Fig. 7 of the paper)."""
    norm: Literal["batch", "group"] = "batch"
    """Normalization layers. "group" normalizes each patch on its own, without running averages."""
    pretrained: bool = False
    """Start a torchvision network from its published weights, which are downloaded once."""
    start_from: str | None = Field(default=None, min_length=1)
    """Start from the weights of an earlier run, given by its name in the project or by its folder, or from the weights
    in a .safetensors file. Weights of matching shape are used; the training notes list the others."""
    body: Literal["train", "frozen"] = "train"
    """Training of all layers but the last. "frozen" keeps them unchanged and trains only the last layer."""
    body_rate: float | None = Field(default=None, gt=0.0, le=10.0)
    """Learning rate of all layers but the last; None uses the same rate for all."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """Optimizer. "adamw" decouples the weight decay from the gradients; "adam" adds it to them."""
    learning_rate: float = Field(default=0.005, gt=0.0, le=10.0)
    """Learning rate of the optimizer; for the schedules "one_cycle" and "cosine", the maximum."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the optimizer's moment estimates."""
    weight_decay: float = Field(default=0.01, ge=0.0)
    """Weight decay: how strongly weights are pulled toward zero."""
    schedule: Literal["one_cycle", "cosine", "step", "constant"] = "one_cycle"
    """Change of the learning rate during training. "step" multiplies the rate by the decay at regular intervals (by 0.1
    every 100 epochs in the paper)."""
    decay: float = Field(default=0.1, gt=0.0, le=1.0)
    """Factor by which the schedule "step" multiplies the learning rate at each step."""
    decay_every: int = Field(default=100, ge=1)
    """Epochs between two steps of the schedule "step"."""
    epochs: int = Field(default=40, ge=1)
    """Number of epochs; each ends with a loss and a score. The schedule spans all epochs."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many epochs without a better validation score, or without a lower training loss if there is no
    validation split."""
    steps: int | None = Field(default=10, ge=1)
    """Batches per epoch, whatever the number of annotations. None makes one pass over all patches."""
    batch_size: int = Field(default=16, ge=1, le=4096)
    """Patches per step; halved once if they do not fit into memory."""
    loss: Literal["cross_entropy", "binary_cross_entropy", "l1", "smooth_l1", "mse"] = "cross_entropy"
    """Loss function. "cross_entropy" and "binary_cross_entropy" compare logits, the others probabilities, with the
    labels."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Fraction of each target probability that is spread evenly over all classes."""
    class_weights: Annotated[
        Literal["none", "softened", "balanced"] | dict[int | str, float], BeforeValidator(_parse_class_ids)
    ] = "softened"
    """How often training uses patches of each class. "none": in proportion to the annotations of the class.
    "softened": in proportion to their square root, which helps rare classes without predicting them too often.
    "balanced": equally often for every class. Alternatively, one factor per class, by name or id, 1 for classes not
    listed. A random forest treats "softened" as "balanced", and a live classifier ignores this setting."""
    augmentation: AugmentSettings = AugmentSettings()
    """Augmentation of training patches."""
    held_out: float = Field(default=0.2, ge=0.0, le=0.5)
    """Fraction of the annotations in the validation split, on which every epoch is scored; no group is divided between
    training and validation."""
    held_out_from: int = Field(default=400, ge=10)
    """Smallest number of annotations for a validation split. With fewer, all annotations are used for training, and the
    score comes from cross-validation."""
    folds: int = Field(default=4, ge=2, le=20)
    """Number of cross-validation folds. More folds take longer; fewer folds leave fewer objects to train on."""
    hold_out_by: tuple[str, ...] | None = None
    """Grouping columns, such as "patient" or "image"; the objects of a group are kept in one fold. None uses all
    columns together. Without columns, each image is a group, and a single image is divided into regions."""
    views: int = Field(default=1, ge=1, le=48)
    """Number of mirrored and rotated views of each patch over which predictions are averaged; only views that
    augmentation can produce are used. Prediction time is proportional to this number; trained networks rarely improve
    with more than one view."""
    measurements: MeasureSettings = MeasureSettings()
    """Measurements that a random forest and a live classifier use."""
    trees: int = Field(default=300, ge=1, le=10_000)
    """Number of trees of the random forest."""
    seed: int = Field(default=0, ge=0)
    """Seed of all random numbers: the same seed gives the same weights."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to train on. "auto" uses a CUDA GPU if there is one, else an Apple GPU (2D images only), else the CPU."""
    precision: Literal["auto", "full", "mixed"] = "auto"
    """Floating-point precision. "mixed" computes in 16 bits where that is safe; "auto" does so where it is faster."""
    threads: int | None = Field(default=None, ge=1)
    """Number of torch threads; None leaves it unchanged."""

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        if "recipe" in values:  # the key that version 0.1.0 wrote
            values = {"preset" if key == "recipe" else key: value for key, value in values.items()}
        name = values.get("preset", AUTO_PRESET)
        if name not in PRESET_NAMES:
            raise ValueError(unknown_key_message(str(name), list(PRESET_NAMES), kind="preset"))
        return merge_settings(PRESETS.get(name, {}), values)

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if not (self.architecture in (*ARCHITECTURES, USER_ARCHITECTURE) or _IMPORT_PATH.fullmatch(self.architecture)):
            raise ValueError(unknown_key_message(self.architecture, list(ARCHITECTURES), kind="architecture"))
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"Setting 'betas' must be at least 0 and below 1, got {self.betas}.")
        low, high = self.size or (None, None)
        if (low is not None and low < 0) or (high is not None and high < (low or 0)):
            raise ValueError(
                "Setting 'size' must be the minimum and maximum pixels of an object, such as (50, 2000) or (50, None), "
                f"got {self.size}."
            )
        if isinstance(self.class_weights, dict) and not all(weight > 0 for weight in self.class_weights.values()):
            raise ValueError(f"Setting 'class_weights' must be more than 0, got {self.class_weights}.")
        return self

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> Self:
        """Return the settings of a preset, with some values replaced.

        >>> TrainingSettings.from_preset("paper", epochs=20).optimizer
        'adam'
        """
        return cls(preset=name).changed(**changes)

    @property
    def has_network(self) -> bool:
        """Whether the classifier is a network that is trained on patches."""
        return self.architecture not in FEATURE_ARCHITECTURES

    @property
    def min_patch_side(self) -> int:
        """Smallest patch side, in pixels, that the network's strides do not reduce to 0."""
        if self.architecture == "small_cnn":
            return 1 << self.depth
        return next((side for family, side in MIN_PATCH_SIDES.items() if self.architecture.startswith(family)), 1)

    def changed(self, **changes: Any) -> Self:
        """Return a copy with some values replaced.

        Changing the preset resets all values but the allowed cues and the selection of objects to train on.
        """
        if changes.get("preset", self.preset) != self.preset:
            kept = {name: getattr(self, name) for name in PRESET_INDEPENDENT_FIELDS}
            return type(self)(preset=changes.pop("preset"), **kept).changed(**changes)
        return super().changed(**changes)
