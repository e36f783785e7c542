"""Damaged files of every kind end in a result or in a sentence (`tests.fuzzing`)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from svetlana_jupyter.errors import SvetlanaError
from tests.fuzzing import CANARY, FOLDER, Fuzzer, build_template, report

CASES = 300


@pytest.fixture(scope="module")
def fuzzer():
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        build_template(template := Path(folder).resolve() / "template", network=False)
        yield Fuzzer(template, template.with_name("work"))


def test_damaged_files_raise_only_errors_of_the_package(fuzzer: Fuzzer) -> None:
    outcomes = [fuzzer.run_case(number) for number in range(CASES)]
    assert not any(outcome.problem for outcome in outcomes), report(outcomes)
    assert 0.3 * CASES < sum(outcome.refused for outcome in outcomes) < CASES, "damage is neither harmless nor all"


def test_other_errors_and_writes_outside_are_found(fuzzer: Fuzzer) -> None:
    def unpack(*_: object) -> None:
        raise KeyError("axes")

    assert isinstance(fuzzer._try(unpack), KeyError)
    assert fuzzer._try(lambda: 1) is None
    assert isinstance(fuzzer._try(lambda: (_ for _ in ()).throw(SvetlanaError("a sentence"))), SvetlanaError)
    fuzzer.root, fuzzer.events = fuzzer.work, []
    (fuzzer.template / CANARY / "executed").mkdir()
    fuzzer.root = None
    assert fuzzer.events == [f"os.mkdir {fuzzer.template / CANARY / 'executed'}"]
