from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image
from support.recorded import results, run, step, two_selectors

from cdal.benchmark.report.classes import RareClasses, per_class, rare_classes
from cdal.benchmark.report.overlap import overlap
from cdal.benchmark.report.plots import (
    PickedImage,
    as_png,
    as_svg,
    class_bars,
    class_curves,
    embed,
    embedding_picks,
    learning_curves,
    mixture_bars,
    overlap_matrix,
    picture,
    time_bars,
)
from cdal.benchmark.report.plots.style import LONGEST, legend_label, looks
from cdal.benchmark.report.record import parse_record
from cdal.benchmark.report.seconds import seconds
from cdal.benchmark.report.summary import summarise

pytestmark = pytest.mark.slow

HOSTILE = "_$\\frac{<b>&\n\x00猫"


def curves(data: dict[str, Any]) -> Figure:
    record = parse_record(data)
    return learning_curves(summarise(record), record.metric, record.pool)


def picked(**more: Any) -> PickedImage:
    mixtures = np.array([[0.9, 0.1, 0], [0.5, 0.5, 0], [0, 0, 0]], dtype=np.float32)
    return PickedImage(
        title="a.png",
        image=np.zeros((6, 8, 3), dtype=np.uint8),
        mixtures=mixtures,
        present=np.array([True, True, False]),
        **more,
    )


def points(count: int = 40) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(count, 5)).astype(np.float32)


def width_of(bar: Patch) -> float:
    assert isinstance(bar, Rectangle)
    return bar.get_width()


def rare(data: dict[str, Any]) -> RareClasses:
    """What became of the dogs, of which one image in ten shows one."""
    record = parse_record(data)
    names = dict.fromkeys(n for run in record.runs for step in run.steps for n in step.picked)
    found = rare_classes(record, {n: {k % 10 == 0: 1} for k, n in enumerate(names)})
    assert found is not None
    return found


def every_plot(data: dict[str, Any]) -> list[Figure]:
    record = parse_record(data)
    return [
        curves(data),
        class_bars(per_class(record), record.metric),
        class_curves(rare(data), record.metric),
        overlap_matrix(overlap(record), record.budgets[-1]),
        time_bars(seconds(record)),
        embedding_picks(points()[:, :2], {"core-set": [1, 2], HOSTILE: [3]}, [4]),
        mixture_bars([picked()], ["cat", "dog", HOSTILE]),
    ]


@pytest.fixture(scope="module")
def drawn() -> list[tuple[bytes, bytes]]:
    """Every plot, as SVG and PNG."""
    return [(as_svg(figure), as_png(figure)) for figure in every_plot(two_selectors())]


def test_every_plot_is_a_file_and_no_figure_stays_open(drawn: list[tuple[bytes, bytes]]) -> None:
    for svg, png in drawn:
        ET.fromstring(svg)
        Image.open(io.BytesIO(png)).verify()
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []


def test_the_same_data_give_the_same_bytes(drawn: list[tuple[bytes, bytes]]) -> None:
    for figure, (svg, png) in zip(every_plot(two_selectors()), drawn, strict=True):
        assert as_svg(figure) == svg
        assert as_png(figure) == png


def test_no_svg_holds_a_date_or_a_script(drawn: list[tuple[bytes, bytes]]) -> None:
    for svg, _ in drawn:
        text = svg.decode()
        assert "dc:date" not in text
        assert "<script" not in text


def test_the_users_settings_of_matplotlib_change_nothing() -> None:
    plain = as_svg(curves(two_selectors()))
    with mpl.rc_context({"font.size": 30, "text.parse_math": True, "svg.fonttype": "none"}):
        assert as_svg(curves(two_selectors())) == plain
        assert mpl.rcParams["font.size"] == 30


@pytest.mark.parametrize("name", [HOSTILE, f"cdal-cs:missing={HOSTILE},region=image"])
def test_hostile_names_are_only_text(name: str) -> None:
    names = {"cat": 0.5, name: 0.4}
    data = results(
        [
            {"selector": name, "seed": 0, "steps": [step(10, 0.4, per_class=names)]},
            {"selector": "random", "seed": 0, "steps": [step(10, 0.5, per_class=names)]},
        ]
    )
    record = parse_record(data)
    for figure in (
        curves(data),
        class_bars(per_class(record), record.metric),
        time_bars(seconds(record)),
    ):
        assert b"<b>" not in as_svg(figure)
        legend = figure.axes[0].get_legend()
        assert legend is not None


