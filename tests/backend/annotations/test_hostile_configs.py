"""Labeling configs meant to break, stall or spy: each is refused quickly, in one sentence.

One table, and each row comes every way that a config may come: with `/setup`, with `/validate`, and
read from Label Studio's API when the project's config was changed there.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.offline import (
    CONFIG,
    UID,
    FakeLabelStudio,
    add_project,
    job_of,
    make_browser,
    make_services,
    services_of,
)

from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.errors import LabelingError
from cdal.backend.loop.runner import run_job
from cdal.backend.services import Services
from cdal.backend.store.tables import Project
from cdal.backend.web.security import MAX_BODY_BYTES

SOON = 2.5  # seconds of computing; Label Studio waits 3 s for `/setup`
IMAGE = '<Image name="image" value="$photo"/>'
CHOICES = '<Choices name="pet" toName="image"><Choice value="cat"/><Choice value="dog"/></Choices>'


def config(*tags: str) -> str:
    return f"<View>{''.join(tags)}</View>"


def choices(count: int, name: str = "label {}") -> str:
    inner = "".join(f'<Choice value="{name.format(n)}"/>' for n in range(count))
    return config(IMAGE, f'<Choices name="pet" toName="image">{inner}</Choices>')


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
ENTITIES = "The labeling config has a <!DOCTYPE> or an <!ENTITY>; remove it."
HOSTILE = {
    "an entity that grows": (
        f'<!DOCTYPE v [<!ENTITY l0 "ha">{LAUGHS}]>{config(IMAGE, "&l9;")}',
        ENTITIES,
    ),
    "an entity that grows by length": (
        f'<!DOCTYPE v [<!ENTITY a "{"a" * 100_000}">]>{config(IMAGE, "&a;" * 100_000)}',
        ENTITIES,
    ),
    "a local file": (
        f'<!DOCTYPE v [<!ENTITY e SYSTEM "file:///etc/hostname">]>{config(IMAGE, "&e;")}',
        ENTITIES,
    ),
    "a file of the network": (
        f'<!DOCTYPE v [<!ENTITY % e SYSTEM "http://127.0.0.1:1/x.dtd"> %e;]>{config(IMAGE)}',
        ENTITIES,
    ),
    "a DTD elsewhere": (f'<!DOCTYPE v SYSTEM "http://127.0.0.1:1/x.dtd">{config(IMAGE)}', ENTITIES),
    "in lower case": (f'<!doctype v [<!entity e "x">]>{config(IMAGE, "&e;")}', ENTITIES),
    "behind other lines": (f"<!-- -->\n<?x y?>\n<!DOCTYPE\nv>{config(IMAGE)}", ENTITIES),
    "an entity without a DOCTYPE": (
        config(IMAGE, CHOICES, "&e;"),
        "The labeling config cannot be read: Entity 'e' not defined, line 1, column 133.",
    ),
    "another encoding": (
        f'<?xml version="1.0" encoding="utf-16"?>{config(IMAGE, CHOICES)}',
        "The labeling config cannot be read: Unicode strings with encoding declaration are not "
        "supported. Please use bytes input or XML fragments without declaration.",
    ),
    "tags within tags": (
        "<View>" * 5000 + config(IMAGE, CHOICES) + "</View>" * 5000,
        "The labeling config's tags are nested more than 256 deep; make it simpler.",
    ),
    "megabytes": (
        config(IMAGE, CHOICES) + " " * 3_000_000,
        "The labeling config has 3,000,136 characters; the most is 1,000,000.",
    ),
    "too long for a call": (
        config(IMAGE, CHOICES) + " " * 20_000_000,
        "The labeling config has 20,000,136 characters; the most is 1,000,000.",
    ),
    "thousands of labels": (
        choices(5000),
        'The <Choices> "pet" has 5,000 labels; this backend serves at most 1,000 in a '
        "classification.",
    ),
    "as many as fit": (
        choices(34_000),
        'The <Choices> "pet" has 34,000 labels; this backend serves at most 1,000 in a '
        "classification.",
    ),
    "a label like a book": (
        choices(2, "a" * 300_000 + "{}"),
        'The labeling config has a name or label of 300,001 characters ("'
        + "a" * 37
        + '..."); the most is 500.',
    ),
    "a name like a book": (
        config(IMAGE, CHOICES.replace("pet", "p" * 300_000)),
        'The labeling config has a name or label of 300,000 characters ("'
        + "p" * 37
        + '..."); the most is 500.',
    ),
    "thousands of controls": (
        config(IMAGE, *(CHOICES.replace("pet", f"pet{n}") for n in range(5000))),
        'The image has 5000 controls that this backend could serve ("pet0", "pet1", "pet2", '
        '"pet3", "pet4" and 4995 more), and it serves at most 20 together; name one in the '
        'setting "control", such as {"control": "pet0"}.',
    ),
    "thousands of images": (
        config(*(IMAGE.replace('"image"', f'"i{n}"') for n in range(10_000))),
        'The labeling config has 10000 images ("i0", "i1", "i2", "i3", "i4" and 9995 more); this '
        "backend serves configs with one <Image>.",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_it_is_refused(kind: str) -> None:
    text, sentence = HOSTILE[kind]
    began = time.process_time()
    with pytest.raises(LabelingError) as refused:
        served_control(text)
    assert time.process_time() - began < SOON
    assert str(refused.value) == sentence


@pytest.mark.parametrize("kind", HOSTILE)
def test_with_setup_and_validate(kind: str, tmp_path: Path) -> None:
    text, sentence = HOSTILE[kind]
    browser = make_browser(tmp_path)
    began = time.process_time()
    setup = browser.post("/setup", json={"project": UID, "schema": text})
    validate = browser.post("/validate", json={"config": text})
    assert time.process_time() - began < 2 * SOON
    for answer in (setup, validate):
        if len(text) > MAX_BODY_BYTES["/setup"]:  # it is not even read
            assert answer.status_code == 413
        else:
            assert (answer.status_code, answer.get_json()) == (400, {"error": sentence})
    services_of(browser).store.close()


@pytest.mark.parametrize("kind", HOSTILE)
def test_read_from_the_api(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project whose config was changed in Label Studio after it was connected."""
    text, sentence = HOSTILE[kind]
    label_studio = FakeLabelStudio()
    label_studio.info = replace(label_studio.info, labeling_config=text)
    monkeypatch.setattr(Services, "client", lambda *_: label_studio)
    services = make_services(tmp_path)
    project = add_project(services)
    job_id = services.jobs.ask(project.id, "sync", "test")
    began = time.process_time()
    run_job(services, job_id, lambda: False)
    assert time.process_time() - began < SOON
    job = job_of(services, job_id)
    assert (job.state, job.error) == ("failed", sentence)
    with services.store.reading() as session:
        known = session.get_one(Project, project.id)
    assert (known.problem, known.labeling_config) == (sentence, CONFIG)
    services.store.close()


@pytest.mark.parametrize(
    "text",
    [
        f'<?xml-stylesheet href="file:///etc/passwd"?>{config(IMAGE, CHOICES)}',
        '<View xmlns:xi="http://www.w3.org/2001/XInclude">'
        '<xi:include href="file:///etc/passwd" parse="text"/>'
        f"{IMAGE}{CHOICES}</View>",
    ],
)
def test_what_it_names_is_not_read(text: str) -> None:
    assert served_control(text).labels == ("cat", "dog")
