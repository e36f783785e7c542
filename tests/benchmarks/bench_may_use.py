"""Effect of forbidding a cue: the score falls to chance if that cue carries the class, and stays otherwise.

`python -m tests.benchmarks.bench_may_use [--ndim 2] [--architecture small_cnn] [--preset NAME] [--seeds 1]`; exit code
1 if a score that should fall is above 0.65, or one that should stay is below 0.9. In each generated set
(`evidence_sets`) a single cue distinguishes the two classes; 150 of its 300 objects are labeled, the others scored
(balanced accuracy, chance 0.5, standard deviation 0.04). Each seed is another set with other labels; scores are means.
A forest measures orientation where it carries the class. It sees surroundings only by their brightness in an annulus of
a width in pixels, so without brightness or size it hardly sees them; these cases are not judged.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import pandas as pd
import torch

from svetlana_jupyter.core.features.catalog import CUES
from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.settings import PRESETS, TrainingSettings
from tests.benchmarks.bench_preset import score, train_timed
from tests.benchmarks.evidence_sets import CARRIERS, evidence_set
from tests.benchmarks.report import print_report

COUNT, LABELS = 300, 150
FALLEN, STAYED = 0.65, 0.9
TURNS = ("shape", "intensity", "texture", "ring", "orientation")  # measured where orientation carries the class
HARDLY = {("surroundings", "without brightness"), ("surroundings", "without size")}  # seen by a forest: not judged


def score_set(carrier: str, ndim: int, settings: TrainingSettings) -> float:
    """Train on half of a set and return the balanced accuracy on the other half."""
    sample = evidence_set(carrier, ndim, COUNT, settings.seed)
    pair = open_pair(carrier, sample.image, sample.mask, axes="zyx"[-ndim:])
    classes = pd.Series(sample.classes + 1, index=np.arange(1, COUNT + 1))
    order = np.random.default_rng(settings.seed).permutation(COUNT)
    objects = index_objects(pair.mask)
    classifier, *_ = train_timed([(pair, objects, classes.iloc[order[:LABELS]])], settings)
    return score(classifier, [(pair, objects, classes.iloc[order[LABELS:]])], balanced=True)


def score_cues(carrier: str, ndim: int, preset: str, seeds: int) -> dict[str, Any]:
    """Score sets with all cues allowed, and with each cue forbidden."""
    scores = {}
    settings = TrainingSettings(preset=preset, measurements={"groups": TURNS} if carrier == "orientation" else {})
    for name, unchecked in {"all ticked": set[str](), **{f"without {cue}": {cue} for cue in CUES}}.items():
        may_use = set(CUES) - unchecked
        draws = [score_set(carrier, ndim, settings.changed(seed=seed, may_use=may_use)) for seed in range(seeds)]
        print(f"{carrier} tells, {name}:", *(f"{value:.3f}" for value in draws), file=sys.stderr)
        scores[name] = float(np.mean(draws))
    judged = {name: score for name, score in scores.items() if preset != "forest" or (carrier, name) not in HARDLY}
    right = [value <= FALLEN if name == f"without {carrier}" else value >= STAYED for name, value in judged.items()]
    return {
        "set": f"{carrier} tells, {ndim}D",
        "preset": preset,
        "seeds": seeds,
        **{name: round(value, 3) for name, value in scores.items()},
        "passes": all(right),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ndim", type=int, choices=[2, 3], default=2)
    parser.add_argument("--architecture", choices=["small_cnn", "forest"], default="small_cnn")
    parser.add_argument("--preset", choices=PRESETS, help="by default one that sees what tells the classes apart")
    parser.add_argument("--only", nargs="+", choices=CARRIERS, default=CARRIERS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    usual = {carrier: "oriented" if carrier == "orientation" else "default" for carrier in CARRIERS}
    presets = dict.fromkeys(CARRIERS, "forest") if chosen.architecture == "forest" else usual
    rows = [
        score_cues(carrier, chosen.ndim, chosen.preset or presets[carrier], chosen.seeds) for carrier in chosen.only
    ]
    print_report("effect of forbidding a cue", rows)
    return 0 if all(row["passes"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
