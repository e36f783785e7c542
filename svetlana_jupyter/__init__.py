"""Classification of segmented objects in JupyterLab.

Label a few dozen objects, train a small network, and classify all others.

>>> import svetlana_jupyter as sv
>>> sv.PatchSettings(size=64).context
'keep'
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Idle torch threads sleep instead of spinning. On busy cores, this shortened a training on a volume with two threads
# from 175 s to 77 s, and its processor time from 86 s to 31 s. OpenMP reads the variable once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Public names are imported on first use, so that `import svetlana_jupyter` loads neither torch nor widgets.
_MODULES = {
    "AnnotationPanel": "widgets.annotation_panel",
    "App": "widgets.app",
    "ClassifierError": "errors",
    "Evaluation": "project.evaluation",
    "GalleryPanel": "widgets.gallery.gallery_panel",
    "InputError": "errors",
    "MapPanel": "widgets.map_panel",
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

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_MODULES[name]}")
    return module if _MODULES[name] == name else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
