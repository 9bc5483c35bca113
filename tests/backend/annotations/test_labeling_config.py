"""Which labeling configs can be served, and the sentence for those that can't."""

from __future__ import annotations

import pytest

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.labeling_config import served_control, served_controls
from cdal.backend.errors import LabelingError
from cdal.models.predictions import BACKGROUND

IMAGE = '<Image name="image" value="$photo"/>'
CHOICES = '<Choices name="pet" toName="image"><Choice value="cat"/><Choice value="dog"/></Choices>'


def config(*tags: str) -> str:
    return f"<View>{''.join(tags)}</View>"


def with_attribute(attribute: str) -> str:
    return config(IMAGE, CHOICES.replace("<Choices", f"<Choices {attribute}"))


def labels(tag: str, *names: str, attributes: str = "") -> str:
    inner = "".join(f'<Label value="{name}"/>' for name in names)
    return f'<{tag} name="what" toName="image" {attributes}>{inner}</{tag}>'


def refusal(text: str, name: str | None = None) -> str:
    with pytest.raises(LabelingError) as caught:
        served_control(text, name)
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
def test_single_choice_per_image_is_served(attribute: str) -> None:
    assert served_control(with_attribute(attribute)).from_name == "pet"


def test_other_controls_may_stand_beside_it() -> None:
    note = '<TextArea name="note" toName="image"/><Header value="Which pet?"/>'
    assert served_control(config(IMAGE, CHOICES, note)).from_name == "pet"


@pytest.mark.parametrize("field", ["2d_scan", "_1", "scan.2d", "größe"])
def test_the_field_of_the_image_may_have_any_name_that_label_studio_reads(field: str) -> None:
    image = f'<Image name="image" value="${field}"/>'
    assert served_control(config(image, CHOICES)).image_key == field


@pytest.mark.parametrize("value", ["image", "$", "$a-b", "$a $b", "$images[0]", "$a,b", "x$a"])
def test_a_value_that_does_not_name_one_field_is_refused(value: str) -> None:
    text = config(f'<Image name="image" value="{value}"/>', CHOICES)
    assert f'value="{value}"; it must name one field' in refusal(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            config('<Image name="image" valueList="$photos"/>', CHOICES),
            'The <Image> "image" shows a list of images (valueList); this backend serves one image '
            'per task: use value="$image".',
        ),
        (
            config('<Image name="image" value="http://x/$photo"/>', CHOICES),
            'The <Image> "image" has value="http://x/$photo"; it must name one field of the '
            'task\'s data, such as value="$image".',
        ),
        (
            config(IMAGE, '<Choices name="pet" toName="image"/>'),
            'The <Choices> "pet" has no choices; a model needs at least two to choose between.',
        ),
        (
            with_attribute('allowNested="true"'),
            'The <Choices> "pet" has choices within choices (allowNested); this backend serves '
            "one list of choices.",
        ),
        (
            config(IMAGE, CHOICES.replace('"image"', '"other"')),
            "The image has no control that this backend serves (found: none); it serves <Choices>, "
            "<RectangleLabels>, <BrushLabels>, <BitmaskLabels>, <PolygonLabels>.",
        ),
        (
            "x" * 1_000_001,
            "The labeling config has 1,000,001 characters; the most is 1,000,000.",
        ),
    ],
)
def test_the_sentence_that_refuses(text: str, sentence: str) -> None:
    assert refusal(text) == sentence


@pytest.mark.parametrize("attribute", ['perRegion="true"', 'perregion="true"', 'PERREGION="True"'])
def test_attributes_are_read_in_any_case(attribute: str) -> None:
    assert "asked for each region" in refusal(with_attribute(attribute))


@pytest.mark.parametrize(
    "text",
    [
        "<View>",
        "hello",
        "<View>" * 5000,
        "<V>" * 100_000 + "</V>" * 100_000,
        "<a/>\x00",
        "<View>\ud800</View>",
        "<View/>",
    ],
)
def test_no_text_breaks_the_parser(text: str) -> None:
    assert refusal(text).endswith(".")


