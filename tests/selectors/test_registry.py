from pathlib import Path

import pytest

from cdal.selectors import SELECTORS, OptionError, make_selector, option_types
from cdal.selectors.cdal_cs import CDALCS
from cdal.selectors.cdal_rl import CDALRL


def test_names():
    assert sorted(SELECTORS) == [
        "badge", "bald", "cd-greedy", "cdal-cs", "cdal-rl", "cereals", "committee", "core-set",
        "dropquery",
        "entropy", "learning-loss", "least-confidence", "margin", "mc-dropout", "prob-cover",
        "random", "rbal", "suggestive-annotation", "typiclust", "vaal",
    ]  # fmt: skip
    assert all(make_selector(name).name == name for name in SELECTORS)


def test_options_are_the_fields():
    assert list(option_types(SELECTORS["cdal-cs"])) == ["missing"]
    assert option_types(SELECTORS["random"]) == {}
    assert make_selector("cdal-cs", {"missing": "skip"}) == CDALCS(missing="skip")


def test_strings_are_read_as_the_field_s_type():
    given = {"epochs": "60", "alpha": "0.5", "weights": "policy.safetensors", "cells": "none"}
    expected = CDALRL(epochs=60, alpha=0.5, weights=Path("policy.safetensors"), cells=None)
    assert make_selector("cdal-rl", given) == expected
    typed = {"epochs": 60, "alpha": 0.5, "weights": Path("policy.safetensors"), "cells": None}
    assert make_selector("cdal-rl", typed) == expected
    assert make_selector("cdal-rl", {"epochs": 60.0, "alpha": 1}) == CDALRL(epochs=60, alpha=1.0)
    for classes in ("0+3", [0, 3], (0, 3)):
        assert make_selector("cdal-rl", {"classes": classes}) == CDALRL(classes=(0, 3))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("best", {}, 'unknown selector "best"; choose one of badge, bald, cd-greedy, '),
        ("random", {"x": 1}, 'random has no option "x"; it has no options'),
        (
            "cdal-cs",
            {"mising": "skip"},
            'cdal-cs has no option "mising"; its only option is "missing"',
        ),
        (
            "cdal-cs",
            {"missing": "s"},
            'option "missing" of cdal-cs must be "skip" or "uniform", not "s"',
        ),
        (
            "cdal-rl",
            {"epochs": "many"},
            'option "epochs" of cdal-rl must be a whole number or none, not',
        ),
        (
            "cdal-rl",
            {"epochs": 1.5},
            'option "epochs" of cdal-rl must be a whole number or none, not 1.5',
        ),
        (
            "cdal-rl",
            {"epochs": True},
            'option "epochs" of cdal-rl must be a whole number or none, not True',
        ),
        (
            "cdal-rl",
            {"epochs": float("inf")},
            'option "epochs" of cdal-rl must be a whole number or none',
        ),
        (
            "cdal-rl",
            {"classes": "sky"},
            r'option "classes" of cdal-rl must be a whole number, or several joined by \+ or none',
        ),
        ("cdal-rl", {"classes": []}, 'option "classes" of cdal-rl must be a whole number'),
        ("cdal-rl", {"alpha": []}, r'option "alpha" of cdal-rl must be a number, not \[\]'),
        ("cdal-rl", {"alpha": None}, 'option "alpha" of cdal-rl must be a number, not None'),
        ("cdal-rl", {"weights": 3}, 'option "weights" of cdal-rl must be a path or none, not 3'),
        ("cdal-rl", {"rewards": 3}, 'option "rewards" of cdal-rl must be text or none, not 3'),
        ("typiclust", {"neighbours": 0}, "typiclust: neighbours must be at least 1, not 0"),
        ("typiclust", {"max_clusters": -1}, "typiclust: max_clusters must be at least 1, not -1"),
        ("prob-cover", {"delta": 0}, "prob-cover: delta must be above 0 and at most 2, not 0"),
        ("prob-cover", {"delta": "nan"}, "prob-cover: delta must be above 0 and at most 2, not"),
        ("prob-cover", {"purity": 1.5}, "prob-cover: purity must be above 0 and at most 1, not"),
        ("cdal-rl", {"alpha": "2"}, "cdal-rl: alpha must be from 0 to 1, not 2.0"),
    ],
)
def test_what_is_wrong_is_named(name, options, message):
    with pytest.raises(OptionError, match=f"^{message}") as error:
        make_selector(name, options)
    assert "\n" not in str(error.value)
