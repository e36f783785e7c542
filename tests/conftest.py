"""Setup of all tests: one torch thread, separate Jupyter folders, browser tests first."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import settings

if TYPE_CHECKING:
    import pytest

# Load on the machine does not make a property fail.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on a busy machine are several times slower

_home = tempfile.TemporaryDirectory(prefix="svetlana-tests-")
JUPYTER_FOLDERS = {
    name: str(Path(_home.name) / name.lower())
    for name in (
        "IPYTHONDIR",
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_DATA_DIR",
        "JUPYTER_RUNTIME_DIR",
        "JUPYTERLAB_SETTINGS_DIR",
        "JUPYTERLAB_WORKSPACES_DIR",
    )
}
os.environ.update(JUPYTER_FOLDERS)


TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the browser tests, which take longest; use with ``--dist loadfile --no-loadscope-reorder``."""
    items.sort(key=lambda item: TESTS / "browser" not in item.path.parents)
