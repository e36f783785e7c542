"""Classifier specification, and reading and writing of a classifier's folder.

The folder holds the specification as JSON and the weights as safetensors. This module does not need torch.
"""

from __future__ import annotations

import json
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from svetlana_jupyter.core.io.bounded_files import check_regular_file, parse_json, read_bounded
from svetlana_jupyter.core.settings import PatchSettings, TrainingSettings
from svetlana_jupyter.errors import ClassifierError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd

    from svetlana_jupyter.core.io.image_pair import ImagePair

FORMAT_VERSION = 1
WEIGHTS_FILE = "weights.safetensors"
SPEC_FILE = "classifier.json"
PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib"})
Tensors = Mapping[str, NDArray[Any]]
Labels = NDArray[np.int64]
Floats = NDArray[np.float32]
UncutInputs = tuple[Labels, Callable[[], Floats]]  # labels (n,), and a function that returns their inputs


@dataclass(frozen=True)
class SourceSpec:
    """Source of the features of a classifier: its name, version and size of blocks."""

    name: str
    version: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class ClassifierSpec:
    """Description of a classifier without its weights.

    Parameters
    ----------
    classes : tuple of int
        Class ids, in the order of the columns of probabilities.
    class_names : tuple of str
        Class names at the time of training; for information only, because a project uses its current names.
    ndim : 2 or 3
    channels : tuple of str
        Names of the image channels.
    settings : TrainingSettings
        Its automatic patch settings are resolved.
    history : tuple of dict
        One entry per epoch: number of the epoch, loss, and score (None without validation objects).
    features : tuple of str
        Feature keys of a forest (`core.features.catalog`), in the order of its input columns.
    features_version : int
        Version of the features of a forest (`core.features.catalog.VERSION`).
    sources : tuple of SourceSpec
        Sources of the features of a live classifier, in the order of its input columns.
    module : str
        Class of the user's module, if the architecture is "own"; for information only.
    """

    classes: tuple[int, ...]
    class_names: tuple[str, ...]
    ndim: int
    channels: tuple[str, ...]
    settings: TrainingSettings
    history: tuple[Mapping[str, Any], ...] = ()
    features: tuple[str, ...] = ()
    features_version: int = 0
    sources: tuple[SourceSpec, ...] = ()
    module: str = ""


def computed_inputs(inputs: Iterable[tuple[Labels, Floats]]) -> Iterator[UncutInputs]:
    """Yield labels, and functions that return inputs computed before."""
    for labels, values in inputs:
        yield labels, partial(np.asarray, values)


