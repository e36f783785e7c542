"""The runs of a project side by side: how each was trained, and what is known of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from svetlana_jupyter.project.results import Results


def compare_runs(project: Results) -> pd.DataFrame:
    """Return one row a run, the latest first; see `Results.compare_runs`."""
    rows = []
    for run in reversed(project.runs):
        known = project.evaluate(run.name)
        accuracy = known.network.accuracy if known.network is not None else None
        rows.append(
            {
                "run": run.name,
                "finished": pd.Timestamp(run.finished),
                "recipe": run.settings["recipe"],
                "architecture": run.settings["architecture"],
                "may_use": _listed(run.settings.get("may_use")),
                "labels": sum(run.labels.values()),
                "source": known.source,
                "accuracy": accuracy.value if accuracy is not None else math.nan,
                "low": accuracy.low if accuracy is not None else math.nan,
                "high": accuracy.high if accuracy is not None else math.nan,
                "balanced": known.network.balanced_accuracy.value if known.network is not None else math.nan,
                "forest": known.forest.accuracy.value if known.forest is not None else math.nan,
                "epochs": len(run.history),
                "stopped": run.stopped,
                "seconds": run.seconds,
                "annotations": run.annotations,
                "current": run.name == project.current_run,
            }
        )
    return pd.DataFrame(rows, columns=_COLUMNS).set_index("run")


def _listed(may_use: object) -> str:
    """Return what a classifier may use as words, "everything" where nothing was excluded."""
    if isinstance(may_use, dict):
        return ", ".join(name for name, ticked in may_use.items() if ticked) or "nothing"
    return ", ".join(map(str, may_use)) if isinstance(may_use, list | tuple) else "everything"


_COLUMNS = [
    *(
        "run",
        "finished",
        "recipe",
        "architecture",
        "may_use",
        "labels",
        "source",
        "accuracy",
        "low",
        "high",
        "balanced",
    ),
    *("forest", "epochs", "stopped", "seconds", "annotations", "current"),
]
