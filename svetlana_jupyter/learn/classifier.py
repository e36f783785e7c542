"""Network classifier, and loading of saved classifiers."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from svetlana_jupyter.core.patches import patch_regions, read_patches
from svetlana_jupyter.core.settings import USER_ARCHITECTURE
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn.build import build_network, load_weights
from svetlana_jupyter.learn.device import autocast_context, choose_device, compute_dtype, keep_freed_memory
from svetlana_jupyter.learn.forest import ForestClassifier
from svetlana_jupyter.learn.live_classifier import LiveClassifier
from svetlana_jupyter.learn.networks import (
    MEMORY_FORMATS,
    ClassificationNetwork,
    FoldedSmallCNN,
    SmallCNN,
    TorchvisionNetwork,
    fold_network,
)
from svetlana_jupyter.learn.spatial import Symmetry, apply_view, averaging_views, symmetries
from svetlana_jupyter.learn.specification import (
    WEIGHTS_FILE,
    ClassifierBase,
    ClassifierSpec,
    Tensors,
    UncutInputs,
    read_classifier_spec,
    reject_pickles,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from svetlana_jupyter.core.features.feature_sources import FeatureSource
    from svetlana_jupyter.core.io.chunks import ArrayRegion
    from svetlana_jupyter.core.io.image_pair import ImagePair


class NetworkClassifier(ClassifierBase):
    """Classifier based on a neural network.

    Parameters
    ----------
    specification : ClassifierSpec
    module : ClassificationNetwork
        The trained network. It is set to evaluation mode and moved to the device of the settings, or to the best
        available device if this machine lacks that device.
    views : sequence of Symmetry, optional
        Flips and rotations over which predictions are averaged; by default ``settings.views`` of them.
    """

    kind = "network"

    def __init__(
        self, specification: ClassifierSpec, module: ClassificationNetwork, views: Sequence[Symmetry] | None = None
    ) -> None:
        self.specification = specification
        settings = specification.settings
        self.device = _device_here(specification)
        self.module = module.to(self.device).eval()
        self._dtype = compute_dtype(settings.precision, self.device)
        self.precision = str(self._dtype).removeprefix("torch.")
        # A GPU computes one batch at a time, and a module of the user may keep values between its calls.
        self.parallel = self.device.type == "cpu" and isinstance(module, SmallCNN | TorchvisionNetwork)
        keep_freed_memory()
        self._network = fold_network(self.module, self.device, self._dtype) or self.module
        default = averaging_views(settings.augmentation, settings.patches, settings.views)
        self._views = tuple(views or default)

    def read(self, pair: ImagePair, objects: pd.DataFrame, max_objects: int) -> Iterator[UncutInputs]:
        """Yield labels (n,) and functions that cut patches (n, C, [z,] y, x)."""
        return read_patches(pair, objects, self.patches, max_objects)

    def windows(self, pair: ImagePair, objects: pd.DataFrame) -> list[ArrayRegion]:
        """Return the regions of the image that `read` reads for these objects."""
        return patch_regions(pair, objects, self.patches)

    def with_test_time_augmentation(self) -> Self:
        """Return a classifier that averages over all flips and rotations of training."""
        settings = self.specification.settings
        all_views = symmetries(settings.augmentation, settings.patches)
        if settings.augmentation.share < 1 or len(all_views) == 1:
            raise ClassifierError(
                "This run was trained without flips and rotations of every patch, so orientation may decide the class, "
                "and a mirrored view may look like another class. Predict without average=True, or train with flips."
            )
        return type(self)(self.specification, self.module, all_views)

    def classify(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities (n, number of classes) of patches (n, C, [z,] y, x)."""
        return self.classify_and_embed(inputs)[0]

    @torch.inference_mode()
    def classify_and_embed(self, inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Return probabilities and features of patches, from the same forward passes.

        Parameters
        ----------
        inputs : float32 of shape (n, C, [z,] y, x)

        Returns
        -------
        probabilities : float32 of shape (n, number of classes)
        features : float16 of shape (n, d)
            Input of the last layer, averaged over views; d is 0 unless the network is a `SmallCNN`.
        """
        patches = torch.from_numpy(inputs).to(self.device)
        if not isinstance(self._network, FoldedSmallCNN):  # which converts them itself
            patches = patches.to(memory_format=MEMORY_FORMATS[self.ndim])
        logits, features = zip(*(self._run(apply_view(patches, view)) for view in self._views), strict=True)
        probabilities = torch.stack([one.float().softmax(dim=1) for one in logits]).mean(dim=0)
        return probabilities.cpu().numpy(), torch.stack(features).float().mean(dim=0).half().cpu().numpy()

    def _run(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (n, classes) and features (n, d) of patches."""
        if isinstance(self._network, FoldedSmallCNN):
            features = self._network.embed(patches)
            return self._network.head(features), features
        with autocast_context(self.device, self._dtype):
            if isinstance(self._network, SmallCNN):
                features = self._network.embed(patches)
                return self._network.head(features), features
            return self._network(patches), patches.new_empty(len(patches), 0)

    def tensors(self) -> Tensors:
        """Return the weights by name."""
        return {name: values.detach().cpu().contiguous().numpy() for name, values in self.module.state_dict().items()}

    @classmethod
    def from_weights(
        cls, specification: ClassifierSpec, weights: Mapping[str, Tensor], user_module: nn.Module | None = None
    ) -> Self:
        """Create a classifier from its specification and weights.

        Parameters
        ----------
        specification : ClassifierSpec
        weights : mapping of str to Tensor
        user_module : Module, optional
            The user's own module; required if the architecture is "own".
        """
        settings, ndim = specification.settings, specification.ndim
        if settings.architecture == USER_ARCHITECTURE and user_module is None:
            raise ClassifierError(
                f'The architecture "own" needs a user-defined torch module of class {specification.module}. '
                "Pass it, for example network=MyNetwork()."
            )
        channels = len(weights.get("standardize.mean", ()))
        module = build_network(settings, ndim, channels, len(specification.classes), user_module)
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise ClassifierError(
                f"The weights do not fit the network: {error}. Pass the network that was trained."
            ) from error
        return cls(specification, module)

    def __reduce__(self) -> tuple[type[NetworkClassifier], tuple[object, ...]]:
        """Pickle the network on the CPU, because another process may have no GPU.

        The other process computes in the same number of bits, also if its processor is not faster with them.
        """
        precision = "full" if self._dtype is torch.float32 else "mixed"
        specification = replace(self.specification, settings=self.specification.settings.changed(precision=precision))
        return type(self), (specification, copy.deepcopy(self.module).cpu(), self._views)


def _device_here(specification: ClassifierSpec) -> torch.device:
    """Return the device of the settings if available, else the best device."""
    try:
        return choose_device(specification.settings.device, specification.ndim)
    except ClassifierError:
        return choose_device("auto", specification.ndim)


Classifier = NetworkClassifier | ForestClassifier | LiveClassifier


def load_classifier(
    folder: str | Path, network: nn.Module | None = None, encoders: Mapping[str, FeatureSource] | None = None
) -> Classifier:
    """Load a classifier from the folder in which its ``save`` method wrote it.

    Parameters
    ----------
    folder : str or Path
    network : Module, optional
        The user's own module; required if the classifier was trained with a module passed as an object. Its weights are
        ignored, and it is not changed.
    encoders : mapping of str to FeatureSource, optional
        The user's encoders by the name of their source; required if a live classifier uses them.

    Raises
    ------
    ClassifierError
        If the folder holds no classifier, a pickled model, or a classifier in a newer format, or if the user's module
        is required but missing.
    """
    folder = Path(folder)
    reject_pickles(folder)
    kind, specification = read_classifier_spec(folder)
    weights = load_weights(folder / WEIGHTS_FILE, "Train the classifier again.")
    arrays = {name: values.numpy() for name, values in weights.items()} if kind != "network" else {}
    if kind == "forest":
        return ForestClassifier.from_tensors(specification, arrays)
    if kind == "live":
        return LiveClassifier.from_tensors(specification, arrays, encoders)
    return NetworkClassifier.from_weights(specification, weights, network)
