"""Every error knows what a person can do about it."""

from __future__ import annotations

import pytest

from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.errors import (
    BackendError,
    ImageError,
    ImagesAwayError,
    LabelingError,
    LabelStudioError,
    SettingsError,
)
from cdal.backend.settings import ProjectSettings

TWO_CONTROLS = """
<View>
  <Image name="image" value="$image"/>
  <Choices name="pet" toName="image"><Choice value="cat"/><Choice value="dog"/></Choices>
  <RectangleLabels name="box" toName="image"><Label value="cat"/></RectangleLabels>
</View>
"""


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (LabelStudioError("No answer."), "check that Label Studio runs"),
        (LabelStudioError("It is being restarted.", 502), "check that Label Studio runs"),
        (LabelStudioError("Too many requests.", 429), "check that Label Studio runs"),
        (LabelStudioError("Refused.", 401), "LABEL_STUDIO_API_KEY"),
        (LabelStudioError("Refused.", 403), "LABEL_STUDIO_API_KEY"),
        (LabelStudioError("Gone.", 404), "connect the project again"),
        (LabelStudioError("Refused.", 400), "start the step again"),
        (LabelStudioError("No token.", advice="set it."), "set it."),
        (SettingsError("Impossible."), 'under "Settings"'),
        (LabelingError("No image."), "change the labeling interface"),
        (ImageError("Damaged."), "fix the image or remove its task"),
        (ImageError("No answer.", passes=True), "reach the host of the images"),
        (
            ImagesAwayError({7: ImageError("No answer.", passes=True)}, 9),
            "reach the host of the images",
        ),
        (BackendError("Something else."), "start the step again"),
    ],
)
def test_advice(error: BackendError, advice: str) -> None:
    assert advice in error.advice


def test_which_control_is_served_is_changed_in_the_settings() -> None:
    with pytest.raises(LabelingError) as caught:
        served_control(TWO_CONTROLS, "nothing")
    assert 'under "Settings"' in caught.value.advice


def test_a_wrong_setting_is_changed_in_the_settings() -> None:
    with pytest.raises(SettingsError) as caught:
        ProjectSettings.parse({"budget": 0})
    assert 'under "Settings"' in caught.value.advice


def test_advice_on_one_error_does_not_change_its_class() -> None:
    assert LabelingError("One.", advice="do this.").advice == "do this."
    assert "labeling interface" in LabelingError("Another.").advice
