"""A search tries what the settings leave open, and nothing that may not count."""

from __future__ import annotations

import itertools

import pytest

from svetlana_jupyter.core.candidates import candidates, non_default_values
from svetlana_jupyter.core.may_use import restrict_to_allowed_cues
from svetlana_jupyter.core.measures.table import CUES
from svetlana_jupyter.core.recipes import CANDIDATE_PRESETS
from svetlana_jupyter.core.settings import TrainingSettings


def test_with_everything_allowed_every_candidate_is_tried_and_one_does_not_augment():
    tried = candidates(TrainingSettings())
    assert [*tried] == [name for name in CANDIDATE_PRESETS if name != "grain"] and len(tried) <= 8
    assert not tried["plain"].augmentation.varies
    assert tried["forest"].architecture == "forest"


@pytest.mark.parametrize("allowed", [set(some) for n in range(4) for some in itertools.combinations(CUES, n)])
def test_no_candidate_lets_in_what_may_not_count(allowed):
    tried = candidates(TrainingSettings(may_use=allowed))
    assert next(iter(tried)) == "default" and list(tried)[-1] == "forest"
    for settings in tried.values():
        assert restrict_to_allowed_cues(settings) == settings
        assert settings.may_use == allowed
    dumps = [settings.model_dump_json(exclude={"recipe"}) for settings in tried.values()]
    assert len(set(dumps)) == len(dumps)


def test_the_grain_is_looked_for_where_the_surroundings_may_not_count_but_brightness_may():
    """Without the brightness it is no more than the texture: what is divided by the level tells of it."""
    allowed = {some: "grain" in candidates(TrainingSettings(may_use=set(CUES) - {some})) for some in CUES}
    assert allowed == {"surroundings": True, "brightness": False, "orientation": False, "size": False}
    assert "grain" not in candidates(TrainingSettings(may_use=["orientation", "size"]))


def test_what_was_set_stays_in_every_candidate():
    asked = TrainingSettings(epochs=7, seed=3, patches={"size": 40}, augmentation={"share": 0.5})
    tried = candidates(asked)
    for settings in tried.values():
        assert (settings.epochs, settings.seed, settings.patches.size) == (7, 3, 40)
        assert settings.augmentation.share == 0.5
        assert settings.patches.sampling == "auto"
    assert "wide" not in tried  # a size that is set leaves nothing to widen
    assert not {"object", "wide"} & set(candidates(TrainingSettings(patches={"context": "hide"})))


@pytest.mark.parametrize("architecture", ["resnet18", "forest"])
def test_another_architecture_is_trained_as_it_was_asked_for(architecture):
    (settings,) = candidates(TrainingSettings(architecture=architecture)).values()
    assert (settings.architecture, settings.recipe) == (architecture, "default")


def test_a_sampling_that_is_set_stays_and_one_architecture_alone_needs_none():
    for settings in candidates(TrainingSettings(patches={"size": 40, "sampling": 40})).values():
        assert settings.patches.sampling == 40
    (alone,) = candidates(TrainingSettings(architecture="resnet18", patches={"size": 40})).values()
    assert alone.patches.sampling is None
    assert all(settings.patches.sampling is None for settings in candidates(TrainingSettings()).values())


def test_what_is_as_by_default_is_no_change():
    assert non_default_values(TrainingSettings(recipe="default")) == {}
    assert non_default_values(TrainingSettings(recipe="object", width=8)) == {
        "patches": {"context": "hide"},
        "width": 8,
    }
