"""Sweeps over settings: cross-validated accuracy of every combination.

The paper's Table 2 (section 4.2) varies depth and width of the small network and shows that accuracy depends little on
these settings. Scores come from cross-validation, never from the test set. The best score of many combinations is
slightly too high.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
from pydantic import BaseModel, Field

from svetlana_jupyter.core.allowed_cues import restrict_to_allowed_cues
from svetlana_jupyter.core.io.bounded_files import parse_json
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.file_access import read_text, refuse_link
from svetlana_jupyter.project.jobs import Progress, Stop
from svetlana_jupyter.project.project_document import validate_fields
from svetlana_jupyter.project.training_task import TrainingTask, label_digest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from pathlib import Path

    from svetlana_jupyter.core.settings import TrainingSettings
    from svetlana_jupyter.learn.dataset import TrainingData

PAPER_GRID: Mapping[str, Any] = MappingProxyType({"depth": [2, 3], "width": [2, 4, 8, 16, 32, 64]})
# Settings that do not change patches or measurements, so patches and measurements can be reused.
TRAINING_SETTINGS = {
    *("depth", "width", "optimizer", "learning_rate", "betas", "weight_decay", "schedule", "epochs", "steps"),
    *("batch_size", "loss", "class_weights", "views", "trees", "seed", "folds", "device", "threads"),
}


@dataclass(frozen=True)
class SweepPoint:
    """One combination of settings.

    Attributes
    ----------
    varying : dict
        The settings that differ between points.
    settings : TrainingSettings
        All settings.
    key : str
        Hash of settings and annotations.
    """

    varying: dict[str, Any]
    settings: TrainingSettings
    key: str


def sweep_points(task: TrainingTask, settings: Mapping[str, Any]) -> list[SweepPoint]:
    """Return every combination of the settings that are lists.

    The last setting varies fastest.

    Raises
    ------
    SettingsError
        If a setting is unknown or a value is out of range.
    """
    grid = {name: value for name, value in settings.items() if isinstance(value, list | range)}
    base = task.settings.changed(**{name: value for name, value in settings.items() if name not in grid})
    labels = label_digest(task.labels)
    points = []
    # Not sklearn's ParameterGrid, which sorts the names: their order determines how often patches are cut.
    for values in itertools.product(*grid.values()):
        varying = dict(zip(grid, values, strict=True))
        point = base.changed(**varying)
        # Settings that only change the speed do not change the result.
        document = point.model_dump(mode="json", exclude={"threads", "device"})
        key = hashlib.sha256(json.dumps([labels, document], sort_keys=True).encode()).hexdigest()[:16]
        points.append(SweepPoint(varying, point, key))
    return points


def sweep(task: TrainingTask, points: list[SweepPoint], file: Path, stop: Stop) -> Iterator[Progress]:
    """Cross-validate every point that ``file`` does not contain.

    The result of each point is appended to the file as soon as it is computed.
    """
    finished = read_rows(file)
    samples: TrainingData | None = None
    inputs: dict[str, Any] = {}
    for number, point in enumerate(points):
        text = ", ".join(f"{name} {value}" for name, value in point.varying.items()) or "a single point"
        yield Progress(number, len(points), text)
        if point.key in finished:
            continue
        wanted = point.settings.model_dump(exclude=TRAINING_SETTINGS)
        if samples is None or wanted != inputs:
            samples, inputs = task.samples(point.settings), wanted
        frozen = restrict_to_allowed_cues(point.settings).changed(patches=samples.settings.patches)
        row = yield from _score_point(replace(samples, settings=frozen), text, (number, len(points)), stop)
        if row is None:
            return
        _append(file, {"key": point.key, "varied": point.varying, **row})


def sweep_table(points: list[SweepPoint], file: Path) -> pd.DataFrame:
    """Return a table of the finished points, the most accurate point first.

    Returns
    -------
    DataFrame
        The varying settings; the recall of each class (``acc. <class>``), their mean ``avg acc.`` (by which the paper
        sorts), ``accuracy`` with its 95 % confidence interval ``low`` and ``high``; ``parameters`` of the network
        (missing for a forest), and ``seconds`` of cross-validation.
    """
    finished, rows = read_rows(file), []
    for point in points:
        if row := finished.get(point.key):
            recall = {f"acc. {name}": share for name, share in row["classes"].items()}
            others = {name: row[name] for name in ("accuracy", "low", "high", "parameters", "seconds")}
            rows.append({**point.varying, **recall, "avg acc.": sum(recall.values()) / len(recall), **others})
    if not rows:
        return pd.DataFrame(columns=[*(points[0].varying if points else ()), "avg acc."])
    table = pd.DataFrame(rows).sort_values("avg acc.", ascending=False, kind="stable", ignore_index=True)
    return table.astype({"parameters": "Int64"})


def read_rows(file: Path) -> dict[str, dict[str, Any]]:
    """Read the results that `sweep` wrote, by key; invalid lines are skipped."""
    rows: dict[str, dict[str, Any]] = {}
    if not os.path.lexists(file):
        return rows
    try:
        lines = read_text(file).splitlines()
    except (OSError, ValueError) as error:
        raise ProjectError(f"{file} cannot be read ({error}). Remove it to compute the sweep again.") from error
    for line in lines:
        with suppress(ValueError):
            row = parse_json(line)
            validate_fields(_StoredRow, row)
            rows[row.pop("key")] = row
    return rows


class _StoredRow(BaseModel):
    model_config = {"strict": True}
    key: str
    classes: Annotated[dict[str, Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]
    accuracy: Annotated[float, Field(ge=0, le=1)]
    low: float
    high: float
    parameters: Annotated[int, Field(ge=0, lt=2**62)] | None
    seconds: float


def _score_point(
    samples: TrainingData, text: str, position: tuple[int, int], stop: Stop
) -> Generator[Progress, None, dict[str, Any] | None]:
    """Cross-validate one point, and return its result; None if stopped."""
    from svetlana_jupyter.learn.cross_validation import CrossValidationResult, cross_validate
    from svetlana_jupyter.learn.dataset import WorkProgress

    start, result = time.monotonic(), None
    for event in cross_validate(samples, stop=stop):
        if isinstance(event, WorkProgress):
            yield Progress(position[0] + event.done / event.total, position[1], text)
        else:
            result = event
    assert isinstance(result, CrossValidationResult)
    if result.accuracy is None:
        if stop():
            return None
        raise ProjectError(result.message)
    recall = (result.table["predicted"] == result.table["truth"]).groupby(result.table["truth"]).mean()
    codes = recall.index.tolist()
    return {
        "classes": {samples.names.get(code, f"class {code}"): share for code, share in zip(codes, recall.tolist())},
        "accuracy": result.accuracy.value,
        "low": result.accuracy.low,
        "high": result.accuracy.high,
        "parameters": result.parameters,
        "seconds": round(time.monotonic() - start, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "says": result.message,
    }


def _append(file: Path, row: Mapping[str, Any]) -> None:
    refuse_link(file)
    try:
        # If a crash has cut off the last line, the new line must not be appended to it.
        is_torn = file.exists() and file.read_bytes()[-1:] not in (b"", b"\n")
        with file.open("a", encoding="utf-8") as handle:
            handle.write(("\n" if is_torn else "") + json.dumps(row, ensure_ascii=False) + "\n")
    except OSError as error:
        raise ProjectError(
            f"The result could not be written to {file} ({error.strerror or error}). Free disk space, then call "
            "project.sweep() again; finished combinations are kept."
        ) from error
