"""Layers ("floors") of the package: imports go down only, libraries are restricted to layers, unsafe calls are banned.

Contract: errors <- core <- learn <- project <- widgets. Imports inside functions and by name are also checked.
"""

from __future__ import annotations

import ast
import sys
from importlib.util import resolve_name
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

import svetlana_jupyter

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(svetlana_jupyter.__file__).parent
MAX_LINES = 600
LONG_FILES = {"project/project.py"}  # all public methods with their docstrings

FLOORS = ["errors", "core", "samples", "learn", "project", "widgets", "top"]

# The lowest floor that may import a library (the longest dotted name applies). An unlisted library is refused.
# Locks are allowed everywhere, since dask reads in threads; from `learn` on, the package starts threads to prefetch.
LOWEST_FLOOR = {
    "core": "numpy scipy PIL pandas pyarrow xarray dask zarr numcodecs tifffile h5py skimage imagecodecs cv2 pydantic "
    "natsort zict yaozarrs",
    "learn": "torch torchvision albumentations pytorch_grad_cam sklearn safetensors threadpoolctl threading.Thread "
    "umap onnxruntime",
    "project": "traitlets asyncio filelock tqdm matplotlib dask.distributed distributed anndata openpyxl",
    "widgets": "ipywidgets ipycanvas anywidget IPython",
    "top": "jupyter_server",
}
START = {library: floor for floor, libraries in LOWEST_FLOOR.items() for library in libraries.split()}

ONLY_IN = {
    "ipycanvas": "widgets/viewer/canvas.py",
    "jupyter_server": "jupyter_connection.py",
    "anywidget": "widgets/viewer/pointer.py",
    "torchvision": "learn/networks.py",
    "pytorch_grad_cam": "learn/",
}
# Exceptions: one file may import a library of a higher floor, or a banned module.
ALSO_IN = {
    "sklearn": "core/stats/metrics.py",  # point estimates, imported inside functions
    "pickle": "core/io/numpy_files.py",  # an Unpickler that resolves a few NumPy names and stubs all others
}
BANNED = {
    "matplotlib.pyplot": "pyplot keeps global state",
    "matplotlib.pylab": "pyplot keeps global state",
    "pylab": "pyplot keeps global state",
    **dict.fromkeys(["pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"], "pickled data can run code"),
}
RUNS_CODE = {"eval", "exec"}
READS_PICKLES = {"read_pickle", "to_pickle"}


def imports(tree: ast.AST, package: str) -> Iterator[tuple[str, int, bool]]:
    """Yield dotted name, line and whether the import is deferred (in a function or for typing) for every import."""
    for node, deferred in _walk(tree, deferred=False):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, deferred
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield f"{module}.{alias.name}", node.lineno, deferred
        elif isinstance(node, ast.Call) and _name(node.func).split(".")[-1] in {"import_module", "__import__"}:
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield resolve_name(name.value, package), node.lineno, deferred


