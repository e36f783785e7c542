"""What a processor's memory does between batches."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

from svetlana_jupyter.learn.device import storage_device

PAGES_FAULTED = """
import resource, torch
from svetlana_jupyter.learn.device import keep_freed_memory
{keep}
torch.ones(2_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_memory_of_one_batch_is_used_again_by_the_next_as_a_worker_of_dask_would_not():
    def faults(keep: str) -> int:
        code = PAGES_FAULTED.format(keep=keep)
        environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
        return int(subprocess.check_output([sys.executable, "-c", code], env=environment))

    assert faults("keep_freed_memory()") < faults("") / 2


@pytest.mark.parametrize(("nbytes", "where"), [(50, "cuda"), (51, "cpu")])
def test_patches_stay_on_a_gpu_unless_they_fill_half_of_what_is_free(nbytes, where, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    assert storage_device(torch.device("cuda"), nbytes).type == where
    assert [storage_device(torch.device(one), nbytes).type for one in ("cpu", "mps")] == ["cpu", "mps"]
