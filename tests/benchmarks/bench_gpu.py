"""CUDA checks: training works, is reproducible, agrees with the processor, and keeps the GPU busy.

`python -m tests.benchmarks.bench_gpu [--only NAME ...]`; exit code 1 if a check fails, 2 without a CUDA GPU. All
trainings use projects on generated sets (`samples`), as a script would. A check that raises an error fails with that
error as its result, and the others continue.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import svetlana_jupyter as sv
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.classifier import NetworkClassifier, load_classifier
from svetlana_jupyter.learn.gradcam import explain
from svetlana_jupyter.learn.training import FitResult, TrainingNote, fit
from svetlana_jupyter.samples import Sample, bright_foci_3d, draw_labels, stripes
from tests.benchmarks.bench_augment import CASES, make_disks, measure_ratios
from tests.benchmarks.bench_sets import annotate, score_unlabeled
from tests.benchmarks.report import print_report
from tests.learn.calls import collect_training_data, cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Row = dict[str, Any]
QUICK: dict[str, Any] = {"folds": 2, "trees": 10}
FOCI = {"preset": "texture", "patches": {"size": 33, "sampling": 24}}
CLOSE = 2e-3  # of probabilities: convolutions on a GPU round their inputs to 11 bits (TF32)
ALIKE = 0.05  # of maps from 0 to 1
STOPPED = 0.2  # seconds
FED = 0.65  # bare time ÷ training time: launching kernels takes longer than computing, and augmentations add launches


def _stripes() -> Sample:
    return stripes(seed=1, size=1024, count=500, step=42)


def _foci() -> Sample:
    return bright_foci_3d(3, (128, 256, 256), 400)


class Trained:
    """Project with a set, trained with the given settings."""

    def __init__(self, folder: Path, sample: Sample, labels: int, first: int) -> None:
        self.names = [sample.names[number] for number in sample.classes]
        self.project = sv.Project(folder / "set.svetlana", classes=sample.names)
        self.project.add("set", sample.image, sample.mask, axes="zyx"[-sample.image.ndim :])
        annotate(self.project, "set", draw_labels(sample.mask, labels, first), self.names)

    def train(self, **values: Any) -> tuple[float, float]:
        """Return the accuracy on the rest and the seconds of training."""
        began = time.perf_counter()
        self.project.train(**QUICK | values)
        seconds = time.perf_counter() - began
        self.project.predict()
        return float(score_unlabeled(self.project, "set", self.names).mean()), seconds

    def weights(self) -> str:
        """Return the weights of the last run."""
        return hashlib.sha256((self.project.runs.current.path / "weights.safetensors").read_bytes()).hexdigest()

    def network(self, device: str) -> NetworkClassifier:
        """Return the network of the last run, on a device."""
        classifier = load_classifier(self.project.runs.current.path)
        assert isinstance(classifier, NetworkClassifier)
        return NetworkClassifier(classifier.specification, classifier.module, torch.device(device))

    def probabilities(self, device: str) -> NDArray[np.float32]:
        """Return the probabilities of all objects by the network of the last run, on a device."""
        network = self.network(device)
        cuts = cut(network, self.project.pair("set"), self.project.objects("set"))
        return np.concatenate([network.classify(inputs) for _, inputs in cuts])


def check_training(
    make: Callable[[], Sample], labels: int, first: int, least: float, **values: Any
) -> Callable[[Path], Row]:
    """Return a check that trains twice: high accuracy and equal weights."""

    def check(folder: Path) -> Row:
        trained = Trained(folder, make(), labels, first)
        accuracy, seconds = trained.train(device="cuda", **values)
        weights = trained.weights()
        _, repeated = trained.train(device="cuda", **values)
        same = weights == trained.weights()
        verdict = "same" if same else "OTHER"
        result = f"{100 * accuracy:.1f} % in {seconds:.1f} s, again in {repeated:.1f} s, {verdict} weights"
        return {"found": result, "wanted": f"{100 * least:g} %, same weights", "passes": accuracy >= least and same}

    return check


def check_agreement(make: Callable[[], Sample], labels: int, first: int, **values: Any) -> Callable[[Path], Row]:
    """Return a check that trains on the processor, and predicts there and on the GPU."""

    def check(folder: Path) -> Row:
        trained = Trained(folder, make(), labels, first)
        trained.train(device="cpu", precision="full", **values)
        on_cpu, on_gpu = trained.probabilities("cpu"), trained.probabilities("cuda")
        difference = float(np.abs(on_cpu - on_gpu).max())
        same = float((on_cpu.argmax(1) == on_gpu.argmax(1)).mean())
        result = f"{difference:.1e} apart, {100 * same:.1f} % the same class"
        return {"found": result, "wanted": f"{CLOSE:g}, 100 %", "passes": difference <= CLOSE and same == 1}

    return check


def check_out_of_memory(folder: Path) -> Row:
    """Check training with too little memory for a batch, but enough for half of it."""
    part = make_disks(600, 2)
    settings = TrainingSettings(
        width=64, epochs=1, steps=2, batch_size=512, device="cuda", patches={"size": 96, "sampling": 96}
    )
    samples = collect_training_data([part], settings)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    list(fit(samples))
    needed = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.75 * needed / torch.cuda.get_device_properties(0).total_memory)
    try:
        events = list(fit(samples))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    notes = [event.text for event in events if isinstance(event, TrainingNote)]
    fitted = events[-1]
    assert isinstance(fitted, FitResult)
    return {
        "found": f"{needed / 1e9:.1f} GB; {' '.join(notes)}",
        "wanted": "one message, a network",
        "passes": len(notes) == 1 and "256" in notes[0],
    }


def check_load(name: str, ndim: int) -> Callable[[Path], Row]:
    """Return a check that compares training with the bare network on batches in GPU memory."""

    def check(folder: Path) -> Row:
        row = measure_ratios(make_disks(5400, ndim), name, torch.get_num_threads(), "cuda")
        ratio = row["ratio (wall)"]
        result = f"{ratio:.2f}, {row['patches per second']} patches/s"
        return {"found": result, "wanted": f"ratio {FED}", "passes": ratio >= FED}

    return check


def check_stop(folder: Path) -> Row:
    """Check the response time of a stop halfway through training."""
    stopped: list[float] = []
    settings = TrainingSettings(epochs=1000, device="cuda")
    events = fit(collect_training_data([make_disks(600, 2)], settings), lambda: bool(stopped))
    for number, event in enumerate(events):
        if number == 50:
            stopped.append(time.perf_counter())
        last = event
    seconds = time.perf_counter() - stopped[0]
    assert isinstance(last, FitResult)
    return {"found": f"{1e3 * seconds:.0f} ms", "wanted": f"{1e3 * STOPPED:.0f} ms", "passes": seconds <= STOPPED}


def check_explanation(folder: Path) -> Row:
    """Check that Grad-CAM of an object is the same on the processor and on the GPU."""
    trained = Trained(folder, _stripes(), 45, 2)
    trained.train(device="cuda", preset="oriented")
    pair, objects = trained.project.pair("set"), trained.project.objects("set")
    maps = [explain(pair, objects, int(objects.index[0]), trained.network(device))["cam"] for device in ("cpu", "cuda")]
    difference = float(np.abs(maps[0] - maps[1]).max())
    return {"found": f"Grad-CAM {difference:.1e} apart", "wanted": f"{ALIKE:g}", "passes": difference <= ALIKE}


def check_architecture(architecture: str, **values: Any) -> Callable[[Path], Row]:
    """Return a check that trains a published network."""

    def check(folder: Path) -> Row:
        trained, values["architecture"] = Trained(folder, _stripes(), 45, 2), architecture
        accuracy, seconds = trained.train(
            device="cuda", preset="oriented", epochs=20, patches={"sampling": 64}, **values
        )
        return {
            "found": f"{100 * accuracy:.1f} % in {seconds:.1f} s",
            "wanted": "above chance (60 %)",
            "passes": accuracy >= 0.6,
        }

    return check


def check_prediction(folder: Path) -> Row:
    """Check the speed of prediction."""
    sample = stripes(seed=2, size=4000, count=5000, step=54)
    trained = Trained(folder, sample, 45, 2)
    trained.train(device="cuda", preset="default", epochs=2, patches={"size": 44})
    began = time.perf_counter()
    trained.project.predict(resume=False, client="local")
    rate = 5000 / (time.perf_counter() - began)
    return {"found": f"{rate:.0f} objects/s", "wanted": "1575 (processor alone)", "passes": rate >= 1575}


CHECKS: dict[str, Callable[[Path], Row]] = {
    "stripes, preset given": check_training(_stripes, 45, 2, 1.0, preset="oriented"),
    "stripes, 32 bits": check_training(_stripes, 45, 2, 1.0, preset="oriented", precision="full"),
    "foci 3D, preset given": check_training(_foci, 60, 4, 0.98, **FOCI),
    "stripes, auto": check_training(_stripes, 45, 2, 1.0),
    "foci 3D, auto": check_training(_foci, 60, 4, 0.98),
    "agrees in 2D": check_agreement(_stripes, 45, 2, preset="oriented"),
    "agrees in 3D": check_agreement(_foci, 60, 4, **FOCI),
    "memory runs out": check_out_of_memory,
    "stop": check_stop,
    "explanation": check_explanation,
    "prediction": check_prediction,
    "resnet18": check_architecture("resnet18"),
    "densenet121": check_architecture("densenet121"),
    "alexnet": check_architecture("alexnet", learning_rate=0.0005),
    **{f"fed: {name}, {ndim}D": check_load(name, ndim) for ndim in (2, 3) for name in CASES},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS))
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch finds no CUDA GPU: nothing is checked.", file=sys.stderr)
        return 2
    rows = []
    for name in chosen.only:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = CHECKS[name](Path(folder))
            except Exception as error:
                traceback.print_exc()
                result = {"found": f"{type(error).__name__}: {error}", "wanted": "", "passes": False}
        rows.append({"check": name, **result, "seconds": round(time.perf_counter() - began, 1)})
        print(rows[-1], file=sys.stderr, flush=True)
    print_report(f"on {torch.cuda.get_device_name()}", rows)
    return 0 if all(row["passes"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
