from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from cdal.benchmark.report.command_line import command_line
from cdal.benchmark.settings import Settings
from cdal.cli.benchmark import add_arguments

SETTINGS = Settings(
    dataset="my data/$(rm)",
    images="0123",
    task="segmentation",
    protocol="cityscapes",
    selectors=("random", "cdal-cs:missing=skip,region=image"),
    options={"alpha": "0.5"},
    initial="10%",
    step="20",
    until="40%",
    budgets=(10, 30),
    seeds=2,
    network="drn_d_22",
    image_size=64,
    pretrained=False,
    epochs=3,
    batch_size=None,
    learning_rate=0.001,
    warm_start=True,
    device="cpu",
    limit=100,
    test_limit=None,
    first_round="typical",
    bias=2,
    noise=0.25,
    unlabelled="background",
    keep_scores=True,
    oracle=True,
    regions=32,
    repaired=True,
    tile=480,
)


def test_the_command_says_what_the_settings_say() -> None:
    line = command_line(SETTINGS.to_dict(), Path("out"))
    words = shlex.split(line)
    assert words[:2] == ["cdal", "benchmark"]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    read = vars(parser.parse_args(words[2:]))
    assert read["dataset"] == Path("my data/$(rm)")
    assert read["selectors"] == "random,cdal-cs:missing=skip,region=image"
    assert (read["protocol"], read["alpha"], read["out"]) == (
        "paper:cityscapes",
        "0.5",
        Path("out"),
    )
    same = ("task", "initial", "step", "until", "seeds", "network", "image_size", "epochs")
    more = ("batch_size", "learning_rate", "warm_start", "device", "limit", "test_limit", "bias")
    last = ("first_round", "noise", "unlabelled", "keep_scores", "oracle", "regions", "repaired")
    for name in (*same, *more, *last, "tile"):
        assert read[name] == getattr(SETTINGS, name), name


def test_without_a_data_set_there_is_no_command() -> None:
    assert command_line({}, Path("out")) == ""
