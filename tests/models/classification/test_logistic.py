from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from cdal.models import ModelError, Stopped
from cdal.models.classification.logistic import FEW, PENALTY, fit_logistic, minimise


def clusters(images: int = 120) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % 3
    centres = 2 * torch.randn(3, 8, generator=draws)
    return centres[labels] + torch.randn(images, 8, generator=draws) * 3 + 5, labels


def test_it_is_what_scikit_learn_finds() -> None:
    features, labels = clusters()
    found = fit_logistic(features, labels, torch.ones(3), penalty=0.1)
    x = (features - features.mean(0)) / features.std(0, correction=0)
    x = functional.pad(x, (0, 1), value=1.0)  # the bias is penalised too
    theirs = LogisticRegression(
        C=1 / (0.1 * len(x)), fit_intercept=False, max_iter=1000, tol=1e-8
    ).fit(x.numpy(), labels.numpy())
    ours = (features @ found.weight.T + found.bias).softmax(1)
    assert ours.numpy() == pytest.approx(theirs.predict_proba(x.numpy()), abs=1e-3)


def test_few_images_are_trusted_less() -> None:
    features, labels = clusters(30)
    usual = fit_logistic(features, labels, torch.ones(3))
    more = fit_logistic(features, labels, torch.ones(3), penalty=PENALTY * FEW / 30)
    assert torch.allclose(usual.weight, more.weight)


def test_a_class_without_images_is_improbable() -> None:
    features, labels = clusters()
    found = fit_logistic(features, labels, torch.tensor([1.0, 1, 1, 0]))
    logits = features @ found.weight.T + found.bias
    assert found.weight.isfinite().all()
    assert (logits.argmax(1) != 3).all()
    assert float(logits.softmax(1)[:, 3].mean()) < 0.1


def test_penalised_biases_make_rare_classes_more_probable_than_they_are_frequent() -> None:
    features, labels = clusters()
    labels = (torch.arange(len(labels)) % 10 == 0).long()  # unrelated to the features
    usual = fit_logistic(features, labels, torch.ones(2), penalty=1.0)
    free = minimise(features, 2, lambda logits: functional.cross_entropy(logits, labels), 1.0, 1e-6)
    rare = [
        float((features @ found.weight.T + found.bias).softmax(1)[:, 1].mean())
        for found in (usual, free)
    ]
    assert rare[1] == pytest.approx(0.1, abs=1e-3)
    assert rare[0] > 0.2


def test_a_feature_that_never_changes_does_no_harm() -> None:
    features, labels = clusters()
    features[:, 0] = 4.0
    assert fit_logistic(features, labels, torch.ones(3)).weight.isfinite().all()


def test_features_that_are_not_finite() -> None:
    features, labels = clusters()
    features[3, 2] = torch.nan
    with pytest.raises(ModelError, match="not all finite"):
        fit_logistic(features, labels, torch.ones(3))


def test_it_stops() -> None:
    features, labels = clusters()
    with pytest.raises(Stopped):
        fit_logistic(features, labels, torch.ones(3), stop=lambda: True)
