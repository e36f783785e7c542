"""Setup of all tests: one torch thread, separate Jupyter folders."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture(autouse=True, scope="session")
def _networks_compute_in_32_bits() -> Iterator[None]:
    """Let no processor be faster in 16 bits, so that results do not depend on a measurement."""
    from svetlana_jupyter.learn import device

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "time_convolutions", lambda dtypes: dict.fromkeys(dtypes, 1.0))
        yield


@pytest.fixture(autouse=True)
def _no_background_work_after_a_test() -> Iterator[None]:
    """End the background work of a test, which would slow down the next one."""
    yield
    if (jobs := sys.modules.get("svetlana_jupyter.project.jobs")) is not None:
        jobs.end_lanes()
