"""Messages of the pointer helper, as the browser sends them."""

from __future__ import annotations

import pytest

from svetlana_jupyter.widgets.viewer.pointer import Pointer


@pytest.fixture
def heard():
    return []


@pytest.fixture
def pointer(heard):
    class InputListener:
        def selection_id(self):
            return "smear", 9

        def __getattr__(self, name):
            return lambda *arguments: heard.append((name, *arguments))

    made = Pointer()
    made.add_listener(InputListener())
    return made


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            {"event": "pressed", "row": 1.5, "column": 2, "button": 2, "modifiers": "Ctrl+Shift"},
            ("pressed", 1.5, 2, 2, "Ctrl+Shift"),
        ),
        ({"event": "moved", "row": 1.5, "column": 2}, ("moved", 1.5, 2)),
        ({"event": "released", "row": 1.5, "column": 2, "time": 5.0}, ("released", 1.5, 2)),
        ({"event": "pointer_left"}, ("pointer_left",)),
        ({"event": "wheeled", "delta": -120, "row": 3, "column": 4}, ("wheeled", -120, (3, 4))),
        (
            {"event": "key_pressed", "key": "1", "control": False, "shown": ["smear", 7]},
            ("key_pressed", "1", ("smear", 7)),
        ),
        ({"event": "key_pressed", "key": "z", "control": True, "shown": []}, ("key_pressed", "Ctrl+z", None)),
        (
            {"event": "key_pressed", "key": "ArrowUp", "control": False, "shift": True, "shown": []},
            ("key_pressed", "Shift+ArrowUp", None),
        ),
        (
            {"event": "key_pressed", "key": "?", "control": False, "shift": True, "shown": []},
            ("key_pressed", "?", None),
        ),
        ({"event": "key_pressed", "key": "1", "control": False, "shown": None}, ("key_pressed", "1", ("smear", 9))),
    ],
)
def test_a_message_becomes_one_call(pointer, heard, message, call):
    pointer._handle_custom_msg(message, [])
    assert heard == [call]


def test_a_message_of_another_kind_is_ignored(pointer, heard):
    pointer._handle_custom_msg({"event": "something else"}, [])
    pointer._handle_custom_msg({}, [])
    assert heard == []


def test_the_script_is_sent_with_the_widget():
    state = Pointer().get_state()
    assert "export default" in state["_esm"]
    assert state["shown"] == []


def test_a_frame_reports_its_selection_and_the_last_click(pointer):
    pointer.set_shown(("smear", 7))
    assert (pointer.shown, pointer.click_time) == (["smear", 7], 0.0)
    pointer._handle_custom_msg({"event": "released", "row": 1, "column": 2, "time": 5.0}, [])
    assert pointer.click_time == 0.0, "no frame has been sent since"
    pointer.set_shown(("smear", 8))
    assert (pointer.shown, pointer.click_time) == (["smear", 8], 5.0)
