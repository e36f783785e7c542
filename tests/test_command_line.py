"""The commands of the README: `demo` runs the method on real images, `lab` opens the first notebook."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler

from svetlana_jupyter.cli import PROMPT, main

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parent.parent


def test_demo_runs_the_complete_workflow_and_prints_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", str(tmp_path / "demo")]) == 0
    output = capsys.readouterr().out
    accuracies = [float(percent) for percent in re.findall(r"  accuracy ([\d.]+)% \(95 % interval", output)]
    assert len(accuracies) == 2
    assert min(accuracies) > 90, output
    assert all(name in output for name in ("RBC", "WBC", "platelet", "svetlana-jupyter lab", str(tmp_path / "demo")))
    table = pd.read_csv(tmp_path / "demo" / "results" / "objects.csv")
    assert len(table) == 193
    assert table["annotation"].notna().sum() == 60
    assert table["predicted"].notna().all()


def test_lab_opens_the_first_notebook_and_does_not_overwrite_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(subprocess, "call", lambda command: called.append(command) or 0)
    notebook = tmp_path / "notebooks" / "01_first_steps.ipynb"
    assert main(["lab", str(tmp_path), "--no-browser"]) == 0
    assert called == [[sys.executable, "-m", "jupyter", "lab", PROMPT, "--no-browser", str(notebook)]]
    assert sorted(path.name for path in notebook.parent.iterdir())[0] == notebook.name
    assert "sv.Project(" in notebook.read_text()
    copied = {file.relative_to(tmp_path).as_posix() for file in notebook.parent.rglob("*.*")}
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert copied == set(wheel["force-include"]), "an installed package has them, too"
    links = re.findall(r"\]\(([^)#:]+)\)", "".join(file.read_text("utf-8") for file in notebook.parent.glob("*.ipynb")))
    assert links
    assert all((notebook.parent / link).exists() for link in links)
    notebook.write_text("my own work")
    monkeypatch.chdir(tmp_path)
    main(["lab", "--no-browser", "--port=9999"])
    assert notebook.read_text() == "my own work"
    assert called[-1][5:7] == ["--no-browser", "--port=9999"]


def test_kernel_messages_are_sent_without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, connection = PROMPT.partition("=")
    assert name.removeprefix("--ServerApp.") in ServerApp.class_trait_names()
    app = ServerApp(kernel_websocket_connection_class=connection)
    no_delay: list[bool] = []
    monkeypatch.setattr(KernelWebsocketHandler, "set_nodelay", lambda self, value: no_delay.append(value))
    monkeypatch.setattr(ZMQChannelsWebsocketConnection, "connect", lambda self: "connected")
    handler = KernelWebsocketHandler.__new__(KernelWebsocketHandler)
    prompt = app.kernel_websocket_connection_class(websocket_handler=handler)
    assert prompt.connect() == "connected"
    assert no_delay == [True]


def test_a_package_error_prints_a_message_and_sets_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "blood.svetlana").mkdir()
    (tmp_path / "blood.svetlana" / "thesis.txt").write_text("years of work")
    assert main(["demo", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert "Choose another folder" in output.err
    assert "Traceback" not in output.err
