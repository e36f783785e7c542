"""Encoders of the user that are stored as ONNX files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from svetlana_jupyter.errors import InputError, SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class OnnxEncoder:
    """Function from patches to features, computed by ONNX Runtime on the processor.

    Parameters
    ----------
    path : str or path
        ONNX file of a model with one input (n, C, [s,] s, s). The first output is used. The model must be within the
        file, since external data is not read.
    threads : int
        Number of threads.

    Attributes
    ----------
    content : bytes
        Content of the file.

    Raises
    ------
    SettingsError
        If onnxruntime is not installed.
    InputError
        If the file cannot be read, or is no model with one input of numbers.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1) -> None:
        runtime = _import_onnxruntime()
        try:
            with open(path, "rb") as file:
                self.content = file.read()
            options = runtime.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = threads, 3
            self._session = runtime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises an exception of its own for each kind of invalid file
            raise InputError(
                f"{os.fspath(path)!r} cannot be read as an ONNX model: {error}. Pass a single file that contains its "
                "weights."
            ) from error
        inputs = self._session.get_inputs()
        self._types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
        if len(inputs) != 1 or inputs[0].type not in self._types:
            described = ", ".join(f"{one.name}: {one.type}" for one in inputs)
            raise InputError(
                f"{os.fspath(path)!r} needs one input of floating-point numbers, but has {described or 'none'}. Export "
                "the part of the model that takes an array of images."
            )
        self._input = inputs[0]

    def __call__(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return features (n, d) of patches; further axes of the output are flattened."""
        batch = self._input.shape[0] if self._input.shape else None
        step = batch if isinstance(batch, int) else max(len(patches), 1)
        parts = [self._run(patches[start : start + step], step) for start in range(0, len(patches), step)]
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    def _run(self, patches: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        """Return the features of at most ``count`` patches, which are padded."""
        padded = np.zeros((count, *patches.shape[1:]), self._types[self._input.type])
        padded[: len(patches)] = patches
        values = np.asarray(self._session.run(None, {self._input.name: padded})[0], np.float32)
        return values.reshape(len(values), -1)[: len(patches)]


def _import_onnxruntime() -> Any:
    """Return the module, or raise a `SettingsError` that says how to install it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise SettingsError(
            "An ONNX file is computed by onnxruntime, which is not installed. Install it with: pip install "
            '"svetlana-jupyter[onnx]". Or pass a torch module.'
        ) from error
    return onnxruntime
