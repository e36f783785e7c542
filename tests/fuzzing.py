"""Damaged files: seeded mutations of every file that the package reads, and what must hold for each of them.

`Fuzzer.run_case` copies a template folder, damages one file in it, uses that file as a user would, and checks that
nothing but errors of the package is raised, that nothing hangs or takes much memory, that no program is started, and
that nothing outside the copy is written.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import traceback
import warnings
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import h5py
import numpy as np
import pandas as pd
import tifffile
import zarr
from PIL import Image

from svetlana_jupyter.core.io.image_pair import open_pair
from svetlana_jupyter.core.io.images import open_image, open_mask
from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.project.project import Project
from tests.project.conftest import CLASSES, squares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_SECONDS = 5
# Seconds of computing; and of waiting, since other programs may keep the processor busy.
TIMERS = {signal.SIGPROF: (signal.ITIMER_PROF, MAX_SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, 6 * MAX_SECONDS)}
MAX_GROWTH = 500 << 20  # bytes of memory
PROJECT, SMALL, INPUTS, CANARY = "cells.svetlana", "small.svetlana", "inputs", "canary"
IMAGE, MASK = f"{INPUTS}/image.tif", f"{INPUTS}/mask.tif"
FOLDER = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None  # in memory: most of the time is spent on copying
COMMANDS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn")
CHANGES = (
    "shutil.rmtree",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "os.link",
    "os.symlink",
    "os.chmod",
)
SPECIAL = [
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**70, -(2**63), 10**30, 1e308, 0.5, float("nan"), float("inf"), [], {}),
    *(
        [[]],
        [1, 2, 3, 4, 5, 6],
        {"a": 1},
        {"id": "pickle"},
        "",
        "a",
        "-1",
        "NaN",
        "1e999",
        "|O",
        "\0",
        "C:\\x",
        "e\u0301",
    ),
    *("../../canary", "/etc/passwd", "x" * 5000, "<img src=x onerror=alert(1)>", "=cmd|'x'!A0"),
]


class Hang(BaseException):
    """Raised by the alarm when a case takes too long."""


class Bomb:
    """Object whose unpickling would write a file next to the template."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@dataclass
class Outcome:
    """Result of one case: the damaged file, the mutation, and what was wrong ("" if nothing)."""

    number: int
    file: str
    mutation: str
    problem: str
    refused: bool


