"""Damaged files: 20,000 mutations of every file that the package reads.

Each must end in a result or in an error of the package, within 5 s and 500 MB, without running a program and without
writing outside its folder. Options: --cases N, --first N (the number of the first case), --seed N.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzzing import FOLDER, Fuzzer, Outcome, build_template, report

MEMORY_LIMIT = 24 << 30  # of address space, most of which libraries reserve without using it


def main() -> int:
    """Run the cases, print a summary, and return 1 if there was a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    arguments, _ = parser.parse_known_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    start, outcomes = time.monotonic(), list[Outcome]()
    with tempfile.TemporaryDirectory(dir=FOLDER) as temporary:
        build_template(template := Path(temporary).resolve() / "template")
        fuzzer = Fuzzer(template, Path(temporary).resolve() / "work", arguments.seed)
        for number in range(arguments.first, arguments.first + arguments.cases):
            outcomes.append(fuzzer.run_case(number))
            if outcomes[-1].problem:
                print(report(outcomes[-1:]), flush=True)
            if len(outcomes) % 500 == 0:
                found = sum(bool(outcome.problem) for outcome in outcomes)
                print(f"{len(outcomes):,} cases, {found} problems, {time.monotonic() - start:.0f} s", flush=True)
    print(report(outcomes))
    return int(any(outcome.problem for outcome in outcomes))


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # a thread that hangs must not keep the process alive
