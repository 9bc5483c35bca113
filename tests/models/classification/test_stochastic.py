"""Several opinions of one head: dropped features, and a committee."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cdal.models import make_network
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.classification.head import ClassificationHead
from cdal.models.classification.stochastic import Committee, dropout_passes
from cdal.models.features import ImageFeatures, LabelledFeatures


@pytest.fixture(scope="module")
def head() -> ClassificationHead:
    """A head that takes an image for "dog" if its first feature is large."""
    made = make_network("classification", DEFAULT_BACKBONE, ("cat", "dog"), 32)
    assert isinstance(made, ClassificationHead)
    weight = torch.zeros(2, made.backbone.record.features)
    weight[1, 0] = 2.0
    made.module.load_state_dict({"weight": weight, "bias": torch.tensor([1.0, 0.0])})
    return made


def vectors(head: ClassificationHead, *firsts: float) -> Tensor:
    """Images with these first features."""
    made = torch.zeros(len(firsts), head.backbone.record.features)
    made[:, 0] = torch.tensor(firsts)
    return made


def test_half_of_the_features_drop_out_and_the_others_count_double(
    head: ClassificationHead,
) -> None:
    said = dropout_passes(head, vectors(head, 1.0), passes=1000)[0, :, 1]
    # The logits of "dog" against "cat" are 4 - 1 where the feature stays, and else -1.
    stays = said > 0.5
    assert said[stays].allclose(torch.tensor(3.0).sigmoid(), atol=1e-6)
    assert said[~stays].allclose(torch.tensor(-1.0).sigmoid(), atol=1e-6)
    assert 0.44 < stays.float().mean() < 0.56  # four standard errors


def test_passes_follow_the_seed(head: ClassificationHead) -> None:
    images = vectors(head, 0.5, 1.0, 2.0)
    once = dropout_passes(head, images, seed=3)
    assert once.shape == (3, 10, 2)
    assert torch.equal(once, dropout_passes(head, images, seed=3))
    assert not torch.equal(once, dropout_passes(head, images, seed=4))


def test_each_member_of_a_committee_has_learnt_from_other_draws(
    head: ClassificationHead, tmp_path: Path
) -> None:
    seen = vectors(head, *[0.1 * n for n in range(10)], *[5 + 0.1 * n for n in range(10)])
    data = LabelledFeatures(
        head.extraction,
        [ImageFeatures((row.half(),), (32, 32)) for row in seen],
        [torch.tensor(int(row >= 10)) for row in range(20)],
    )
    before = {name: value.clone() for name, value in head.module.state_dict().items()}
    committee = Committee.train(head, data, seed=1, members=8)
    assert all(torch.equal(head.module.state_dict()[name], before[name]) for name in before)
    said = committee.opinions(vectors(head, 0.0, 2.9, 6.0))
    assert said.shape == (3, 8, 2)
    assert (said[0, :, 0] > 0.7).all()
    assert (said[2, :, 1] > 0.7).all()
    assert len(set(said[1, :, 1].tolist())) == 8
    again = Committee.train(head, data, seed=1, members=8)
    assert torch.equal(again.weight, committee.weight)
    assert not torch.equal(Committee.train(head, data, seed=2, members=8).weight, committee.weight)
    committee.save(tmp_path)
    kept = Committee.load(tmp_path)
    assert kept is not None
    assert torch.equal(kept.opinions(seen), committee.opinions(seen))


def test_a_committee_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert Committee.load(tmp_path) is None
    (tmp_path / "committee.safetensors").write_bytes(b"damaged")
    assert Committee.load(tmp_path) is None
