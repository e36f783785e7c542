"""Response times in JupyterLab, from a key, wheel or mouse event to the drawn result, in a real browser.

`python -m tests.benchmarks.bench_browser [--only NAME …]`. All images are generated in a temporary folder. Times are
those of the page's clock, from the event to the screen frame that shows the result; exit code 1 beyond a limit.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from tests.benchmarks.bench_objects import make_disks
from tests.benchmarks.browsing import Block, Unwatched, WatchedPage, load, percentiles, watched_pages
from tests.benchmarks.report import print_report

if TYPE_CHECKING:
    from playwright.sync_api import Locator

CHUNK, PITCH, EDGE = 512, 76, 200
LEVELS = 22  # the color identifies the object: 22³ > 10,000
COLUMNS = ("what", "median ms", "p95 ms", "worst ms", "least", "most", "reached")
Row = dict[str, Any]
Open = Callable[[str], WatchedPage]

PROJECT = """\
import svetlana_jupyter as sv
project = sv.Project({folder!r} + "/{name}.svetlana", classes=["active", "resting", "other"])
project.add("well", {folder!r} + "/image.zarr", {folder!r} + "/mask.zarr", axes={axes!r}, channels={channels})"""
BLOCK = 20  # keys that are typed on one canvas before the other has its turn
BARE = """\
from ipycanvas import Canvas, hold_canvas
bare, colors = Canvas(width=740, height=540), ["#a02020", "#20a020"]
def fill(*key):
    colors.reverse()
    with hold_canvas(bare):
        bare.fill_style = colors[0]
        bare.fill_rect(0, 0, bare.width, bare.height)
bare.on_key_down(fill)
fill()
bare"""
STARTED = 20  # labels before live predictions are timed
LIVE = f"""\
for label in project.objects("well").index[:{STARTED}]:
    project.annotate("well", int(label), ["active", "resting", "other"][label % 3])
for _ in project.features.compute(lambda: False):
    pass
