"""Setup of all tests: one torch thread, separate Jupyter folders."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import settings

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
