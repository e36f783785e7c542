"""What was tried to find a run's recipe, as HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from svetlana_jupyter.core.recipes import PRESET_DESCRIPTIONS
from svetlana_jupyter.widgets.parts import muted, table
from svetlana_jupyter.widgets.scores import percent

if TYPE_CHECKING:
    from svetlana_jupyter.project.runs import Run

_HEAD = ("Recipe", "What is seen", "Held-out accuracy", "95 % interval", "Balanced", "Trained for", "")
_TOO_GOOD = "Of several, the best owes a little to luck: the score above is that of choosing."


def model_selection_card(run: Run) -> str:
    """Return how the recipe of a run came about, with one row for each that was tried; "" where it was named.

    Raises
    ------
    ProjectError
        If what was tried cannot be read.
    """
    if not run.choice:
        return ""
    tried = run.tried()
    if tried.empty:
        return muted(run.choice)
    rows = [
        (
            str(name),
            PRESET_DESCRIPTIONS.get(str(name), ""),
            percent(row["accuracy"]),
            f"{percent(row['low'])} to {percent(row['high'])}",
            percent(row["balanced"]),
            "–" if pd.isna(row["epochs"]) else f"{row['epochs']} epochs",
            "chosen" if row["chosen"] else "" if row["finalist"] else "left\u00a0behind",
        )
        for name, row in tried.iterrows()
    ]
    current = tried["chosen"].tolist().index(True) if tried["chosen"].any() else None
    return f"{muted(run.choice)}<div>{table(_HEAD, rows, current)}</div>{muted(_TOO_GOOD)}"
