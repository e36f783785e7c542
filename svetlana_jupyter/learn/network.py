"""A trained network as a classifier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from svetlana_jupyter.core.pairing import ImagePair
from svetlana_jupyter.core.patches import cut_patches
from svetlana_jupyter.errors import ClassifierError
from svetlana_jupyter.learn.architectures import LAYOUTS, SmallCNN, build_network
from svetlana_jupyter.learn.classifier import Described, Specification, Tensors, write_classifier
from svetlana_jupyter.learn.symmetry import look, views


class Network(Described):
    """A network and its specification.

    Parameters
    ----------
    specification : Specification
    module : SmallCNN
        Set to evaluation and moved to the device of the settings.
    """

    kind = "network"

    def __init__(self, specification: Specification, module: SmallCNN) -> None:
        self.specification = specification
        self.device = choose_device(specification.settings.device)
        self.module = module.to(self.device).eval()
        settings = specification.settings
        self._views = views(settings.augmentation, settings.patches, settings.views)

    def cut(self, pair: ImagePair, objects: pd.DataFrame) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        return cut_patches(pair, objects, self.patches)

    @torch.inference_mode()
    def classify(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        patches = torch.from_numpy(inputs).to(self.device, memory_format=LAYOUTS[self.ndim])
        total = torch.zeros(len(patches), len(self.classes), device=self.device)
        for view in self._views:
            total += self.module(look(patches, view)).softmax(dim=1)
        probabilities: NDArray[np.float32] = (total / len(self._views)).cpu().numpy()
        return probabilities

    def tensors(self) -> Tensors:
        return {name: values.detach().cpu().contiguous().numpy() for name, values in self.module.state_dict().items()}

    def save(self, folder: str | Path) -> None:
        write_classifier(folder, self.kind, self.specification, self.tensors())

    @classmethod
    def from_tensors(cls, specification: Specification, tensors: Tensors) -> Self:
        """Build the network that the specification describes and give it its weights."""
        channels = len(tensors.get("standardize.mean", ()))
        module = build_network(specification.settings, specification.ndim, channels, len(specification.classes))
        try:
            module.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in tensors.items()})
        except RuntimeError as error:
            raise ClassifierError(
                f"the weights do not fit the network that is described beside them: {error}"
            ) from error
        return cls(specification, module)


def limit_threads(count: int) -> None:
    """Compute on so many cores from now on, in the thread that calls."""
    torch.set_num_threads(count)


def choose_device(name: str) -> torch.device:
    """Return the device by name; "auto" is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ClassifierError('device="cuda" was asked for, but torch finds no CUDA GPU. Use device="auto" or "cpu".')
    if name == "mps" and not torch.backends.mps.is_available():
        raise ClassifierError('device="mps" was asked for, but torch finds no Apple GPU. Use device="auto" or "cpu".')
    return torch.device(name)
