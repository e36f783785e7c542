"""Response time of Stop, from the call to the end of the job, at many moments of a training in the background.

`python -m tests.benchmarks.bench_stop [--most MS]`; exit code 1 if a stop takes longer than this limit (200 ms). A
training of each kind is stopped in each of its stages, halfway if the duration of the stage is known; so is the preset
search before it. A browser adds one message in each direction.
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


class Stopping:
    """Training on a thread that is stopped when a condition on the job holds."""

    def __init__(self, project: sv.Project) -> None:
        self.project = project

    def run(self, when: Callable[[str, float], bool]) -> tuple[str, float] | None:
        """Return the stopped stage and the milliseconds until the job ended, or None if it had ended before."""
        requested, ended, result = threading.Event(), threading.Event(), {}

        def follow(change: dict) -> None:
            job = change["new"]
            if job is None:
                result["ended"] = time.perf_counter()
                ended.set()
                requested.set()
            elif not requested.is_set() and when(job.text, job.done / max(job.total, 1)):
                result["stage"] = stage_of(job.text)
                requested.set()

        self.project.observe(follow, "job")
        self.project.background.train(search=self.project.settings.preset == AUTO_PRESET)
        requested.wait(600)
        if "ended" not in result:
            result["requested"] = time.perf_counter()
            self.project.stop()
            ended.wait(600)
        self.project.unobserve(follow, "job")
        return (result["stage"], 1000 * (result["ended"] - result["requested"])) if "requested" in result else None


def stage_of(text: str) -> str:
    """Return the stage of a job, without its progress."""
    return text.partition(":")[0]


def list_stages(project: sv.Project) -> list[str]:
    """Return the stages of a training, in order."""
    texts: dict[str, None] = {}
    project.observe(lambda change: change["new"] and texts.setdefault(stage_of(change["new"].text)), "job")
    project.background.train()
    project._jobs.wait(600)
    project.unobserve_all("job")
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
            moments += [(searching, "trying presets", 0.0), (searching, "trying", 0.1), (searching, "comparing", 0.6)]
            for settings, stage, share in moments:
                project.settings = settings
                found = Stopping(project).run(lambda text, done, s=stage, h=share: text.startswith(s) and done >= h)
                if found is not None:
                    times[found[0]].append(found[1])
            for stage, milliseconds in times.items():
                late |= max(milliseconds) > arguments.most
                rows.append({"set": kind, "stage": stage, "ms, worst": round(max(milliseconds))})
    print_report("stop", rows)
    sys.exit(int(late))


if __name__ == "__main__":
    main()
