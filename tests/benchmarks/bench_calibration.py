"""Expected calibration error before and after calibration, on objects that calibration was not fitted on.

`python -m tests.benchmarks.bench_calibration [--repeats 40]`; exit code 1 if, from 200 objects on, the error of
calibrated probabilities exceeds one and a half times that of exact ones for as few objects, or if exact ones are
changed in more than a tenth of the repeats.

Three classes, twelve groups in four folds. The logits are exact after division by a temperature and addition of a bias,
as for an overconfident classifier or one trained with class weights.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from svetlana_jupyter.core.stats.calibration import calibrate, reliability
from tests.benchmarks.report import print_report

KINDS = {"exact": (1.0, (0.0, 0.0, 0.0)), "too sure": (2.0, (0.0, 0.0, 0.0)), "biased too": (1.5, (0.8, -0.4, -0.4))}
COLUMNS = ["p_1", "p_2", "p_3"]


def simulate_predictions(n: int, temperature: float, bias: tuple[float, ...], seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, 3))
    truth = np.array([rng.choice(3, p=p) for p in softmax(logits, axis=1)]) + 1
    p = softmax((logits - np.array(bias)) * temperature, axis=1)
    table = pd.DataFrame(p, columns=COLUMNS)
    group = np.arange(n) % 12
    return table.assign(fold=group % 4, group=group, truth=truth, predicted=p.argmax(axis=1) + 1)


def measure_errors(n: int, kind: str, repeats: int) -> dict[str, Any]:
    """Return one row: means over the repeats."""
    errors, chances, changed, right, seconds = [], [], [], [], 0.0
    for seed in range(repeats):
        table = simulate_predictions(n, *KINDS[kind], seed)
        began = time.process_time()
        calibration, crossed = calibrate(table)
        seconds += time.process_time() - began
        correct = [(predictions["predicted"] == predictions["truth"]).to_numpy() for predictions in (table, crossed)]
        results = [
            reliability(predictions[COLUMNS].max(axis=1).to_numpy(), matches)
            for predictions, matches in zip((table, crossed), correct)
        ]
        errors.append([result.error for result in results])
        chances.append(results[1].expected_by_chance)
        changed.append(not calibration.is_identity)
        right.append([matches.mean() for matches in correct])
    before, after = np.mean(errors, axis=0)
    return {
        "objects": n,
        "probabilities": kind,
        "off before": round(float(before), 3),
        "off after": round(float(after), 3),
        "exact ones would be": round(float(np.mean(chances)), 3),
        "accuracy before": round(float(np.mean(right, axis=0)[0]), 3),
        "after": round(float(np.mean(right, axis=0)[1]), 3),
        "calibrated": f"{np.mean(changed):.0%}",
        "processor seconds": round(seconds / repeats, 3),
        "repeats": repeats,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40)
    repeats = parser.parse_args().repeats
    rows = [measure_errors(n, kind, repeats) for n, kind in itertools.product((60, 200, 1000), KINDS)]
    print_report("calibration on held-out objects", rows)
    close = all(row["off after"] <= 1.5 * row["exact ones would be"] for row in rows if row["objects"] >= 200)
    left = all(float(row["calibrated"].rstrip("%")) <= 10 for row in rows if row["probabilities"] == "exact")
    return 0 if close and left else 1


if __name__ == "__main__":
    sys.exit(main())