def _walk(node: ast.AST, deferred: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and _name(child.test).split(".")[-1] == "TYPE_CHECKING"
        inside = deferred or typing_only or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield child, inside
        yield from _walk(child, inside)


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _prefixes(name: str) -> list[str]:
    """`a.b.c` -> [`a.b.c`, `a.b`, `a`]."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]


def floor_of(path: PurePosixPath) -> str:
    return path.parts[0].removesuffix(".py") if path.parts[0].removesuffix(".py") in FLOORS[:-1] else "top"


def problems(relative: str, source: str) -> list[str]:
    """Return messages for all rule violations in a file of the package."""
    path = PurePosixPath(relative)
    floor = floor_of(path)
    tree = ast.parse(source)
    package = ".".join(["svetlana_jupyter", *path.parts[:-1]])
    faults = []
    for name, line, deferred in imports(tree, package):
        for fault in _import_faults(name, floor, relative, deferred):
            faults.append(f"{relative}:{line}: imports {name}: {fault}")
    for node in ast.walk(tree):
        for fault in [*_danger(node, floor), *_pickle_faults(node)]:
            faults.append(f"{relative}:{node.lineno}: {fault}")
    if (lines := source.count("\n")) > MAX_LINES and relative not in LONG_FILES:
        faults.append(f"{relative}: {lines} lines, more than {MAX_LINES}: look for a second subject")
    if ast.get_docstring(tree) is None:
        faults.append(f"{relative}: has no module docstring")
    if relative == f"{floor}/__init__.py" and floor != "samples" and len(tree.body) > 1:
        faults.append(f"{relative}: holds more than its docstring")
    return faults


def _import_faults(name: str, floor: str, relative: str, deferred: bool) -> Iterator[str]:
    if any(ALSO_IN.get(prefix) == relative for prefix in _prefixes(name)):
        return
    for prefix in _prefixes(name):
        if prefix in BANNED:
            yield BANNED[prefix]
        if prefix in ONLY_IN and not relative.startswith(ONLY_IN[prefix]):
            yield f"only {ONLY_IN[prefix]} may"
    root, _, rest = name.partition(".")
    if root == "svetlana_jupyter":
        target = rest.split(".")[0]
        if target in FLOORS and _below(floor, target):
            yield f"{target} lies above {floor}"
        if (floor, target) == ("project", "learn") and not deferred:
            yield "project imports learn only inside functions"
        if target not in FLOORS and floor != "top":
            yield "a floor does not import the top-level package"
        return
    start = next((START[prefix] for prefix in _prefixes(name) if prefix in START), None)
    if start is None and root not in sys.stdlib_module_names:
        yield "not among the libraries of any floor"
    if floor == "errors" and root != "__future__":
        yield "errors imports nothing"
    elif start is not None and _below(floor, start):
        yield f"it starts at {start}"


def _below(floor: str, other: str) -> bool:
    return FLOORS.index(floor) < FLOORS.index(other)


def _danger(node: ast.AST, floor: str) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and (start := START.get(_name(node))) and _below(floor, start):
        yield f"{_name(node)} starts at {start}"
    if isinstance(node, ast.Name | ast.Attribute):
        name = _name(node).removeprefix("builtins.")
        if name in RUNS_CODE:
            yield f"{name} runs code from text"
        if name.split(".")[-1] in READS_PICKLES:
            yield "pickled data can run code"
    if isinstance(node, ast.Call):
        arguments = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
        if arguments.get("allow_pickle") is True:
            yield "pickled data can run code"
        if _name(node.func) == "torch.load" and arguments.get("weights_only") is not True:
            yield "torch.load needs weights_only=True"


def _pickle_faults(node: ast.AST) -> Iterator[str]:
    """Return messages for uses of `pickle` other than as the base of an unpickler that overrides `find_class`."""
    if isinstance(node, ast.ImportFrom) and node.module == "pickle":
        yield "pickled data can run code"
    if isinstance(node, ast.Attribute) and _name(node).startswith("pickle.") and node.attr != "Unpickler":
        yield "pickled data can run code"
    if isinstance(node, ast.Call) and _name(node.func) == "pickle.Unpickler":
        yield "pickled data can run code"
    if isinstance(node, ast.ClassDef) and "pickle.Unpickler" in map(_name, node.bases):
        methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
        if not {"find_class", "persistent_load"} <= methods:
            yield "an unpickler without its own find_class and persistent_load can run code"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_file_follows_the_rules(path):
    assert not problems(path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8"))


BAD = [
    ("core/a.py", "from svetlana_jupyter.learn.training import fit", "learn lies above core"),
    ("core/a.py", "def f():\n    from svetlana_jupyter.project import project", "project lies above core"),
    ("core/a.py", "from svetlana_jupyter import widgets", "widgets lies above core"),
    ("core/a.py", "from ..learn import fit", "learn lies above core"),
    ("core/deep/a.py", "from ...learn import fit", "learn lies above core"),
    (
        "core/a.py",
        "import importlib\nimportlib.import_module('svetlana_jupyter.learn.training')",
        "learn lies above core",
    ),
    ("core/a.py", "import importlib\nimportlib.import_module('..learn.fit', __package__)", "learn lies above core"),
    ("core/a.py", "import svetlana_jupyter as sv", "top-level package"),
    ("core/a.py", "async def f():\n    import torch", "starts at learn"),
    ("core/a.py", "class A:\n    import asyncio", "starts at project"),
    ("core/a.py", "from threading import Thread", "starts at learn"),
    ("core/a.py", "import threading\nthreading.Thread(target=print)", "starts at learn"),
    ("core/a.py", "from dask import distributed", "starts at project"),
    ("core/a.py", "import requests", "not among the libraries"),
    ("core/a.py", "from sklearn.metrics import f1_score", "starts at learn"),
    ("errors.py", "import numpy", "errors imports nothing"),
    ("errors.py", "import os", "errors imports nothing"),
    ("learn/a.py", "import traitlets", "starts at project"),
    ("learn/a.py", "import torchvision.models", "only learn/networks.py may"),
    ("learn/a.py", "from torchvision.ops import box_iou", "only learn/networks.py may"),
    ("learn/a.py", "import torch\ntorch.load('weights')", "weights_only"),
    ("learn/a.py", "import torch\ntorch.load('weights', weights_only=False)", "weights_only"),
    ("learn/a.py", "import joblib", "can run code"),
    ("project/a.py", "from svetlana_jupyter.learn import fit", "only inside functions"),
    ("project/a.py", "class A:\n    from svetlana_jupyter.learn import fit", "only inside functions"),
    ("project/a.py", "if True:\n    from svetlana_jupyter.learn.training import fit", "only inside functions"),
    ("project/a.py", "def f():\n    from svetlana_jupyter.widgets import app", "widgets lies above project"),
    ("project/a.py", "import ipywidgets", "starts at widgets"),
    ("project/a.py", "def f():\n    import matplotlib.pyplot as plt", "global state"),
    ("project/a.py", "from matplotlib import pyplot", "global state"),
    ("project/a.py", "import pickle", "can run code"),
    ("core/io/numpy_files.py", "from pickle import loads", "can run code"),
    ("core/io/numpy_files.py", "import pickle\npickle.loads(b'')", "can run code"),
    ("core/io/numpy_files.py", "import pickle\npickle.Unpickler(file).load()", "can run code"),
    ("core/io/numpy_files.py", "import pickle\nclass A(pickle.Unpickler):\n    pass", "can run code"),
    ("project/a.py", "import pandas\npandas.read_pickle('a')", "can run code"),
    ("project/a.py", "import numpy as np\nnp.load('a.npy', allow_pickle=True)", "can run code"),
    ("project/a.py", "eval('1')", "runs code"),
    ("project/a.py", "run = exec", "runs code"),
    ("project/a.py", "import builtins\nbuiltins.eval('1')", "runs code"),
    ("widgets/app.py", "import ipycanvas", "only widgets/viewer/canvas.py may"),
    ("widgets/viewer/canvas.py", "from anywidget import AnyWidget", "only widgets/viewer/pointer.py may"),
    ("core/__init__.py", "from svetlana_jupyter.core import images", "holds more than its docstring"),
    ("core/a.py", "\n" * (MAX_LINES + 1), f"more than {MAX_LINES}"),
]


@pytest.mark.parametrize(("relative", "source", "fault"), BAD)
def test_a_violation_is_detected(relative, source, fault):
    assert any(fault in problem for problem in problems(relative, f'"""A file."""\n{source}\n'))


def test_a_missing_module_docstring_is_detected():
    assert problems("core/a.py", "import numpy\n")


GOOD = [
    ("core/stats/metrics.py", "def f():\n    from sklearn.metrics import f1_score"),
    ("errors.py", "from __future__ import annotations"),
    ("core/a.py", "import re\nimport numpy as np\nfrom svetlana_jupyter.errors import InputError\nre.compile('a')"),
    ("core/a.py", "import threading\nlock = threading.Lock()"),
    ("core/a.py", "from . import images\nfrom .images import open_image\nimport dask.array as da"),
    ("learn/a.py", "import torch\ntorch.load('weights', weights_only=True)\nmodel.eval()"),
    ("learn/networks.py", "def f():\n    import torchvision"),
    (
        "core/io/numpy_files.py",
        "import pickle\nclass A(pickle.Unpickler):\n    def find_class(self): ...\n    def persistent_load(self): ...",
    ),
    ("project/a.py", "def f():\n    from svetlana_jupyter.learn import fit"),
    (
        "project/a.py",
        "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from svetlana_jupyter.learn.training import Fitted",
    ),
    ("project/a.py", "import threading\nimport traitlets\nfrom matplotlib.figure import Figure"),
    (
        "widgets/viewer/canvas.py",
        "from ipycanvas import MultiCanvas\nfrom svetlana_jupyter.project.project import Project",
    ),
    ("widgets/viewer/pointer.py", "import anywidget"),
    ("__main__.py", "def main():\n    import svetlana_jupyter as sv\n    from svetlana_jupyter.widgets import app"),
    ("core/__init__.py", ""),
]


@pytest.mark.parametrize(("relative", "source"), GOOD)
def test_allowed_code_passes(relative, source):
    assert problems(relative, f'"""A file."""\n{source}\n') == []
