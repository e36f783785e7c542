"""Classify segmented objects in JupyterLab: label a few dozen, train a small network, see all of them classified.

>>> import svetlana_jupyter as sv
>>> sv.PatchSettings(size=64).context
'keep'
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Threads of torch that wait for each other sleep instead of spinning: with other work on the cores, two of them trained
# a volume in 77 s instead of 175 s, for 31 s of processor time instead of 86 s. Read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Public words are resolved when they are first used, so that importing this package loads neither torch nor widgets.
_HOMES = {
    "AnnotationPanel": "widgets.annotation_panel",
    "App": "widgets.app",
    "ClassifierError": "errors",
    "Evaluation": "project.evaluation",
    "GalleryPanel": "widgets.gallery.gallery_panel",
    "InputError": "errors",
    "MeasureSettings": "core.settings",
    "PatchError": "errors",
    "PatchSettings": "core.settings",
    "PredictionPanel": "widgets.prediction_panel",
    "Project": "project.project",
    "ProjectError": "errors",
    "Run": "project.runs",
    "SettingsError": "errors",
    "SvetlanaError": "errors",
    "TrainingPanel": "widgets.training_panel",
    "TrainingSettings": "core.settings",
    "describe_measurements": "core.features.catalog",
    "find_pairs": "core.io.file_pairs",
    "open_image": "core.io.images",
    "open_mask": "core.io.images",
    "samples": "samples",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOMES[name]}")
    return module if _HOMES[name].endswith(f".{name}") else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
