"""Messages of a panel: they name buttons and tabs instead of calls."""

from __future__ import annotations

import pytest

from svetlana_jupyter.errors import SvetlanaError
from svetlana_jupyter.project.image_warnings import describe_numbering
from svetlana_jupyter.widgets.call_names import name_controls
from svetlana_jupyter.widgets.results_panel import ResultsPanel


def test_errors_of_a_project_name_controls_in_a_panel(project):
    with pytest.raises(SvetlanaError, match=r"Add it with project.classes.add\('macrophage'\)") as no_class:
        project.annotate("left", 1, "macrophage")
    assert name_controls(str(no_class.value)).endswith("Add it in the field below the classes.")
    project.classes.merge("dark", "bright")
    with pytest.raises(SvetlanaError, match=r"project.classes.split\('dark'\)") as merged:
        project.classes.add("dark")
    assert "Separate it again with Split off, behind the pencil" in name_controls(str(merged.value))
    with pytest.raises(SvetlanaError, match=r"project\.live\.update") as no_predictions:
        project.queue("predicted", classes=["bright"]).next()
    assert name_controls(str(no_predictions.value)).endswith(
        "Label objects of two classes, or press Predict all images."
    )


@pytest.mark.parametrize("repair", ["components", "foreground", "unsigned"])
def test_a_warning_about_a_mask_names_the_buttons_below_it(repair):
    class Problem:
        text = "Numbers do not name objects."

    Problem.repair = repair
    text = name_controls(describe_numbering("A1", Problem))
    assert "project." not in text
    assert text.endswith(", or press Accept the mask.")


def test_sentences_with_several_calls_and_quotes_in_html():
    assert name_controls("Call project.train(), then project.predict().") == "Press Train, then Predict all images."
    html = "Draw a test set with project.test_set.draw(100), or label objects of project.queue(&quot;random&quot;)."
    assert name_controls(html).endswith("or label objects of the queue &quot;At random&quot;.")
    assert "project.test_set.draw(100)" in name_controls(html), "there is no button for it"


def test_the_evaluation_names_the_queue(trained):
    trained.evaluate()
    assert 'project.queue("random")' in trained.evaluate().sampling
    panel = ResultsPanel(trained)
    panel.sections.selected_index = 1
    assert "objects of the queue &quot;At random&quot;" in panel.evaluation.value
