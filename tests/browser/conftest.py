"""Fixtures of the browser tests: one JupyterLab for all, one Chromium per file, one page per test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser import chromium
from tests.browser.lab import LabPage
from tests.browser.server import LabServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    server = LabServer(tmp_path_factory.mktemp("lab"))
    yield server
    server.stop()


# Per file, not per session: while Playwright runs, no other test of this process can start an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium.find()
    assert path, "no Chromium: run `python -m tests.browser.chromium`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def lab(lab_server: LabServer, browser: Browser, request: pytest.FixtureRequest) -> Iterator[LabPage]:
    folder = lab_server.root / request.node.name
    folder.mkdir()
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    page = LabPage(context.new_page(), lab_server, folder)
    yield page
    page.close()
    context.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the logs of server and page, and a screenshot, to the report of a failed browser test."""
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.when == "call" and report.failed and lab is not None:
        report.sections.append(("JupyterLab server", "".join(lab.server.log[-100:])))
        report.sections.append(("browser console", "\n".join(lab.console[-50:])))
        report.sections.append(("screenshot", str(lab.screenshot(f"failed-{item.name}"))))
    return report
