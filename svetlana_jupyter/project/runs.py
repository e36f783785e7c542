"""Finished runs of a project, their predictions, and the record of the model selection.

Each run has a folder, which is written atomically; only its score and its predictions are added later.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

import pandas as pd
from pyarrow.parquet import read_schema

from svetlana_jupyter.core.features.catalog import CUES
from svetlana_jupyter.core.predictions import merge_predictions
from svetlana_jupyter.core.settings import TrainingSettings, parse_allowed_cues
from svetlana_jupyter.core.stats.calibration import NO_CALIBRATION, Calibration, calibrate
from svetlana_jupyter.core.stats.metrics import Scores, score
from svetlana_jupyter.core.stats.outliers import HeldOutGroups
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.storage import SILENT, Notify, ProjectFolder, atomic_write, draft_path, file_name

if TYPE_CHECKING:
    from torch.nn import Module

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
        # Read as settings: an earlier version may have written the same values in another form.
        if document is not None and search_key(TrainingSettings(**document["asked"])) == asked:
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
            `core.stats.model_selection.brier_skill`), all of which are too good for the best of several;
            ``is_finalist``, whether it was trained to the end; ``epochs`` of its training (missing for a forest),
            ``seconds`` of one core, and whether it was ``chosen``. Empty where nothing was tried.
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


class RunScore(Protocol):
    """Score of a run with its source, as `project.evaluation` computes it."""

    @property
    def source(self) -> str:
        """Source of the score: the test set, cross-validation, or none yet."""

    @property
    def text(self) -> str:
        """The score as a sentence, or why there is none."""

    @property
    def network(self) -> Scores | None:
        """Score of the run's own classifier."""

    @property
    def forest(self) -> Scores | None:
        """Score of the random forest trained on the same annotations."""


