"""Augmented patches of one object, exactly as training sees them, to be looked at."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from svetlana_jupyter.core.pairing import ImagePair
from svetlana_jupyter.core.patches import cut_patches
from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.learn.architectures import Standardize
from svetlana_jupyter.learn.augment import Augmenter
from svetlana_jupyter.learn.warp import augmentation_margin


def augment_object(
    pair: ImagePair,
    row: pd.DataFrame,
    beside: Iterable[tuple[ImagePair, pd.DataFrame]],
    settings: TrainingSettings,
    n: int = 8,
) -> NDArray[np.float32]:
    """Cut one object and vary it ``n`` times.

    Parameters
    ----------
    pair : ImagePair
    row : DataFrame
        The object's row of `core.objects.index_objects`.
    beside : iterable of (ImagePair, DataFrame)
        Objects to train on: brightness, colour and noise are in units of their channels' deviation.
    settings : TrainingSettings
        With concrete patches (`core.patches.resolve_patch_settings`). Its seed decides what is drawn.

    Returns
    -------
    float32 array of shape (n, C', *sampling)
        See `core.patches.take_patch` for C'.

    Raises
    ------
    SettingsError
        If the augmentation pipeline cannot work on such patches.
    """
    cut = [patches for each, rows in beside for _, patches in cut_patches(each, rows, settings.patches)]
    standardize = Standardize(cut[0].shape[1])
    standardize.measure(torch.from_numpy(np.concatenate(cut)))
    augment = Augmenter(settings, standardize.mean, standardize.deviation)
    ((_, patch),) = cut_patches(
        pair, row, settings.patches, augmentation_margin(settings.augmentation, settings.patches)
    )
    generator = torch.Generator().manual_seed(settings.seed)
    varied: NDArray[np.float32] = augment(torch.from_numpy(patch).expand(n, *patch.shape[1:]), generator).numpy()
    return varied
