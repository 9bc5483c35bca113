from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path

from cdal.benchmark.ablations import ABLATIONS
from cdal.benchmark.paper_figures import FIGURES
from cdal.benchmark.protocol import PROTOCOLS, PUBLISHED
from cdal.benchmark.report.command_line import command_line
from cdal.benchmark.settings import Settings
from cdal.cli.benchmark import add_arguments
from cdal.selectors import SELECTORS

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


def test_what_a_protocol_implies_is_not_said() -> None:
    """Typed, it might be refused as without effect, as beside random selection alone."""
    published = PUBLISHED["segmentation"]
    settings = replace(SETTINGS, options={**published, "missing": "uniform"}, epochs=50)
    assert PROTOCOLS["cityscapes"].epochs == 50
    to_the_letter = replace(settings, repaired=False).to_dict()
    words = shlex.split(command_line(to_the_letter, Path("out")))
    assert words[words.index("--missing") + 1] == "uniform"
    assert words[words.index("--protocol") + 1] == "paper:cityscapes"
    assert not {"--epochs", "--policy", "--reward", "--region", "--sums"} & {*words}
    assert "--reward" in command_line(settings.to_dict(), Path("out"))


def test_the_help_names_every_protocol_ablation_and_figure() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    told = " ".join(parser.format_help().replace("-\n", "-").split())
    joined = told.replace("- ", "-")
    assert all(name in joined for name in (*PROTOCOLS, *SELECTORS))
    for command, names in (("ablation", ABLATIONS), ("figure", FIGURES)):
        described = commands.choices[command].format_help()
        assert all(f"{name}: " in " ".join(described.split()) for name in names)


def test_without_a_data_set_there_is_no_command() -> None:
    assert command_line({}, Path("out")) == ""
