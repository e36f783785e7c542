"""Setup of all tests: one torch thread, separate Jupyter folders, and how tests are spread over two processes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# A machine that is busy with something else makes no property false.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on a busy machine are several times slower than one

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
    """Keep the tests of a file in one process, and all browser tests, which share a JupyterLab; start with these.

    Fixtures of a module, such as fitted networks, are then made once. Use with ``--dist loadgroup
    --no-loadscope-reorder``.
    """
    browser = TESTS / "browser"
    for item in items:
        item.add_marker(pytest.mark.xdist_group("browser" if browser in item.path.parents else str(item.path)))
    items.sort(key=lambda item: browser not in item.path.parents)
