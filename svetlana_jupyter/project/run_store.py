"""Finished runs of a project, with their predictions and scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, overload

import pandas as pd

from svetlana_jupyter.core.features.catalog import CUES
from svetlana_jupyter.core.io.table_files import format_list
from svetlana_jupyter.core.predictions import merge_predictions
from svetlana_jupyter.core.settings import parse_allowed_cues
from svetlana_jupyter.core.stats.calibration import NO_CALIBRATION
from svetlana_jupyter.errors import InputError, ProjectError
from svetlana_jupyter.project.runs import Run, read_all_runs, read_run

LIVE = "live"  # name of the run that follows the labels

if TYPE_CHECKING:
    from torch.nn import Module

    from svetlana_jupyter.core.stats.metrics import Scores
    from svetlana_jupyter.project.storage import Notify, ProjectFolder


class RunScore(Protocol):
    """Score of a run with its source, as `project.evaluation` computes it."""

    @property
    def source(self) -> str:
        """Source of the score: the test set, cross-validation, or none yet."""

    @property
    def network(self) -> Scores | None:
        """Score of the run's classifier."""

    @property
    def forest(self) -> Scores | None:
        """Score of the random forest trained on the same annotations."""


class RunStore(Sequence[Run]):
    """Finished runs of a project, the oldest first, and their predictions.

    ``runs[0]`` and ``runs["0001"]`` return a `Run`; `current` is the run whose results are shown.

    Parameters
    ----------
    folder : ProjectFolder
    notify : Notify
    show : callable
        Called with the name of a run after it has become the current run.
    score : callable
        Computes the score of a run from the test set or from cross-validation.

    Attributes
    ----------
    current_name : str
        Name of the current run; "" before the first training.
    current_reason : str
        Why the current run replaced another one (`project.shown_run`); "" if the user has chosen it.
    fit_live : callable
        Returns the live classifier as a run, when it is needed before `set_live` was called.
    on_saved : callable
        Called with a run that `save` has written; by default, it becomes the current run.
    networks : dict of str to torch.nn.Module
        Networks that the user passed as objects in this session, by the name of their run.
    """

    def __init__(
        self,
        folder: ProjectFolder,
        notify: Notify,
        show: Callable[[str], None] = lambda name: None,
        score: Callable[[Run], RunScore] | None = None,
    ) -> None:
        self._folder, self._notify, self._show, self._score = folder, notify, show, score
        self._runs, self.problem = read_all_runs(folder.runs_folder)
        self.networks: dict[str, Module] = {}
        self._unsaved: tuple[Callable[[], Run], Module | None] | None = None
        self._predicted: dict[
            tuple[str, str, bool], tuple[Mapping[int, int], int, pd.DataFrame, Mapping[str, Any]]
        ] = {}
        chosen, reason = self._last_saved = self._saved_current()
        is_known = chosen in (*self._runs, LIVE)
        self.current_name, self.current_reason = (chosen, reason) if is_known else (max(self._runs, default=""), "")
        self._live: Run | None = None
        self.fit_live: Callable[[], Run] = self._no_live_run
        self.on_saved: Callable[[Run], None] = lambda run: self.choose(run.name)

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
        return f"<{len(self)} run{'' if len(self) == 1 else 's'}: {', '.join(self._runs) or 'none yet'}>"

    @property
    def current(self) -> Run:
        """The run whose predictions, counts and maps are shown."""
        return self.get(None)

    def _saved_current(self) -> tuple[str, str]:
        document = self._folder.read_document()
        return str(document.get("current_run", "")), str(document.get("current_reason", ""))

    def get(self, name: str | None) -> Run:
        """Return the run with the given name, or the current run if it is None."""
        name = name or self.current_name
        if not name:
            raise ProjectError("There is no trained classifier yet. Annotate some objects of each class, then train.")
        if name == LIVE:
            return self._live or self.fit_live()
        if name not in self._runs:
            names = ", ".join(self._runs) or "(none yet)"
            raise InputError(f"There is no run {name!r}. Choose one of the runs {names}.")
        return self._runs[name]

    def with_network(self) -> Run:
        """Return the current run if it has a network, else the newest run with one."""
        runs = [run for run in self if run.has_network]
        if not runs:
            raise ProjectError(
                "Only a network can be explained, and none is trained yet. Train one, for example with "
                'project.train(architecture="small_cnn").'
            )
        return next((run for run in runs if run.name == self.current_name), runs[-1])

    def _no_live_run(self) -> Run:
        raise ProjectError("There is no live classifier. Call project.live.update().")

    def set_live(self, run: Run | None) -> None:
        """Replace the live classifier and its predictions; None if it has none."""
        self._live = run
        for key in [key for key in list(self._predicted) if key[0] == LIVE]:
            del self._predicted[key]
        if self.current_name == LIVE:
            self._notify.changed("predictions")

    def class_use(self, class_id: int) -> str:
        """Return a sentence about the runs trained with a class, "" without any."""
        runs = [run.name for run in self if class_id in run.classes]
        return f"The runs {format_list(runs)} were trained with this class, so it cannot be deleted." if runs else ""

    def choose(self, name: str, *, keep: bool = True, reason: str = "") -> None:
        """Make a run the current run, whose results are shown.

        Parameters
        ----------
        name : str
        keep : bool
            Whether the run is also the current run when the project is opened again.
        reason : str
            Why it replaces the current run, if the user has not chosen it.
        """
        run = self.get(name)
        if keep and self._folder.writable:
            with self._folder.edit_document() as document:
                document["current_run"], document["current_reason"] = run.name, reason
            self._last_saved = run.name, reason
        self.current_name, self.current_reason = run.name, reason
        self._show(run.name)
        self._notify.changed("predictions")

    def add(self, run: Run, network: Module | None = None) -> None:
        """Add a finished run, with its network if the user passed it as an object."""
        self._runs[run.name] = run
        if network is not None:
            self.networks[run.name] = network
        self._notify.changed("runs")

    def keep_unsaved(self, save: Callable[[], Run], network: Module | None) -> None:
        """Keep a trained run in memory that could not be written, for `save`."""
        self._unsaved = save, network

    def save(self) -> Run:
        """Write the last trained run, which could not be written when it was trained.

        It is shown as after its training (`Project.train`). `Project.evaluate` scores it.

        Raises
        ------
        ProjectError
            If there is no such run, or it still cannot be written.
        """
        if self._unsaved is None:
            raise ProjectError("Every trained run is saved already. Train a classifier with project.train().")
        write, network = self._unsaved
        run = write()
        self._unsaved = None
        self.add(run, network)
        self._notify.status(run.summary)
        self.on_saved(run)
        return run

    def update(self, run: Run) -> None:
        """Replace a run by the same run with its score and calibration.

        Cached predictions are discarded if the run has a calibration, since it changes their probabilities.
        """
        self._runs[run.name] = run
        self._notify.changed("runs")
        if not run.calibration.is_identity:
            self.clear_cache()
            self._notify.changed("predictions")

    def read(self, name: str) -> Run:
        """Return a run as it is stored, with scores that were written in the meantime."""
        return read_run(self.get(name).path)

    def probabilities(
        self, run: Run, image: str, mask: int, merged: Mapping[int, int], calibrated: bool = True
    ) -> pd.DataFrame:
        """Return the predictions of a run for an image, which are cached.

        Predictions that are hidden because their objects belong to the test set are included.

        Parameters
        ----------
        run : Run
        image : str
        mask : int
            Number of the current mask; predictions for another mask are ignored.
        merged : mapping of int to int
            Id of the target class of each merged class.
        calibrated : bool
            Whether to correct the probabilities by the calibration of the run.

        Returns
        -------
        DataFrame
            Indexed by object: ``predicted`` (class id), ``probability`` and ``p_<class id>`` per class. The table is
            empty before the image is predicted.
        """
        key, calibration = (run.name, image, calibrated), run.calibration if calibrated else NO_CALIBRATION
        known = self._predicted.get(key)
        if known is None or known[:2] != (merged, mask):
            table = run.read_predictions(image)
            if table is None or table.attrs.get("mask", 0) != mask:
                table = NOTHING_PREDICTED
            stored = {str(key): value for key, value in table.attrs.items()}
            table = merge_predictions(calibration.apply(table), merged)
            self._predicted[key] = known = merged, mask, table, stored
        return known[2]

    def stored_attributes(self, run: Run, image: str) -> Mapping[str, Any]:
        """Return the attributes of the predictions that were read last."""
        known = self._predicted.get((run.name, image, True))
        return known[3] if known is not None else {}

    def predicted_images(self, images: Iterable[str]) -> list[str]:
        """Return which images the current run has predicted; for the live run, none."""
        run = self._runs.get(self.current_name)
        return [] if run is None else [name for name in images if run.predictions_file(name).exists()]

    def forget_predictions(self, run_name: str, image: str) -> None:
        """Discard the cached predictions of an image after new ones were written."""
        for calibrated in (True, False):
            self._predicted.pop((run_name, image, calibrated), None)
        self._notify.changed("predictions")

    def reload(self) -> None:
        """Read the runs again, after another `Project` object has changed them."""
        (runs, self.problem), saved = read_all_runs(self._folder.runs_folder), self._saved_current()
        added, self._runs = runs.keys() - self._runs.keys(), runs
        self.clear_cache()
        is_gone = self.current_name not in ("", LIVE, *runs)  # its folder was deleted
        if saved[0] in runs and (saved != self._last_saved or is_gone):
            self._last_saved = self.current_name, self.current_reason = saved
            self._show(self.current_name)
        elif is_gone:
            self._notify.status(f"The folder of run {self.current_name} is gone, so it is no longer shown.")
            self.current_name, self.current_reason = max(runs, default=""), ""
            self._show(self.current_name)
        if added:
            self._notify.changed("runs")
        self._notify.changed("predictions")

    def clear_cache(self) -> None:
        """Discard all cached predictions, which are read again when needed."""
        self._predicted.clear()

    def failed(self, run: Run, images: Sequence[str]) -> pd.DataFrame:
        """Return the objects that a run could not predict, as `Project.failed` describes."""
        stored = {name: run.predictions_attributes(name).get("failed", ()) for name in images}
        rows = [(name, int(label), str(why)) for name, failed in stored.items() for label, why in failed]
        return pd.DataFrame(rows, columns=["image", "object", "why"]).set_index(["image", "object"])

    def score(self, run: Run) -> RunScore:
        """Return the accuracy report of a run.

        Accuracy is measured on the test set if it is annotated, otherwise by cross-validation.
        """
        assert self._score is not None
        return self._score(run)

    def compare(self) -> pd.DataFrame:
        """Return a table of the finished runs, the latest first.

        Returns
        -------
        DataFrame
            Indexed by run: ``finished`` (UTC), ``preset``, ``architecture``, ``may_use`` (the allowed cues), ``labels``
            (number of annotations used for training), ``source`` of the score, ``accuracy`` with its 95 % confidence
            interval ``low`` and ``high``, ``balanced`` accuracy, accuracy of the random ``forest`` on the same objects,
            ``epochs``, ``stopped``, ``seconds`` of training, ``annotations`` (a hash, which is the same for the same
            annotations) and ``current`` (whether the run is the current run). Scores of runs with different annotations
            were measured on different objects.
        """
        runs = list(reversed(self))
        scores = [self.score(run) for run in runs]
        networks = [score.network for score in scores]
        accuracies = [network and network.accuracy for network in networks]
        columns = {
            "finished": [pd.Timestamp(run.finished) for run in runs],
            "preset": [run.settings["preset"] for run in runs],
            "architecture": [run.settings["architecture"] for run in runs],
            "may_use": [_cues_as_text(parse_allowed_cues(run.settings.get("may_use", CUES))) for run in runs],
            "labels": [sum(run.labels.values()) for run in runs],
            "source": [score.source for score in scores],
            "accuracy": [accuracy.value if accuracy else math.nan for accuracy in accuracies],
            "low": [accuracy.low if accuracy else math.nan for accuracy in accuracies],
            "high": [accuracy.high if accuracy else math.nan for accuracy in accuracies],
            "balanced": [network.balanced_accuracy.value if network else math.nan for network in networks],
            "forest": [score.forest.accuracy.value if score.forest else math.nan for score in scores],
            "epochs": [len(run.history) for run in runs],
            "stopped": [run.stopped for run in runs],
            "seconds": [run.seconds for run in runs],
            "annotations": [run.annotations for run in runs],
            "current": [run.name == self.current_name for run in runs],
        }
        return pd.DataFrame(columns, pd.Index([run.name for run in runs], name="run"))


def _cues_as_text(may_use: Collection[str]) -> str:
    return "everything" if set(may_use) == set(CUES) else ", ".join(sorted(may_use)) or "nothing but shape"


NOTHING_PREDICTED = pd.DataFrame(
    {"predicted": pd.Series(dtype="int64"), "probability": pd.Series(dtype="float32")},
    index=pd.Index([], dtype="int64", name="object"),
)
