"""Which object has which look."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from svetlana_jupyter.core.annotations import Label
from svetlana_jupyter.core.classes import ClassScheme
from svetlana_jupyter.core.marks import EXCLUDED_STYLE, MAX_STYLES, PLAIN, ObjectStyle, ObjectStyles, class_styles

CLASSES = ClassScheme().adding(["round", "long"])
ROUND, LONG = CLASSES.by_name("round"), CLASSES.by_name("long")


def labels(**rows):
    said = {int(name[1:]): Label(*row) for name, row in rows.items()}
    return lambda objects: said


def styles(marks, objects):
    return [marks.styles[i] for i in marks.of(np.array(objects))]


@given(st.dictionaries(st.integers(1, 2**60), st.integers(0, 3)), st.lists(st.integers(1, 2**60)))
def test_marks_find_every_object_and_leave_the_others_plain(said, asked):
    marks = ObjectStyles(styles=tuple(ObjectStyle(fill=i / 10) for i in range(4))).adding(
        list(said), list(said.values())
    )
    objects = np.unique(np.array([*asked, *said], np.int64))
    assert marks.of(objects).tolist() == [said.get(int(label), 0) for label in objects]


def test_annotations_are_bold_predictions_thin_and_paler():
    predicted = pd.Series([ROUND.id, ROUND.id], index=[1, 2])
    marks = class_styles(CLASSES, labels(_2=("label", LONG.id)), predicted)
    thin, bold, plain = styles(marks, [1, 2, 3])
    assert (thin.color, thin.bold) == (ROUND.color, False)
    assert (bold.color, bold.bold) == (LONG.color, True)
    assert bold.fill > thin.fill > 0
    assert plain == PLAIN


def test_what_is_set_aside_is_bold_without_a_colour_and_what_is_skipped_is_plain():
    marks = class_styles(CLASSES, labels(_1=("ambiguous", 0), _2=("bad", 0), _3=("skip", 0)))
    assert styles(marks, [1, 2, 3]) == [EXCLUDED_STYLE, EXCLUDED_STYLE, PLAIN]


def test_a_skipped_object_keeps_the_look_of_its_prediction():
    marks = class_styles(CLASSES, labels(_1=("skip", 0)), pd.Series([LONG.id], index=[1]))
    assert styles(marks, [1])[0].color == LONG.color


def test_a_hundred_classes_have_their_colours():
    many = ClassScheme().adding(f"class {i}" for i in range(100))
    marks = class_styles(many, labels(_1=("label", many.ids[99])))
    assert len(marks.styles) <= MAX_STYLES
    assert styles(marks, [1])[0].color == many.by_id(many.ids[99]).color


def test_nothing_annotated_is_all_plain():
    empty = labels()
    assert styles(class_styles(CLASSES, empty, pd.Series(dtype="int64")), [1]) == [PLAIN]


def test_marks_ask_for_the_objects_seen_alone_and_are_renewed_when_the_answers_change():
    asked = []
    answers = {7: Label("label", ROUND.id)}

    def labels_of(objects):
        asked.append(objects.tolist())
        return {object: answers[object] for object in objects.tolist() if object in answers}

    many = pd.Series(LONG.id, index=np.arange(1, 100_001))
    marks = class_styles(CLASSES, labels_of, many, key=1)
    assert asked == []
    assert [style.color for style in styles(marks, [7, 8])] == [ROUND.color, LONG.color]
    answers[8] = Label("label", ROUND.id)
    later = marks.with_key(2)
    assert (later.key, [style.color for style in styles(later, [7, 8])]) == (2, [ROUND.color] * 2)
    assert asked == [[7, 8], [7, 8]]