project.live.start()"""
RGB = {"axes": "cyx", "channels": ["red", "green", "blue"]}


def coded_well(folder: Path, side: int) -> int:
    """Write a noisy RGB image with an object every 76 pixels, each with a unique core color; return their number."""
    folder.mkdir(parents=True)
    across = (side - 2 * EDGE) // PITCH
    count = across**2
    numbers = np.random.default_rng(5).permutation(count) + 1
    cell = make_disks(PITCH, PITCH, np.uint16) > 0
    core = np.hypot(*(np.mgrid[:PITCH, :PITCH] - PITCH / 2)) < 8
    image = np.random.default_rng(1).integers(50, 66, (3, side, side), np.uint8)
    mask = np.zeros((side, side), np.uint16)
    for place, number in enumerate(numbers):
        y, x = EDGE + PITCH * (place // across), EDGE + PITCH * (place % across)
        mask[y : y + PITCH, x : x + PITCH][cell] = number
        patch = image[:, y : y + PITCH, x : x + PITCH]
        patch[:, cell] += 90
        patch[:, core] = np.array(color_of(int(number)))[:, None]
    for name, pixels in (("image", image), ("mask", mask)):
        chunks = (1, CHUNK, CHUNK)[-pixels.ndim :]
        zarr.create_array(folder / f"{name}.zarr", data=pixels, chunks=chunks)
    return count


def color_of(number: int) -> list[int]:
    return [8 + 11 * (number // LEVELS**k % LEVELS) for k in range(3)]


def number_of(color: list[float]) -> int:
    return sum(round((value - 8) / 11) * LEVELS**k for k, value in enumerate(color))


def keys(open_page: Open, home: Path) -> Iterator[Row]:
    """Label the objects of the queue, pressing each key as soon as the next object is displayed.

    A bare canvas that fills itself with another color after each key is typed on in turn, on the same page: both are
    delayed by the same server, browser and load.
    """
    medians = []
    for side, presses in ((1000, 40), (8000, 200)):
        page = open_page(f"keys-{side}")
        name, pairs = yield from typed(page, home, side, presses)
        medians.append(np.median([t for _, block in pairs for t in block.times]))
        if presses >= 200:
            yield from costs([block for _, block in pairs], name)
    yield {"what": "median on 8000² ÷ on 1000²", "most": 1.2, "reached": round(medians[1] / medians[0], 2)}


def live_keys(open_page: Open, home: Path) -> Iterator[Row]:
    """Label the objects of the queue while live predictions follow the labels."""
    page = open_page("live-keys")
    name, pairs = yield from typed(page, home, 4000, 200, LIVE)
    yield from costs([block for _, block in pairs], name)
    state = page.evaluate("(project.live.stop(), project.live_state.stage, project.live_state.labels)[1:]")
    assert ast.literal_eval(state)[1] > STARTED, f"the live predictions did not follow the labels: {state}"


def typed(
    page: WatchedPage, home: Path, side: int, presses: int, before: str = ""
) -> Generator[Row, None, tuple[str, list[tuple[Block, Block]]]]:
    """Type keys on a panel and on a bare canvas; return the name of the image and the blocks of both."""
    folder = home / f"keys-{side}"
    across = (side - 2 * EDGE) // PITCH
    count = across**2 if folder.exists() else coded_well(folder, side)
    project = PROJECT.format(folder=str(folder), name="live" if before else "keys", **RGB)
    page.show([f"{project}\n{before}", "panel = sv.AnnotationPanel(project)\npanel", BARE])
    panel, bare = page.canvas(1), page.canvas(2)
    panel.click(position={"x": 5, "y": 5})
    page.page.keyboard.press("n")
    digits = [str(1 + press % 3) for press in range(presses)]
    pairs = []
    for first in range(0, presses, BLOCK):
        page.wait_until("project.live._done == project.live._wanted")  # so that nothing delays the bare canvas
        pairs.append((page.type_block(bare, [" "] * BLOCK), page.type_block(panel, digits[first : first + BLOCK])))
    check_labels(page, [block for _, block in pairs], digits, STARTED if before else 0)
    bare_figures, figures = (percentiles([t for pair in pairs for t in pair[which].times]) for which in (0, 1))
    name = f"{side}×{side}×3, {count:,} objects{', live' if before else ''}"
    yield {"what": f"key → next object drawn, {name}", **figures, "reached": figures["p95 ms"]}
    yield {"what": f"key → bare canvas drawn, {name}", **bare_figures, "reached": bare_figures["p95 ms"]}
    ratio = round(figures["p95 ms"] / bare_figures["p95 ms"], 2)
    yield {"what": f"p95 ÷ p95 of the bare canvas, {name}", "most": 2.5, "reached": ratio}
    if presses >= 200:
        rate, bare_rate = (float(1000 / np.mean([pair[which].period for pair in pairs])) for which in (1, 0))
        what = f"keys per second, {presses} presses, all labels correct, {name} (bare canvas {bare_rate:.1f})"
        yield {"what": what, "least": 12, "reached": round(rate, 1)}
    return name, pairs


def costs(blocks: list[Block], name: str) -> Iterator[Row]:
    """Return what the kernel sends and computes per key."""
    presses, messages = sum(len(block.seen) for block in blocks), [m for block in blocks for m in block.messages]
    yield {"what": f"messages of the kernel per key, {name}", "reached": round(len(messages) / presses, 1)}
    kilobytes = sum(size for _, _, size in messages) / 1000
    yield {"what": f"kB of pictures per key, {name}", "reached": round(kilobytes / presses, 1)}
    processor = 1000 * sum(block.processor for block in blocks) / presses
    yield {"what": f"processor time of the kernel per key, ms, {name}", "reached": round(processor, 1)}


def check_labels(page: WatchedPage, blocks: list[Block], digits: list[str], earlier: int) -> None:
    """Check that every key labeled the displayed object, once, after some earlier labels."""
    shown = [number_of(color) for block in blocks for color in block.seen]
    log = page.evaluate("project.annotations.table()[['object', 'class_id', 'action']].values.tolist()")
    wanted = [[number, int(digit), "label"] for number, digit in zip(shown, digits, strict=True)]
    log = [row for row in ast.literal_eval(log) if row[2] != "draw"][earlier:]
    wrong = [pair for pair in itertools.zip_longest(log, wanted) if pair[0] != pair[1]]
    assert not wrong, f"A key was lost, repeated, or labeled another object than the displayed one: {wrong}"


def steps(open_page: Open, home: Path) -> Iterator[Row]:
    """Pan by arrow keys and zoom by the wheel, each step after the view has settled."""
    folder = home / "keys-8000"
    if not folder.exists():
        coded_well(folder, 8000)
    page = open_page("steps")
    page.show(
        [
            PROJECT.format(folder=str(folder), name="steps", **RGB),
            "from svetlana_jupyter.widgets.viewer.viewer import Viewer\nviewer = Viewer(project, (700, 1000))\nviewer",
        ]
    )
    canvas = page.canvas(1)
    canvas.click(position={"x": 5, "y": 5})
    page.page.keyboard.press("n")
    # From the middle, because a step beyond the border would draw nothing.
    middle = "(project.objects('well')[['y', 'x']] - 4000).abs().sum(axis=1).idxmin()"
    page.evaluate(f"viewer.show('well', int({middle}))")
    ways = {"ArrowRight": [], "ArrowDown": [], "wheel in": [], "wheel out": []}
    for _ in range(12):
        for way, times in ways.items():
            page.forget()
            if way.startswith("wheel"):
                canvas.hover(position={"x": 400, "y": 300})
                page.forget()
                page.page.mouse.wheel(0, -100 if way == "wheel in" else 100)
                times.append(page.until_drawn("wheel"))
            else:
                page.page.keyboard.press(way)
                times.append(page.until_drawn("keydown"))
    for name, chosen in (("pan", ("ArrowRight", "ArrowDown")), ("zoom", ("wheel in", "wheel out"))):
        figures = percentiles([t for way in chosen for t in ways[way]])
        yield {
            "what": f"{name} step → the last, lossless picture, 1000×700 of 8000×8000×3",
            **figures,
            "most": 200,
            "reached": figures["p95 ms"],
        }


def recolor(open_page: Open, home: Path) -> Iterator[Row]:
    """Label the selected object among a million."""
    folder = home / "million"
    folder.mkdir()
    side, pitch = 16_000, 16
    mask = np.roll(make_disks(side, pitch, np.uint32), pitch // 2, axis=(0, 1))  # every 16th pixel belongs to an object
    zarr.create_array(folder / "mask.zarr", data=mask, chunks=(1024, 1024))
    image = zarr.create_array(folder / "image.zarr", shape=(side, side), chunks=(1024, 1024), dtype="u1")
    for top in range(0, side, 1024):
        rows = min(1024, side - top)
        image[top : top + rows] = np.random.default_rng(top).integers(20, 200, (rows, side), np.uint8)
    page = open_page("million")
    page.show(
        [
            PROJECT.format(folder=str(folder), name="million", axes="yx", channels=["gray"]),
            "objects = len(project.objects('well'))",
            "panel = sv.AnnotationPanel(project)\npanel",
        ]
    )
    assert page.evaluate("objects") == "1000000"
    canvas = page.canvas(2)
    for name, zoom in (("fitted", ""), ("zoomed in", "panel.viewer.show('well', 500_500)")):
        if zoom:
            page.evaluate(zoom)
            page.wait_until(
                "panel.viewer.model.scene.view == panel.viewer.model.view and not panel.viewer.model.scene.missing"
            )
            page.quiet()
            page.page.wait_for_timeout(1000)
        times = []
        for press in range(20):
            page.quiet()
            if not zoom:
                canvas.click(position={"x": 200 + 12 * press, "y": 260})
            page.forget()
            page.page.keyboard.press(str(1 + press % 3))
            times.append(page.until_drawn("keydown"))
        figures = percentiles(times)
        what = f"key → recolored, 1,000,000 objects in the table, {name}"
        yield {"what": what, **figures, "most": 150, "reached": figures["p95 ms"]}
    count = page.evaluate("len(project.annotations.table())")
    assert int(count) == 40, f"{count} of 40 keys labeled an object"


def lasso(open_page: Open, home: Path) -> Iterator[Row]:
    """Draw a lasso around all objects, then label them."""
    folder = home / "keys-8000"
    if not folder.exists():
        coded_well(folder, 8000)
    page = open_page("lasso")
    counting = "import os\nsync, syncs = os.fsync, []\nos.fsync = lambda file: (syncs.append(file), sync(file))[1]"
    page.show(
        [
            PROJECT.format(folder=str(folder), name="lasso", **RGB) + "\n" + counting,
            "objects = len(project.objects('well'))",
            "panel = sv.AnnotationPanel(project)\npanel",
        ]
    )
    canvas = page.canvas(2)
    page.quiet()
    canvas.scroll_into_view_if_needed()
    selecting, labeling = [], []
    for repeat in range(6):
        canvas.click(position={"x": 5, "y": 5})
        for key in ("Escape", "Escape", "l"):
            page.page.keyboard.press(key)
        page.evaluate("None")  # the kernel has handled the keys
        page.forget()
        box = draw_lasso(page, canvas)
        selecting.append(page.until_drawn("mouseup"))
        state = page.evaluate("(len(panel.viewer.model.selection), panel.viewer.model.tool, panel.viewer.model.view)")
        moved = f"the canvas was at {box} and is now at {canvas.bounding_box()}"
        assert state.startswith(f"({page.evaluate('objects')},"), f"not all objects were selected: {state}; {moved}"
        page.evaluate("syncs.clear()")
        page.forget()
        page.page.keyboard.press(str(1 + repeat % 3))
        labeling.append(page.until_drawn("keydown"))
        assert page.evaluate("len(syncs)") == "1"
        assert page.evaluate("int(project.annotations.class_counts().sum()) == objects") == "True"
    count = int(page.evaluate("objects"))
    for what, times in (("button up → selected", selecting), ("key → on disk with one sync and recolored", labeling)):
        figures = percentiles(times)
        yield {"what": f"lasso, {count:,} objects: {what}", **figures, "most": 500, "reached": figures["p95 ms"]}


def draw_lasso(page: WatchedPage, canvas: Locator) -> dict[str, float]:
    """Draw a lasso along the edge of a canvas, and return where the canvas was.

    Objects begin 15 pixels from the edge, so the place is measured now: a page that was busy may have moved the canvas.
    """
    box = canvas.bounding_box()
    across, down = box["width"] / 2 - 2, box["height"] / 2 - 2
    for number, angle in enumerate(np.linspace(0, 2 * np.pi, 60)):
        # a rounded square that contains everything
        x, y = (np.clip(1.6 * part, -1, 1) for part in (np.cos(angle), np.sin(angle)))
        page.page.mouse.move(box["x"] + box["width"] / 2 + across * x, box["y"] + box["height"] / 2 + down * y)
        if number == 0:
            page.page.mouse.down()
        page.page.evaluate("() => new Promise(requestAnimationFrame)")  # a user is no faster than the screen
    page.page.mouse.up()
    return box


def gallery(open_page: Open, home: Path) -> Iterator[Row]:
    """Turn pages of 60 patches that were not displayed before."""
    folder = home / "keys-8000"
    if not folder.exists():
        coded_well(folder, 8000)
    page = open_page("gallery")
    page.show(
        [
            PROJECT.format(folder=str(folder), name="gallery", **RGB),
            "objects = len(project.objects('well'))",
            "panel = sv.GalleryPanel(project)\npanel",
        ]
    )
    page.quiet()
    page.canvas(2).click(position={"x": 5, "y": 5})
    count = int(page.evaluate("panel.page.grid.count"))
    times = []
    for _ in range(15):
        page.forget()
        page.page.keyboard.press("n")
        times.append(page.until_drawn("keydown"))
    figures = percentiles(times)
    what = f"gallery: next page of {count} patches, 8000×8000×3"
    yield {"what": what, **figures, "most": 400, "reached": figures["median ms"]}


def opening(open_page: Open, home: Path) -> Iterator[Row]:
    """Open a sparse Zarr of 20 GB."""
    folder = home / "sparse"
    folder.mkdir()
    side = 100_000
    zarr.create_array(folder / "image.zarr", shape=(2, side, side), chunks=(1, 1024, 1024), dtype="u1", fill_value=7)
    mask = zarr.create_array(folder / "mask.zarr", shape=(side, side), chunks=(1024, 1024), dtype="u4")
    mask[50_000:50_512, 50_000:50_512] = make_disks(512, 64, np.uint32)
    page = open_page("opening")
    page.show(
        [PROJECT.format(folder=str(folder), name="sparse", axes="cyx", channels=["one", "two"]), "panel = 0", "1"]
    )
    before = page.kernel_mb()
    started = page.page.evaluate(
        """() => {
          const cell = window.jupyterapp.shell.currentWidget.content.widgets[2];
          cell.model.sharedModel.setSource("panel = sv.AnnotationPanel(project)\\npanel");
          window.drawings.length = 0;
          return performance.now();
        }"""
    )
    page.run_cell(2)
    page.page.wait_for_function("() => window.drawings.length > 0", timeout=60_000)
    first = float(page.drawings()[0, 0]) - started
    page.quiet()
    grown = page.kernel_mb() - before
    yield {"what": "sparse 20 GB Zarr: cell run → first picture, ms", "most": 2000, "reached": round(first)}
    yield {"what": "sparse 20 GB Zarr: kernel grows by, MB", "most": 500, "reached": round(grown)}


def redraws(open_page: Open, home: Path) -> Iterator[Row]:
    """Redraw a thousand times, and measure the memory that the browser keeps."""
    folder = home / "keys-8000"
    if not folder.exists():
        coded_well(folder, 8000)
    with Unwatched(open_page.path, home / "profile") as alone:
        visitor = open_page.visit(alone.address)
        page = open_page("redraws", visitor)
        page.show(
            [PROJECT.format(folder=str(folder), name="redraws", **RGB), "panel = sv.AnnotationPanel(project)\npanel"]
        )
        page.canvas(1).click(position={"x": 5, "y": 5})
        page.page.keyboard.press("n")
        page.quiet()
        first = int(page.evaluate("panel.viewer.screen.canvas.frame"))
        page.page.evaluate(PRESS_ARROWS, PAUSE * 1000)
        visitor.close()  # only leaf processes
        time.sleep(WARM * PAUSE)
        before = alone.mb
        time.sleep(1000 * PAUSE)
        grown = alone.mb - before
        (returned,) = (tab for tab in open_page.visit(alone.address).contexts[0].pages if "/lab" in tab.url)
        drawn = (
            int(WatchedPage(returned, page.server, page.folder).evaluate("panel.viewer.screen.canvas.frame")) - first
        )
    assert drawn > 1000 + WARM // 2, f"there were only {drawn} redraws"
    yield {"what": "1,000 redraws: the browser grows by, MB", "most": 50, "reached": round(grown)}


# Drawings are not recorded here, so that the test itself keeps no images.
PRESS_ARROWS = """(pause) => {
  window.drawings.push = () => 0;
  const canvas = document.activeElement;
  let count = 0;
  setInterval(() => {
    const key = ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"][Math.floor(count++ / 12) % 4];
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    window.events.length = 0;
  }, pause);
}"""
PAUSE, WARM = 0.09, 400  # seconds between two redraws; redraws until the caches of the browser are full

FIGURES = (keys, live_keys, steps, recolor, lasso, gallery, opening, redraws)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [figure.__name__ for figure in FIGURES]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    chosen = parser.parse_args().only
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, watched_pages() as open_page:
        for figure in FIGURES:
            if figure.__name__ in chosen:
                for row in figure(open_page, Path(folder)):
                    print(row, file=sys.stderr, flush=True)
                    rows.append({**dict.fromkeys(COLUMNS, ""), **row, "load": load()})
    print_report("response in the browser", rows)
    slow = [row["what"] for row in rows if not (row["least"] or -np.inf) <= row["reached"] <= (row["most"] or np.inf)]
    if slow:
        sys.exit(f"beyond the limit: {'; '.join(slow)}")


if __name__ == "__main__":
    main()
