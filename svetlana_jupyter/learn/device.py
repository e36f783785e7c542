"""Where a network computes: which device, with how many threads, in how many bits, and when its memory is full."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch

from svetlana_jupyter.errors import ClassifierError

# By glibc's numbers, and the bytes of what is freed that it shall keep.
M_TRIM_THRESHOLD, TRIM_BYTES = -1, 2**27
M_MMAP_THRESHOLD, MMAP_BYTES = -3, 2**25
# What torch says, in errors of no class of their own, when the memory of a processor or of an Apple GPU is full.
_MEMORY_IS_FULL = ("can't allocate memory", "not enough memory", "out of memory")


def limit_threads(count: int) -> None:
    """Compute on so many cores from now on, in the thread that calls."""
    torch.set_num_threads(count)


def keep_freed_memory() -> None:
    """Have the memory of a network's maps used again by those of the next batch, on systems with glibc.

    By itself glibc may give it back as soon as it is freed, and so it is told to on dask's workers. Then the system
    clears each page anew for every batch, which takes longer than the network. See
    https://man7.org/linux/man-pages/man3/mallopt.3.html.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another system's
        return
    mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
    mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)


def choose_device(name: str, ndim: int = 2) -> torch.device:
    """Return a device by name; "auto" is a CUDA GPU where there is one, else an Apple GPU in 2D, else the processor.

    Raises
    ------
    ClassifierError
        If a GPU is named that is not there.
    """
    if name == "auto":
        # Apple's GPU lacks some of the layers in 3D.
        apple = ndim == 2 and torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if apple else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ClassifierError('device="cuda" was asked for, but torch finds no CUDA GPU. Use device="auto" or "cpu".')
    if name == "mps" and not torch.backends.mps.is_available():
        raise ClassifierError('device="mps" was asked for, but torch finds no Apple GPU. Use device="auto" or "cpu".')
    return torch.device(name)


def mixed_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type that forward passes may compute in, None for 32 bits throughout.

    Parameters
    ----------
    precision : "auto", "full" or "mixed"
        *auto* is mixed on a CUDA GPU alone: a processor gains little, and an Apple GPU's 16 bits lose small gradients.
    """
    if precision == "full" or device.type == "mps" or (precision == "auto" and device.type != "cuda"):
        return None
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def autocast_context(device: torch.device, mixed: torch.dtype | None) -> AbstractContextManager[object]:
    """Return the context for forward passes: in 16 bits where that is safe, or as they are."""
    return nullcontext() if mixed is None else torch.autocast(device.type, mixed)


def storage_device(device: torch.device, nbytes: int) -> torch.device:
    """Return where patches of so many bytes stay while they train: on the device, so that they are varied there.

    Where they would fill half of what is free on a CUDA GPU, on the processor, from which each batch travels.
    """
    if device.type == "cuda" and 2 * nbytes > torch.cuda.mem_get_info(device)[0]:
        return torch.device("cpu")
    return device


@contextmanager
def seeded_computation(device: torch.device, seed: int | None) -> Iterator[None]:
    """Draw what layers draw by themselves, such as dropout, from a seed, and leave the global random state alone.

    Without a seed that state is not touched: trainings side by side share it.
    """
    cuda = device.type == "cuda"
    with ExitStack() as stack:
        if seed is not None:
            stack.enter_context(torch.random.fork_rng(devices=[device] if cuda else []))
            torch.default_generator.manual_seed(seed)
            if cuda:
                torch.cuda.manual_seed(seed)
        if cuda:
            cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
            stack.enter_context(cudnn)
        yield


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that the memory of the device is full, and nothing else."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_IS_FULL)
