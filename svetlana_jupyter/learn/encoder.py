"""Encoders of the user as sources of object features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from svetlana_jupyter.core.allowed_cues import restrict_to_allowed_cues
from svetlana_jupyter.core.patch_geometry import resolve_patch_settings
from svetlana_jupyter.core.patches import cut_patches, patch_regions
from svetlana_jupyter.core.settings import PatchSettings, TrainingSettings
from svetlana_jupyter.errors import ClassifierError, InputError
from svetlana_jupyter.learn.encoder_digest import encoder_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from svetlana_jupyter.core.io.chunks import ArrayRegion
    from svetlana_jupyter.core.io.image_pair import ImagePair

Encoder = Callable[[Any], Any]  # from patches (n, C, [s,] s, s) to features (n, d)


@dataclass(frozen=True, eq=False)
class EncoderSource:
    """Features that an encoder of the user computes from patches.

    Attributes
    ----------
    name : str
    encoder : callable
        A torch module, which gets a tensor, or a function of a float32 array, of shape (n, C, [size,] size, size).
    size : int
        Pixels per side of the patches.
    digest : str
        Result of `check_encoder`.
    settings : TrainingSettings
        The allowed cues and the unit of the patches.
    """

    name: str
    encoder: Encoder
    size: int
    digest: str
    settings: TrainingSettings

    @property
    def blocks(self) -> tuple[str, ...]:
        """The name of the encoder, whose features are one block."""
        return (self.name,)

    @property
    def version(self) -> str:
        """Hash of the encoder, and the patches that it sees."""
        return f"{self.digest} {self._patches.model_dump_json()}"

    @property
    def _patches(self) -> PatchSettings:
        """Settings of the patches, whose channels are those of the image."""
        allowed = self.settings.may_use
        shows_values = {"surroundings", "brightness"} <= allowed
        patches: dict[str, Any] = {"sampling": self.size, "mask_channel": False, "unit": self.settings.patches.unit}
        patches["normalize"] = "percentile" if shows_values else "object"
        return restrict_to_allowed_cues(TrainingSettings(may_use=allowed).changed(patches=patches)).patches

    def fit(self, sample: Sequence[tuple[ImagePair, pd.DataFrame]]) -> dict[str, NDArray[np.float64]]:
        """Fit the field of view of the patches to a sample of objects."""
        objects = pd.concat([rows for _, rows in sample], keys=range(len(sample)))
        resolved = resolve_patch_settings(self._patches, objects, None, sample[0][0].spacing)
        return {"size": np.array(resolved.size, float), "rim": np.array(float(resolved.rim))}

    def compute(
        self, pair: ImagePair, objects: pd.DataFrame, fitted: Mapping[str, NDArray[np.float64]]
    ) -> Iterator[tuple[NDArray[np.int64], Mapping[str, NDArray[np.float32]]]]:
        """Yield labels and features.

        Raises
        ------
        ClassifierError
            If the encoder fails, or does not return one row of numbers per patch.
        """
        for labels, patches in cut_patches(pair, objects, self._resolved(pair.ndim, fitted)):
            yield labels, {self.name: self._encode(patches)}

    def regions(
        self, pair: ImagePair, objects: pd.DataFrame, fitted: Mapping[str, NDArray[np.float64]]
    ) -> list[ArrayRegion]:
        """Return the regions of the image that `compute` reads for these objects."""
        return patch_regions(pair, objects, self._resolved(pair.ndim, fitted))

    def check(self, fitted: Mapping[str, NDArray[np.float64]]) -> None:
        """Raise a `ValueError` unless this is a possible result of `fit`."""
        if set(fitted) != {"size", "rim"} or fitted["size"].ndim != 1 or fitted["rim"].shape:
            raise ValueError("the encoder has no patch size")

    def _resolved(self, ndim: int, fitted: Mapping[str, NDArray[np.float64]]) -> PatchSettings:
        size, sampling = tuple(fitted["size"].tolist()), (self.size,) * ndim
        return self._patches.changed(size=size, sampling=sampling, rim=int(fitted["rim"]))

    def _encode(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        is_module = isinstance(self.encoder, torch.nn.Module)
        try:
            with torch.inference_mode():
                result = self.encoder(torch.from_numpy(patches) if is_module else patches)
                values = np.asarray(result.detach().cpu() if isinstance(result, torch.Tensor) else result, np.float32)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the encoder is the user's, and may exit
            raise ClassifierError(
                f"The {self.name} failed on patches of shape {patches.shape} ({type(error).__name__}: {error}). "
                "Correct it, or call project.features.remove to do without it."
            ) from error
        if values.ndim != 2 or len(values) != len(patches) or not values.shape[1]:
            raise ClassifierError(
                f"The {self.name} returned an array of shape {values.shape} for {len(patches)} patches. "
                "Return one row of features per patch."
            )
        return values


def check_encoder(name: object, encoder: object, size: object) -> str:
    """Return a hash of an encoder; raise an `InputError` if it cannot be used."""
    if not isinstance(name, str) or not name or len(name) > 60:
        raise InputError(f"An encoder needs a short name, got {name!r:.80}. Pass it first, for example 'dino'.")
    if not callable(encoder):
        raise InputError(f"The encoder {name!r} is not callable: {encoder!r:.80}. Pass a torch module or a function.")
    if not isinstance(size, int) or not 8 <= size <= 1024:
        raise InputError(f"Patches cannot have size={size!r}. Pass 8 to 1024 pixels per side, for example size=224.")
    if isinstance(encoder, torch.nn.Module):
        encoder.eval()
    return encoder_digest(encoder)
