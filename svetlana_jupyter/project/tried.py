"""What a search for a recipe tried, kept as JSON in the folder of the run that came of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from svetlana_jupyter.core.scores import score
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ProjectError

if TYPE_CHECKING:
    from svetlana_jupyter.learn.search import CandidateResult, Found
    from svetlana_jupyter.project.runs import Run

FILE = "tried.json"
# What neither decides which recipe is the best, nor asks for another search.
ASIDE = frozenset({"seed", "device", "precision", "threads"})
COLUMNS = ("accuracy", "low", "high", "balanced", "merit", "finalist", "epochs", "seconds", "chosen")


def search_key(settings: TrainingSettings) -> dict[str, Any]:
    """Return what a search is for: two with the same need be made but once."""
    found: dict[str, Any] = json.loads(settings.model_dump_json(exclude=set(ASIDE)))
    return found


def search_record(asked: TrainingSettings, found: Found, seconds: float) -> dict[str, Any]:
    """Return what is kept of a search: what was asked, what was chosen, and one row a candidate."""
    return {
        "asked": search_key(asked),
        "chosen": found.recipe,
        "epochs": _epochs(found.tried[0]),
        "objects": len(found.outer),
        "apart": found.apart,
        "seconds": round(seconds, 3),
        "tried": [_row(one, chosen=one.recipe == found.recipe) for one in found.tried],
    }


def write_search_record(folder: Path, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / FILE).write_text(text, "utf-8")


def read_search_record(folder: Path) -> dict[str, Any] | None:
    """Return what `write_search_record` kept, None where nothing was searched.

    Raises
    ------
    ProjectError
        If it cannot be read.
    """
    file = folder / FILE
    if not file.exists():
        return None
    try:
        document: dict[str, Any] = json.loads(file.read_text("utf-8"))
        str(document["chosen"]), dict(document["asked"]), pd.DataFrame(document["tried"], columns=_ALL)
        return document
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ProjectError(f"what was tried in {file} cannot be read ({error}); remove that file.") from error


def search_results_table(folder: Path) -> pd.DataFrame:
    """Return one row a candidate; see `Run.tried`."""
    document = read_search_record(folder)
    table = pd.DataFrame(document["tried"] if document else [], columns=_ALL).set_index("recipe")
    whole: dict[str, Any] = {"finalist": bool, "chosen": bool, "epochs": "Int64"}
    return table.astype({name: whole.get(name, float) for name in COLUMNS})


def last_search(
    runs: Iterable[Run], settings: TrainingSettings, classes: Iterable[int]
) -> tuple[Run, Mapping[str, Any]] | None:
    """Return the latest run that searched for the same settings and classes, with what it tried; None without one."""
    asked, known = search_key(settings), set(classes)
    for run in sorted(runs, key=lambda run: run.name, reverse=True):
        document = read_search_record(run.path) if set(run.classes) == known else None
        if document is not None and document["asked"] == asked:
            return run, document
    return None


_ALL = ["recipe", *COLUMNS]


def _row(one: CandidateResult, chosen: bool) -> dict[str, Any]:
    table = one.table
    names = {id: str(id) for id in table["truth"].unique().tolist()}
    found = score(table["truth"], table["predicted"], names, table["group"])
    accuracy = found.accuracy
    shares = {"accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high}
    shares |= {"balanced": found.balanced_accuracy.value, "merit": one.merit}
    return {
        "recipe": one.recipe,
        **{name: value if math.isfinite(value) else None for name, value in shares.items()},
        "finalist": one.is_finalist,
        "epochs": _epochs(one),
        "seconds": round(one.seconds, 3),
        "chosen": chosen,
    }


def _epochs(one: CandidateResult) -> int | None:
    return None if one.settings.architecture == "forest" else one.settings.epochs
