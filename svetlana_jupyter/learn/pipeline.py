"""An Albumentations pipeline, as the user wrote it down, applied to 2D training patches."""

from __future__ import annotations

import os
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from svetlana_jupyter.core.settings import TrainingSettings
from svetlana_jupyter.errors import SettingsError

# Albumentations asks the package index for its newest version on import; nothing here may use the network unasked.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


class Pipeline:
    """Applies a composed pipeline to each patch of a batch.

    Parameters
    ----------
    compose : albumentations.Compose
    masked : bool
        Whether the last channel is a mask, which the pipeline then moves but never recolours.
    """

    def __init__(self, compose: Any, masked: bool) -> None:
        self._compose, self._masked = compose, masked

    @classmethod
    def from_settings(cls, settings: TrainingSettings, ndim: int) -> Self | None:
        """Build the pipeline that the settings name, None where there is none.

        Raises
        ------
        SettingsError
            If Albumentations does not know the pipeline, or the patches are 3D.
        """
        description = settings.augmentation.pipeline
        if description is None:
            return None
        if ndim != 2:
            raise SettingsError("augmentation.pipeline works on 2D patches only; leave it out for volumes.")
        import albumentations

        try:
            compose = albumentations.from_dict(description)
        except Exception as error:  # whatever a transform's constructor makes of the user's arguments
            raise SettingsError(
                "augmentation.pipeline must be a dictionary as albumentations.to_dict(pipeline) gives it, but "
                f"Albumentations cannot read it: {error}."
            ) from error
        compose.set_random_seed(settings.seed)
        return cls(compose, settings.patches.mask_channel)

    def __call__(self, patches: Tensor) -> Tensor:
        """Return patches (n, C, y, x) of the same shape."""
        return torch.stack([self._one(patch) for patch in patches])

    def _one(self, patch: Tensor) -> Tensor:
        colors = patch.shape[0] - self._masked
        image = np.ascontiguousarray(patch[:colors].permute(1, 2, 0).numpy())
        if self._masked:
            result = self._compose(image=image, mask=np.ascontiguousarray(patch[-1].numpy()))
            planes = [result["image"].reshape(*image.shape), result["mask"][..., None]]
        else:
            planes = [self._compose(image=image)["image"].reshape(*image.shape)]
        return torch.from_numpy(np.concatenate(planes, axis=2).astype(np.float32)).permute(2, 0, 1)
