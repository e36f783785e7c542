"""Peak resident memory of a Jupyter server and a kernel that runs a notebook, against the limit of 2 GB.

`python -m tests.benchmarks.bench_memory [NOTEBOOK | --live]`; exit code 1 above a limit. Pages shared by server and
kernel are counted twice, so the figure is an upper bound. With ``--live``: growth of this process while 1,000 labels
are given in a panel and live predictions follow them. As many objects are labeled from the start, because the
classifier grows with the number of labels.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import shutil
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import nbformat
import psutil
from jupyter_client import BlockingKernelClient
from jupyter_core.paths import jupyter_runtime_dir

import tests.conftest  # noqa: F401  (Jupyter folders of its own)
from svetlana_jupyter.widgets.annotation_panel import AnnotationPanel
from tests.benchmarks.bench_live import make_project, wait_for
from tests.benchmarks.report import print_report
from tests.browser.server import LabServer

FIRST_STEPS = Path(__file__).parents[2] / "notebooks" / "01_first_steps.ipynb"
LIMIT_MIB = 2048
LABELS, WARM, GROWTH_MB = 1000, 300, 50  # the first updates allocate what later ones use again


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


async def label_live() -> list[dict[str, Any]]:
    """Return memory, threads and open files before and after 1,000 labels."""
    process, rows = psutil.Process(), []

    def note(labels: int) -> None:
        gc.collect()
        memory = round(process.memory_info().rss / 1e6)
        rows.append({"labels": labels, "MB": memory, "threads": threading.active_count(), "files": process.num_fds()})

    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder), 10_000, 640)
        panel = AnnotationPanel(project)
        for name, remainder in (("even", 0), ("odd", 1)):
            project.annotate("plate", range(2 + remainder, LABELS + 2, 2), name, source="random")
        project.live.start()
        for count in range(LABELS + WARM):
            label = 2 + count % LABELS
            project.annotate("plate", label, "odd" if (label + count // LABELS) % 2 else "even")
            await asyncio.sleep(0.02)
            if count >= WARM - 1 and (count - WARM + 1) % 100 == 0:
                await wait_for(project, LABELS, lambda project: project.live._done == project.live._wanted)
                note(count - WARM + 1)
        project.live.stop()
        panel.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=Path, nargs="?", default=FIRST_STEPS)
    parser.add_argument("--live", action="store_true")
    options = parser.parse_args()
    notebook = options.notebook
    if options.live:
        rows = asyncio.run(label_live())
        print_report("memory with live predictions", rows)
        before, after = rows[0], rows[-1]
        if after["MB"] - before["MB"] > GROWTH_MB or any(after[name] > before[name] for name in ("threads", "files")):
            sys.exit(f"memory, threads or files grow: {before} to {after}")
        return
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
