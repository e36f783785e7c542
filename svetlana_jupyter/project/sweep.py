"""One's own Table 2: held-out accuracy for every combination of some settings, kept cell by cell as it is found.

The paper's table (section 4.2) varies depth and width of the small network and shows that accuracy depends little on
them. Scores are those of cross-validation, never of the test set: whoever chooses the best row chooses by them, so the
best is a little too good.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pandas as pd

from svetlana_jupyter.core.allowed_cues import restrict_to_allowed_cues
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.jobs import Progress, Stop
from svetlana_jupyter.project.training_task import TrainingTask, label_digest

if TYPE_CHECKING:
    from svetlana_jupyter.learn.dataset import TrainingData

PAPER_GRID: Mapping[str, Any] = MappingProxyType({"depth": [2, 3], "width": [2, 4, 8, 16, 32, 64]})
# Settings that say how to learn from patches or measurements, and nothing of these.
_OF_TRAINING = {
    *("depth", "width", "optimizer", "learning_rate", "betas", "weight_decay", "schedule", "epochs", "steps"),
    *("batch_size", "loss", "class_weights", "views", "trees", "seed", "folds", "device", "threads"),
}


@dataclass(frozen=True)
class SweepPoint:
    """One combination of settings.

    Attributes
    ----------
    varied : dict
        The settings that differ from cell to cell.
    settings : TrainingSettings
        All of them.
    key : str
        The same for the same settings and annotations.
    """

    varied: dict[str, Any]
    settings: TrainingSettings
    key: str


def cells(task: TrainingTask, settings: Mapping[str, Any]) -> list[SweepPoint]:
    """Return every combination of the settings that are given as lists; the others hold for all.

    Raises
    ------
    SettingsError
        If a setting is unknown or a value out of range.
    """
    varied = {name: value for name, value in settings.items() if isinstance(value, list | range)}
    base = task.settings.changed(**{name: value for name, value in settings.items() if name not in varied})
    labels = label_digest(task.labels)
    found = []
    for values in itertools.product(*varied.values()):
        chosen = dict(zip(varied, values))
        cell = base.changed(**chosen)
        # What only decides the speed does not make a finished cell another one.
        document = cell.model_dump(mode="json", exclude={"threads", "device"})
        key = hashlib.sha256(json.dumps([labels, document], sort_keys=True).encode()).hexdigest()[:16]
        found.append(SweepPoint(chosen, cell, key))
    return found


def sweep(task: TrainingTask, wanted: list[SweepPoint], file: Path, stop: Stop) -> Iterator[Progress]:
    """Cross-validate every cell that ``file`` does not hold yet, and add it there as soon as it is known."""
    done = read_rows(file)
    samples: TrainingData | None = None
    before: dict[str, Any] = {}
    for number, cell in enumerate(wanted):
        text = ", ".join(f"{name} {value}" for name, value in cell.varied.items()) or "one cell"
        yield Progress(number, len(wanted), text)
        if cell.key in done:
            continue
        if samples is None or _input(cell.settings) != before:
            samples, before = task.samples(cell.settings), _input(cell.settings)
        frozen = restrict_to_allowed_cues(cell.settings).changed(patches=samples.settings.patches)
        row = yield from _measured(replace(samples, settings=frozen), text, (number, len(wanted)), stop)
        if row is None:
            return
        _append(file, {"key": cell.key, "varied": cell.varied, **row})


def sweep_table(wanted: list[SweepPoint], file: Path) -> pd.DataFrame:
    """Return the cells that are done, the most accurate first.

    Returns
    -------
    DataFrame
        The settings that vary; the share that is right of each class (``acc. <class>``), their mean ``avg acc.`` (which
        the paper sorts by), ``accuracy`` with its 95 % interval ``low`` and ``high``; ``parameters`` of the network
        (missing for a forest), ``seconds`` that cross-validation took.
    """
    done = read_rows(file)
    rows = [{**cell.varied, **_columns(done[cell.key])} for cell in wanted if cell.key in done]
    if not rows:
        return pd.DataFrame(columns=[*(wanted[0].varied if wanted else ()), "avg acc."])
    table = pd.DataFrame(rows).sort_values("avg acc.", ascending=False, kind="stable", ignore_index=True)
    return table.astype({"parameters": "Int64"})


def read_rows(file: Path) -> dict[str, dict[str, Any]]:
    """Read what `sweep` added; a last line that was torn is left out."""
    rows: dict[str, dict[str, Any]] = {}
    for line in file.read_text("utf-8").splitlines() if file.exists() else ():
        try:
            row = json.loads(line)
            rows[row.pop("key")] = row
        except (ValueError, KeyError, AttributeError):
            continue
    return rows


def _measured(
    samples: TrainingData, text: str, place: tuple[int, int], stop: Stop
) -> Generator[Progress, None, dict[str, Any] | None]:
    """Cross-validate and return what is kept of it, None if it was stopped."""
    from svetlana_jupyter.learn.cross_validation import CrossValidationResult, FoldProgress, cross_validate

    began, result = time.monotonic(), None
    for event in cross_validate(samples, stop=stop):
        if isinstance(event, FoldProgress):
            yield Progress(place[0] + event.done / event.total, place[1], text)
        else:
            result = event
    assert isinstance(result, CrossValidationResult)
    if result.accuracy is None:
        if stop():
            return None
        raise ProjectError(result.message)
    right = (result.table["predicted"] == result.table["truth"]).groupby(result.table["truth"]).mean()
    return {
        "classes": {samples.names.get(id, f"class {id}"): share for id, share in zip(right.index.tolist(), right)},
        "accuracy": result.accuracy,
        "low": result.low,
        "high": result.high,
        "parameters": result.parameters,
        "seconds": round(time.monotonic() - began, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "says": result.message,
    }


def _input(settings: TrainingSettings) -> dict[str, Any]:
    """Return what decides the patches or measurements; cells that share it need them only once."""
    return settings.model_dump(exclude=_OF_TRAINING)


def _columns(row: Mapping[str, Any]) -> dict[str, Any]:
    shares = {f"acc. {name}": share for name, share in row["classes"].items()}
    mean = sum(shares.values()) / len(shares)
    kept = {name: row[name] for name in ("accuracy", "low", "high", "parameters", "seconds")}
    return {**shares, "avg acc.": mean, **kept}


def _append(file: Path, row: Mapping[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    whole = not file.exists() or file.read_bytes()[-1:] in (b"", b"\n")
    with file.open("a", encoding="utf-8") as handle:
        handle.write(("" if whole else "\n") + json.dumps(row, ensure_ascii=False) + "\n")
