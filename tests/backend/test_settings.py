"""Settings that an admin may type, and the sentence that refuses anything else."""

from __future__ import annotations

import functools
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdal.backend.errors import SettingsError
from cdal.backend.settings import ProjectSettings


@pytest.mark.parametrize("nothing", [None, "", "  \n", {}, "{}", "null"])
def test_without_settings_the_defaults_apply(nothing: Any) -> None:
    accepted = ProjectSettings.parse(nothing)
    assert accepted == ProjectSettings()
    assert (accepted.budget, accepted.reserve_size, accepted.selector) == (50, 50, "cdal-cs")


def test_an_object_and_its_text_mean_the_same() -> None:
    typed = {"budget": 20, "held_out": 0.3, "pretrained": False, "selector": "entropy"}
    text = '{"budget": 20, "held_out": 0.3, "pretrained": false, "selector": "entropy"}'
    assert ProjectSettings.parse(text) == ProjectSettings.parse(typed)


def test_the_reserve_is_as_large_as_the_budget_unless_set() -> None:
    assert ProjectSettings.parse({"budget": 70}).reserve_size == 70
    assert ProjectSettings.parse({"budget": 7}).reserve_size == 30
    assert ProjectSettings.parse({"budget": 7, "reserve": 3}).reserve_size == 3


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"budget": True}, 'Setting "budget" must be a whole number, not true.'),
        ({"budget": "50"}, 'Setting "budget" must be a whole number, not "50".'),
        ({"budget": None}, 'Setting "budget" must be a whole number, not null.'),
        (
            {"seed": 2**40},
            'Setting "seed" must be at most 2147483647, not 1099511627776.',
        ),
        ({"min_labels": 10**7}, 'Setting "min_labels" must be at most 1000000, not 10000000.'),
        ({"train_every": 10**7}, 'Setting "train_every" must be at most 1000000, not 10000000.'),
        ({"held_out": float("nan")}, 'Setting "held_out" must be less than 0.9, not NaN.'),
        ({"learning_rate": 0}, 'Setting "learning_rate" must be more than 0.0, not 0.'),
        ({"warm_start": 1}, 'Setting "warm_start" must be true or false, not 1.'),
        ({"network": 5}, 'Setting "network" must be text, not 5.'),
        (
            {"training": "fast"},
            'Setting "training" must be one of "auto", "head" or "full", not "fast".',
        ),
        (
            {"control": "y" * 201},
            f'Setting "control" must be at most 200 characters long, not "{"y" * 36}....',
        ),
        (
            '{"weights": "a\\ud800"}',
            'Setting "weights" contains half a character (a lone surrogate); type the text again.',
        ),
        (
            {"\ud800": 1},
            'Setting "?" contains half a character (a lone surrogate); type the text again.',
        ),
        (
            {"selector_options": {"alpha": ["\ud800"]}},
            'Setting "selector_options" contains half a character (a lone surrogate); type the '
            "text again.",
        ),
        (
            {"selector_options": [1]},
            'Setting "selector_options" must be a JSON object, not [1].',
        ),
        (
            {"selector": "cdal-rl", "selector_options": {"alpha": "x"}},
            'Setting "selector_options": option "alpha" of cdal-rl must be a number, not "x".',
        ),
        (
            {"y" * 100: 1},
            f'There is no setting "{"y" * 37}..."; see docs/settings.md.',
        ),
        (
            "[1]",
            'The extra params are a list; they must be a JSON object, such as {"budget": 50}.',
        ),
        (
            "true",
            "The extra params are true or false; they must be a JSON object, "
            'such as {"budget": 50}.',
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(given: Any, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ProjectSettings.parse(given)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("typed", "head"),
    [
        ({}, True),
        ({"training": "head"}, True),
        ({"training": "full"}, False),
        ({"network": "timm:resnet50"}, True),
        ({"network": "timm:resnet50", "training": "head", "pretrained": True}, True),
        ({"network": "resnet50"}, False),
        ({"network": "resnet50", "training": "full", "pretrained": False}, False),
        ({"pretrained": True}, True),
        ({"pretrained": False}, False),
        ({"weights": "ours.pth"}, False),
    ],
)
def test_what_is_trained_follows_from_the_settings(typed: dict[str, Any], head: bool) -> None:
    assert ProjectSettings.parse(typed).trains_head is head


@pytest.mark.parametrize(
    ("typed", "other"),
    [
        ({"training": "head", "network": "resnet50"}, "resnet50"),
        ({"training": "head", "pretrained": False}, "pretrained"),
        ({"training": "head", "weights": "ours.pth"}, "weights"),
        ({"training": "full", "network": "timm:resnet50"}, "timm:resnet50"),
    ],
)
def test_settings_that_contradict_the_training_are_refused(
    typed: dict[str, Any], other: str
) -> None:
    with pytest.raises(SettingsError, match=rf'"training": "{typed["training"]}".*{other}'):
        ProjectSettings.parse(typed)


@pytest.mark.parametrize(
    ("typed", "other"),
    [
        ({"training": "full"}, "training"),
        ({"network": "ssdlite320_mobilenet_v3_large"}, "ssdlite320"),
        ({"weights": "ours.pth"}, "weights"),
        ({"image_size": 64}, "image_size"),
    ],
)
def test_what_cannot_see_tiles_is_refused(typed: dict[str, Any], other: str) -> None:
    with pytest.raises(SettingsError, match=other):
        ProjectSettings.parse({"tile": 480, **typed})


@pytest.mark.parametrize("option", ["cells", "episodes", "epochs", "window"])
def test_a_selector_option_may_not_take_all_memory_or_time(option: str) -> None:
    for value in (10**9, "100000"):
        typed = {"selector": "cdal-rl", "selector_options": {option: value}}
        with pytest.raises(SettingsError, match=f'"{option}" of cdal-rl must be at most'):
            ProjectSettings.parse(typed)


def test_a_selector_option_is_a_number_that_json_can_hold() -> None:
    text = '{"selector": "cdal-rl", "selector_options": {"scale": 1e999}}'
    with pytest.raises(SettingsError, match="scale must be positive and finite"):
        ProjectSettings.parse(text)


def test_settings_of_any_depth_are_refused_in_a_sentence() -> None:
    """Around the depth that Python can follow, any step may be the one too many."""
    limit = sys.getrecursionlimit()
    for depth in (*range(limit - 150, limit + 10, 3), 100 * limit):
        nested = functools.reduce(lambda inner, _: {"a": inner}, range(depth), 1)
        for typed in ({"selector_options": nested}, '{"budget": ' + "[" * depth):
            with pytest.raises(SettingsError):
                ProjectSettings.parse(typed)


def test_a_selector_option_may_not_name_a_file() -> None:
    typed = {"selector": "cdal-rl", "selector_options": {"weights": "/home/somebody/file"}}
    with pytest.raises(SettingsError, match="names a file on the backend's machine"):
        ProjectSettings.parse(typed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def parse(typed: object) -> tuple[ProjectSettings | None, str]:
    try:
        return ProjectSettings.parse(typed), ""
    except SettingsError as error:
        return None, str(error)


@given(st.dictionaries(st.sampled_from(sorted(ProjectSettings.model_fields)) | st.text(), JSON))
@pytest.mark.slow
def test_any_settings_are_accepted_or_refused_in_one_sentence(typed: dict[str, Any]) -> None:
    accepted, sentence = parse(typed)
    if accepted is None:
        assert 10 < len(sentence) < 1000
    else:
        assert ProjectSettings.parse(accepted.model_dump()) == accepted


@given(st.text())
def test_any_text_is_accepted_or_refused(text: str) -> None:
    accepted, sentence = parse(text)
    assert accepted is not None or sentence.startswith("The extra params are")


def test_a_sentence_stays_short_whatever_an_option_holds() -> None:
    with pytest.raises(SettingsError) as caught:
        ProjectSettings.parse({"selector_options": {"missing": "x\n" * 10_000}})
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
