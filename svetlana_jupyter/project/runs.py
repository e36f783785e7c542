"""Results of trainings: settings, scores, predictions and model selections.

A run is the result of one training. Each run has a folder, which is written atomically; only the score and the
predictions of the run are added later.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from svetlana_jupyter.core.settings import FEATURE_ARCHITECTURES, TrainingSettings
from svetlana_jupyter.core.stats.calibration import NO_CALIBRATION, Calibration, calibrate
from svetlana_jupyter.core.stats.metrics import score
from svetlana_jupyter.errors import ProjectError
from svetlana_jupyter.project.file_access import find_link, is_link, read_attributes, read_json, read_parquet
from svetlana_jupyter.project.jobs import format_duration
from svetlana_jupyter.project.run_files import check_attributes, check_predictions, read_run_document
from svetlana_jupyter.project.storage import draft_folder, file_name, write_json, write_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from svetlana_jupyter.core.stats.outliers import HeldOutGroups
    from svetlana_jupyter.learn.preset_search import CandidateResult, SearchResult

RECORD_FILE, LABELS_FILE = "tried.json", "labels.parquet"
RESULT_COLUMNS = ("accuracy", "low", "high", "balanced", "merit", "finalist", "epochs", "seconds", "chosen")
_ALL = ["preset", *RESULT_COLUMNS]
# The scores of a run, in the order of their computation.
NETWORK, AUGMENTATION, COMPARISON = "network", "augmentation", "forest"


def search_key(settings: TrainingSettings) -> dict[str, Any]:
    """Return the settings that determine which preset a model selection selects."""
    # The excluded settings do not influence which preset is best, so changing them requires no new search.
    return dict(json.loads(settings.model_dump_json(exclude={"seed", "device", "precision", "threads"})))


def search_record(settings: TrainingSettings, result: SearchResult, seconds: float) -> dict[str, Any]:
    """Return the record of a model selection, which is stored with the run.

    The record contains the settings, the selected preset, and one row per candidate preset.
    """
    chosen = result.candidates[0]
    return {
        "asked": search_key(settings),
        "chosen": chosen.preset,
        "epochs": _epochs(chosen),
        "objects": len(result.nested_table),
        "apart": result.kept_whole,
        "seconds": round(seconds, 3),
        "tried": [_row(candidate, chosen=candidate is chosen) for candidate in result.candidates],
        "untried": list(result.untried),
    }


def read_search_record(folder: Path) -> dict[str, Any] | None:
    """Read the record of the model selection of a run.

    The result is None if there was no model selection, because the settings named a preset.

    Raises
    ------
    ProjectError
        If the record cannot be read.
    """
    file = folder / RECORD_FILE
    if not os.path.lexists(file):
        return None
    try:
        document: dict[str, Any] = dict(read_json(file))
        for entry in (document["asked"], *document["tried"]):
            if "recipe" in entry:  # the name that version 0.1.0 wrote
                entry["preset"] = entry.pop("recipe")
        str(document["chosen"]), dict(document["asked"]), pd.DataFrame(document["tried"], columns=_ALL)
        return document
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProjectError(f"{file} cannot be read ({error}). Remove it; the run itself is not affected.") from error


def last_search(
    runs: Iterable[Run], settings: TrainingSettings, classes: Iterable[int]
) -> tuple[Run, Mapping[str, Any]] | None:
    """Return the latest model selection for these settings and classes.

    The result is the run and the record of its model selection, or None if there is no such run.
    """
    key, classes = search_key(settings), set(classes)
    for run in sorted(runs, key=lambda run: run.name, reverse=True):
        document = read_search_record(run.path) if set(run.classes) == classes else None
        # Parsed as settings, because an earlier version may have written the same values in another form.
        if document is not None and search_key(TrainingSettings(**document["asked"])) == key:
            return run, document
    return None


def _row(candidate: CandidateResult, chosen: bool) -> dict[str, Any]:
    table = candidate.table
    names = {class_id: str(class_id) for class_id in np.union1d(table["truth"], table["predicted"]).tolist()}
    scores = score(table["truth"], table["predicted"], names, table["group"])
    accuracy = scores.accuracy
    values = {"accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high}
    values |= {"balanced": scores.balanced_accuracy.value, "merit": candidate.merit}
    return {
        "preset": candidate.preset,
        **{name: value if math.isfinite(value) else None for name, value in values.items()},
        "finalist": candidate.is_finalist,
        "epochs": _epochs(candidate),
        "seconds": round(candidate.seconds, 3),
        "chosen": chosen,
    }


def _epochs(candidate: CandidateResult) -> int | None:
    return candidate.settings.epochs if candidate.settings.has_network else None


@dataclass(frozen=True, repr=False)
class Run:
    """One finished training.

    Attributes
    ----------
    name : str
        ``"0001"``, ``"0002"``, ... in the order of training.
    finished : str
        Time at the end of the training (UTC, ISO 8601).
    settings : dict
        The complete `TrainingSettings`, as JSON.
    classes : dict of int to str
        Class ids, and the class names at the time of the training.
    labels : dict of str to int
        Number of annotations per class.
    annotations : str
        Hash of the annotations; the same annotations have the same hash.
    history : list of dict
        One entry per epoch: ``epoch``, ``loss``, ``score`` (None without a validation split).
    seconds : float
        Training time including model selection.
    stopped : bool
        Whether the training was stopped before its last epoch.
    note : str
        Source of the score, or the reason why there is no score.
    missing_scores : list of str
        Scores that are still to be computed: "network" (cross-validation of the classifier), "augmentation" (check
        whether augmentation destroys the differences between classes) and "forest" (a forest for comparison).
    caveat : str
        Why the score may be too good; "" otherwise.
    calibration : Calibration
        Correction of the probabilities, fitted to held-out objects.
    remarks : list of str
        Training notes: initial weights, out-of-memory retries, divergence.
    left_out : HeldOutGroups or None
        Fractions of out-of-distribution objects in groups of objects that were left out of the reference distribution;
        None if there are too few groups.
    choice : str
        A sentence about how the preset was selected; "" if the settings named it.
    warning : str
        Warning that augmentation destroys the differences between classes, or that the classes cannot be
        distinguished; "" otherwise.
    precision : "float32", "bfloat16" or "float16"
        Type in which the training computed the network.
    path : Path
        The folder of the run.
    """

    name: str
    finished: str
    settings: dict[str, Any]
    classes: dict[int, str]
    labels: dict[str, int]
    annotations: str
    history: list[dict[str, Any]]
    seconds: float
    stopped: bool
    note: str
    missing_scores: list[str] = field(default_factory=list)
    caveat: str = ""
    calibration: Calibration = NO_CALIBRATION
    remarks: list[str] = field(default_factory=list)
    left_out: HeldOutGroups | None = None
    choice: str = ""
    warning: str = ""
    precision: str = "float32"
    path: Path = field(default=Path(), compare=False)

    def __repr__(self) -> str:
        """Return a summary: preset, labels, notes, and the call that returns the scores."""
        method = ", ".join(dict.fromkeys(str(self.settings.get(name)) for name in ("preset", "architecture")))
        duration = f", trained in {format_duration(self.seconds)}{' (stopped)' * self.stopped}" if self.seconds else ""
        labels = ", ".join(f"{name} {number:,}" for name, number in self.labels.items())
        lines = [
            f"Run {self.name}: {method}{duration}",
            f"{sum(self.labels.values()):,} labels: {labels}",
            *filter(None, (self.choice, self.warning, self.note)),
            f"Scores: project.evaluate({self.name!r})",
        ]
        return "\n".join(lines)

    @property
    def has_network(self) -> bool:
        """Whether the classifier is a neural network, which Grad-CAM can explain."""
        return self.settings.get("architecture") not in FEATURE_ARCHITECTURES

    @property
    def title(self) -> str:
        """Name of the run in exported files."""
        return self.name

    @property
    def summary(self) -> str:
        """Summary: number of annotations, selected preset, precision, training notes."""
        trained = f"Trained run {self.name} on {sum(self.labels.values())} annotations"
        precision = "" if self.precision == "float32" else f"Computed in 16 bits ({self.precision})"
        sentences = [trained, self.choice, precision, *self.remarks]
        return ". ".join(text.removesuffix(".") for text in sentences if text)

    @property
    def versions(self) -> dict[str, str]:
        """Versions of Python and of the packages used for training.

        The seed and the number of threads are in ``settings``.
        """
        file = self.path / "classifier.json"
        try:
            return {str(name): str(version) for name, version in read_json(file)["versions"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ProjectError(f"{file} cannot be read ({error}). Restore it from a backup.") from error

    def classifier_folder(self) -> Path:
        """Return the folder of the classifier; raise a `ProjectError` for links in it."""
        link = find_link(self.path) or next((file for file in self.path.glob("*") if is_link(file)), None)
        if link is not None:
            raise ProjectError(
                f"{link} is a link, and links inside a project folder are not followed. Put the file itself there."
            )
        return self.path

    def search_results(self) -> pd.DataFrame:
        """Return a table of the candidate presets of the model selection.

        Returns
        -------
        DataFrame
            Indexed by preset, the selected preset first, then by rank: ``accuracy`` on held-out objects with its 95 %
            confidence interval ``low`` and ``high``, ``balanced`` accuracy, ``merit`` (the ranking score,
            `core.stats.model_selection.brier_skill`), ``finalist`` (whether the candidate was trained to the end),
            ``epochs`` (missing without a network), ``seconds`` (time on one core) and ``chosen`` (whether the preset
            was selected). The scores of the best candidate are slightly too high, since it was selected for them. The
            table is empty if the settings named the preset.
        """
        document = read_search_record(self.path)
        table = pd.DataFrame(document["tried"] if document else [], columns=_ALL).set_index("preset")
        types: dict[str, Any] = {"finalist": bool, "chosen": bool, "epochs": "Int64"}
        return table.astype({name: types.get(name, float) for name in RESULT_COLUMNS})

    def held_out(self, architecture: str = "network") -> pd.DataFrame | None:
        """Return the cross-validated predictions of the annotated objects.

        Parameters
        ----------
        architecture : {"network", "forest"}
            The classifier of the run, or the random forest that is trained for comparison.

        Returns
        -------
        DataFrame or None
            Columns ``image``, ``object``, ``group``, ``fold``, ``truth``, ``predicted`` (class ids) and
            ``p_<class id>``, as in `learn.cross_validation.held_out_table`; None without cross-validation, and before
            `Project.evaluate` or the background have computed it. The
            probabilities of the run's classifier are calibrated on the other folds; ``raw_<class id>`` are the
            probabilities before calibration. After model selection, each fold is predicted with the preset selected on
            the other folds (nested cross-validation).
        """
        try:
            return read_parquet(held_out_file(self.path, architecture), ["fold", "truth", "predicted"])
        except (OSError, ValueError):
            return None

    def training_labels(self) -> pd.DataFrame | None:
        """Return the labels that the run was trained on.

        Returns
        -------
        DataFrame or None
            Columns ``image``, ``object``, ``class_id``, ``mask`` (number of the mask that contains the object) and
            ``edit`` (the edit that labeled the object together with others, else ""); None for runs of version 0.1.0,
            which did not store them.
        """
        try:
            return read_parquet(self.path / LABELS_FILE, ["object", "class_id", "mask"])
        except (OSError, ValueError):
            return None

    def with_score(
        self, note: str, held_out: Mapping[str, pd.DataFrame], warning: str = "", missing: Sequence[str] = ()
    ) -> Run:
        """Save the cross-validated predictions of the run, and return the scored run.

        Parameters
        ----------
        note : str
            Source of the score, or the reason why there is no score.
        held_out : mapping of str to DataFrame
            Cross-validated predictions by architecture ("network", "forest").
        warning : str
            Warning about the classes or the augmentation; "" if there is none.
        missing : sequence of str
            The scores that are still missing.

        Returns
        -------
        Run
            The run with its score and the calibration of its probabilities.
        """
        calibration, tables = self.calibration, dict(held_out)
        if "network" in tables:
            raw = tables["network"].filter(regex="^p_").rename(columns=uncalibrated_column)
            calibration, calibrated = calibrate(tables["network"])
            tables["network"] = calibrated.join(raw)
        for architecture, table in tables.items():
            write_parquet(held_out_file(self.path, architecture), table)
        scored = replace(self, note=note, calibration=calibration, warning=warning, missing_scores=[*missing])
        write_json(self.path / "run.json", _to_json(scored))
        return scored

    def predictions_file(self, image: str) -> Path:
        """Return the file of the predictions for an image."""
        return self.path / "predictions" / f"{file_name(image)}.parquet"

    def read_predictions(self, image: str) -> pd.DataFrame | None:
        """Read the predictions for an image; None if they are missing or damaged."""
        try:
            table = read_parquet(self.predictions_file(image), ["predicted", "probability"])
            return check_predictions(table, self.classes)
        except (OSError, ValueError):
            return None

    def predictions_attributes(self, image: str) -> dict[str, Any]:
        """Read the attributes of the predictions for an image, but not the predictions."""
        try:
            return check_attributes(read_attributes(self.predictions_file(image)))
        except (OSError, ValueError):
            return {}

    def outlier_fractions(self, masks: Mapping[str, int]) -> pd.DataFrame:
        """Return the fraction of out-of-distribution objects per image.

        Only the attributes of the predictions are read.

        Parameters
        ----------
        masks : mapping of image name to int
            Number of the current mask of each image.

        Returns
        -------
        DataFrame
            Indexed by image: ``asked`` (number of compared objects) and ``unlike`` (fraction of these that are
            outlying). Images without predictions have no row.
        """
        rows = []
        for image, mask in masks.items():
            stored = self.predictions_attributes(image)
            if "unlike" in stored and stored.get("mask", 0) == mask:
                rows.append((image, stored["asked"], stored["unlike"]))
        return pd.DataFrame(rows, columns=["image", "asked", "unlike"]).set_index("image")

    def write_predictions(self, image: str, table: pd.DataFrame) -> None:
        """Write the predictions for one image atomically."""
        write_parquet(self.predictions_file(image), table)


def held_out_file(folder: Path, architecture: str) -> Path:
    """Return the file of the held-out predictions in the folder of a run."""
    return folder / f"held_out_{architecture}.parquet"


def uncalibrated_column(column: str) -> str:
    """Return the name of the column with ``p_<class id>`` before calibration."""
    return column.replace("p_", "raw_", 1)


def read_run(folder: Path) -> Run:
    """Read the run in a folder; raise a `ProjectError` if it cannot be read."""
    return _read_run(folder / "run.json")


def read_runs(folder: Path) -> dict[str, Run]:
    """Read all finished runs of a project; incomplete and damaged runs are ignored."""
    return read_all_runs(folder)[0]


def read_all_runs(folder: Path) -> tuple[dict[str, Run], str]:
    """Return the readable runs, and a sentence about the first damaged one."""
    runs, problem = {}, ""
    for path in sorted(folder.glob("[0-9]*/run.json")):
        try:
            runs[path.parent.name] = _read_run(path)
        except ProjectError as error:
            problem = problem or str(error)
    return runs, problem


@contextmanager
def new_run(folder: Path) -> Iterator[tuple[Path, Callable[[Run], Run]]]:
    """Yield a draft folder for the files of a run, and a function that completes it.

    The folder is given its run number and becomes visible only when that function is called.
    """
    with draft_folder(folder / "run") as draft:

        def finish(run: Run) -> Run:
            write_json(draft / "run.json", _to_json(run))
            number = max((int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()), default=0)
            while True:
                number += 1
                final = folder / f"{number:04d}"
                try:
                    os.replace(draft, final)
                    return _read_run(final / "run.json")
                except OSError:
                    if not final.exists():  # otherwise another kernel took this number in the meantime
                        raise

        yield draft, finish


def _to_json(run: Run) -> dict[str, Any]:
    return {name: value for name, value in asdict(run).items() if name not in ("name", "path")}


def _read_run(file: Path) -> Run:
    try:
        return Run(name=file.parent.name, path=file.parent, **read_run_document(file))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProjectError(
            f"The run in {file.parent} cannot be read ({error}). Restore that folder, or remove it."
        ) from error