class ClassifierBase(ABC):
    """Base class of network, forest and live classifiers.

    Attributes
    ----------
    kind : "network", "forest" or "live"
    precision : "float32", "bfloat16" or "float16"
        Type in which the classifier computes.
    parallel : bool
        Whether several threads may classify batches at the same time.
    specification : ClassifierSpec
    """

    kind: ClassVar[str]
    precision: str = "float32"
    parallel: bool = False
    specification: ClassifierSpec

    @property
    def classes(self) -> tuple[int, ...]:
        """Class ids, in the order of the columns of probabilities."""
        return self.specification.classes

    @property
    def patches(self) -> PatchSettings:
        """Patch settings, with the automatic values resolved."""
        return self.specification.settings.patches

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return self.specification.ndim

    def check(self, pair: ImagePair) -> None:
        """Raise an error if this classifier does not fit an image.

        Raises
        ------
        ClassifierError
            If dimensions or channels differ, or the patches are in micrometers and the image has no pixel size.
        """
        own, channels, name = self.specification.channels, tuple(map(str, pair.channels)), repr(pair.name)
        own_names, names = ", ".join(own), ", ".join(channels)
        if pair.ndim != self.ndim:
            problem = f"was trained on {self.ndim}D images, but {name} is {pair.ndim}D"
            advice = f"Choose {self.ndim}D images, or train on images like this one."
        elif len(channels) != len(own):
            problem = f"expects {len(own)} channels ({own_names}), but {name} has {len(channels)} ({names})"
            advice = "Add the image with these channels."
        elif channels != own and set(channels) == set(own):
            problem = f"expects the channels in the order {own_names}, but {name} has {names}"
            advice = "Add the image with its channels in that order."
        elif self.patches.unit == "um" and pair.spacing is None:
            problem = f"measures patches in micrometers, but {name} has no known pixel size"
            advice = "Add the image with spacing=(…)."
        else:
            return
        raise ClassifierError(f"This classifier {problem}. {advice}")

    @abstractmethod
    def read(self, pair: ImagePair, objects: pd.DataFrame, max_objects: int) -> Iterator[UncutInputs]:
        """Yield labels (n,) and functions that return their inputs (n, ...).

        Any thread may call these functions, which read nothing. Patches of at most ``max_objects`` objects are cut in
        one of them; features of objects are computed before.
        """

    @abstractmethod
    def classify(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities (n, number of classes) of inputs (n, ...)."""

    def classify_and_embed(self, inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Return probabilities (n, number of classes) and features (n, d) of inputs.

        Only networks have features; otherwise d is 0.
        """
        return self.classify(inputs), np.empty((len(inputs), 0), np.float16)

    @abstractmethod
    def tensors(self) -> Tensors:
        """Return the weights by name."""

    def save(self, folder: str | Path) -> None:
        """Write the classifier into a folder, as safetensors weights and a JSON file.

        Each file is first written under a temporary name and then renamed, the JSON file last, so that an interrupted
        save leaves no incomplete classifier.
        """
        folder, specification = Path(folder), self.specification
        folder.mkdir(parents=True, exist_ok=True)
        classes = zip(specification.classes, specification.class_names, strict=True)
        description = {
            "format": FORMAT_VERSION,
            "kind": self.kind,
            "architecture": specification.settings.architecture,
            "module": specification.module,
            "classes": [{"id": class_id, "name": name} for class_id, name in classes],
            "ndim": specification.ndim,
            "channels": specification.channels,
            "settings": specification.settings.model_dump(mode="json"),
            "history": specification.history,
            "features": specification.features,
            "features_version": specification.features_version,
            "sources": [asdict(source) for source in specification.sources],
            "versions": _versions(),
        }
        weights, text = folder / f"{WEIGHTS_FILE}.part", folder / f"{SPEC_FILE}.part"
        arrays = {name: np.asarray(values, order="C") for name, values in self.tensors().items()}
        save_file(arrays, weights)
        text.write_text(json.dumps(description, indent=2, ensure_ascii=False), encoding="utf-8")
        os.replace(weights, folder / WEIGHTS_FILE)
        os.replace(text, folder / SPEC_FILE)


def read_classifier_spec(folder: Path) -> tuple[str, ClassifierSpec]:
    """Read the kind and specification of a classifier from its folder.

    Raises
    ------
    ClassifierError
        If the folder has no JSON description of a classifier, or if the description is invalid or in a newer format.
    """
    try:
        check_regular_file(folder / SPEC_FILE)
    except OSError:
        raise ClassifierError(
            f"A classifier is a folder with {WEIGHTS_FILE} and {SPEC_FILE}, but {str(folder)!r} has no {SPEC_FILE}. "
            "Choose the folder of a run."
        ) from None
    try:
        values = parse_json(read_bounded(folder / SPEC_FILE))
        if values["format"] > FORMAT_VERSION:
            raise ClassifierError(
                f"{str(folder)!r} was written by a newer version of svetlana-jupyter (format {values['format']}; this "
                f"version reads format {FORMAT_VERSION}). Update svetlana-jupyter."
            )
        if values["kind"] not in ("forest", "network", "live"):
            raise ClassifierError(
                f"{str(folder)!r} holds a classifier of unknown kind {values['kind']!r}. Train it again."
            )
        return values["kind"], ClassifierSpec(
            classes=tuple(int(entry["id"]) for entry in values["classes"]),
            class_names=tuple(str(entry["name"]) for entry in values["classes"]),
            ndim=int(values["ndim"]),
            channels=tuple(map(str, values["channels"])),
            settings=TrainingSettings(**values["settings"]),
            history=tuple(values["history"]),
            features=tuple(values.get("features", ())),
            features_version=int(values.get("features_version", 0)),
            sources=tuple(
                SourceSpec(str(each["name"]), str(each["version"]), tuple(map(int, each["sizes"])))
                for each in values.get("sources", ())
            ),
            module=str(values.get("module", "")),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ClassifierError(
            f"{str(folder / SPEC_FILE)!r} does not describe a classifier: {error}. Choose the folder of a run."
        ) from error


def reject_pickles(path: Path) -> None:
    """Raise a `ClassifierError` if a file, or a file in a folder, is a pickled model."""
    files = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
    pickled = next((file for file in files if file.suffix.lower() in PICKLE_SUFFIXES), None)
    if pickled is not None and not (path / WEIGHTS_FILE).is_file():
        raise ClassifierError(
            f"{str(pickled)!r} is a pickled model, and unpickling runs any code that the file contains. If you trust "
            "the file, load the model yourself and save its weights with "
            "safetensors.torch.save_file(model.state_dict(), path)."
        )


# Packages whose version may change the result of a training.
_RECORDED_PACKAGES = (
    *("svetlana-jupyter", "torch", "torchvision", "scikit-learn"),
    *("scikit-image", "albumentations", "numpy", "scipy"),
)


@cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return versions
