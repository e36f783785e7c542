"""JupyterLab server on this machine, with settings for reproducible tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from svetlana_jupyter.cli import PROMPT

OPTIONS = [
    "--no-browser",
    "--allow-root",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port=0",
    "--IdentityProvider.token=",
    "--ServerApp.disable_check_xsrf=True",
    "--LabApp.expose_app_in_browser=True",
    "--ZMQChannelsWebsocketConnection.iopub_data_rate_limit=1e12",
]
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # otherwise cells off screen are missing
}


class LabServer:
    """JupyterLab on a free port, with the options of the tests; `root` is its root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[str] = []
        self.url = ""
        _write_settings(Path(os.environ["JUPYTERLAB_SETTINGS_DIR"]))
        command = [sys.executable, "-m", "jupyterlab", *OPTIONS, PROMPT, f"--ServerApp.root_dir={root}"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")
        self._announced = threading.Event()
        threading.Thread(target=self._read_log, daemon=True).start()
        if not (self._announced.wait(60) and self.url and _answers(f"{self.url}api/status")):
            self.stop()
            raise RuntimeError("JupyterLab did not start:\n" + "".join(self.log))

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read_log(self) -> None:
        for line in self._process.stderr:
            self.log.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                self.url = self.url or found[0]
                self._announced.set()
        self._announced.set()  # the server has ended

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()


def _answers(url: str, seconds: float = 30) -> bool:
    """Return whether a server answers in time; it prints its address slightly earlier."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        try:
            with urllib.request.urlopen(url, timeout=seconds):
                return True
        except urllib.error.URLError:
            threading.Event().wait(0.05)
    return False


def _write_settings(folder: Path) -> None:
    for name, settings in SETTINGS.items():
        file = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
