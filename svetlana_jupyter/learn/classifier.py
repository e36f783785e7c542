"""What every classifier is to the rest of the package, and the folder it is saved in.

A trained network as a classifier.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import nn

from svetlana_jupyter.core.io.chunks import ArrayRegion
from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.patches import cut_patches, patch_regions
from svetlana_jupyter.core.settings import USER_ARCHITECTURE, PatchSettings
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn.build import build_network
from svetlana_jupyter.learn.device import autocast_context, choose_device, keep_freed_memory, mixed_precision
from svetlana_jupyter.learn.networks import MEMORY_FORMATS, ClassificationNetwork, to_onednn
from svetlana_jupyter.learn.spatial import Symmetry, apply_view, averaging_views, symmetries
from svetlana_jupyter.learn.specification import (
    WEIGHTS_FILE,
    ClassifierBase,
    ClassifierSpec,
    Tensors,
    read_classifier_spec,
    reject_pickles,
    write_classifier,
)

if TYPE_CHECKING:
    from torch.nn import Module


class Classifier(Protocol):
    """Cuts what it needs to see of objects, and gives the probability of each class."""

    specification: ClassifierSpec

    @property
    def kind(self) -> str:
        """ "network" or "forest"."""
        ...

    @property
    def classes(self) -> tuple[int, ...]: ...

    @property
    def patches(self) -> PatchSettings: ...

    @property
    def ndim(self) -> int: ...

    @property
    def channels(self) -> tuple[str, ...]: ...

    def check(self, pair: ImagePair) -> None:
        """Refuse an image that this classifier does not fit, with a `ClassifierError`."""
        ...

    def cut(self, pair: ImagePair, objects: pd.DataFrame) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield labels (n,) and inputs (n, ...) of the objects, block after block."""
        ...

    def windows(self, pair: ImagePair, objects: pd.DataFrame) -> list[ArrayRegion]:
        """Return the parts of the image that `cut` reads for these objects."""
        ...

    def with_test_time_augmentation(self) -> Classifier:
        """Return one that averages over all mirrored and turned views that training declared equivalent.

        Raises
        ------
        ClassifierError
            If there are none.
        """
        ...

    def classify(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities (n, number of classes) of what `cut` yields."""
        ...

    def tensors(self) -> Tensors:
        """Return the weights by name."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write ``weights.safetensors`` and ``classifier.json``."""
        ...


def load_classifier(folder: str | Path, network: Module | None = None) -> Classifier:
    """Read a classifier from the folder that its ``save`` wrote.

    Parameters
    ----------
    network : Module, optional
        The user's own, where it was trained as an object; its weights do not matter, and it is not written to.

    Raises
    ------
    ClassifierError
        If the folder holds no classifier, a pickled model, or one of a newer format, or if its network is the user's
        own and is not there.
    """
    # Reading a forest needs no torch, and neither kind needs the other.
    from svetlana_jupyter.learn.forest import ForestClassifier

    folder = Path(folder)
    reject_pickles(folder)
    kind, specification = read_classifier_spec(folder)
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise ClassifierError(f"the weights {str(folder / WEIGHTS_FILE)!r} cannot be read: {error}.") from error
    if kind == "forest":
        return ForestClassifier.from_tensors(specification, tensors)
    return NetworkClassifier.from_tensors(specification, tensors, network)


class NetworkClassifier(ClassifierBase):
    """A network and its specification.

    Parameters
    ----------
    specification : Specification
    module : Classifying
        Set to evaluation and moved to the device.
    device : torch.device, optional
        By default that of the settings.
    seen : sequence of View, optional
        The views that predictions are averaged over; by default as many as the settings say.
    """

    kind = "network"

    def __init__(
        self,
        specification: ClassifierSpec,
        module: ClassificationNetwork,
        device: torch.device | None = None,
        seen: Sequence[Symmetry] | None = None,
    ) -> None:
        self.specification = specification
        settings = specification.settings
        self.device = device or choose_device(settings.device, specification.ndim)
        self.module = module.to(self.device).eval()
        self._mixed = mixed_precision(settings.precision, self.device)
        keep_freed_memory()
        self._forward = self.module if self._mixed else to_onednn(self.module, self.device) or self.module
        self._views = tuple(seen or averaging_views(settings.augmentation, settings.patches, settings.views))

    def cut(self, pair: ImagePair, objects: pd.DataFrame) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        return cut_patches(pair, objects, self.patches)

    def windows(self, pair: ImagePair, objects: pd.DataFrame) -> list[ArrayRegion]:
        return patch_regions(pair, objects, self.patches)

    def with_test_time_augmentation(self) -> Self:
        settings = self.specification.settings
        every = symmetries(settings.augmentation, settings.patches)
        if settings.augmentation.share < 1 or len(every) == 1:
            raise ClassifierError(
                "this run was trained without flips and rotations of every patch, so how an object lies may count, and "
                "a mirrored view may look like another class. Predict without average=True, or train with flips."
            )
        return type(self)(self.specification, self.module, self.device, every)

    @torch.inference_mode()
    def classify(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        patches = torch.from_numpy(inputs).to(self.device)
        if self._forward is self.module:
            patches = patches.to(memory_format=MEMORY_FORMATS[self.ndim])
        total = torch.zeros(len(patches), len(self.classes), device=self.device)
        for view in self._views:
            with autocast_context(self.device, self._mixed):
                logits = self._forward(apply_view(patches, view))
            total += logits.float().softmax(dim=1)
        probabilities: NDArray[np.float32] = (total / len(self._views)).cpu().numpy()
        return probabilities

    def tensors(self) -> Tensors:
        return {name: values.detach().cpu().contiguous().numpy() for name, values in self.module.state_dict().items()}

    def save(self, folder: str | Path) -> None:
        write_classifier(folder, self.kind, self.specification, self.tensors())

    @classmethod
    def from_tensors(cls, specification: ClassifierSpec, tensors: Tensors, own: nn.Module | None = None) -> Self:
        """Build the network that the specification describes, around the user's own where it is one, with its weights.

        A device that this machine lacks is replaced by the best it has.
        """
        settings, ndim = specification.settings, specification.ndim
        if settings.architecture == USER_ARCHITECTURE and own is None:
            raise ClassifierError(
                f"this classifier's network is a {specification.module} that was given as an object. "
                "Give such an object again: network=…."
            )
        channels = len(tensors.get("standardize.mean", ()))
        module = build_network(settings, ndim, channels, len(specification.classes), own)
        try:
            module.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in tensors.items()})
        except RuntimeError as error:
            raise ClassifierError(
                f"the weights do not fit the network that is described beside them: {error}"
            ) from error
        return cls(specification, module, _device_here(specification))

    def __reduce__(self) -> tuple[Callable[..., NetworkClassifier], tuple[object, ...]]:
        """Travel to another process, which may have other devices."""
        return _arrived, (self.specification, copy.deepcopy(self.module).cpu(), self._views)


def _arrived(
    specification: ClassifierSpec, module: ClassificationNetwork, seen: Sequence[Symmetry]
) -> NetworkClassifier:
    return NetworkClassifier(specification, module, _device_here(specification), seen)


def _device_here(specification: ClassifierSpec) -> torch.device:
    try:
        return choose_device(specification.settings.device, specification.ndim)
    except ClassifierError:
        return choose_device("auto", specification.ndim)
