"""Command line of the package.

``demo`` annotates, trains and predicts on example images, ``lab`` opens the first notebook, and ``predict`` classifies
the objects of a project without a user interface.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from svetlana_jupyter import __version__
from svetlana_jupyter.core.stats.metrics import score
from svetlana_jupyter.errors import ClassifierError, InputError, SvetlanaError
from svetlana_jupyter.project.exporters import check_formats
from svetlana_jupyter.project.exporters.output_folder import OutputFolder
from svetlana_jupyter.project.file_access import DOCUMENT
from svetlana_jupyter.project.prediction_job import ImagesFailedError
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.samples import blood_smear, blood_smear_classes

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTEBOOK = "01_first_steps.ipynb"
PROMPT = "--ServerApp.kernel_websocket_connection_class=svetlana_jupyter.jupyter_connection.PromptConnection"
EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
DEMO_ANNOTATIONS = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, and return its exit code."""
    parser = _argument_parser()
    known, options = parser.parse_known_args(arguments)
    parsed = vars(known)
    command = parsed.pop("command")
    if options and command != "lab":
        parser.error(f"unknown options: {' '.join(options)}")
    try:
        match command:
            case "demo":
                return run_demo(**parsed)
            case "predict":
                return predict_batch(**parsed)
            case _:
                return open_lab(**parsed, options=options)
    except SvetlanaError as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("Stopped. Finished work is kept: run the same command again to continue.", file=sys.stderr)
        return EXIT_FAILED


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="svetlana-jupyter",
        description="Classify segmented objects: label a few dozen, train a small network, classify all of them.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="annotate, train and predict on example images")
    demo.add_argument("folder", nargs="?", default="svetlana_demo", type=Path, help="output folder [svetlana_demo]")
    lab = commands.add_parser("lab", help="open the first notebook; further options are passed to JupyterLab")
    lab.add_argument("folder", nargs="?", default=".", type=Path, help="folder for the notebooks [.]")
    predict = commands.add_parser("predict", help="classify all objects of a project and export the results")
    predict.add_argument("path", metavar="project", type=Path, help="project folder with a trained classifier")
    predict.add_argument("images", nargs="*", help="names of images [all]")
    predict.add_argument("--out", required=True, type=Path, help="output folder, separate from project and images")
    predict.add_argument("--run", help="run whose classifier is used [the current run]")
    predict.add_argument("--formats", nargs="+", default=["csv"], help="export formats, see project.export [csv]")
    predict.add_argument("--average", action="store_true", help="average over mirrored and rotated views")
    return parser


def open_lab(folder: Path, options: Sequence[str]) -> int:
    """Copy the missing notebooks to a folder, and open the first in JupyterLab."""
    notebooks = folder / "notebooks"
    shipped = _shipped_notebooks()
    for file in (*shipped.glob("*.ipynb"), *shipped.glob("images/*.png")):
        copy = notebooks / file.relative_to(shipped)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            shutil.copy(file, copy)
    return subprocess.call([sys.executable, "-m", "jupyter", "lab", PROMPT, *options, str(notebooks / NOTEBOOK)])


def _shipped_notebooks() -> Path:
    """Return the folder of the notebooks that are shipped with the package.

    The notebooks are inside an installed package, and next to the package in a checkout.
    """
    package = Path(__file__).parent
    inside = package / "notebooks"
    return inside if inside.exists() else package.parent / "notebooks"


def predict_batch(
    path: Path, images: Sequence[str], out: Path, formats: Sequence[str], run: str | None, average: bool
) -> int:
    """Classify the objects of a project, export the results and print a report.

    The report is printed to standard error. Finished predictions are skipped, so the same command continues after an
    interruption.

    Parameters
    ----------
    path : Path
        The project folder.
    images : sequence of str
        Names of the images; an empty sequence stands for all images.
    out : Path
        Output folder, separate from project and images.
    formats : sequence of str
        Keys of `project.exporters.FORMATS`.
    run : str, optional
        Name of the run whose classifier is used; by default the current run.
    average : bool
        Average over the mirrored and rotated views that the run was trained with.

    Returns
    -------
    int
        Exit code: 0 for success, 1 if some images failed, 2 for a usage error that was found before any prediction.
    """
    try:
        project = _open_project(path)
        names = list(images) or list(project.images)
        project.failed(names, run)  # raises an error for unknown images or runs
        check_formats(formats)
        project.runs.choose(project.runs.get(run or None).name, keep=False)  # not saved in the project
        OutputFolder(out, project.path, names, project.images.files())
    except SvetlanaError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    status_lines: list[str] = []
    errors: list[SvetlanaError] = []
    project.observe(lambda change: status_lines.append(change["new"]), "status")
    try:
        project.predict(names, average=average)
    except ClassifierError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except ImagesFailedError as error:
        errors.append(error)
        project.images.leave_out(error.images)  # their pixels cannot be exported either
        names = [name for name in names if name not in error.images]
    except SvetlanaError as error:
        errors.append(error)
    try:
        status_lines.append(f"Wrote {len(project.export(out, formats))} files to {out}")
    except SvetlanaError as error:
        errors.append(error)
    print(*(f"{line}." for line in status_lines), *errors, sep="\n", file=sys.stderr)
    return EXIT_FAILED if errors or len(project.failed(names)) else EXIT_OK


