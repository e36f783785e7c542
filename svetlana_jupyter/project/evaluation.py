"""How good a run is, as far as it is known: one report that names its source."""

from __future__ import annotations

from dataclasses import dataclass

from svetlana_jupyter.core.statistics import Scores, score
from svetlana_jupyter.project.runs import Run


@dataclass(frozen=True)
class Evaluation:
    """What is known of a run's accuracy.

    Attributes
    ----------
    source : str
        "cross-validation", or "not known yet".
    text : str
        The report in a sentence or two.
    network, forest : Scores or None
        Of the run's own classifier, and of the forest tried beside it on the same annotations.
    """

    source: str
    text: str
    network: Scores | None = None
    forest: Scores | None = None

    def __str__(self) -> str:
        return self.text


def evaluate(run: Run) -> Evaluation:
    """Score what cross-validation predicted for annotated objects it was not trained on."""
    scores: dict[str, Scores] = {}
    for architecture in ("network", "forest"):
        held_out = run.held_out(architecture)
        if held_out is not None:
            scores[architecture] = score(held_out["truth"], held_out["predicted"], run.classes)
    own = scores.get("network")
    stopped = " The training was stopped early." if run.stopped else ""
    if own is None:
        return Evaluation("not known yet", f"{run.note}{stopped}")
    text = f"Accuracy {own.accuracy}. {run.note}{stopped}"
    if "forest" in scores and run.settings["architecture"] != "forest":
        text += f" A random forest on measured properties reaches {scores['forest'].accuracy.value:.1%} on the same."
    return Evaluation("cross-validation", text, own, scores.get("forest"))