class RunStore(Sequence[Run]):
    """Finished runs of a project, the oldest first, and their predictions.

    ``runs[0]`` and ``runs["0001"]`` return a `Run`, and `current` the one whose results are shown.

    Parameters
    ----------
    folder : ProjectFolder
    notify : Notify
    show : callable
        Called with the name of the current run after it was chosen.
    score : callable
        Computes the score of a run from the test set or from cross-validation.

    Attributes
    ----------
    current_name : str
        "" before the first training.
    """

    def __init__(
        self,
        folder: ProjectFolder,
        notify: Notify = SILENT,
        show: Callable[[str], None] = lambda name: None,
        score: Callable[[Run], RunScore] | None = None,
    ) -> None:
        self._folder, self._notify, self._show, self._score = folder, notify, show, score
        self._runs = read_runs(folder.runs_folder)
        self._networks: dict[str, Module] = {}  # of runs whose network was passed as an object in this session
        self._predicted: dict[tuple[str, str], tuple[Mapping[int, int], int, pd.DataFrame]] = {}
        chosen = str(folder.read_document().get("current_run", ""))
        self.current_name = chosen if chosen in self._runs else max(self._runs, default="")

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs.values()))

    def __contains__(self, run: object) -> bool:
        return run in self._runs if isinstance(run, str) else run in self._runs.values()

    @overload
    def __getitem__(self, key: int | str) -> Run: ...
    @overload
    def __getitem__(self, key: slice) -> list[Run]: ...
    def __getitem__(self, key: int | str | slice) -> Run | list[Run]:
        return self.get(key) if isinstance(key, str) else list(self._runs.values())[key]

    def __repr__(self) -> str:
        return f"<{len(self)} runs: {', '.join(self._runs) or 'none yet'}>"

    @property
    def current(self) -> Run:
        """The run whose predictions, counts and maps are shown."""
        return self.get(None)

    def get(self, name: str | None) -> Run:
        """Return a run by name, the current one by default."""
        name = self.current_name if name is None else name
        if not name:
            raise ProjectError("There is no trained classifier yet. Annotate some objects of each class, then train.")
        if name not in self._runs:
            raise InputError(
                f"There is no run {name!r}. Choose one of the runs {', '.join(self._runs) or '(none yet)'}."
            )
        return self._runs[name]

    def choose(self, name: str, *, keep: bool = True) -> None:
        """Make a run the current one; with ``keep``, also when the project is opened again."""
        run = self.get(name)
        if keep and self._folder.writable:
            with self._folder.edit_document() as document:
                document["current_run"] = run.name
        self.current_name = run.name
        self._show(run.name)

    def add(self, run: Run, network: Module | None = None) -> None:
        """Add a finished run, with its network if the user passed one as an object."""
        self._runs[run.name] = run
        if network is not None:
            self._networks[run.name] = network
        self._notify.changed("runs")

    def update(self, run: Run) -> None:
        """Replace a run by itself with a score; its predictions may be calibrated from now on."""
        self._runs[run.name] = run
        self._notify.changed("runs")
        if not run.calibration.is_identity:
            self.clear_cache()
            self._notify.changed("predictions")

    def network(self, name: str) -> Module | None:
        """Return the network of a run if the user passed it as an object in this session."""
        return self._networks.get(name)

    def set_network(self, name: str, network: Module) -> None:
        """Keep the network that the user passed for a run of an earlier session."""
        self._networks[self[name].name] = network

    def probabilities(self, run: Run, image: str, mask: int, merged: Mapping[int, int]) -> pd.DataFrame:
        """Return the calibrated predictions of a run for all objects of an image, hidden ones included; cached.

        Parameters
        ----------
        run : Run
        image : str
        mask : int
            Number of the current mask: predictions for another mask do not apply.
        merged : mapping of int to int
            Class ids that count as other ones.

        Returns
        -------
        DataFrame
            Indexed by object: ``predicted`` (class id), ``probability`` and ``p_<class id>`` per class. Empty before
            the image is predicted.
        """
        known = self._predicted.get((run.name, image))
        if known is None or known[:2] != (merged, mask):
            table = run.read_predictions(image)
            if table is None or table.attrs.get("mask", 0) != mask:
                table = NOTHING_PREDICTED
            table = merge_predictions(run.calibration.apply(table), merged)
            self._predicted[run.name, image] = known = merged, mask, table
        return known[2]

    def forget_predictions(self, run_name: str, image: str) -> None:
        """Read the predictions of an image again, since they were written anew."""
        self._predicted.pop((run_name, image), None)
        self._notify.changed("predictions")

    def clear_cache(self) -> None:
        """Read all predictions again when they are needed next."""
        self._predicted.clear()

    def failed(self, run: Run, images: Sequence[str]) -> pd.DataFrame:
        """Return the objects that a run could not predict, as `Project.failed` describes."""
        rows = [
            (name, int(label), str(why))
            for name in images
            for label, why in run.predictions_attributes(name).get("failed", ())
        ]
        return pd.DataFrame(rows, columns=["image", "object", "why"]).set_index(["image", "object"])

    def score(self, run: Run) -> RunScore:
        """Return the score of a run: on the test set if it is annotated, else from cross-validation."""
        assert self._score is not None
        return self._score(run)

    def compare(self) -> pd.DataFrame:
        """Return a table of the finished runs, the latest first.

        Returns
        -------
        DataFrame
            Indexed by run: ``finished`` (UTC), ``preset``, ``architecture``, ``may_use``, ``labels`` (number of
            annotations trained on), ``source`` of the score, ``accuracy`` with its 95 % interval ``low`` and ``high``,
            ``balanced`` accuracy, accuracy of the random ``forest`` on the same objects, ``epochs``, ``stopped``,
            ``seconds`` of training, a digest of the ``annotations`` (equal for the same annotations), and whether it is
            ``current``. Scores of runs with different annotations were measured on different objects.
        """
        rows = []
        for run in reversed(self):
            known = self.score(run)
            accuracy = known.network.accuracy if known.network is not None else None
            rows.append(
                {
                    "run": run.name,
                    "finished": pd.Timestamp(run.finished),
                    "preset": run.settings["preset"],
                    "architecture": run.settings["architecture"],
                    "may_use": _cues_as_text(parse_allowed_cues(run.settings.get("may_use", CUES))),
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
                    "current": run.name == self.current_name,
                }
            )
        return pd.DataFrame(rows, columns=_COMPARED).set_index("run")


def _cues_as_text(may_use: Collection[str]) -> str:
    return "everything" if set(may_use) == set(CUES) else ", ".join(sorted(may_use)) or "nothing but shape"


_COMPARED = [
    "run",
    "finished",
    "preset",
    "architecture",
    "may_use",
    "labels",
    "source",
    "accuracy",
    "low",
    "high",
    "balanced",
    "forest",
    "epochs",
    "stopped",
    "seconds",
    "annotations",
    "current",
]

NOTHING_PREDICTED = pd.DataFrame(
    {"predicted": pd.Series(dtype="int64"), "probability": pd.Series(dtype="float32")},
    index=pd.Index([], dtype="int64", name="object"),
)


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
