"""Report of a benchmark: one line of JSON for programs, and a Markdown table for readers."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def machine() -> dict[str, Any]:
    """Return the environment that the figures depend on: processor, cores, requested threads, versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "python": platform.python_version(),
        "torch": version("torch"),
        "system": platform.platform(terse=True),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def print_report(benchmark: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print rows of equal columns as JSON and as Markdown."""
    print(json.dumps({"benchmark": benchmark, "machine": machine(), "rows": list(rows)}))
    print(f"\n**{benchmark}** on {', '.join(f'{key} {value}' for key, value in machine().items())}\n")
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |")
    print("|" + " --- |" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row[column]) for column in columns) + " |")
