"""Validation of the files of a run, which may be damaged or come from a stranger."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, Strict

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.core.stats.calibration import Calibration
from svetlana_jupyter.core.stats.outliers import HeldOutGroups
from svetlana_jupyter.project.file_access import read_json
from svetlana_jupyter.project.project_document import validate_fields

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import pandas as pd

Text = Annotated[str, Field(max_length=10_000)]
Precision = Literal["float32", "bfloat16", "float16"]
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**62)]


class _StoredGroups(BaseModel):
    model_config = {"strict": True, "extra": "forbid"}
    shares: list[Annotated[float, Field(ge=0, le=1)]]
    counts: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]]


class _StoredCalibration(BaseModel):
    model_config = {"strict": True, "extra": "forbid"}
    temperature: Annotated[float, Field(gt=0, lt=1e9)] = 1.0
    bias: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Number] = {}


class _StoredRun(BaseModel):
    """Fields of ``run.json`` that are checked when it is read."""

    model_config = {"strict": True}
    finished: datetime = Field(strict=False)
    settings: dict[str, Any]
    classes: Annotated[dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Text], Field(min_length=1)]
    labels: dict[Text, Count]
    annotations: Text
    history: list[dict[str, float | None]]
    seconds: Annotated[float, Field(ge=0, lt=1e12)]
    stopped: bool
    note: Text
    missing_scores: list[Literal["network", "augmentation", "forest"]] = []
    caveat: Text = ""
    calibration: _StoredCalibration = _StoredCalibration()
    remarks: list[Text] = []
    left_out: _StoredGroups | None = None
    choice: Text = ""
    warning: Text = ""
    precision: Precision = "float32"


class _PredictionAttributes(BaseModel):
    """Attributes of stored predictions."""

    model_config = {"strict": True}
    mask: Count = 0
    key: Text = ""
    image: Text = ""
    pixels: Text = ""
    precision: Precision = "float32"
    asked: Count = 0
    unlike: Annotated[float, Field(ge=0, le=1)] = 0.0
    failed: list[Annotated[tuple[int, Text], Strict(False)]] = []


def read_run_document(file: Path) -> dict[str, Any]:
    """Read ``run.json``, and return the values of the fields of a `Run`.

    Raises
    ------
    OSError, ValueError, TypeError, KeyError, AttributeError
        If the file cannot be read; the error names the first invalid field.
    """
    document = dict(read_json(file))
    if "recipe" in document["settings"]:  # the name that version 0.1.0 wrote
        document["settings"]["preset"] = document["settings"].pop("recipe")
    validate_fields(_StoredRun, document)
    for entry in document["history"]:
        entry["loss"] = math.nan if entry.get("loss") is None else entry["loss"]  # JSON has no NaN
    TrainingSettings(**document["settings"])
    document["classes"] = {int(key): name for key, name in document["classes"].items()}
    calibration = document.pop("calibration", {"temperature": 1.0, "bias": {}})
    bias = {int(key): value for key, value in calibration["bias"].items()}
    left_out = document.pop("left_out", None)
    groups = left_out and HeldOutGroups(**{name: tuple(values) for name, values in left_out.items()})
    return {**document, "calibration": Calibration(calibration["temperature"], bias), "left_out": groups}


def check_predictions(table: pd.DataFrame, classes: Collection[int]) -> pd.DataFrame:
    """Return predictions; raise a `ValueError` if they do not fit the run's classes."""
    check_attributes(table.attrs)
    columns = [f"p_{class_id}" for class_id in classes]
    if sorted(columns) != sorted(name for name in map(str, table) if name.startswith("p_")):
        raise ValueError("the predictions are of other classes")
    p = table[[*columns, "probability"]].to_numpy(float)
    if ((p < 0) | (p > 1.001)).any() or not table["predicted"].isin(list(classes)).all():
        raise ValueError("the probabilities are invalid")
    return table


def check_attributes(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the attributes of predictions; raise a `ValueError` if one is invalid."""
    validate_fields(_PredictionAttributes, dict(attributes))
    return dict(attributes)
