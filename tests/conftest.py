"""What all tests share: one thread for torch, and Jupyter folders of their own instead of the developer's."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

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
