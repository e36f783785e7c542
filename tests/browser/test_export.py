"""Export form in a browser: checkboxes, written files and the displayed result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.browser.test_harness import write_notebook

if TYPE_CHECKING:
    from tests.browser.lab import LabPage

PROJECT = """\
import svetlana_jupyter as sv
blood = sv.samples.blood_smear()
project = sv.Project("blood.svetlana", classes=["RBC", "WBC", "platelet"])
added = project.add_images(f"{blood}/images/{{smear}}.png", masks=f"{blood}/masks/{{smear}}.tif")
known = sv.samples.blood_smear_classes()
for (image, label), name in list(known.items())[:30]:
    project.annotate(image, label, name)
panel = sv.PredictionPanel(project)"""


def test_ticked_formats_are_written_and_the_folder_is_displayed(lab: LabPage, tmp_path) -> None:
    lab.open_notebook(write_notebook(tmp_path / "export.ipynb", [PROJECT, "panel"]))
    lab.run_all()
    output = lab.output(1)
    output.get_by_text("Export the results").click()
    button = output.get_by_title("Write the results")
    button.scroll_into_view_if_needed()
    output.get_by_text("CSV tables").click()
    button.click()
    expect(output.locator(".sv-trouble").last).to_contain_text("No format is selected")
    output.get_by_text("Outlines, for QuPath").click()
    output.get_by_text("Excel table").click()
    lab.screenshot("export-chosen")
    button.click()
    expect(button).to_be_enabled(timeout=60_000)
    expect(button).to_be_in_viewport()
    result = output.get_by_text("Written to")
    expect(result).to_contain_text("blood_results: results.xlsx", timeout=60_000)
    lab.screenshot("export-written")
    names = {file.name for file in (lab.folder / "blood_results").iterdir()}
    assert {"results.xlsx", "export.json", "smear_01.geojson", "smear_12.geojson"} <= names
    assert "objects.csv" not in names