def _open_project(path: Path) -> Project:
    # If the folder is wrong, Project(path) would create a new project in it.
    if not (path / DOCUMENT).is_file():
        raise InputError(f"{path} is not a project folder: {DOCUMENT} is missing. Pass the folder of a project.")
    return Project(path)


def run_demo(folder: Path) -> int:
    """Annotate, train and predict on the blood smears of the package; print a report.

    Parameters
    ----------
    folder : Path
        Folder for the project and its results. A second call continues where the first call stopped.
    """
    truth = blood_smear_classes()
    classes = sorted(set(truth.values()))
    project = Project(folder / "blood.svetlana", classes=classes, annotator="demo")
    images = blood_smear()
    project.add_images(images / "images" / "{smear}.png", masks=images / "masks" / "{smear}.tif")
    print(f"{len(truth)} objects on {len(project.images)} stained blood smears: {', '.join(classes)}.")
    _annotate_random_objects(project, truth, DEMO_ANNOTATIONS)
    print(
        "Annotated: " + ", ".join(f"{count} {name}" for name, count in project.annotations.class_counts().items()) + "."
    )

    # A short training with a fixed preset takes seconds; the default would search for the best preset.
    network, forest = project.train(preset="default", epochs=5), project.train(architecture="forest")
    names = dict(zip(project.classes.ids, project.classes.names))
    ids = {name: class_id for class_id, name in names.items()}
    for title, run in (("A random forest on object measurements", forest), ("The small neural network", network)):
        project.runs.choose(run.name)
        project.predict()
        print()
        print(f"{title}, trained in {run.seconds:.1f} s, scored on the objects without annotation:")
        table = project.predictions()
        others = table[table["annotation"].isna()]
        true = [ids[truth[key]] for key in others.index]
        result = score(true, others["predicted"].map(ids), names, others.index.get_level_values("image"))
        print(f"  accuracy {result.accuracy}")
        for name, row in result.per_class.iterrows():
            interval = f"95 % interval {row.recall_low:.0%} to {row.recall_high:.0%}"
            print(f"  {name:>9}: recall {row.recall:6.1%} ({interval})")
    print()
    print(str(project.evaluate()))
    print("Predicted objects, and the estimated share of each class with its 95 % interval:")
    for _, line in project.counts().iterrows():
        interval = f"({line.low:.1%} to {line.high:.1%})" if line.low == line.low else line.note
        print(f"  {line['class']:>9}: {line['count']:4d}  {line.fraction:6.1%}  {interval}")
    files = project.export(folder / "results", ["csv", "parquet", "tiff"])
    tables = [file.name for file in files if file.suffix != ".tif"]
    print()
    print(f"Written to {folder / 'results'}: {', '.join(tables)} and {len(files) - len(tables)} class maps.")
    print("To annotate, train and predict in the browser:  svetlana-jupyter lab   (or: make lab)")
    return EXIT_OK


def _annotate_random_objects(project: Project, truth: dict[tuple[str, int], str], count: int) -> None:
    """Annotate random objects with their true classes, until ``count`` are annotated."""
    queue = project.queue("random", seed=0)
    missing = count - int(project.annotations.class_counts().sum())
    for _ in tqdm(range(missing), desc="annotating", bar_format="{desc} {n_fmt} of {total_fmt} |{bar:30}|"):
        candidate = queue.next()
        if candidate is not None:
            project.annotate(*candidate.id, truth[candidate.id], source="demo")


if __name__ == "__main__":
    sys.exit(main())
