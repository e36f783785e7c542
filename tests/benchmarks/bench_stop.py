"""Response time of Stop, from the call to the end of the work, at many moments of a training and its scoring.

`python -m tests.benchmarks.bench_stop [--most MS]`; exit code 1 if a stop takes longer than this limit (200 ms). A
training of each kind, and the scoring of its run in the background, are stopped in each of their stages, at its
beginning and halfway; so is the preset search before it. A browser adds one message in each direction.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import svetlana_jupyter as sv
from svetlana_jupyter.core.settings import AUTO_PRESET, TrainingSettings
from svetlana_jupyter.samples import bright_foci_3d, faint_foci
from tests.benchmarks.report import print_report

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_MS = 200
LABELS = {"2D": 45, "3D": 60, "2D, 600 labels": 600}


def make_project(kind: str, folder: Path) -> sv.Project:
    """Return a project with labels of two classes."""
    sample = bright_foci_3d(0) if kind == "3D" else faint_foci(0)
    project = sv.Project(folder / "stop.svetlana", classes=list(sample.names))
    project.add("image", sample.image, sample.mask, axes="zyx"[-sample.mask.ndim :])
    # How long a stage lasts does not matter.
    project.settings = TrainingSettings(preset="default", epochs=8, folds=2)
    rng = np.random.default_rng(0)
    for label in 1 + rng.permutation(len(sample.classes))[: LABELS[kind]]:
        project.annotate("image", int(label), sample.names[sample.classes[label - 1]])
    return project


def stop_when(project: sv.Project, when: Callable[[str, float], bool]) -> tuple[str, float] | None:
    """Train in the background, and stop the training or its scoring when a condition on the progress holds.

    Return the stopped stage and the milliseconds until the work ended, or None if it had ended before.
    """
    requested, ended, stages = threading.Event(), [], []

    def follow(change: dict) -> None:
        state = change["new"]
        if state is not None and not requested.is_set() and when(state.text, state.done / max(state.total, 1)):
            stages.append(stage_of(state.text))
            requested.set()

    def wait_for_the_end() -> None:
        wait_until_idle(project)
        ended.append(time.perf_counter())
        requested.set()

    project.observe(follow, ["job", "scoring"])
    project.background.train(search=project.settings.preset == AUTO_PRESET)
    waiting = threading.Thread(target=wait_for_the_end)
    waiting.start()
    requested.wait(600)
    begun = time.perf_counter()
    project.stop()
    waiting.join(600)
    project.unobserve(follow, ["job", "scoring"])
    return (stages[0], max(0.0, 1000 * (ended[0] - begun))) if stages else None


def wait_until_idle(project: sv.Project) -> None:
    project._jobs.wait(600)
    project._jobs.lane.wait(600)


def stage_of(text: str) -> str:
    """Return the stage of a job, without its progress."""
    return text.partition(":")[0]


def list_stages(project: sv.Project) -> list[str]:
    """Return the stages of a training and of its scoring, in order."""
    texts: dict[str, None] = {}
    names = ["job", "scoring"]
    project.observe(lambda change: change["new"] and texts.setdefault(stage_of(change["new"].text)), names)
    project.background.train()
    wait_until_idle(project)
    for name in names:
        project.unobserve_all(name)
    return [text for text in texts if text]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=float, default=LIMIT_MS)
    parser.add_argument("--kinds", nargs="*", default=list(LABELS))
    arguments = parser.parse_args()
    rows, late = [], False
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory() as folder:
            project = make_project(kind, Path(folder))
            times: dict[str, list[float]] = defaultdict(list)
            given, searching = project.settings, TrainingSettings(epochs=8, folds=2)
            moments = [(given, stage, share) for stage in list_stages(project) for share in (0.0, 0.5)]
            moments += [(searching, "comparing", share) for share in (0.0, 0.1, 0.6)]
            for settings, stage, share in moments:
                project.settings = settings
                found = stop_when(project, lambda text, done, s=stage, h=share: text.startswith(s) and done >= h)
                if found is not None:
                    times[found[0]].append(found[1])
            for stage, milliseconds in times.items():
                late |= max(milliseconds) > arguments.most
                rows.append({"set": kind, "stage": stage, "ms, worst": round(max(milliseconds))})
    print_report("stop", rows)
    sys.exit(int(late))


if __name__ == "__main__":
    main()