def test_learning_curves_show_means_and_bands() -> None:
    axes = curves(two_selectors()).axes[0]
    lines = {str(line.get_label()).strip(): line for line in axes.get_lines()}
    assert np.asarray(lines["cdal-cs"].get_xdata()).tolist() == [10, 20, 30]
    assert np.asarray(lines["cdal-cs"].get_ydata()) == pytest.approx([0.51, 0.73, 0.81])
    # Finals 0.80 and 0.82: 12.706 · 0.01 to each side.
    corners = np.asarray(axes.collections[1].get_paths()[0].vertices)
    heights = corners[corners[:, 0] == 30, 1]
    assert heights.min() == pytest.approx(0.81 - 0.12706, abs=1e-4)
    assert heights.max() == pytest.approx(0.81 + 0.12706, abs=1e-4)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["cdal-cs", "random"]


def test_wide_bands_do_not_hide_the_curves() -> None:
    # Means from 50 to 60 per cent; with seeds 0 and 1, a band from −67 to 187 at 20 labels.
    data = results([run("random", 0, {10: 0.5, 20: 0.5}), run("random", 1, {10: 0.5, 20: 0.7})])
    bottom, top = curves(data).axes[0].get_ylim()
    assert 0.3 < bottom < 0.5
    assert 0.6 < top < 0.8


def test_curves_differ_without_colour() -> None:
    found = looks([f"selector {number}" for number in range(9)])
    assert len({(look.marker, str(look.line)) for look in found.values()}) == 10
    assert len({look.marker for look in found.values()}) == 10


def test_bars_of_classes_have_their_lengths() -> None:
    axes = class_bars(per_class(parse_record(two_selectors())), "accuracy").axes[0]
    widths = [[width_of(bar) for bar in group] for group in axes.containers if len(group) == 2]
    assert [0.73, 0.73] in [pytest.approx(row) for row in widths]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]


def test_of_many_classes_those_that_differ_most_are_drawn() -> None:
    def names(gain: float) -> dict[str, float]:
        return {f"class {n:03}": 0.2 + gain * (n >= 30) for n in range(50)}

    data = results(
        [
            {"selector": name, "seed": 0, "steps": [step(10, 0.2, per_class=names(gain))]}
            for name, gain in (("random", 0.0), ("cdal-cs", 0.3))
        ]
    )
    axes = class_bars(per_class(parse_record(data)), "miou").axes[0]
    drawn = [label.get_text() for label in axes.get_yticklabels()]
    assert drawn == [f"class {n:03}" for n in range(30, 50)]
    assert axes.get_title(loc="left") == "the 20 of 50 classes that differ most"


def test_the_overlap_is_written_into_the_matrix() -> None:
    data = results(
        [
            {"selector": name, "seed": 0, "steps": [step(2, 0.1), step(4, 0.2, picks)]}
            for name, picks in (("a", "123"), ("b", "234"))
        ]
    )
    axes = overlap_matrix(overlap(parse_record(data)), 4).axes[0]
    assert [text.get_text() for text in axes.texts] == ["50", "50"]


def test_time_bars_end_at_the_whole() -> None:
    axes = time_bars(seconds(parse_record(results([run("a", 0, {10: 0.1})])))).axes[0]
    assert [text.get_text() for text in axes.texts] == ["10.0 s"]
    assert sum(width_of(bar) for bar in axes.patches) == pytest.approx(10)


def test_an_embedding_keeps_what_is_near_near() -> None:
    features = np.concatenate([points(20), points(20) + 50])
    found = embed(features)
    assert found.shape == (40, 2)
    assert np.array_equal(found, embed(features))
    inside = np.linalg.norm(found[:20] - found[:20].mean(0), axis=1).max()
    apart = np.linalg.norm(found[:20].mean(0) - found[20:].mean(0))
    assert apart > 2 * inside


