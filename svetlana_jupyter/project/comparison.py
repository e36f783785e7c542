"""The runs of a project side by side: how each was trained, and what is known of it."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.core.measures.table import CUES
from svetlana_jupyter.project.evaluation import scored

if TYPE_CHECKING:
    from svetlana_jupyter.project.results import Results


def compare_runs(project: Results) -> pd.DataFrame:
    """Return one row a run, the latest first; see `Results.compare_runs`."""
    rows = []
    for run in reversed(project.runs):
        known = scored(project, run)
        accuracy = known.network.accuracy if known.network is not None else None
        rows.append(
            {
                "run": run.name,
                "finished": pd.Timestamp(run.finished),
                "recipe": run.settings["recipe"],
                "architecture": run.settings["architecture"],
                "may_use": _listed(run.settings.get("may_use", CUES)),
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


def _listed(may_use: Collection[str]) -> str:
    """Return what a classifier may use as words."""
    return "everything" if set(may_use) == set(CUES) else ", ".join(may_use) or "nothing but shape"


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
