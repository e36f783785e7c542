"""Peak resident memory of a Jupyter server and a kernel that runs a notebook, against the limit of 2 GB.

`python -m tests.benchmarks.bench_memory [NOTEBOOK]`; exit code 1 above the limit. Pages shared by server and kernel are
counted twice, so the figure is an upper bound.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import nbformat
import psutil
from jupyter_client import BlockingKernelClient
from jupyter_core.paths import jupyter_runtime_dir

import tests.conftest  # noqa: F401  (Jupyter folders of its own)
from tests.benchmarks.report import print_report
from tests.browser.server import LabServer

FIRST_STEPS = Path(__file__).parents[2] / "notebooks" / "01_first_steps.ipynb"
LIMIT_MIB = 2048


class Watch:
    """Sampler of the resident memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self.peak: dict[str, float] = {"total": 0, "server": 0, "kernel": 0}
        self._root = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(0.05):
            now = {"server": _resident(self._root), "kernel": sum(map(_resident, self._root.children(recursive=True)))}
            now["total"] = now["server"] + now["kernel"]
            self.peak = {name: max(self.peak[name], value) for name, value in now.items()}

    def stop(self) -> dict[str, float]:
        self._stop.set()
        self._thread.join()
        return self.peak


def _resident(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 2**20
    except psutil.NoSuchProcess:
        return 0


def run_in_kernel(server: LabServer, notebook: Path) -> None:
    """Run the code cells of a notebook in a kernel started by the server, as the browser would."""
    body = json.dumps({"name": "python3", "path": notebook.name}).encode()
    request = urllib.request.Request(f"{server.url}api/kernels", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        kernel = json.load(answer)["id"]
    client = BlockingKernelClient(connection_file=str(Path(jupyter_runtime_dir()) / f"kernel-{kernel}.json"))
    client.load_connection_file()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":
            reply = client.execute_interactive(cell.source, timeout=600, output_hook=lambda message: None)
            if reply["content"]["status"] != "ok":
                raise RuntimeError("\n".join(reply["content"]["traceback"]))
    client.stop_channels()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=Path, nargs="?", default=FIRST_STEPS)
    notebook = parser.parse_args().notebook
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(notebook, folder))
        server = LabServer(Path(folder))
        watch = Watch(server.pid)
        start = time.perf_counter()
        try:
            run_in_kernel(server, copy)
        finally:
            seconds = time.perf_counter() - start
            peak = watch.stop()
            server.stop()
    figures = {f"{name} MiB": round(value) for name, value in peak.items()}
    print_report(
        "memory", [{"notebook": notebook.stem, **figures, "limit MiB": LIMIT_MIB, "seconds": round(seconds, 1)}]
    )
    if peak["total"] > LIMIT_MIB:
        sys.exit(f"{peak['total']:.0f} MiB is more than the {LIMIT_MIB} MiB of a Binder machine")


if __name__ == "__main__":
    main()
