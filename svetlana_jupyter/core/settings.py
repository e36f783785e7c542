"""What decides a training, as validated data that goes to JSON and back: patches, network, optimisation, augmentation.

Importing this module loads no torch, so a project and its panels can show and edit settings at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from svetlana_jupyter.core.augment_settings import AugmentSettings
from svetlana_jupyter.core.measure_settings import MeasureSettings
from svetlana_jupyter.core.patch_settings import PatchSettings
from svetlana_jupyter.core.recipes import RECIPES
from svetlana_jupyter.core.validated import Settings, merged, unknown_key

__all__ = [
    "ARCHITECTURES",
    "RECIPES",
    "AugmentSettings",
    "MeasureSettings",
    "PatchSettings",
    "Settings",
    "TrainingSettings",
]

ARCHITECTURES = ("small_cnn", "forest")


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
    folds: int = Field(default=4, ge=2, le=20)
    hold_out_by: tuple[str, ...] | None = None
    views: int = Field(default=1, ge=1, le=48)
    measurements: MeasureSettings = MeasureSettings()
    trees: int = Field(default=300, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _begin_with_the_recipe(cls, values: Any) -> Any:
        name = values.get("recipe", "default") if isinstance(values, Mapping) else "default"
        if not isinstance(name, str) or name not in RECIPES:
            raise ValueError(unknown_key(str(name), list(RECIPES), what="recipe"))
        return merged(RECIPES[name], values) if isinstance(values, Mapping) else values

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
