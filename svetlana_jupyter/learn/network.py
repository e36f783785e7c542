"""A trained network as a classifier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from svetlana_jupyter.core.pairing import ImagePair
from svetlana_jupyter.core.patches import cut_patches
from svetlana_jupyter.core.settings import OWN
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn.architectures import LAYOUTS, Classifying
from svetlana_jupyter.learn.building import build_network
from svetlana_jupyter.learn.classifier import Described, Specification, Tensors, write_classifier
from svetlana_jupyter.learn.device import choose_device, computing, mixed_precision
from svetlana_jupyter.learn.symmetry import look, views


class Network(Described):
    """A network and its specification.

    Parameters
    ----------
    specification : Specification
    module : Classifying
        Set to evaluation and moved to the device.
    device : torch.device, optional
        By default that of the settings.
    """

    kind = "network"

    def __init__(self, specification: Specification, module: Classifying, device: torch.device | None = None) -> None:
        self.specification = specification
        settings = specification.settings
        self.device = device or choose_device(settings.device, specification.ndim)
        self.module = module.to(self.device).eval()
        self._mixed = mixed_precision(settings.precision, self.device)
        self._views = views(settings.augmentation, settings.patches, settings.views)

    def cut(self, pair: ImagePair, objects: pd.DataFrame) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        return cut_patches(pair, objects, self.patches)

    @torch.inference_mode()
    def classify(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        patches = torch.from_numpy(inputs).to(self.device, memory_format=LAYOUTS[self.ndim])
        total = torch.zeros(len(patches), len(self.classes), device=self.device)
        for view in self._views:
            with computing(self.device, self._mixed):
                logits = self.module(look(patches, view))
            total += logits.float().softmax(dim=1)
        probabilities: NDArray[np.float32] = (total / len(self._views)).cpu().numpy()
        return probabilities

    def tensors(self) -> Tensors:
        return {name: values.detach().cpu().contiguous().numpy() for name, values in self.module.state_dict().items()}

    def save(self, folder: str | Path) -> None:
        write_classifier(folder, self.kind, self.specification, self.tensors())

    @classmethod
    def from_tensors(cls, specification: Specification, tensors: Tensors, own: nn.Module | None = None) -> Self:
        """Build the network that the specification describes, around the user's own where it is one, with its weights.

        A device that this machine lacks is replaced by the best it has.
        """
        settings, ndim = specification.settings, specification.ndim
        if settings.architecture == OWN and own is None:
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
        try:
            device = choose_device(settings.device, ndim)
        except ClassifierError:
            device = choose_device("auto", ndim)
        return cls(specification, module, device)
