"""An Albumentations pipeline at work on training patches and volumes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svetlana_jupyter.errors import SettingsError
from svetlana_jupyter.learn.layout import PatchLayout

SETTING_NAME = "augmentation.pipeline"

SHOWN = ("shown", "shown_again")  # targets that tell where each copy of the image shows anything


class AlbumentationsPipeline:
    """Applies a composed pipeline to each patch of a batch.

    The pipeline sees an image of float32 from 0 to 1, as that library expects it: each channel of each patch is
    stretched to that range before, and back after. With ``normalize="both"`` it sees an image twice, and does the same
    to both. Transforms for images change all planes of a volume alike.

    Parameters
    ----------
    compose : albumentations.Compose
        From `learn.pipeline_build.build_compose`, which names the targets that are used here.
    layout : Layout
    """

    def __init__(self, compose: Any, layout: PatchLayout) -> None:
        self._compose, self._layout = compose, layout

    def __call__(self, patches: Tensor, generator: torch.Generator) -> Tensor:
        """Return patches (n, C, [z,] y, x) of the same shape; the generator decides all that is random.

        Raises
        ------
        SettingsError
            If the pipeline fails, changes the shape, or makes values that are no numbers.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        # One state for all: transforms seeded one by one would all draw the same, and flip along both axes or none.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        shown = [None if seen is None else seen[:, 0].cpu().numpy() for seen in self._layout.shown(patches)]
        varied = [
            self._varied(patch, [None if seen is None else seen[number] for seen in shown])
            for number, patch in enumerate(patches.cpu().numpy())
        ]
        return torch.from_numpy(np.stack(varied)).to(patches.device)

    def _varied(self, patch: NDArray[np.float32], shown: list[NDArray[np.bool_] | None]) -> NDArray[np.float32]:
        """Return a patch (C, ...) varied, zero where then nothing is shown."""
        layout, image = self._layout, patch[: self._layout.image]
        axes = tuple(range(1, image.ndim))
        least, most = image.min(axes, keepdims=True), image.max(axes, keepdims=True)
        span = np.where(most > least, most - least, np.float32(1))
        stretched = np.moveaxis((image - least) / span, 0, -1)
        given = self._targets(stretched, patch[layout.image :].astype(np.uint8), shown)
        names = [name for name in ("image", "volume", "again") if name in given]
        try:
            result = self._compose(**{name: np.ascontiguousarray(array) for name, array in given.items()})
        except Exception as error:  # whatever a transform makes of these patches
            first = str(error).partition("\n")[0] or type(error).__name__
            first = f"it asks for {first}" if isinstance(error, KeyError) else first
            raise SettingsError(
                f"{SETTING_NAME} fails on {_words(given[names[0]].shape)} of float32 ({first})"
            ) from error
        for name in given:
            if name != "images" and result[name].shape != given[name].shape:
                shapes = _words(result[name].shape), _words(given[name].shape)
                raise SettingsError(f"{SETTING_NAME} makes {shapes[0]} of {shapes[1]}")
        values = np.concatenate([result[name] for name in names], axis=-1)
        if values.dtype != np.float32 or not np.isfinite(values).all():
            raise SettingsError(f"{SETTING_NAME} makes other values than finite ones of float32")
        back = np.split(np.moveaxis(values, -1, 0) * span + least, layout.copies)
        seen = [copy * (result[target] > 0) if target in given else copy for target, copy in zip(SHOWN, back)]
        masks = [result[name][None] > 0 for name in ("mask", "mask3d") if name in given]
        return np.concatenate([*seen, *masks], dtype=np.float32)

    def _targets(
        self, stretched: NDArray[np.float32], masks: NDArray[np.uint8], shown: list[NDArray[np.bool_] | None]
    ) -> dict[str, NDArray[Any]]:
        """Return what the pipeline is given, by the names of its targets."""
        volume = stretched.ndim == 4
        copies = np.split(stretched, self._layout.copies, axis=-1)
        targets = dict(zip(("volume" if volume else "image", "again"), copies))
        if volume:
            targets["images"] = copies[0][:1]  # where some transforms look for shape and range, even of volumes
        if self._layout.masked:
            targets["mask3d" if volume else "mask"] = masks[0]
        targets |= {target: seen.astype(np.uint8) for target, seen in zip(SHOWN, shown) if seen is not None}
        return targets


def _words(shape: tuple[int, ...]) -> str:
    """Say a shape whose last axis holds the channels, or a mask's.

    >>> _words((8, 6, 2))
    '8 × 6 pixels with 2 channels'
    """
    return f"{' × '.join(map(str, shape[:-1]))} pixels with {shape[-1]} channel{'s' * (shape[-1] > 1)}"
