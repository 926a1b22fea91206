"""The same values as the losses of other toolkits; they are installed without their dependencies, by `make test`."""

from __future__ import annotations

import pytest
import sklearn
import torch

from mutualign.nn import losses

pytestmark = [
    pytest.mark.usefixtures("torchvision_operators"),  # the peers import torchvision
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
]


@pytest.fixture(autouse=True)
def sklearn_settings():
    """skada changes a setting of scikit-learn when it is imported."""
    with sklearn.config_context():
        yield


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 5, generator=generator), torch.randn(8, 5, generator=generator) + 0.3


def peer(name):
    from pytorch_adapt import layers

    return getattr(layers, name)


def test_class_confusion_is_pytorch_adapts_and_skadas(rows):
    assert float(losses.class_confusion(rows[0], 2.5)) == pytest.approx(
        float(peer("MCCLoss")(T=2.5)(rows[0])), rel=1e-5
    )
    from skada.deep.losses import mcc_loss

    assert float(losses.class_confusion(rows[0], 2.5)) == pytest.approx(float(mcc_loss(rows[0], T=2.5)), rel=1e-4)


def test_the_nuclear_norm_is_pytorch_adapts(rows):
    assert float(losses.batch_nuclear_norm(rows[0])) == pytest.approx(float(peer("BNMLoss")()(rows[0])), rel=1e-5)


def test_entropy_and_information_are_pytorch_adapts(rows):
    entropy, diversity = peer("EntropyLoss")(), peer("DiversityLoss")()
    assert float(losses.entropy_minimisation(rows[0])) == pytest.approx(float(entropy(rows[0])), rel=1e-5)
    expected = float(entropy(rows[0])) + float(diversity(rows[0]))
    assert float(losses.information_maximisation(rows[0])) == pytest.approx(expected, rel=1e-4)


def test_coral_is_pytorch_adapts_and_skadas(rows):
    assert float(losses.coral(*rows)) == pytest.approx(float(peer("CORALLoss")()(*rows)), rel=1e-5)
    from skada.deep.losses import deepcoral_loss

    assert float(losses.coral(*rows)) == pytest.approx(float(deepcoral_loss(*rows)), rel=1e-5)


def test_the_feature_norm_is_pytorch_adapts(rows):
    assert float(losses.stepwise_feature_norm(rows[0])) == pytest.approx(
        float(peer("AdaptiveFeatureNorm")(1.0)(rows[0])), rel=1e-5
    )


def test_the_classifier_discrepancy_is_pytorch_adapts(rows):
    expected = peer("MCDLoss")()(*rows)
    assert float(losses.classifier_discrepancy(*rows)) == pytest.approx(float(expected), rel=1e-5)


def test_the_spectral_penalty_is_pytorch_adapts(rows):
    expected = peer("BatchSpectralLoss")(k=2)(rows[0])
    assert float(losses.batch_spectral_penalty(rows[0], 2)) == pytest.approx(float(expected), rel=1e-4)


def test_transport_is_skadas(rows):
    from skada.deep.losses import deepjdot_loss

    labels, logits = torch.arange(8) % 3, torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    expected = deepjdot_loss(labels, logits, rows[0], rows[1], 0.3, 0.7)
    found = losses.transport_cost(rows[0], labels, rows[1], logits, 0.3, 0.7)
    assert float(found) == pytest.approx(float(expected), rel=1e-3)