REGIONS = {
    "RectangleLabels": "detection",
    "BrushLabels": "segmentation",
    "BitmaskLabels": "segmentation",
    "PolygonLabels": "segmentation",
}


@pytest.mark.parametrize("tag", REGIONS)
def test_controls_of_regions(tag: str) -> None:
    control = served_control(config(IMAGE, labels(tag, "cat", "dog")))
    assert control == Control(tag, "what", "image", "photo", ("cat", "dog"))
    assert control.task == REGIONS[tag]
    assert served_control(config(IMAGE, labels(tag, "cat"))).labels == ("cat",)
    assert served_control(config(IMAGE, CHOICES)).task == "classification"


@pytest.mark.parametrize("tag", REGIONS)
def test_labels_that_cannot_be_served(tag: str) -> None:
    assert refusal(config(IMAGE, labels(tag))) == (
        f'The <{tag}> "what" has no labels; a model needs at least one to look for.'
    )
    assert refusal(config(IMAGE, labels(tag, "cat", BACKGROUND))) == (
        f'The <{tag}> "what" has a label "(background)", which is this backend\'s own name for '
        "what has no label; rename it."
    )
    assert refusal(config(IMAGE, labels(tag, attributes='value="$labels"'))) == (
        f'The <{tag}> "what" takes its labels from each task\'s data; this backend needs them in '
        "the labeling config."
    )


def test_a_pixels_class_is_a_byte() -> None:
    names = [f"label {number}" for number in range(255)]
    for tag in ("BrushLabels", "BitmaskLabels", "PolygonLabels"):
        assert len(served_control(config(IMAGE, labels(tag, *names[:254]))).labels) == 254
        assert refusal(config(IMAGE, labels(tag, *names))) == (
            f'The <{tag}> "what" has 255 labels; this backend serves at most 254 in a segmentation.'
        )
    assert len(served_control(config(IMAGE, labels("RectangleLabels", *names))).labels) == 255


BOTH = config(IMAGE, CHOICES, labels("BrushLabels", "cat"))


def test_several_controls_are_served_unless_a_setting_names_one() -> None:
    assert [control.tag for control in served_controls(BOTH)] == ["Choices", "BrushLabels"]
    assert [control.beside for control in served_controls(BOTH)] == [{"what"}, {"pet"}]
    for name, tag in (("pet", "Choices"), ("what", "BrushLabels")):
        (alone,) = served_controls(BOTH, name)
        assert (alone.tag, alone.beside) == (tag, frozenset())


def test_two_controls_of_a_kind_are_served() -> None:
    both = served_controls(config(IMAGE, CHOICES, CHOICES.replace('"pet"', '"mood"')))
    assert [control.from_name for control in both] == ["pet", "mood"]


def test_each_of_several_controls_must_be_one_that_can_be_served() -> None:
    broken = config(IMAGE, CHOICES, labels("BrushLabels"))
    assert '"what" has no labels' in refusal(broken)
    assert served_control(broken, "pet").tag == "Choices"


def test_a_control_that_does_not_exist_cannot_be_chosen() -> None:
    assert refusal(BOTH, "note") == (
        'The image has no control "note" that this backend serves (setting "control"); there are '
        '"pet", "what".'
    )
    assert refusal(config(IMAGE, CHOICES), "image") == (
        'The image has no control "image" that this backend serves (setting "control"); there is '
        '"pet".'
    )
    assert len(refusal(BOTH, "x" * 1000)) < 200


def test_per_region_controls_go_with_the_regions() -> None:
    of_each = CHOICES.replace("<Choices", '<Choices perRegion="true"')
    both = config(IMAGE, of_each, labels("RectangleLabels", "cat"))
    assert served_control(both).tag == "RectangleLabels"
    assert "asked for each region" in refusal(both, "pet")
    assert "asked for each region" in refusal(config(IMAGE, of_each))