@pytest.mark.parametrize("height", [0.0, 1.0, 1e-30, 1e30])
@pytest.mark.parametrize("dimensions", [1, 3])
def test_features_that_are_all_the_same_are_in_one_place(height: float, dimensions: int) -> None:
    assert (embed(np.full((8, dimensions), height, dtype=np.float32)) == 0).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("dimensions", [1, 5])
def test_features_of_any_scale_are_embedded(scale: float, dimensions: int) -> None:
    found = embed((points(8)[:, :dimensions] * scale).astype(np.float32))
    assert np.isfinite(found).all()
    assert np.ptp(found) > 0


def test_picks_are_where_their_images_are() -> None:
    places = points()[:, :2]
    figure = embedding_picks(places, {"core-set": [3, 1], "cdal-cs": []}, [0])
    rest, labelled, picks = (np.asarray(c.get_offsets()) for c in figure.axes[0].collections)
    assert picks == pytest.approx(places[[3, 1]])
    assert labelled == pytest.approx(places[[0]])
    assert len(rest) == 37
    assert len(figure.axes) == 2


def test_the_most_uncertain_mixture_comes_first() -> None:
    figure = mixture_bars([picked()], ["cat", "dog", "emu"])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["a.png", "where predicted as dog", "where predicted as cat"]
    bars = figure.axes[1].patches
    assert [width_of(bar) for bar in bars] == [0.5, 0.5, 0.0]


def one_mixture() -> PickedImage:
    return PickedImage(
        "b.png",
        np.zeros((4, 4, 3), dtype=np.uint8),
        np.full((1, 8), 0.125, dtype=np.float32),
        np.array([True]),
    )


def test_one_mixture_of_the_image() -> None:
    figure = mixture_bars([one_mixture()], [f"class {n}" for n in range(8)])
    assert figure.axes[1].get_title(loc="left") == "whole image"
    names = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert names == ["class 0", "class 1", "class 2", "class 3", "class 4", "all others"]
    assert width_of(figure.axes[1].patches[-1]) == pytest.approx(3 / 8)


@pytest.mark.parametrize(
    "make",
    [
        lambda: picked(mask=np.array([[0, 1, 255, 2] * 2] * 6, dtype=np.uint8)),
        lambda: picked(mask=np.full((6, 8), 255, dtype=np.uint8)),
        lambda: picked(mask=np.zeros((6, 8), dtype=np.uint8)),
        lambda: picked(boxes=np.array([[1, 1, 5, 4, 1], [0, 0, 8, 6, 2]], dtype=np.float32)),
        lambda: picked(boxes=np.zeros((0, 5), dtype=np.float32)),
    ],
)
def test_regions_of_every_task_are_drawn(make: Callable[[], PickedImage]) -> None:
    picture = make()
    figure = mixture_bars([picture], ["cat", "dog", "emu"])
    as_png(figure)
    if picture.boxes is not None:
        assert len(figure.axes[0].patches) == len(picture.boxes)
    if picture.mask is not None:
        known = set(np.unique(picture.mask).tolist()) - {255}
        assert len(figure.axes[0].collections) >= len(known)


def test_a_model_that_saw_no_region_has_no_bars() -> None:
    nothing = PickedImage(
        "c.png",
        np.zeros((4, 4, 3), dtype=np.uint8),
        np.zeros((2, 2), dtype=np.float32),
        np.array([False, False]),
    )
    as_png(mixture_bars([nothing], ["cat", "dog"]))
    as_png(mixture_bars([], ["cat", "dog"]))


def test_a_small_picture_is_an_svg_and_a_large_one_a_png() -> None:
    assert picture(curves(two_selectors()), "x").media_type == "image/svg+xml"
    many = embedding_picks(np.tile(points(3000)[:, :2], (2, 1)), {"a": [0], "b": [1]})
    found = picture(many, "x")
    assert found.media_type == "image/png"
    assert found.url.startswith("data:image/png;base64,")


def test_labels_are_short_and_on_one_line() -> None:
    assert legend_label("a\nb\x00") == "a b"
    assert len(legend_label("x" * 500)) == LONGEST
    assert legend_label("_hidden") == " _hidden"
