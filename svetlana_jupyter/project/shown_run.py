"""Choice of the run that is shown, as long as the user has chosen none.

The live classifier is shown first. A trained run replaces it if it predicts held-out labels better. A still better run,
or the live classifier that has learned from later labels, replaces that run in turn. Every replacement has a reason,
which panels show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from svetlana_jupyter.core.settings import LIVE_CLASSIFIER
from svetlana_jupyter.project.evaluation import merge_held_out
from svetlana_jupyter.project.live_results import mean_log_loss
from svetlana_jupyter.project.run_store import LIVE

if TYPE_CHECKING:
    import pandas as pd

    from svetlana_jupyter.project.image_collection import ImageCollection
    from svetlana_jupyter.project.live import Live
    from svetlana_jupyter.project.project_classes import ProjectClasses
    from svetlana_jupyter.project.run_store import RunStore
    from svetlana_jupyter.project.runs import Run

MIN_COMPARED = 10  # labels with held-out predictions of two classifiers


class ShownRun:
    """Replacement of the shown run by a better one.

    Two runs are compared by the log loss of held-out predictions of the same labels, of which there must be ten. If at
    least ten of them were drawn at random, a run must not be worse than the live classifier on those either, since
    queues choose labels that are hard for the live classifier.

    Parameters
    ----------
    runs : RunStore
    live : Live
    images : ImageCollection
    classes : ProjectClasses
    """

    def __init__(self, runs: RunStore, live: Live, images: ImageCollection, classes: ProjectClasses) -> None:
        self._runs, self._live, self._images, self._classes = runs, live, images, classes

    @property
    def is_automatic(self) -> bool:
        """Whether a better run replaces the shown one, since the user has chosen none."""
        return self._runs.current_name == LIVE or bool(self._runs.current_reason)

    @property
    def stays(self) -> str:
        """Beginning of a sentence about the shown run."""
        title = _title(self._runs.current_name)
        return f"{title[:1].upper()}{title[1:]} stays"

    def why_not(self, run: Run) -> str:
        """Return why a trained run does not replace the shown one; "" if it is better.

        It has to be better than the live classifier, too. A stored classifier of the same kind as the live classifier
        is never better, since it does not follow further labels.
        """
        shown, mine = self._runs.current_name, self._stored(run)
        if run.settings["architecture"] == LIVE_CLASSIFIER:
            return f"{self.stays}, because run {run.name} is the live classifier for these labels alone."
        for name in dict.fromkeys([shown, LIVE]):
            compared = _compare(self._held_out(name), mine)
            if not compared and name == shown:
                return (
                    f"{self.stays}, because run {run.name} has too few held-out predictions to compare. "
                    "Choose the run to see its predictions."
                )
            for labels, theirs, own in compared:
                if theirs < own:
                    return (
                        f"{self.stays}, because {'it' if name == shown else _title(name)} predicts {labels} better "
                        f"than run {run.name} (log loss {theirs:.2f} against {own:.2f})."
                    )
        return ""

    def replace(self, run: Run) -> None:
        """Show a better run, with the reason."""
        compared = _compare(self._stored(run), self._held_out(self._runs.current_name))
        self._show(run.name, *compared[0])

    def follow_live(self) -> None:
        """Show the live classifier again once it is better than the run that replaced it."""
        result, shown = self._live.result, self._runs.current_name
        if not self.is_automatic or shown == LIVE or result is None or result.held_out is None:
            return
        compared = _compare(self._held_out(LIVE), self._held_out(shown))
        if better := next((each for each in compared if each[1] < each[2]), None):
            self._show(LIVE, *better)

    def _show(self, name: str, labels: str, loss: float, loss_before: float) -> None:
        title, before = _title(name), _title(self._runs.current_name)
        reason = f"because it predicts {labels} better (log loss {loss:.2f} against {loss_before:.2f})"
        self._runs.choose(name, reason=f"{title[:1].upper()}{title[1:]} replaced {before}, {reason}.")

    def _held_out(self, name: str) -> pd.DataFrame | None:
        table = self._live.held_out if name == LIVE else self._stored(self._runs.get(name))
        return merge_held_out(table, self._classes.scheme)

    def _stored(self, run: Run) -> pd.DataFrame | None:
        """Return the held-out predictions of a stored run for the current masks."""
        table, labels = run.held_out(), run.training_labels()
        if table is None or labels is None:
            return None
        is_current = labels["mask"] == labels["image"].map(self._images.mask_numbers())
        current = table.merge(labels.loc[is_current, ["image", "object"]], on=["image", "object"])
        return merge_held_out(current, self._classes.scheme)


def _title(name: str) -> str:
    return "the live classifier" if name == LIVE else f"run {name}"


def _compare(first: pd.DataFrame | None, second: pd.DataFrame | None) -> list[tuple[str, float, float]]:
    """Return the log losses of both for their common labels, and for the drawn ones.

    Samples of too few labels are left out. The drawn ones are known if one of the two is the live classifier.
    """
    if first is None or second is None:
        return []
    second = second.rename(columns=lambda name: f"{name}_second" if name.startswith("p_") else name)
    both = first.merge(second, on=["image", "object", "truth"], suffixes=("", "_second"))
    drawn = both[both["drawn"]] if "drawn" in both else both.iloc[:0]
    samples = {f"{len(both)} held-out labels": both, f"{len(drawn)} held-out labels drawn at random": drawn}
    return [
        (labels, mean_log_loss(sample), mean_log_loss(sample, "_second"))
        for labels, sample in samples.items()
        if len(sample) >= MIN_COMPARED
    ]
