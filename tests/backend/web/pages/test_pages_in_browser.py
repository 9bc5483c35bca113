"""The pages in a real browser, on a real loop with a real Label Studio.

The tests share one project and go through it in order, as an admin would.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect
from support.admin import DESKTOP, PHONE, Admin, admin
from support.scenario import Scenario

pytestmark = pytest.mark.label_studio

DRAWN = "[...document.images].some(image => image.complete && image.naturalWidth > 0)"
"""Whether there is an image that was fetched and can be seen."""

LONELIEST = """map => {
    const points = [...map.querySelectorAll("g[data-task]")];
    const far = (a, b) => Math.hypot(a.dataset.x - b.dataset.x, a.dataset.y - b.dataset.y);
    const alone = a => Math.min(...points.filter(b => b !== a).map(b => far(a, b)));
    const free = points.filter(point => "free" in point.dataset);
    return free.reduce((a, b) => (alone(b) > alone(a) ? b : a)).dataset.task;
}"""
"""The task of the point on the map that can be queued and is farthest from its nearest neighbour:
how t-SNE lays points out differs between processors, and the pointer means the nearest."""

PATHS = ["", "/queue", "/pool-map", "/comparison", "/settings", "/confirm/rescore"]


@pytest.fixture(scope="module")
def loop(make_scenario: Callable[..., Scenario]) -> Scenario:
    """Two rounds of CIFAR-10, the second of them open."""
    scenario = make_scenario(48, budget=12, held_out=0.4)
    scenario.wait_for_round(1)
    scenario.label_stream(12)
    scenario.wait_for_round(2)
    return scenario


@pytest.fixture(scope="module")
def ann(chromium: Browser, loop: Scenario) -> Iterator[Admin]:
    with admin(chromium, loop.backend, loop.status()["id"], DESKTOP) as one:
        yield one


def test_the_queue_shows_the_images_and_why_they_come(ann: Admin, loop: Scenario) -> None:
    thumbnails: list[int] = []
    ann.page.on(
        "response",
        lambda r: thumbnails.append(r.status) if r.url.endswith("/thumbnail") else None,
    )
    ann.open("/queue")
    ann.sees("Why these images, and why this one first?")
    first = loop.queue()[0]
    ann.sees(f"The first is task {first}:")
    card = ann.page.locator("#rank-1")
    expect(card.locator("svg.bars")).to_have_attribute("aria-label", re.compile(r"\d+%"))
    address = card.get_by_role("link", name=f"Task {first} in Label Studio").get_attribute("href")
    assert address == f"{loop.label_studio.url}/projects/{loop.number}/data?task={first}"
    ann.page.wait_for_function(DRAWN)
    assert thumbnails
    assert set(thumbnails) == {200}
    # The worker ranks the pool by the other selectors for who looks at it, one after another.
    while not card.locator("details tr").filter(has_text="cdal-cs").count():
        ann.page.wait_for_timeout(500)
        ann.open("/queue")
    card.locator("summary").click()
    expect(card.get_by_role("row", name=re.compile("cdal-cs"))).to_contain_text("1")


def test_images_chosen_on_the_map_come_next(ann: Admin, loop: Scenario) -> None:
    ann.open("/pool-map")
    ann.page.wait_for_selector("#map")  # the page loads itself anew when the map is drawn
    ann.page.wait_for_load_state()  # its script, too
    field = ann.page.locator("#map")
    task = field.evaluate(LONELIEST)
    free = ann.page.locator(f'#map g[data-task="{task}"]')
    free.hover(force=True)
    expect(ann.page.locator("#tip")).to_contain_text(f"Task {task}")
    free.click(force=True)
    ann.sees("Selected: 1 image")
    # By keyboard: to a neighbour, choose it, and take back all of it.
    field.focus()
    ann.page.keyboard.press("ArrowLeft")
    ann.page.keyboard.press("ArrowRight")
    expect(ann.page.locator("#map-said")).to_contain_text("Task")
    ann.page.keyboard.press("Escape")
    ann.sees("Selected: 0 images")
    # Clicking a point low on the map has scrolled the page, which else scrolls back smoothly.
    field.evaluate("map => map.scrollIntoView({ block: 'center', behavior: 'instant' })")
    box = field.bounding_box()
    assert box is not None
    ann.page.mouse.move(box["x"] + 2, box["y"] + 2)
    ann.page.mouse.down()
    ann.page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.7)
    ann.page.mouse.up()
    chosen = [int(t) for t in ann.page.input_value("#chosen-tasks").split(",")]
    assert len(chosen) > 1
    ann.press("Queue them next")
    ann.sees("come first once the queue is rewritten")
    loop.wait("the new queue", lambda _: set(loop.queue()[: len(chosen)]) == set(chosen))
    loop.settle()  # by now Label Studio follows it
    assert loop.annotator().next_task() == loop.queue()[0]


def test_two_selectors_are_compared_and_nothing_is_queued(ann: Admin, loop: Scenario) -> None:
    before = loop.queue()
    ann.open("/comparison")
    ann.page.get_by_label("with").select_option("core-set")
    ann.press("Compare")
    ann.sees("They agree on")
    ann.sees("core-set", "table")
    assert loop.queue() == before


def test_settings_are_checked_and_stored_in_label_studio(ann: Admin, loop: Scenario) -> None:
    ann.open("/settings")
    ann.page.get_by_label("Budget").fill("none")
    ann.press("Save the settings")
    ann.sees('Setting "budget" must be a whole number')
    ann.page.get_by_label("Budget").fill("9")
    ann.page.get_by_label("Epochs").fill("400")
    ann.press("Save the settings")
    ann.sees("The settings are changed: budget 12 → 9, epochs 2 → 400.")
    (connected,) = loop.project.sdk.ml.list(project=loop.number)
    assert (connected.extra_params["budget"], connected.extra_params["epochs"]) == (9, 400)


def test_a_training_is_seen_as_it_runs_and_can_be_cancelled(ann: Admin, loop: Scenario) -> None:
    loop.label_stream(2)
    ann.open()
    ann.page.evaluate("window.notLoadedAnew = true")
    button = ann.page.get_by_role("button", name="Start training")
    button.focus()
    ann.page.keyboard.press("Enter")
    ann.sees("trains on the current labels")
    ann.page.evaluate("window.notLoadedAnew = true")
    state = ann.page.locator("#state .state")
    expect(state).to_have_text(re.compile(r"training, \d+%, .+ left"))
    shown = state.inner_text()
    expect(state).not_to_have_text(shown)
    assert ann.page.evaluate("window.notLoadedAnew")
    ann.press("Cancel the training", "Cancel the job")
    ann.sees("cancelled by somebody at 127.0.0.1", "#events-part")
    loop.settle()
    assert len(loop.status()["versions"]) == 1


def test_a_second_version_and_rolling_back(ann: Admin, loop: Scenario) -> None:
    ann.open("/settings")
    ann.page.get_by_label("Epochs").fill("2")
    ann.page.get_by_label("Tolerance", exact=True).fill("1")  # whatever it has learnt in two epochs
    ann.press("Save the settings")
    ann.sees("epochs 400 → 2")
    ann.open()
    ann.press("Start training")
    ann.sees("Model version 2 serves", "#events-part")
    loop.wait("version 2", lambda s: s["serving_version"] == 2)
    loop.settle()
    ann.open()
    ann.press("Let it serve", "Let it serve")
    ann.sees("Model version 1 serves, by somebody at 127.0.0.1", "#events-part")
    assert loop.status()["serving_version"] == 1
    loop.settle()


def test_a_version_is_exported_and_downloaded(ann: Admin) -> None:
    ann.open()
    ann.page.get_by_title("Write version 1 as safetensors").click()
    ann.sees("the download appears beside it")
    with ann.page.expect_download() as download:  # the link appears without a reload
        ann.page.get_by_title("Download version 1 as safetensors").click()
    with zipfile.ZipFile(download.value.path()) as packed:
        assert {"model.json", "weights.safetensors"} <= set(packed.namelist())


def test_rescoring_asks_for_confirmation(ann: Admin, loop: Scenario) -> None:
    newest = loop.status()["rounds"][-1]
    ann.open()
    ann.page.get_by_role("link", name="Rescore the pool").click()
    ann.sees("This cannot be undone")
    ann.page.get_by_role("link", name="Leave everything as it is").click()
    assert loop.status()["rounds"][-1] == newest
    ann.press("Rescore the pool", "Rescore")
    ann.sees(f"A new order of round {newest['number']} requested by somebody at 127.0.0.1")
    refreshed = newest["refreshes"] + 1
    loop.wait("the new order", lambda s: s["rounds"][-1]["refreshes"] == refreshed)


def test_pause_and_resume(ann: Admin, loop: Scenario) -> None:
    ann.open()
    ann.press("Pause")
    ann.sees("paused, with", "#state")
    assert loop.status()["paused_at"] is not None
    ann.press("Resume")
    ann.sees("is resumed")
    assert loop.status()["paused_at"] is None


def test_an_error_is_shown_with_advice_and_goes_away(ann: Admin, loop: Scenario) -> None:
    ann.open()
    config = loop.project.sdk.projects.get(id=loop.number).label_config
    assert config is not None
    several = config.replace('choice="single"', 'choice="single" perRegion="true"')
    assert several != config
    loop.project.sdk.projects.update(id=loop.number, label_config=several)
    ann.sees("This needs your attention", "#state")
    ann.sees("remove perRegion", "#state")
    ann.sees("change the labeling interface in Label Studio", "#state")
    ann.press("Try the reading again")
    ann.sees("repeats job")
    ann.sees("This needs your attention", "#state")  # it is as wrong as before
    loop.project.sdk.projects.update(id=loop.number, label_config=config)
    expect(ann.page.locator("#state")).not_to_contain_text("This needs your attention")


def test_figures_on_the_page_are_those_of_the_api(ann: Admin, loop: Scenario) -> None:
    loop.settle()
    status = loop.status()
    ann.open()
    assert status["metric"] is not None
    ann.sees(f"{status['metric']['value']:.3f}", "#state")
    ann.sees(f"of {status['tasks']} images", "#state")
    rows = ann.page.locator("#curve-part tbody tr")
    assert rows.count() == len(status["versions"])
    for row, version in zip(rows.all(), reversed(status["versions"]), strict=True):
        expect(row).to_contain_text(f"{version['value']:.3f}")
        expect(row).to_contain_text(version["verdict"])
    expect(ann.page.locator("#people-part")).to_contain_text("admin@example.com")


@pytest.mark.parametrize(("window", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_every_page_is_accessible_fits_and_requests_nothing_elsewhere(
    chromium: Browser, loop: Scenario, window: dict[str, int], scheme: str
) -> None:
    with admin(chromium, loop.backend, loop.status()["id"], window, scheme) as one:
        for path in PATHS:
            one.open(path)
            one.page.wait_for_load_state("networkidle")
            if path == "/pool-map":
                one.page.wait_for_selector("#map")
                one.page.wait_for_load_state()
            assert one.findings() == [], path
            assert one.overflow() <= 0, path
        one.page.goto(f"{loop.backend.url}/")
        expect(one.page).to_have_url(f"{loop.backend.url}/projects")
        assert one.findings() == []
        assert one.elsewhere == []
        assert one.faults == []


def test_everything_can_be_reached_by_keyboard(chromium: Browser, loop: Scenario) -> None:
    with admin(chromium, loop.backend, loop.status()["id"], DESKTOP) as one:
        one.open()
        one.page.keyboard.press("Tab")
        expect(one.page.get_by_role("link", name="Skip to the content")).to_be_focused()
        one.page.keyboard.press("Enter")
        one.page.keyboard.press("Tab")
        expect(one.page.get_by_role("link", name="Open in Label Studio")).to_be_focused()
        one.page.keyboard.press("Tab")
        expect(one.page.get_by_role("button", name="Start training")).to_be_focused()


def test_nothing_was_requested_elsewhere_and_no_script_failed(ann: Admin) -> None:
    assert ann.elsewhere == []
    # A form that is refused is a failed request to the console, too.
    assert [fault for fault in ann.faults if "400 (BAD REQUEST)" not in fault] == []
