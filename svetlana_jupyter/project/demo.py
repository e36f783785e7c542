"""The main job from end to end on real images: add, annotate, train, predict, count, export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

from svetlana_jupyter.core.samples import blood_smear, blood_smear_classes
from svetlana_jupyter.core.scores import score
from svetlana_jupyter.project.project import Project

ANNOTATIONS = 60


def annotate_as_a_person_would(project: Project, truth: dict[tuple[str, int], str], count: int) -> None:
    """Label objects that the random queue hands out, by their known classes."""
    queue = project.queue("random", seed=0)
    missing = count - int(project.class_counts().sum())
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
    say("Annotated: " + ", ".join(f"{count} {name}" for name, count in project.class_counts().items()) + ".")

    # A given recipe, so that this takes seconds; left out, the best of eight is searched for.
    network, forest = project.train(recipe="default"), project.train(architecture="forest")
    for title, run in (("A random forest on measured properties", forest), ("The small neural network", network)):
        project.choose_run(run.name)
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
