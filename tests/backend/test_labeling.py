"""Which labeling configs can be served, and the sentence for those that can't."""

from __future__ import annotations

import pytest

from cdal.backend.labeling import Control, LabelingError, served_control

IMAGE = '<Image name="image" value="$photo"/>'
CHOICES = '<Choices name="pet" toName="image"><Choice value="cat"/><Choice value="dog"/></Choices>'


def config(*tags: str) -> str:
    return f"<View>{''.join(tags)}</View>"


def with_attribute(attribute: str) -> str:
    return config(IMAGE, CHOICES.replace("<Choices", f"<Choices {attribute}"))


def refusal(text: str) -> str:
    with pytest.raises(LabelingError) as caught:
        served_control(text)
    return str(caught.value)


def test_the_control_and_its_image() -> None:
    assert served_control(config(IMAGE, CHOICES)) == Control(
        tag="Choices",
        from_name="pet",
        to_name="image",
        image_key="photo",
        labels=("cat", "dog"),
    )


def test_the_classes_keep_the_configs_order_and_aliases() -> None:
    choices = '<Choices name="c" toName="image"><Choice value="z" alias="Z1"/><Choice value="a"/>'
    assert served_control(config(IMAGE, choices + "</Choices>")).labels == ("Z1", "a")


@pytest.mark.parametrize("attribute", ['choice="single"', 'choice="single-radio"', ""])
def test_one_choice_an_image_is_served(attribute: str) -> None:
    assert served_control(with_attribute(attribute)).from_name == "pet"


def test_what_is_not_served_may_be_there_beside_it() -> None:
    note = '<TextArea name="note" toName="image"/><Header value="Which pet?"/>'
    assert served_control(config(IMAGE, CHOICES, note)).from_name == "pet"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            config('<Image name="image" valueList="$photos"/>', CHOICES),
            "The <Image> «image» shows a list of images (valueList); this backend serves one image "
            'a task: use value="$image".',
        ),
        (
            config('<Image name="image" value="http://x/$photo"/>', CHOICES),
            'The <Image> «image» has value="http://x/$photo"; it must name one field of the '
            'task\'s data, such as value="$image".',
        ),
        (
            config(IMAGE, CHOICES, CHOICES.replace('"pet"', '"mood"')),
            "The image has 2 controls that this backend could serve («pet», «mood»); leave one.",
        ),
        (
            config(IMAGE, '<Choices name="pet" toName="image"/>'),
            "The <Choices> «pet» has no choices; a model needs at least two to choose between.",
        ),
        (
            with_attribute('allowNested="true"'),
            "The <Choices> «pet» has choices within choices (allowNested); this backend serves "
            "one list of choices.",
        ),
        (
            config(IMAGE, CHOICES.replace('"image"', '"other"')),
            "The image has no control that this backend serves (found: none); it serves <Choices>.",
        ),
        (
            "x" * 1_000_001,
            "The labeling config has 1,000,001 characters; the most is 1,000,000.",
        ),
    ],
)
def test_the_sentence(text: str, sentence: str) -> None:
    assert refusal(text) == sentence


@pytest.mark.parametrize("attribute", ['perRegion="true"', 'perregion="true"', 'PERREGION="True"'])
def test_attributes_are_read_in_any_case(attribute: str) -> None:
    assert "asked for each region" in refusal(with_attribute(attribute))


@pytest.mark.parametrize(
    "text", ["<View>", "hello", "<View>" * 5000, "<a/>\x00", "<View>\ud800</View>", "<View/>"]
)
def test_no_text_breaks_the_parser(text: str) -> None:
    assert refusal(text).endswith(".")


def test_entities_are_not_read() -> None:
    """Neither a local file nor a text that grows without bound."""
    text = '<!DOCTYPE v [<!ENTITY e SYSTEM "file:///etc/hostname">]>' + config(IMAGE, "&e;")
    assert refusal(text) == "The labeling config has a <!DOCTYPE> or an <!ENTITY>; remove it."
    assert refusal(text.lower()) == refusal(text)
