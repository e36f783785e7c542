"""Memory reuse between batches and storage of patches."""

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
for prepare in (lambda: None, keep_freed_memory):
    prepare()
    torch.ones(2_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2_000_000)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_reused_by_the_next_batch():
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    faults, kept = map(int, subprocess.check_output([sys.executable, "-c", PAGES_FAULTED], env=environment).split())
    assert kept < faults / 2


@pytest.mark.parametrize(("nbytes", "expected"), [(50, "cuda"), (51, "cpu")])
def test_patches_are_stored_on_the_gpu_up_to_half_of_its_free_memory(nbytes, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    assert storage_device(torch.device("cuda"), nbytes).type == expected
    assert [storage_device(torch.device(name), nbytes).type for name in ("cpu", "mps")] == ["cpu", "mps"]
