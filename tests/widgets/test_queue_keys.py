"""Keys that label the objects of the queue: what is drawn, sent and written, and in which order."""

from __future__ import annotations

import asyncio
import os

import pytest
from ipywidgets import Widget

from svetlana_jupyter.errors import InputError
from svetlana_jupyter.project import known_files
from svetlana_jupyter.widgets.annotation_panel import AnnotationPanel
from svetlana_jupyter.widgets.labeling import KEY_IGNORED
from tests.widgets.page import Page, listen
from tests.widgets.test_annotation_panel import class_of, press


@pytest.fixture
def page(monkeypatch):
    pages = listen(monkeypatch)
    pages.append(Page())
    return pages[0]


@pytest.fixture
def sent(monkeypatch, page):
    """The widgets that sent a message, in order; "screen" is a drawing, "disk" a sync of the annotation file."""
    record = []
    send, sync, receive = Widget._send, os.fsync, page.receive
    page.receive = lambda *given: (record.append("screen"), receive(*given))
    monkeypatch.setattr(Widget, "_send", lambda self, *given, **named: (record.append(self), send(self, *given)))
    monkeypatch.setattr(os, "fsync", lambda file: (record.append("disk"), sync(file)))
    return record


def in_a_loop(project, scenario):
    """Run a scenario with a panel that shows an object of the queue; the next is prepared."""

    async def inside():
        panel = AnnotationPanel(project)
        try:
            press(panel, "n")
            await prepared(panel)
            await scenario(panel)
        finally:
            panel.close()

    asyncio.run(inside())


async def prepared(panel):
    """Wait until the screen shows the selection, and the next object is prepared if it is in the same image."""

    def is_ready():
        viewer, shown = panel.viewer, panel.shown
        if shown is None or viewer.screen.canvas.shown != shown:
            return False
        coming = panel.queue.coming(1)[0]
        return coming.image != shown.image or (viewer._prepared is not None and viewer._prepared[0] == coming.id)

    async with asyncio.timeout(30):
        while not is_ready():
            await asyncio.sleep(0.005)


async def press_until_prepared(panel):
    """Label objects until the next one lies in the same image."""
    while panel.queue.coming(1)[0].image != panel.shown.image:
        press(panel, "1")
        await prepared(panel)


def test_the_answer_to_a_key_is_drawn_before_the_annotation_is_written_and_sends_no_picture(project, page, sent):
    async def scenario(panel):
        await press_until_prepared(panel)
        before, coming, pictures = panel.shown, panel.queue.coming(1)[0], len(page.pictures)
        canvas = panel.viewer.screen.canvas
        del sent[:]
        press(panel, "2")
        assert sent == [panel.viewer.screen.pointer, "screen", "disk"]
        assert len(page.pictures) == pictures
        assert canvas.shown == panel.shown == coming.id
        assert class_of(project, before.label, before.image) == "dark"
        selected = [arguments for _, name, arguments in page.messages[-1] if name == "drawImage"]
        assert len(selected) == 3

    in_a_loop(project, scenario)


def test_the_prepared_picture_is_the_one_that_would_be_drawn_otherwise(project, page):
    async def scenario(panel):
        await press_until_prepared(panel)
        press(panel, "2")
        canvas = panel.viewer.screen.canvas
        shown = page.pixels(canvas.widget[0]).copy()
        assert shown.any()
        canvas._client_ready()  # the page was reloaded: everything is drawn again
        panel.viewer.screen.draw_now()
        assert (page.pixels(canvas.widget[0]) == shown).all()

    in_a_loop(project, scenario)


def test_texts_follow_once_typing_pauses(project, sent):
    async def scenario(panel):
        for _ in range(3):
            before = panel.status.value
            press(panel, "1")
            assert panel.status.text.startswith("Labeled bright. Now object")
            assert panel.status.value == before
            await asyncio.sleep(0)
        count, label = len(project.annotations.label_table()), panel.shown.label
        del sent[:]
        async with asyncio.timeout(30):
            while f"{count} annotated" not in panel.progress_text.value or f"object {label}" not in panel.status.value:
                await asyncio.sleep(0.01)
        assert sent.count(panel.status) == sent.count(panel.progress_text) == 1

    in_a_loop(project, scenario)


def test_an_annotation_that_cannot_be_written_shows_its_object_again(project, monkeypatch):
    panel = AnnotationPanel(project)
    press(panel, "n")
    first = panel.shown
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        press(panel, "1")
    assert "No space left on device" in panel.status.text
    assert panel.shown == panel.viewer.screen.canvas.shown == first
    assert class_of(project, first.label, first.image) == ""
    press(panel, "1")
    assert class_of(project, first.label, first.image) == "bright"
    assert panel.shown != first


def test_an_annotation_is_written_even_if_the_next_object_cannot_be_shown(project, monkeypatch):
    panel = AnnotationPanel(project)
    press(panel, "n")
    first = panel.shown
    with monkeypatch.context() as broken:
        broken.setattr(panel.viewer, "show", lambda *_: (_ for _ in ()).throw(InputError("There is no such object.")))
        press(panel, "1")
    assert class_of(project, first.label, first.image) == "bright"
    assert "There is no such object." in panel.status.text


def test_nothing_looks_at_the_files_before_the_next_object_is_drawn(project, monkeypatch):
    looked, record = [], []
    version = known_files.source_version
    monkeypatch.setattr(known_files, "source_version", lambda files: looked.append(files) or version(files))

    async def scenario(panel):
        await press_until_prepared(panel)
        monkeypatch.setattr(known_files, "LIVE_SECONDS", 0.0)
        paint, write = panel.viewer.screen.canvas.paint, panel._write
        panel.viewer.screen.canvas.paint = lambda *given: (record.append(len(looked)), paint(*given))
        panel._write = lambda *given: (write(*given), record.append(len(looked)))
        looked.clear()
        press(panel, "1")
        assert record[0] == 0
        assert record[1] > 0  # an annotation is written for the files as they are now
        looked.clear()
        panel.viewer._prepare()
        assert not looked

    in_a_loop(project, scenario)


def test_a_key_that_came_too_early_is_still_reported_after_the_next_key(project):
    panel = AnnotationPanel(project)
    press(panel, "n")
    first = panel.shown
    press(panel, "1")
    panel.viewer.screen.handle_key("2", first)
    assert panel.status.text == KEY_IGNORED
    press(panel, "1")
    assert panel.status.text.endswith("1 earlier key ignored.")
    assert len(project.labels()) == 2
    press(panel, "1")
    assert "ignored" not in panel.status.text
