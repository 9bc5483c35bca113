from __future__ import annotations

import torch
from test_average_precision import found

from cdal.models.box_confusion import confusion_of_boxes

TRUTH = torch.tensor([[0.0, 0.0, 10.0, 10.0, 0.0], [20.0, 20.0, 40.0, 40.0, 1.0]])


def test_the_most_confident_box_says_what_an_object_is_taken_for() -> None:
    both = found([[0, 0, 10, 11, 1, 0.9], [0, 0, 10, 10, 0, 0.8]])
    assert confusion_of_boxes([both], [TRUTH], 2).tolist() == [[0, 1, 0], [0, 0, 1]]


def test_a_box_that_overlaps_by_less_than_half_is_of_something_else() -> None:
    aside = found([[5, 0, 15, 10, 0, 0.9], [20, 20, 40, 40, 1, 0.1]])
    assert confusion_of_boxes([aside], [TRUTH], 2).tolist() == [[0, 0, 1], [0, 1, 0]]


def test_images_are_counted_together_and_may_be_empty() -> None:
    nothing = found([])
    images = [nothing, found([[0, 0, 10, 10, 0, 0.9]]), nothing]
    targets = [TRUTH, TRUTH, torch.zeros(0, 5)]
    assert confusion_of_boxes(images, targets, 2).tolist() == [[1, 0, 1], [0, 0, 2]]
