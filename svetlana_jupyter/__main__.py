"""The command line: ``svetlana-jupyter demo`` runs the method on real images, ``lab`` opens the first notebook, and
``predict`` classifies the objects of a project where nobody watches.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from svetlana_jupyter import __version__
from svetlana_jupyter.errors import SvetlanaError

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
            from svetlana_jupyter.project.demo import run_demo

            run_demo(chosen.folder, print)
            return 0
        if chosen.command == "predict":
            from svetlana_jupyter.project.batch import predict_batch

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
