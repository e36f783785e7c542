"""Predicting from the command line, on machines that nobody watches: progress and sentences on stderr, an exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from svetlana_jupyter.errors import ClassifierError, InputError, SvetlanaError
from svetlana_jupyter.project.export import FORMATS
from svetlana_jupyter.project.exports.place import OutputFolder
from svetlana_jupyter.project.prediction import ImagesFailedError
from svetlana_jupyter.project.project import Project
from svetlana_jupyter.project.store import DOCUMENT

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
        Keys of `project.export.FORMATS`.
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
        project.current_run = project.run(run).name  # here alone: the project's own choice stays
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
        project.leave_out(error.images)  # an export reads images
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
