"""Finished trainings: one folder each, written whole; only its score and its predictions are added later.

What a search for a preset tried, kept as JSON in the folder of the run that came of it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pyarrow.parquet import read_schema

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.core.stats.calibration import NO_CALIBRATION, Calibration, calibrate
from svetlana_jupyter.core.stats.metrics import score
from svetlana_jupyter.core.stats.outliers import HeldOutGroups
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.storage import atomic_write, draft_path, file_name

if TYPE_CHECKING:
    from svetlana_jupyter.learn.preset_search import CandidateResult, SearchResult

FILE = "tried.json"
# What neither decides which preset is the best, nor asks for another search.
ASIDE = frozenset({"seed", "device", "precision", "threads"})
COLUMNS = ("accuracy", "low", "high", "balanced", "merit", "finalist", "epochs", "seconds", "chosen")


def search_key(settings: TrainingSettings) -> dict[str, Any]:
    """Return what a search is for: two with the same need be made but once."""
    found: dict[str, Any] = json.loads(settings.model_dump_json(exclude=set(ASIDE)))
    return found


def search_record(asked: TrainingSettings, found: SearchResult, seconds: float) -> dict[str, Any]:
    """Return what is kept of a search: what was asked, what was chosen, and one row a candidate."""
    return {
        "asked": search_key(asked),
        "chosen": found.preset,
        "epochs": _epochs(found.candidates[0]),
        "objects": len(found.nested_table),
        "apart": found.kept_whole,
        "seconds": round(seconds, 3),
        "tried": [_row(one, chosen=one.preset == found.preset) for one in found.candidates],
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
        for entry in (document["asked"], *document["tried"]):
            if "recipe" in entry:  # the name that version 0.1.0 wrote
                entry["preset"] = entry.pop("recipe")
        str(document["chosen"]), dict(document["asked"]), pd.DataFrame(document["tried"], columns=_ALL)
        return document
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ProjectError(f"what was tried in {file} cannot be read ({error}); remove that file.") from error


def search_results_table(folder: Path) -> pd.DataFrame:
    """Return one row a candidate; see `Run.tried`."""
    document = read_search_record(folder)
    table = pd.DataFrame(document["tried"] if document else [], columns=_ALL).set_index("preset")
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


_ALL = ["preset", *COLUMNS]


def _row(one: CandidateResult, chosen: bool) -> dict[str, Any]:
    table = one.table
    names = {id: str(id) for id in table["truth"].unique().tolist()}
    found = score(table["truth"], table["predicted"], names, table["group"])
    accuracy = found.accuracy
    shares = {"accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high}
    shares |= {"balanced": found.balanced_accuracy.value, "merit": one.merit}
    return {
        "preset": one.preset,
        **{name: value if math.isfinite(value) else None for name, value in shares.items()},
        "finalist": one.is_finalist,
        "epochs": _epochs(one),
        "seconds": round(one.seconds, 3),
        "chosen": chosen,
    }


def _epochs(one: CandidateResult) -> int | None:
    return None if one.settings.architecture == "forest" else one.settings.epochs


@dataclass(frozen=True)
class Run:
    """One finished training.

    Attributes
    ----------
    name : str
        ``"0001"``, ``"0002"``, ... in the order in which they were trained.
    finished : str
        UTC, ISO 8601.
    settings : dict
        The whole `TrainingSettings`, as JSON.
    classes : dict of int to str
        The classes it tells apart, by id, with their names at that time.
    labels : dict of str to int
        How many annotations of each class it was trained on.
    annotations : str
        A digest of those annotations: two runs with the same digest saw the same labels.
    history : list of dict
        One entry an epoch: ``epoch``, ``loss``, ``score`` (None where nothing was held out).
    seconds : float
        From the first patch read to the trained network, a search for its preset included.
    stopped : bool
        Whether it was stopped before its last epoch.
    note : str
        Where its score comes from, or why there is none.
    calibration : Calibration
        How its probabilities are corrected, as objects that were held out ask for it.
    remarks : list of str
        What else is to know of the training: what it began with, that memory ran out, or that it diverged.
    left_out : LeftOut or None
        How much of a group that was left out looks unlike the others; None where there was too little to tell.
    choice : str
        How its preset came about; "" where the settings named it.
    warning : str
        That augmentation destroys the classes, or that they cannot be told apart; "" where nothing speaks for it.
    """

    name: str
    finished: str
    settings: dict[str, Any]
    classes: dict[int, str]
    labels: dict[str, int]
    annotations: str
    history: list[dict[str, Any]] = field(repr=False)
    seconds: float
    stopped: bool
    note: str
    calibration: Calibration = NO_CALIBRATION
    remarks: list[str] = field(default_factory=list)
    left_out: HeldOutGroups | None = None
    choice: str = ""
    warning: str = ""
    path: Path = field(default=Path(), compare=False)

    @property
    def versions(self) -> dict[str, str]:
        """Python and the packages that it was trained with, by name; ``settings`` holds seed and threads."""
        document = json.loads((self.path / "classifier.json").read_text("utf-8"))
        return dict(document["versions"])

    def tried(self) -> pd.DataFrame:
        """Return what was tried to find the preset.

        Returns
        -------
        DataFrame
            Indexed by preset, the chosen one first, then as they were ranked: ``accuracy`` on held-out objects with
            its 95 % interval ``low`` and ``high``, ``balanced`` accuracy and ``merit`` (by which it was ranked,
            `core.stats.model_selection.merit`), all of which are too good for the best of several; ``is_finalist``,
            whether it was
            trained to the end; ``epochs`` of its training (missing for a forest), ``seconds`` of one core, and whether
            it was ``chosen``. Empty where nothing was tried.
        """
        return search_results_table(self.path)

    def held_out(self, architecture: str = "network") -> pd.DataFrame | None:
        """Return what cross-validation predicted for annotated objects it was not trained on.

        Parameters
        ----------
        architecture : {"network", "forest"}
            The run's own classifier, or the forest that is always tried beside it.

        Returns
        -------
        DataFrame or None
            Columns ``image``, ``object``, ``group``, ``fold``, ``truth``, ``predicted`` (class ids) and
            ``p_<class id>``, as `learn.cross_validation.held_out_table` gives them; None if there was none. Those of
            the run's
            own classifier are calibrated by what the other folds ask for; ``raw_<class id>`` is what it gave itself.
            Where a search chose its preset, each fold is predicted with the preset that the other folds choose.
        """
        file = self.path / f"held_out_{architecture}.parquet"
        return pd.read_parquet(file) if file.exists() else None

    def with_score(self, note: str, held_out: Mapping[str, pd.DataFrame], warning: str = "") -> Run:
        """Keep what was predicted of objects held out, by architecture, with a note on its source and a warning.

        Returns
        -------
        Run
            The same with its score; its probabilities are calibrated from then on.
        """
        calibration, tables = self.calibration, dict(held_out)
        if "network" in tables:
            raw = tables["network"].filter(regex="^p_").rename(columns=uncalibrated_column)
            calibration, calibrated = calibrate(tables["network"])
            tables["network"] = calibrated.join(raw)
        for architecture, table in tables.items():
            with atomic_write(self.path / f"held_out_{architecture}.parquet") as beside:
                table.to_parquet(beside)
        scored = replace(self, note=note, calibration=calibration, warning=warning)
        with atomic_write(self.path / "run.json") as beside:
            beside.write_text(_to_json(scored), "utf-8")
        return scored

    def predictions_file(self, image: str) -> Path:
        return self.path / "predictions" / f"{file_name(image)}.parquet"

    def read_predictions(self, image: str) -> pd.DataFrame | None:
        """Return what `write_predictions` kept, None before the image was predicted."""
        file = self.predictions_file(image)
        return pd.read_parquet(file) if file.exists() else None

    def predictions_attributes(self, image: str) -> dict[str, Any]:
        """Return what is kept beside the predictions of an image, without reading these; nothing if there are none."""
        file = self.predictions_file(image)
        if not file.exists():
            return {}
        return dict(json.loads((read_schema(file).metadata or {}).get(b"PANDAS_ATTRS", b"{}")))

    def outlier_fractions(self, masks: Mapping[str, int]) -> pd.DataFrame:
        """Return how much of each image looks unlike the annotated objects, without reading any predictions.

        Parameters
        ----------
        masks : mapping of image name to int
            The number of the mask that each image has now.

        Returns
        -------
        DataFrame
            Indexed by image: ``asked`` (objects) and ``novelty`` (share of them); only images that are predicted.
        """
        rows = []
        for image, mask in masks.items():
            kept = self.predictions_attributes(image)
            if "unlike" in kept and kept.get("mask", 0) == mask:
                rows.append((image, kept["asked"], kept["unlike"]))
        return pd.DataFrame(rows, columns=["image", "asked", "unlike"]).set_index("image")

    def write_predictions(self, image: str, table: pd.DataFrame) -> None:
        """Keep the predictions of one image; written whole, so that a stop leaves none half done."""
        file = self.predictions_file(image)
        file.parent.mkdir(exist_ok=True)
        with atomic_write(file) as beside:
            table.to_parquet(beside)


def uncalibrated_column(column: str) -> str:
    """Return how a column ``p_<class id>`` is called with the values before calibration."""
    return column.replace("p_", "raw_", 1)


def read_runs(folder: Path) -> dict[str, Run]:
    """Read all finished runs of a project; what a kill left half written is not among them."""
    return {path.parent.name: _read_run(path) for path in sorted(folder.glob("[0-9]*/run.json"))}


@contextmanager
def new_run(folder: Path) -> Iterator[tuple[Path, Callable[[Run], Run]]]:
    """Give an empty folder to write a run's files to, and a function that makes the run stand.

    The folder gets its number and becomes visible only when that function is called.
    """
    draft = draft_path(folder / "run")
    draft.mkdir(parents=True)

    def finish(run: Run) -> Run:
        (draft / "run.json").write_text(_to_json(run), "utf-8")
        number = max((int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()), default=0) + 1
        final = folder / f"{number:04d}"
        os.replace(draft, final)
        return _read_run(final / "run.json")

    try:
        yield draft, finish
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _to_json(run: Run) -> str:
    document = asdict(run)
    del document["name"], document["path"]
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _read_run(file: Path) -> Run:
    try:
        document = json.loads(file.read_text("utf-8"))
        document["classes"] = {int(id): name for id, name in document["classes"].items()}
        if "recipe" in document["settings"]:  # the name that version 0.1.0 wrote
            document["settings"]["preset"] = document["settings"].pop("recipe")
        calibration = document.pop("calibration", {"temperature": 1.0, "bias": {}})
        calibration["bias"] = {int(id): value for id, value in calibration["bias"].items()}
        left_out = document.pop("left_out", None)
        document["left_out"] = left_out and HeldOutGroups(**{name: tuple(values) for name, values in left_out.items()})
        return Run(name=file.parent.name, path=file.parent, calibration=Calibration(**calibration), **document)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ProjectError(f"the run in {file.parent} cannot be read ({error}); remove that folder.") from error
