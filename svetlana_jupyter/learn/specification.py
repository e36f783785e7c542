"""Classifier specification: what a classifier is apart from its weights, and how its folder is written and read.

Nothing here needs torch, so that a forest is read without it.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from svetlana_jupyter.core.io.image_pair import ImagePair
from svetlana_jupyter.core.settings import PatchSettings, TrainingSettings
from svetlana_jupyter.errors import ClassifierError

FORMAT_VERSION = 1
WEIGHTS_FILE = "weights.safetensors"
SPEC_FILE = "classifier.json"
PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib"})
Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ClassifierSpec:
    """All there is to know of a classifier but its weights.

    Parameters
    ----------
    classes : tuple of int
        Class ids, in the order of the columns of probabilities.
    class_names : tuple of str
        Their names when it was trained; for reading only, a project's own names count.
    ndim : 2 or 3
    channels : tuple of str
        Names of the image's channels.
    settings : TrainingSettings
        With concrete patches.
    history : tuple of dict
        One entry an epoch: epoch, loss, score (None where nothing was held out).
    features : tuple of str
        Of a forest: the keys of its measurements (`core.features.catalog`), in their order.
    features_version : int
        Of a forest: how they were measured then (`core.features.catalog.VERSION`).
    module : str
        Where the architecture is "own": the class of the user's module, for reading only.
    """

    classes: tuple[int, ...]
    class_names: tuple[str, ...]
    ndim: int
    channels: tuple[str, ...]
    settings: TrainingSettings
    history: tuple[Mapping[str, Any], ...] = ()
    features: tuple[str, ...] = ()
    features_version: int = 0
    module: str = ""

    def check(self, pair: ImagePair) -> None:
        """Refuse an image that this classifier does not fit.

        Raises
        ------
        ClassifierError
            If dimensions or channels differ, or the patches are in micrometres and the image has no spacing.
        """
        if pair.ndim != self.ndim:
            raise ClassifierError(
                f"this classifier was trained on {self.ndim}D images, but {pair.name!r} is {pair.ndim}D. "
                f"Choose {self.ndim}D images, or train on images like this one."
            )
        channels = tuple(map(str, pair.channels))
        if len(channels) != len(self.channels):
            raise ClassifierError(
                f"this classifier expects {len(self.channels)} channels ({', '.join(self.channels)}), but "
                f"{pair.name!r} has {len(channels)} ({', '.join(channels)}). Give the channels it was trained on."
            )
        if channels != self.channels and set(channels) == set(self.channels):
            raise ClassifierError(
                f"this classifier expects the channels in the order {', '.join(self.channels)}, but {pair.name!r} has "
                f"{', '.join(channels)}. Add the image with its channels in that order."
            )
        if self.settings.patches.unit == "um" and pair.spacing is None:
            raise ClassifierError(
                f"this classifier measures patches in micrometres, but {pair.name!r} has no known spacing. "
                "Add the image with spacing=(…)."
            )


class ClassifierBase:
    """The part of a classifier that follows from its specification."""

    specification: ClassifierSpec

    @property
    def classes(self) -> tuple[int, ...]:
        return self.specification.classes

    @property
    def patches(self) -> PatchSettings:
        return self.specification.settings.patches

    @property
    def ndim(self) -> int:
        return self.specification.ndim

    @property
    def channels(self) -> tuple[str, ...]:
        return self.specification.channels

    def check(self, pair: ImagePair) -> None:
        self.specification.check(pair)


def write_classifier(folder: str | Path, kind: str, specification: ClassifierSpec, tensors: Tensors) -> None:
    """Write a classifier's folder; each file beside its place first, the description last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = specification.settings
    description = {
        "format": FORMAT_VERSION,
        "kind": kind,
        "architecture": settings.architecture,
        "module": specification.module,
        "classes": [
            {"id": id, "name": name} for id, name in zip(specification.classes, specification.class_names, strict=True)
        ],
        "ndim": specification.ndim,
        "channels": list(specification.channels),
        "settings": settings.model_dump(mode="json"),
        "history": [dict(entry) for entry in specification.history],
        "features": list(specification.features),
        "features_version": specification.features_version,
        "versions": _versions(),
    }
    weights, text = folder / f"{WEIGHTS_FILE}.part", folder / f"{SPEC_FILE}.part"
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, weights)
    text.write_text(json.dumps(description, indent=2, ensure_ascii=False), encoding="utf-8")
    os.replace(weights, folder / WEIGHTS_FILE)
    os.replace(text, folder / SPEC_FILE)


def read_classifier_spec(folder: Path) -> tuple[str, ClassifierSpec]:
    try:
        text = (folder / SPEC_FILE).read_text(encoding="utf-8")
    except OSError:
        raise ClassifierError(
            f"a classifier is a folder with {WEIGHTS_FILE} and {SPEC_FILE}, but {str(folder)!r} has no {SPEC_FILE}."
        ) from None
    try:
        found = json.loads(text)
        if found["format"] > FORMAT_VERSION:
            raise ClassifierError(
                f"{str(folder)!r} was written by a newer version (format {found['format']}, this one "
                f"reads {FORMAT_VERSION}). "
                "Update svetlana-jupyter."
            )
        if found["kind"] not in ("forest", "network"):
            raise ClassifierError(f"{str(folder)!r} holds a classifier of unknown kind {found['kind']!r}.")
        return found["kind"], ClassifierSpec(
            classes=tuple(int(entry["id"]) for entry in found["classes"]),
            class_names=tuple(str(entry["name"]) for entry in found["classes"]),
            ndim=int(found["ndim"]),
            channels=tuple(map(str, found["channels"])),
            settings=TrainingSettings(**found["settings"]),
            history=tuple(found["history"]),
            features=tuple(found.get("features", ())),
            features_version=int(found.get("features_version", 0)),
            module=str(found.get("module", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ClassifierError(f"{str(folder / SPEC_FILE)!r} does not describe a classifier: {error}.") from error


def reject_pickles(path: Path) -> None:
    inside = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
    pickled = next((file for file in inside if file.suffix.lower() in PICKLE_SUFFIXES), None)
    if pickled is not None and not (path / WEIGHTS_FILE).is_file():
        raise ClassifierError(
            f"{str(pickled)!r} is a pickled model, and unpickling runs whatever code it holds. Load it yourself where "
            "you trust it, and save its weights with safetensors.torch.save_file(model.state_dict(), path)."
        )


# Packages whose version may decide what a training finds.
_DECIDING = (
    "svetlana-jupyter",
    "torch",
    "torchvision",
    "scikit-learn",
    "scikit-image",
    "albumentations",
    "numpy",
    "scipy",
)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _DECIDING:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return versions
