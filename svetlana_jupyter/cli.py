"""The command line: ``svetlana-jupyter demo`` runs the method on real images, ``lab`` opens the first notebook, and
``predict`` classifies the objects of a project where nobody watches.

Predicting from the command line, on machines that nobody watches: progress and sentences on stderr, an exit code.

The main job from end to end on real images: add, annotate, train, predict, count, export.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from svetlana_jupyter import __version__
from svetlana_jupyter.core.stats.metrics import score
from svetlana_jupyter.errors import ClassifierError, InputError, SvetlanaError
from svetlana_jupyter.project.exporters import FORMATS
from svetlana_jupyter.project.exporters.snapshot import OutputFolder
from svetlana_jupyter.project.prediction_job import ImagesFailedError
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.project.storage import DOCUMENT
from svetlana_jupyter.samples import blood_smear, blood_smear_classes

NOTEBOOK = "01_first_steps.ipynb"
PROMPT = "--ServerApp.kernel_websocket_connection_class=svetlana_jupyter.connection.PromptConnection"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="svetlana-jupyter",
        description="Classify segmented objects: label a few dozen, train a small network, see all of them classified.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="run the whole method on real images that come with the package")
    demo.add_argument("folder", nargs="?", default="svetlana_demo", type=Path, help="where results go [svetlana_demo]")
    lab = commands.add_parser("lab", help="open JupyterLab on the first notebook; its own options go behind")
    lab.add_argument("folder", nargs="?", default=".", type=Path, help="where the notebooks are put [here]")
    predict = commands.add_parser("predict", help="classify all objects of a project and export the results")
    predict.add_argument("project", type=Path, help="the project folder, with a trained classifier")
    predict.add_argument("images", nargs="*", help="names of images [all]")
    predict.add_argument("--out", required=True, type=Path, help="a folder of its own for the results")
    predict.add_argument("--run", help="the training whose classifier is used [the current one]")
    predict.add_argument(
        "--formats", nargs="+", default=["csv"], help="what to export, as project.export names it [csv]"
    )
    predict.add_argument("--average", action="store_true", help="average over the views that the run was trained with")
    chosen, options = parser.parse_known_args(arguments)
    if options and chosen.command != "lab":
        parser.error(f"unknown options: {' '.join(options)}")
    try:
        if chosen.command == "demo":
            run_demo(chosen.folder, print)
            return 0
        if chosen.command == "predict":
            return predict_batch(
                chosen.project,
                chosen.images,
                chosen.out,
                chosen.formats,
                chosen.run,
                chosen.average,
                lambda sentence: print(sentence, file=sys.stderr),
            )
        return open_lab(chosen.folder, options)
    except SvetlanaError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. What is done is kept: the same command goes on where it was.", file=sys.stderr)
        return 1


def open_lab(folder: Path, options: Sequence[str]) -> int:
    """Put the notebooks into ``folder``, where they are not there yet, and open JupyterLab on the first."""
    notebooks = folder / "notebooks"
    notebooks.mkdir(parents=True, exist_ok=True)
    for notebook in sorted(_shipped_notebooks().glob("*.ipynb")):
        if not (notebooks / notebook.name).exists():
            shutil.copy(notebook, notebooks)
    return subprocess.call([sys.executable, "-m", "jupyter", "lab", PROMPT, *options, str(notebooks / NOTEBOOK)])


def _shipped_notebooks() -> Path:
    """Return the folder of notebooks: in the package when it was installed, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "notebooks"
    return inside if inside.exists() else package.parent / "notebooks"


if __name__ == "__main__":
    sys.exit(main())


EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def predict_batch(
    path: Path,
    images: Sequence[str],
    out: Path,
    formats: Sequence[str],
    run: str | None,
    average: bool,
    say: Callable[[str], None],
) -> int:
    """Predict images of a project and export the results.

    What is predicted already is left out, so the same command goes on where it was.

    Parameters
    ----------
    path : Path
        The project folder.
    images : sequence of str
        All if it is empty.
    out : Path
        A folder of its own for the results.
    formats : sequence of str
        Keys of `project.exporters.FORMATS`.
    run : str, optional
        The current one by default.
    average : bool
        Average over the mirrored and turned views that the run was trained with.
    say : callable
        Takes each sentence.

    Returns
    -------
    int
        0 if all is right, 1 if something failed, though the rest is done, 2 if nothing was begun because of what was
        asked for.
    """
    try:
        project = _opened(path)
        names = list(images) or list(project.images)
        project.failed(names, run)  # refuses what is not there
        unknown = [name for name in formats if name not in FORMATS]
        if unknown:
            raise InputError(f"formats are {', '.join(FORMATS)}; got {', '.join(map(repr, unknown))}.")
        project.runs.choose(project.runs.get(run or None).name, keep=False)  # the choice in the project file stays
        OutputFolder(project, out)
    except SvetlanaError as error:
        say(str(error))
        return EXIT_USAGE
    told: list[str] = []
    troubles: list[str] = []
    project.observe(lambda change: told.append(change["new"]), "status")
    try:
        project.predict(names, average=average)
    except ClassifierError as error:
        say(str(error))
        return EXIT_USAGE
    except ImagesFailedError as error:
        troubles.append(str(error))
        project.images.leave_out(error.images)  # an export reads images
        names = [name for name in names if name not in error.images]
    except SvetlanaError as error:
        troubles.append(str(error))
    try:
        told.append(f"{len(project.export(out, formats))} files are written to {out}")
    except SvetlanaError as error:
        troubles.append(str(error))
    for sentence in [*(f"{one}." for one in told), *troubles]:
        say(sentence)
    return EXIT_FAILED if troubles or len(project.failed(names)) else EXIT_OK


def _opened(path: Path) -> Project:
    if not (path / DOCUMENT).is_file():
        raise InputError(f"{path} is no project folder: it holds no {DOCUMENT}. Give the folder that a project made.")
    return Project(path)


ANNOTATIONS = 60


def annotate_as_a_person_would(project: Project, truth: dict[tuple[str, int], str], count: int) -> None:
    """Label objects that the random queue hands out, by their known classes."""
    queue = project.queue("random", seed=0)
    missing = count - int(project.annotations.class_counts().sum())
    for _ in tqdm(range(missing), desc="annotating", bar_format="{desc} {n_fmt} of {total_fmt} |{bar:30}|"):
        candidate = queue.next()
        if candidate is not None:
            project.annotate(*candidate.id, truth[candidate.id], source="demo")


def run_demo(folder: Path, say: Callable[[str], None]) -> None:
    """Run the whole method on the blood smears that come with the package.

    Parameters
    ----------
    folder : Path
        Where the project and its results go; run again, it goes on where it was.
    say : callable
        Takes each line of the report.
    """
    truth = blood_smear_classes()
    classes = sorted(set(truth.values()))
    project = Project(folder / "blood.svetlana", classes=classes, annotator="demo")
    images = blood_smear()
    project.add_images(images / "images" / "{smear}.png", masks=images / "masks" / "{smear}.tif")
    say(f"{len(truth)} objects on {len(project.images)} stained blood smears: {', '.join(classes)}.")
    annotate_as_a_person_would(project, truth, ANNOTATIONS)
    say("Annotated: " + ", ".join(f"{count} {name}" for name, count in project.annotations.class_counts().items()) + ".")

    # A given preset, so that this takes seconds; left out, the best of eight is searched for.
    network, forest = project.train(preset="default"), project.train(architecture="forest")
    for title, run in (("A random forest on measured properties", forest), ("The small neural network", network)):
        project.runs.choose(run.name)
        project.predict()
        say("")
        say(f"{title}, trained in {run.seconds:.1f} s, on the objects nobody annotated:")
        table = project.predictions()
        others = table[table["annotation"].isna()]
        names = dict(zip(project.classes.ids, project.classes.names))
        ids = {name: id for id, name in names.items()}
        true = [ids[truth[key]] for key in others.index]
        result = score(true, others["predicted"].map(ids), names, others.index.get_level_values("image"))
        say(f"  accuracy {result.accuracy}")
        for name, row in result.per_class.iterrows():
            say(f"  {name:>9}: {row.recall:6.1%} found (95 % interval {row.recall_low:.0%} to {row.recall_high:.0%})")
    say("")
    say(str(project.evaluate()))
    say("Counts, with the share of each class and its 95 % interval:")
    for _, line in project.counts().iterrows():
        say(f"  {line['class']:>9}: {line['count']:4d}  {line.fraction:6.1%}  ({line.low:.1%} to {line.high:.1%})")
    files = project.export(folder / "results", ["csv", "parquet", "tiff"])
    say("")
    tables = ", ".join(file.name for file in files[:3])
    say(f"Written to {folder / 'results'}: {tables} and {len(files) - 3} class maps.")
    say("To do the same by hand in the browser:  svetlana-jupyter lab   (or: make lab)")
