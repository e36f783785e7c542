"""What decides a training, as validated data that goes to JSON and back: patches, network, optimisation, augmentation.

Importing this module loads no torch, so a project and its panels can show and edit settings at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_serializer, field_validator, model_validator

from svetlana_jupyter.core.augment_settings import AugmentSettings
from svetlana_jupyter.core.measure_settings import MeasureSettings
from svetlana_jupyter.core.measures.table import CUES, Cue
from svetlana_jupyter.core.patch_settings import PatchSettings
from svetlana_jupyter.core.recipes import AUTO_PRESET, RECIPE_NAMES, RECIPES
from svetlana_jupyter.core.validated import Settings, merged, unknown_key_message

__all__ = [
    "ARCHITECTURES",
    "RECIPES",
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
NO_RECIPES = ("may_use", "exclude_border", "size")  # what counts, whatever the recipe
OWN = "own"  # a module of the user's, given as an object
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class TrainingSettings(Settings):
    """Everything that decides a training; the same settings, seed and threads give the same weights.

    Covers section 4.1 of the paper. Defaults are those of the "default" recipe; others by `from_recipe`.

    Parameters
    ----------
    recipe : str
        One of `RECIPES`: the values of whatever is not given. "auto", the default: a project tries several of them
        within what may count, keeps what is given, trains no longer than the planned time allows, and uses the best;
        anywhere else its values are those of "default".
    may_use : set of "brightness", "orientation", "size" and "surroundings"
        The evidence that may decide a class; all by default. What is left out cannot count, whatever the other
        settings say (`core.may_use`).
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

    recipe: str = AUTO_PRESET
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
    def _begin_with_the_recipe(cls, values: Any) -> Any:
        name = values.get("recipe", AUTO_PRESET) if isinstance(values, Mapping) else AUTO_PRESET
        if not isinstance(name, str) or name not in RECIPE_NAMES:
            raise ValueError(unknown_key_message(str(name), list(RECIPE_NAMES), what="recipe"))
        return merged(RECIPES.get(name, {}), values) if isinstance(values, Mapping) else values

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
    def from_recipe(cls, name: str, **changes: Any) -> Self:
        """Return the settings of a named recipe, with some values replaced.

        >>> TrainingSettings.from_recipe("paper", epochs=20).optimizer
        'adam'
        """
        return cls(recipe=name).changed(**changes)

    @property
    def min_patch_side(self) -> int:
        """Pixels that a patch needs along its sides, or nothing is left of it after the network's strides."""
        if self.architecture == "small_cnn":
            return 1 << self.depth
        return next((side for family, side in MIN_PATCH_SIDES.items() if self.architecture.startswith(family)), 1)

    def changed(self, **changes: Any) -> Self:
        """Return these settings with some values replaced; another recipe begins anew, within what may count."""
        if changes.get("recipe", self.recipe) != self.recipe:
            kept = {name: getattr(self, name) for name in NO_RECIPES}
            return type(self)(recipe=changes.pop("recipe"), **kept).changed(**changes)
        return super().changed(**changes)
