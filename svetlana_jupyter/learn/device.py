"""Device, precision, random state and memory of network computations."""

from __future__ import annotations

import ctypes
import math
import threading
import time
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING

import torch

from svetlana_jupyter.errors import ClassifierError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Numbers of two options of glibc's mallopt, each with its value: how many freed bytes glibc keeps.
M_TRIM_THRESHOLD, TRIM_BYTES = -1, 2**27
M_MMAP_THRESHOLD, MMAP_BYTES = -3, 2**25
# Messages of torch when the memory of a CPU or an Apple GPU is full; torch has no exception class for these errors.
_OUT_OF_MEMORY_MESSAGES = ("can't allocate memory", "not enough memory", "out of memory")
# Processors with matrix instructions for 16 bits are 1.4 to 2.3 times as fast with them, others slower than in 32 bits.
MIN_SPEEDUP = 1.25
PROBE_REPETITIONS = 3

_generator_lock = threading.RLock()  # held while the state of torch's global generator is changed for a computation


def keep_freed_memory() -> None:
    """Make glibc keep freed memory, so that every batch reuses the same memory.

    By default, glibc may return freed memory to the operating system at once, and dask configures it to do so on its
    workers. The operating system then clears each page again for every batch, which takes longer than the forward pass.
    See https://man7.org/linux/man-pages/man3/mallopt.3.html. On systems without glibc, nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
    mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)


def choose_device(name: str, ndim: int = 2) -> torch.device:
    """Return a torch device by name; "auto" selects the best available device.

    The best device is a CUDA GPU if available, else an Apple GPU for 2D images, else the CPU.

    Raises
    ------
    ClassifierError
        If the named GPU does not exist.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    available = found.type if found is not None else "cpu"
    if name == "auto":
        # Apple GPUs lack some of the layers in 3D; accelerators of other vendors are untested.
        name = available if available == "cuda" or (available == "mps" and ndim == 2) else "cpu"
    elif name not in ("cpu", available):
        kind = {"cuda": "CUDA", "mps": "Apple"}[name]
        raise ClassifierError(f'device="{name}" is set, but torch finds no {kind} GPU. Use device="auto" or "cpu".')
    return torch.device(name)


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the floating-point type in which a device computes convolutions.

    Parameters
    ----------
    precision : "auto", "full" or "mixed"
        *full* selects 32 bits, and *mixed* 16 bits except on an Apple GPU, where small gradients underflow to zero.
        *auto* selects 16 bits on a CUDA GPU, and on a processor that is faster in 16 bits (`is_faster_in_16_bits`).
    device : torch.device

    Returns
    -------
    torch.dtype
        float32, bfloat16 or float16.
    """
    if precision == "full" or device.type == "mps":
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if precision == "mixed" or is_faster_in_16_bits() else torch.float32


@cache
def is_faster_in_16_bits() -> bool:
    """Check whether this processor computes convolutions faster in 16 bits.

    Such a processor has matrix or dot-product instructions for bfloat16 (AMX, AVX512-BF16, SVE). A short measurement
    decides, once per process, because the processor's name says neither what a virtual machine offers nor what torch
    was built for. A gain below `MIN_SPEEDUP` is not worth the lower precision.
    """
    seconds = time_convolutions((torch.float32, torch.bfloat16))
    return seconds[torch.bfloat16] * MIN_SPEEDUP < seconds[torch.float32]


@torch.inference_mode()
def time_convolutions(dtypes: Sequence[torch.dtype]) -> dict[torch.dtype, float]:
    """Return the shortest seconds that a small convolution takes in each type.

    It is measured a few times. The types take turns, so that other load on the processor slows down all of them.
    """
    best = dict.fromkeys(dtypes, math.inf)
    layout = torch.channels_last
    inputs = {dtype: torch.ones(4, 16, 24, 24, dtype=dtype).to(memory_format=layout) for dtype in dtypes}
    weights = {dtype: torch.ones(32, 16, 3, 3, dtype=dtype).to(memory_format=layout) for dtype in dtypes}
    for _ in range(PROBE_REPETITIONS):
        for dtype in dtypes:
            started = time.perf_counter()
            torch.conv2d(inputs[dtype], weights[dtype], padding=1)
            best[dtype] = min(best[dtype], time.perf_counter() - started)
    return best


def autocast_context(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return a context manager for forward passes: autocast if ``dtype`` has 16 bits."""
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype)


def storage_device(device: torch.device, nbytes: int) -> torch.device:
    """Return the device that stores and augments the training patches.

    If the patches would fill more than half of the free memory of a CUDA GPU, return the CPU; each batch is then
    transferred to the GPU.
    """
    if device.type == "cuda" and 2 * nbytes > torch.cuda.mem_get_info(device)[0]:
        return torch.device("cpu")
    return device


@contextmanager
def seeded_computation(device: torch.device, seed: int | None) -> Iterator[None]:
    """Seed random weights or layers; restore the global random state at the end.

    All threads share the global generator of torch, so such computations run one at a time. With ``seed=None``, for
    networks without random layers, the generator is not used.
    """
    cuda = device.type == "cuda"
    with ExitStack() as stack:
        if seed is not None:
            stack.enter_context(_generator_lock)
            stack.enter_context(torch.random.fork_rng(devices=[device] if cuda else []))
            torch.default_generator.manual_seed(seed)
            if cuda:
                torch.cuda.manual_seed(seed)
        if cuda:
            cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
            stack.enter_context(cudnn)
        yield


def is_out_of_memory(error: BaseException) -> bool:
    """Check whether an error means that the memory of the device is full."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _OUT_OF_MEMORY_MESSAGES)