@dataclass
class Fuzzer:
    """Cases over a template folder, which `build_template` has filled."""

    template: Path
    work: Path
    seed: int = 0
    events: list[str] = field(default_factory=list)
    root: Path | None = None

    def __post_init__(self) -> None:
        self.files = sorted(
            path.relative_to(self.template).as_posix()
            for path in self.template.rglob("*")
            if path.is_file() and not {CANARY, SMALL} & set(path.parts) and not path.name.endswith(".lock")
        )
        self.by_kind: dict[str, list[str]] = {}
        for file in self.files:  # many chunks of arrays must not outweigh the rest
            parts = file.split("/")
            kind = "/".join(parts[:-1]) if "c" not in parts else "/".join(parts[: parts.index("c")])
            self.by_kind.setdefault(kind if parts[0] == PROJECT else parts[1], []).append(file)
        self.kinds = sorted(self.by_kind)
        sys.addaudithook(self._audit)
        import svetlana_jupyter.learn.cross_validation  # the first import of torch takes seconds
        import svetlana_jupyter.learn.inference  # noqa: F401

    def run_case(self, number: int) -> Outcome:
        """Damage one file, use it, and return what happened."""
        rng = random.Random(f"{self.seed}-{number}")
        file = rng.choice(self.by_kind[rng.choice(self.kinds)])
        folder = self.work / str(number)
        self._copy(file, folder)
        mutation = damage(folder / file, folder / CANARY, rng)
        before, self.events, self.root = _contents(folder / CANARY), [], folder
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refused, problem = False, ""
        for use in chosen_uses(file, folder, rng):
            error = self._try(use)
            refused = refused or isinstance(error, SvetlanaError)
            if isinstance(error, Hang):
                problem = f"it took more than {MAX_SECONDS} s"
            elif error is not None and not isinstance(error, SvetlanaError):
                problem = "".join(traceback.format_exception(error)[-4:])
            if problem:
                break
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024
        if not problem and grown > MAX_GROWTH:
            problem = f"memory grew by {grown >> 20} MB"
        if not problem and self.events:
            problem = f"outside the folder, or a program: {self.events[:3]}"
        if not problem and _contents(folder / CANARY) != before:
            problem = "a file outside the project was changed"
        self.root = None
        shutil.rmtree(folder, ignore_errors=True)
        return Outcome(number, file, mutation, problem, refused)

    def _copy(self, file: str, folder: Path) -> None:
        """Copy what the case needs: the project, or one input and a small project."""
        shutil.copytree(self.template / CANARY, folder / CANARY)
        names = [IMAGE, MASK]
        if file.startswith(f"{PROJECT}/"):
            shutil.copytree(self.template / PROJECT, folder / PROJECT)
        else:
            shutil.copytree(self.template / SMALL, folder / PROJECT)
            names.append("/".join(file.split("/")[:2]))
        for name in names:
            source, target = self.template / name, folder / name
            target.parent.mkdir(exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy(source, target)

    def _try(self, use: Callable[[], object]) -> BaseException | None:
        def ring(*_: object) -> None:
            raise Hang

        for signal_number, (timer, seconds) in TIMERS.items():
            signal.signal(signal_number, ring)
            signal.setitimer(timer, seconds)
        try:
            with (
                warnings.catch_warnings(),
                dask.config.set(scheduler="synchronous"),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                warnings.simplefilter("ignore")
                use()
        except (Exception, Hang) as error:
            return error
        finally:
            for timer, _ in TIMERS.values():
                signal.setitimer(timer, 0)
        return None

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.root is None:
            return
        path = arguments[0] if arguments else None
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event.startswith(COMMANDS):
            self.events.append(f"{event} {arguments!r:.200}")
        elif (writes or event in CHANGES) and isinstance(path, str | bytes | Path) and os.path.isabs(path):
            self._check_place(event, path)

    def _check_place(self, event: str, path: str | bytes | Path) -> None:
        place = os.path.realpath(os.fsdecode(path))
        inside = place.startswith(f"{self.root}/") and not place.startswith(f"{self.root}/{CANARY}")
        # On Linux, a temporary file without a name is opened under the path of its folder.
        harmless = place.startswith(("/dev/null", "/dev/tty", "/proc/")) or ".pyc" in place or place == str(self.root)
        if not inside and not harmless:
            self.events.append(f"{event} {place}")


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# ---------------------------------------------------------------------------------------------------------------------
# Template


def build_template(folder: Path, network: bool = True) -> None:
    """Write a project with every kind of file, and one input of every format."""
    (folder / CANARY / "inside").mkdir(parents=True)
    for name in ("thesis.csv", "inside/thesis.parquet", "project.json"):
        (folder / CANARY / name).write_bytes(b"years of work")
    inputs = folder / INPUTS
    inputs.mkdir()
    image, mask = squares(40)
    _write_images(inputs, image, mask)
    _write_tables(inputs, folder)
    project = Project(folder / PROJECT, classes=CLASSES, annotator="bea")
    project.add("one", inputs / "image.tif", inputs / "mask.tif", groups={"well": "A1"})
    project.add("inside", image, mask.astype("int32"), groups={"well": "A2"})
    project.annotate("one", [1, 3], "dim")
    project.annotations.file.close()
    project = Project(folder / PROJECT, annotator="ann")
    project.annotate("one", range(1, 13, 2), "dim")
    project.annotate("one", range(2, 14, 2), "bright")
    project.annotate("inside", [1, 3], "dim")
    project.flag("inside", 2, "ambiguous")
    project.undo()
    project.test_set.draw(20)
    project.settings = project.settings.changed(preset="default", trees=3, epochs=1, steps=2, width=4, depth=2, folds=2)
    if network:
        project.train()
        project.predict()
    project.train(architecture="forest")
    project.predict()
    project.measure(groups=("shape",))
    project.sweep(architecture="forest", trees=[2])
    project.replace_mask("inside", mask.astype("int32") * 2)
    project.classes.add("dull")
    project.classes.merge("dull", "dim")
    for folder_name in (project.runs.current.path,):
        shutil.copytree(folder_name, inputs / "run")
    project.save_zip(inputs / "project.zip")
    project.annotations.file.close()
    small = Project(folder / SMALL, classes=CLASSES, annotator="ann")
    small.add("one", inputs / "image.tif", inputs / "mask.tif", groups={"well": "A1"})
    small.annotate("one", range(1, 13, 2), "dim")
    small.annotate("one", range(2, 14, 2), "bright")
    small.objects("one")
    small.settings = project.settings
    small.annotations.file.close()


def _write_images(inputs: Path, image: np.ndarray, mask: np.ndarray) -> None:
    color = np.stack([image, image // 2, image // 3], axis=-1)
    tifffile.imwrite(inputs / "image.tif", image)
    tifffile.imwrite(inputs / "mask.tif", mask)
    tifffile.imwrite(inputs / "tiled.tif", image, tile=(32, 32), compression="zlib")
    tifffile.imwrite(inputs / "color.tif", color, compression="lzw", photometric="rgb")
    tifffile.imwrite(inputs / "stack.ome.tif", np.stack([image, image]), metadata={"axes": "CYX", "PhysicalSizeX": 0.5})
    tifffile.imwrite(inputs / "imagej.tif", image, imagej=True, resolution=(2, 2), metadata={"unit": "um"})
    Image.fromarray(image).save(inputs / "image.png")
    Image.fromarray(color).save(inputs / "color.png")
    Image.fromarray(color).save(inputs / "color.jpg")
    np.save(inputs / "image.npy", image)
    np.savez(inputs / "image.npz", image=image)
    (inputs / "cells_seg.npy").write_bytes(_pickled_npy({"masks": mask, "outlines": mask, "x": [1, "a", None]}))
    with h5py.File(inputs / "image.h5", "w") as file:
        file.create_dataset("data", data=image, chunks=(16, 16), compression="gzip")
        file["data"].attrs["element_size_um"] = [1, 2, 3]
    for version in (2, 3):
        zarr.create_array(inputs / f"image{version}.zarr", data=image, chunks=(128, 96), zarr_format=version)
        group = zarr.open_group(inputs / f"ome{version}.zarr", mode="w", zarr_format=version)
        for level in (0, 1):
            group.create_array(str(level), data=image[:: level + 1, :: level + 1], chunks=(128, 96))
        axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
        levels = [
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": [1.0 + level] * 2}]}
            for level in (0, 1)
        ]
        multiscales = [{"axes": axes, "datasets": levels, "version": "0.4"}]
        group.attrs.update({"multiscales": multiscales} if version == 2 else {"ome": {"multiscales": multiscales}})


def _pickled_npy(content: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(content, dtype=object), allow_pickle=True)
    return stream.getvalue()


def _write_tables(inputs: Path, folder: Path) -> None:
    labels = pd.DataFrame({"image": "one", "object": range(1, 9), "class": ["dim", "bright"] * 4})
    positions = pd.DataFrame({"x": [12.5, 36.0], "y": [12.0, 12.0], "annotation": ["dim", "-1"]})
    labels.to_csv(inputs / "labels.csv", index=False)
    positions.to_csv(inputs / "positions.tsv", index=False, sep="\t")
    labels.to_excel(inputs / "labels.xlsx", index=False)
    labels.to_parquet(inputs / "labels.parquet")
    pd.DataFrame({"well": ["A1", "A2"], "dose": [0.5, 0.05]}).to_csv(inputs / "conditions.csv", index=False)
    square = [[6.0, 6.0], [18.0, 6.0], [18.0, 18.0], [6.0, 18.0], [6.0, 6.0]]
    features = [
        {
            "type": "Feature",
            "id": "0a",
            "geometry": {"type": "Polygon", "coordinates": [[[x + 24 * i, y] for x, y in square]]},
            "properties": {"objectType": "cell", "classification": {"name": name, "color": [200, 0, 0]}},
        }
        for i, name in enumerate(("dim", "bright", "dim"))
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features}).encode()
    (inputs / "cells.geojson").write_bytes(text)
    (inputs / "cells.geojson.gz").write_bytes(gzip.compress(text))
    plugin = inputs / "plugin" / "Svetlana"
    plugin.mkdir(parents=True)
    content = {
        "image_path": [str(inputs / "image.tif")],
        "labels_path": [str(inputs / "mask.tif")],
        "regionprops": [[{"label": 1}, {"label": 2}]],
        "labels_list": [[0, 1]],
        "other": Bomb(folder / CANARY / "executed"),
    }
    with zipfile.ZipFile(plugin / "labels", "w") as archive:
        archive.writestr("labels/data.pkl", pickle.dumps(content))


# ---------------------------------------------------------------------------------------------------------------------
# Mutations


def damage(file: Path, canary: Path, rng: random.Random) -> str:
    """Damage a file in one of many ways, and return a description."""
    if rng.random() < 0.12:
        return _replace(file, canary, rng)
    content = file.read_bytes()
    ways: list[Callable[[bytes, random.Random], bytes]] = [_flip, _truncate, _splice, _overwrite]
    if file.suffix in (".json", ".geojson", ".jsonl") or file.name.startswith(".z"):
        ways += [_change_json] * 8
    if file.suffix in (".csv", ".tsv"):
        ways += [_change_cell] * 8
    if file.suffix in (".zip", ".xlsx") or file.name == "labels":
        ways += [_change_member] * 6
    way = rng.choice(ways)
    with contextlib.suppress(ValueError, IndexError):
        content = way(content, rng)
    file.write_bytes(content)
    return way.__name__.strip("_")


def _replace(file: Path, canary: Path, rng: random.Random) -> str:
    kind = rng.choice(["missing", "empty", "folder", "link", "link to folder", "pipe", "zeros", "no folder"])
    if kind == "no folder":
        shutil.rmtree(file.parent)
        return kind
    size = file.stat().st_size
    file.unlink()
    if kind == "empty":
        file.touch()
    elif kind == "folder":
        file.mkdir()
    elif kind == "link":
        file.symlink_to(canary / "thesis.csv")
    elif kind == "link to folder":
        file.symlink_to(canary)
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "zeros":
        file.write_bytes(bytes(size))
    return kind


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _splice(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    place = rng.randrange(len(content) + 1)
    return content[:place] + content[start:end] + content[place + rng.choice([0, end - start]) :]


def _overwrite(content: bytes, rng: random.Random) -> bytes:
    number = rng.choice([0, 1, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1])
    size, place = rng.choice([1, 2, 4, 8]), rng.randrange(len(content) + 1)
    new = (number % 256**size).to_bytes(size, rng.choice(["little", "big"]))
    return content[:place] + new + content[place + size :]


def _change_json(content: bytes, rng: random.Random) -> bytes:
    document = json.loads(content.splitlines()[0] if content.count(b"\n") and content[:1] != b"{" else content)
    places = list(_places(document))
    if rng.random() < 0.03:
        return b"[" * 100_000
    for _ in range(rng.choice([1, 1, 1, 3])):
        holder, key = rng.choice(places)
        change = rng.randrange(4)
        if change == 0 and isinstance(holder, dict):
            holder.pop(key, None)
        elif change == 1 and isinstance(holder, dict):
            holder[rng.choice(["new", "", "0", "2", "x" * 2000, "../../canary/inside"])] = holder.get(key)
        elif change == 2:
            other, name = rng.choice(places)
            with contextlib.suppress(KeyError, IndexError):
                holder[key] = other[name]
        else:
            with contextlib.suppress(IndexError):
                holder[key] = rng.choice(SPECIAL)
    return json.dumps(document).encode()  # a ValueError for circular references


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _change_cell(content: bytes, rng: random.Random) -> bytes:
    lines = content.decode("utf-8", "replace").split("\n")
    delimiter = "\t" if "\t" in lines[0] else ","
    number = rng.randrange(len(lines))
    cells = lines[number].split(delimiter)
    values = [
        *SPECIAL,
        "undo",
        "redo",
        "mask",
        "label",
        "9999-01-01",
        "0001-01-01T00:00",
        '"',
        "\r",
        "1 2",
        "x" * 200_000,
    ]
    cells[rng.randrange(len(cells))] = str(rng.choice(values)).replace("\n", " ")
    lines[number] = delimiter.join(cells)
    if rng.random() < 0.2:
        lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return "\n".join(lines).encode("utf-8", "replace")


def _change_member(content: bytes, rng: random.Random) -> bytes:
    """Damage one file inside a zip archive, whose checksum is right again."""
    source = zipfile.ZipFile(io.BytesIO(content))
    chosen, stream = rng.choice(source.namelist()), io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        target.comment = source.comment
        for info in source.infolist():
            data = source.read(info)
            if info.filename == chosen:
                change = rng.randrange(4)
                if change == 0:
                    info.filename = rng.choice(["../canary/x", "/tmp/x", "C:\\x", "", "a/../b", f"{chosen}/x"])
                elif change == 1:
                    info.external_attr = (0o120777 << 16) | 1
                else:
                    data = rng.choice([_flip, _truncate, _splice])(data, rng)
            target.writestr(info, data)
    return stream.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# Uses


def chosen_uses(file: str, folder: Path, rng: random.Random) -> Iterator[Callable[[], object]]:
    """Yield what a user would do with a file; a project is opened first."""
    if not file.startswith(f"{PROJECT}/"):
        yield from _input_uses(folder / INPUTS, file.split("/")[1], folder, rng)
        return
    project: list[Project] = []
    yield lambda: project.append(Project(folder / PROJECT, annotator="ann"))
    if not project:
        return
    opened = project[0]
    if "/arrays/" in file or file.endswith("project.json"):
        yield lambda: (opened.pair("inside").image.compute(), opened.pair("inside").mask.compute())
    if "/runs/" in file:
        yield lambda: [(run.versions, run.summary, run.search_results(), run.held_out()) for run in opened.runs]
        yield lambda: opened.predict(run=file.split("/")[2], resume=rng.random() < 0.8)
    if "/measurements/" in file:
        yield lambda: opened.measure(groups=("shape",))
    slow: list[Callable[[], object]] = [
        opened.evaluate,
        opened.runs.compare,
        lambda: str(opened._repr_html_()),
        lambda: opened.counts(by="image"),
        lambda: opened.train(architecture="forest"),
        lambda: opened.sweep(architecture="forest", trees=[2]),
        lambda: opened.export(folder / "results", ["csv", "geojson"]),
        opened.save_zip,
    ]
    quick: list[Callable[[], object]] = [
        opened.predictions,
        opened.labels,
        opened.annotations.table,
        opened.predict,
        opened.test_set.table,
        opened.undo,
        opened.images.missing,
        lambda: opened.objects("one"),
        lambda: opened.annotate("one", 14, "bright"),
        lambda: opened.queue("uncertain"),
        lambda: opened.classes.add("new"),
        lambda: opened.class_map("inside").compute(),
    ]
    yield from rng.sample(quick, 2)
    if rng.random() < 0.05:
        yield rng.choice(slow)
    opened.annotations.file.close()


def _input_uses(inputs: Path, name: str, folder: Path, rng: random.Random) -> Iterator[Callable[[], object]]:
    path = inputs / name
    if name == "project.zip":
        yield lambda: Project.from_zip(path, folder / "copy", annotator="ann").annotations.file.close()
    elif name == "run":
        yield lambda: _open_project(folder).train(start_from=str(path), architecture="small_cnn")
    elif name.startswith("conditions"):
        yield lambda: _open_project(folder).counts(by="dose", conditions=path)
    elif name.startswith(("labels", "positions", "plugin")):
        yield lambda: _open_project(folder).import_annotations(path, image=rng.choice([None, "one"]))
    elif "geojson" in name:
        yield lambda: _open_project(folder).import_annotations(path, image="one")
        yield lambda: open_pair("outlines", inputs / "image.tif", path)
    else:
        yield lambda: rng.choice([open_image, open_mask])(path).compute()
        if rng.random() < 0.3:
            yield lambda: _open_project(folder).add("new", path, inputs / "mask.tif")


def _open_project(folder: Path) -> Project:
    return Project(folder / PROJECT, annotator="ann")


def report(outcomes: list[Outcome]) -> str:
    """Return a summary of the outcomes, with the problems of each kind once."""
    problems = [outcome for outcome in outcomes if outcome.problem]
    kinds = Counter(outcome.problem.strip().splitlines()[-1][:160] for outcome in problems)
    lines = [
        f"{len(outcomes):,} damaged files, {sum(outcome.refused for outcome in outcomes):,} refused with a sentence, "
        f"{len(problems):,} problems of {len(kinds):,} kinds"
    ]
    for kind, count in kinds.most_common():
        first = next(one for one in problems if one.problem.strip().splitlines()[-1][:160] == kind)
        lines.append(f"\n{count} × {kind}\n  case {first.number}: {first.file} ({first.mutation})\n{first.problem}")
    return "\n".join(lines)
