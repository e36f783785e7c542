"""Training panel in JupyterLab: cues, a stopped and a complete training, settings, an earlier run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.browser.test_harness import write_notebook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browser.lab import LabPage

CELLS = [
    """\
import svetlana_jupyter as sv
blood = sv.samples.blood_smear()
project = sv.Project("blood.svetlana", classes=["RBC", "WBC", "platelet"])
project.add_images(f"{blood}/images/{{smear}}.png", masks=f"{blood}/masks/{{smear}}.tif")
panel = sv.TrainingPanel(project)""",
    "panel",
    "for (image, object), name in list(sv.samples.blood_smear_classes().items())[:60]:\n"
    "    project.annotate(image, object, name)",
    """\
mine = project.runs.current
twin = project.train(sv.TrainingSettings.model_validate(mine.settings))
same = [(run.path / "weights.safetensors").read_bytes() for run in (mine, twin)]
assert same[0] == same[1]""",
]


def test_training_is_started_stopped_finished_and_selected(lab: LabPage, tmp_path: Path) -> None:
    lab.open_notebook(write_notebook(tmp_path / "training.ipynb", CELLS))
    lab.run_cell(0)
    lab.run_cell(1)
    output = lab.output(1)
    train, stop = (output.get_by_role("button", name=name) for name in ("Train", "Stop"))
    expect(train).to_be_disabled()
    expect(output).to_contain_text("nothing is annotated yet")
    lab.run_cell(2)
    expect(train).to_be_enabled()

    # Clearing a cue changes the settings at once.
    output.get_by_label("Brightness", exact=True).uncheck()
    lab.wait_until("project.settings.may_use == {'surroundings', 'orientation', 'size'}")
    output.get_by_text("Advanced settings").click()
    preset = output.locator(".sv-setting", has_text="Preset").first.locator("input")
    preset.fill("default")
    preset.press("Enter")
    lab.wait_until("project.settings.preset == 'default'")
    assert lab.evaluate("'brightness' in project.settings.may_use") == "False", "another preset lets in no more"

    # A stop keeps the trained network and reports it.
    train.click()
    lab.wait_until("project.training_curve is not None and len(project.training_curve.epochs) >= 2", timeout=120)
    expect(output).to_contain_text("left")
    expect(train).to_be_disabled()
    stop.click()
    lab.wait_until("project.job is None and project.current_run == '0001' and project.runs.current.stopped", timeout=60)
    expect(output).to_contain_text("stopped early")
    expect(stop).to_be_hidden()
    expect(train).to_be_enabled()

    # A complete training: scores, confusion, the forest; its settings reproduce the weights.
    epochs = output.locator(".sv-setting", has_text="Epochs").first.locator("input")
    epochs.fill("3")
    epochs.press("Enter")
    lab.wait_until("project.settings.epochs == 3")
    train.click()
    lab.wait_until("project.job is None and project.current_run == '0002'", timeout=300)
    expect(output).to_contain_text("being scored")
    expect(train).to_be_enabled()
    lab.screenshot("training-panel-being-scored")
    lab.wait_until("not project.runs.current.missing_scores", timeout=300)
    expect(output).to_contain_text("Random forest on measured features", timeout=300_000)  # scores follow the run
    expect(output.locator(".sv-matrix")).to_contain_text("platelet")
    assert lab.evaluate("project.runs.current.settings['may_use']['brightness']") == "False"
    lab.screenshot("training-panel")
    lab.run_cell(3, timeout=300)

    # Invalid settings are reported next to their field, and change nothing.
    rate = output.locator(".sv-setting", has_text="Learning rate").first.locator("input")
    rate.fill("-1")
    rate.press("Enter")
    expect(output.get_by_role("alert").last).to_contain_text("learning_rate")
    assert lab.evaluate("project.settings.learning_rate > 0") == "True"

    # An earlier run is selected.
    output.get_by_text("Earlier runs").click()
    output.get_by_title("Use run 0001").click()
    lab.wait_until("project.current_run == '0001'")
    expect(output.get_by_title("Run 0001 is in use")).to_be_visible()
    assert not [line for line in lab.console if "page error" in line]