@pytest.mark.parametrize("attribute", ['model_skip="true"', 'Model_Skip=" True "'])
def test_a_control_that_models_should_skip_is_not_served(attribute: str) -> None:
    """As other ML backends have it."""
    skipped = labels("RectangleLabels", "cat", attributes=attribute)
    both = config(IMAGE, CHOICES, skipped)
    assert served_control(both).tag == "Choices"
    assert '"what"' in refusal(both, "what")
    assert "model_skip" in refusal(config(IMAGE, skipped))
    kept = labels("RectangleLabels", "cat", attributes='model_skip="false"')
    assert served_control(config(IMAGE, kept)).tag == "RectangleLabels"


def test_a_path_of_weights_is_refused_where_it_would_count() -> None:
    told = refusal(with_attribute('model_path="yolov8n.pt"'))
    assert "yolov8n.pt" in told
    assert '"weights"' in told
    other = labels("RectangleLabels", "cat", attributes='model_path="yolov8n.pt"')
    assert served_control(config(IMAGE, CHOICES, other), "pet").tag == "Choices"


@pytest.mark.parametrize(
    ("text", "threshold"), [("0.25", 0.25), ("0", 0.0), (" 1 ", 1.0), ("", None), (None, None)]
)
@pytest.mark.parametrize("name", ["model_score_threshold", "MODEL_Score_Threshold"])
def test_the_threshold_of_a_control(name: str, text: str | None, threshold: float | None) -> None:
    attribute = "" if text is None else f'{name}="{text}"'
    for tag in REGIONS:
        made = labels(tag, "cat", attributes=attribute)
        assert served_control(config(IMAGE, made)).score_threshold == threshold
    assert served_control(with_attribute(attribute)).score_threshold == threshold


@pytest.mark.parametrize("text", ["-0.1", "1.01", "nan", "inf", "half", "0,5", "9" * 400])
def test_an_invalid_threshold(text: str) -> None:
    shown = text if len(text) <= 40 else "9" * 37 + "..."
    assert refusal(with_attribute(f'model_score_threshold="{text}"')) == (
        f'The <Choices> "pet" has model_score_threshold="{shown}"; it must be a number from 0 to 1.'
    )


def test_names_under_which_a_model_may_know_a_label() -> None:
    inner = (
        '<Label value="cat" predicted_values="kitten, tom cat ,,"/><Label value="dog"/>'
        '<Label value="z" alias="Z1" Predicted_Values="zebra"/>'
        '<Label value="x" predicted_values=""/>'
    )
    made = labels("BrushLabels").replace("></", f">{inner}</")
    control = served_control(config(IMAGE, made))
    assert control.known_as == {"cat": ("kitten", "tom cat"), "Z1": ("z", "zebra")}
    assert control.labels == ("cat", "dog", "Z1", "x")
    assert served_control(config(IMAGE, CHOICES)).known_as == {}
    assert hash(control) != hash(served_control(config(IMAGE, CHOICES)))


def test_a_models_classes_get_the_names_of_the_labels_that_list_them() -> None:
    """One that is a label itself stays that label, and of two labels the first counts."""
    inner = (
        '<Label value="vehicle" predicted_values="car,truck,dog"/>'
        '<Label value="thing" predicted_values="truck"/><Label value="dog"/>'
    )
    control = served_control(config(IMAGE, labels("BrushLabels").replace("></", f">{inner}</")))
    classes = ("dog", "truck", "car", "thing", "sky", BACKGROUND)
    called = ("dog", "vehicle", "vehicle", "thing", "sky", BACKGROUND)
    assert control.names_of(classes) == called


@pytest.mark.parametrize(
    "tag", ["RectangleLabels", "BrushLabels", "BitmaskLabels", "PolygonLabels"]
)
def test_several_labels_per_region_are_refused(tag: str) -> None:
    made = labels(tag, "cat", attributes='choice="multiple"')
    assert "one label per region" in refusal(config(IMAGE, made))
    served_control(config(IMAGE, made.replace("multiple", "single")))
