"""What each kind of evidence is, drawn from one object: as it is, and what a classifier may no longer tell from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from svetlana_jupyter.core.contrast import to_screen
from svetlana_jupyter.core.encode import png
from svetlana_jupyter.core.objects import index_objects
from svetlana_jupyter.core.pairing import pair as open_pair
from svetlana_jupyter.core.samples import blood_smear
from svetlana_jupyter.core.thumbnails import Cut, take_thumbnails
from svetlana_jupyter.widgets.pictures import default_palette

if TYPE_CHECKING:
    from svetlana_jupyter.core.pairing import ImagePair
    from svetlana_jupyter.project.project import Project

_SIDE, _AROUND = 84, 2.2  # screen pixels; how much wider than the object a picture is
_HIDDEN = 128  # the grey of what a classifier does not see
_SAMPLE = "smear_01", 11

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ExampleObject:
    """An object with what lies around it: pixels of shape (n, n, 3), where it is, and whether it is the project's."""

    pixels: Pixels
    own: NDArray[np.bool_]
    own_image: bool = True


def find_example(project: Project) -> ExampleObject:
    """Return an annotated object of a project, else one of an image, else one that comes with the package.

    May be called on any thread; of an image whose objects are not known yet, none is looked for.
    """
    labels = project.labels()
    known = labels[labels["action"] == "label"].index
    for name in [*known.get_level_values("image")[-1:], *filter(project.is_indexed, project.images)]:
        objects = project.objects(name, wait=True)
        own = known[known.get_level_values("image") == name].get_level_values("object")
        whole, told = ~objects["on_border"], objects.index.isin(own)
        best = next(found for found in (whole & told, whole, objects["size"] > 0) if found.any())
        return _example(project.pair(name), objects.loc[[objects["size"].where(best).idxmax()]])  # large shows most
    return builtin_example()


def builtin_example() -> ExampleObject:
    """Return a white blood cell."""
    name, object = _SAMPLE
    folder = blood_smear()
    opened = open_pair(name, folder / "images" / f"{name}.png", folder / "masks" / f"{name}.tif")
    return replace(_example(opened, index_objects(opened.mask).loc[[object]]), own_image=False)


def _example(opened: ImagePair, row: pd.DataFrame) -> ExampleObject:
    box = row.iloc[0]
    side = _AROUND * float(max(box["y1"] - box["y0"], box["x1"] - box["x0"]))
    (found,) = take_thumbnails(opened, row, Cut.of(side, _SIDE))
    shown = to_screen(found.values, default_palette(opened))
    colored = np.repeat(shown[..., None], 3, axis=-1) if shown.ndim == 2 else shown
    rows, columns = found.inside
    before, after = ((rows.start, columns.start), (len(shown) - rows.stop, len(shown) - columns.stop))
    # Beyond the border of the image there is nothing: mirrored, it does not catch the eye.
    filled = cv2.copyMakeBorder(
        np.ascontiguousarray(colored[found.inside]), before[0], after[0], before[1], after[1], cv2.BORDER_REFLECT
    )
    return ExampleObject(filled.astype(np.uint8), found.own)


def pictures(example: ExampleObject, evidence: str) -> tuple[bytes, tuple[bytes, ...]]:
    """Return PNGs of an object as it is, and of what is the same to a classifier that may not use ``evidence``."""
    own = cv2.resize(example.own.astype(np.uint8), (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST) > 0
    seen = cv2.resize(example.pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    made = {"surroundings": _alone, "brightness": _relit, "orientation": _turned, "size": _resized}[evidence]
    return png(seen), tuple(png(np.ascontiguousarray(one)) for one in made(seen, own))


def _alone(seen: Pixels, own: NDArray[np.bool_]) -> list[Pixels]:
    return [np.where(own[..., None], seen, np.uint8(_HIDDEN))]


def _relit(seen: Pixels, own: NDArray[np.bool_]) -> list[Pixels]:
    """Show the object dark and darker, and with all the contrast there is; grey, since colour is brightness too."""
    grey = cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low, high = np.percentile(grey, (1, 99))
    stretched = (grey - low) * (255 / max(high - low, 1.0))
    lit = [(part.clip(0, 255)).astype(np.uint8) for part in (grey * 0.4, grey * 0.8, stretched)]
    return [np.repeat(one[..., None], 3, axis=-1) for one in lit]


def _turned(seen: Pixels, own: NDArray[np.bool_]) -> list[Pixels]:
    middle = (_SIDE / 2, _SIDE / 2)
    turns = [cv2.getRotationMatrix2D(middle, angle, 1.0) for angle in (60, 150)]
    turned = [cv2.warpAffine(seen, turn, (_SIDE, _SIDE), borderMode=cv2.BORDER_REFLECT) for turn in turns]
    return [*turned, seen[:, ::-1]]


def _resized(seen: Pixels, own: NDArray[np.bool_]) -> list[Pixels]:
    middle = (_SIDE / 2, _SIDE / 2)
    scales = [cv2.getRotationMatrix2D(middle, 0, scale) for scale in (0.6, 1.0, 1.6)]
    return [cv2.warpAffine(seen, scale, (_SIDE, _SIDE), borderMode=cv2.BORDER_REFLECT) for scale in scales]
