"""The one place that imports torchvision and what needs it, also where its wheel does not fit the torch build.

A torchvision wheel built for CUDA beside a CPU torch cannot load its compiled operators, and then fails to import
although only its Python code is needed. Declaring the two operators it registers functions for is enough; calling
them still fails, and nothing here does.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from types import ModuleType

from torch import library as operators

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def load_torchvision() -> ModuleType:
    """Import torchvision, natively where its wheel fits."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _declare_operators()
    return importlib.import_module("torchvision")


@cache
def load_grad_cam() -> ModuleType:
    """Import ``pytorch_grad_cam``, which imports torchvision itself."""
    load_torchvision()
    return importlib.import_module("pytorch_grad_cam")


@cache
def _declare_operators() -> operators.Library:
    """Declare the operators; the declarations live as long as the library object, which the cache keeps."""
    declared = operators.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in OPERATORS:
        declared.define(schema)  # type: ignore[no-untyped-call]
    return declared
