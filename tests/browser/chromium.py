"""Chromium for the browser tests; as a script, it installs Chromium or prints what to install.

`python -m tests.browser.chromium` installs the distribution's package on Debian as root, otherwise Playwright's build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

APT = ["apt-get", "-o", "Dpkg::Use-Pty=0", "-qq"]
PACKAGES = ["chromium", "chromium-driver"]


def find() -> str | None:
    """Return the path of Chromium; the distribution's takes precedence over Playwright's."""
    if system := shutil.which("chromium"):
        return system
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def install() -> None:
    if Path("/etc/debian_version").exists() and os.geteuid() == 0:
        commands = [[*APT, "update"], [*APT, "install", "--yes", "--no-install-recommends", *PACKAGES]]
    else:
        commands = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    for command in commands:
        subprocess.run(command, check=False, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})


def main() -> None:
    if find() is None:
        install()
    if find() is None:
        sys.exit(
            "The browser tests need Chromium, and it could not be installed. Install it by hand: on Debian "
            "`apt-get install chromium chromium-driver`, elsewhere `.venv/bin/playwright install --with-deps chromium`."
        )


if __name__ == "__main__":
    main()
