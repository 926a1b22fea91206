"""The label-free scores against closed forms and loops."""

from __future__ import annotations

import math

import pytest
import torch

from mutualign.evaluation.validators import (
    DEFAULT_VALIDATOR,
    VALIDATORS,
    ValidatorInputs,
    augmentation_consistency,
    class_ami,
    combined,
    coverage,
    deep_embedded_validation,
    entropy,
    information_maximisation,
    kept_information,
    mano,
    nuclear_norm,
    scores,
    soft_neighbourhood_density,
    source_accuracy,
    target_entropy,
)

SURE = 1e4  # a logit that makes a softmax one-hot in double precision


def one_hot(labels, classes):
    return SURE * torch.nn.functional.one_hot(torch.tensor(labels), classes).float()


def seen(logits, features=None, **others):
    """ValidatorInputs of target logits; what is not given is random, or as many zeros."""
    rng = torch.Generator().manual_seed(0)
    n, classes = logits.shape
    features = torch.randn(n, 6, generator=rng) if features is None else features
    width = features.shape[1]
    return ValidatorInputs(
        **{
            "target_logits": logits,
            "target_features": features,
            "view_logits": logits,
            "source_logits": torch.zeros(4, classes),
            "source_features": torch.randn(4, width, generator=rng),
            "source_labels": torch.zeros(4, dtype=torch.int64),
            "trained_features": torch.randn(9, width, generator=rng),
            **others,
        }
    )


def some_evidence(seed=0, n=40, classes=4, width=6, shift=0.5):
    """Random evidence of two overlapping domains."""
    rng = torch.Generator().manual_seed(seed)

    def randn(rows, columns):
        return torch.randn(rows, columns, generator=rng)

    return ValidatorInputs(
        target_logits=3 * randn(n, classes),
        target_features=randn(n, width) + shift,
        view_logits=3 * randn(n, classes),
        source_logits=2 * randn(n + 3, classes),
        source_features=randn(n + 3, width),
        source_labels=torch.randint(classes, (n + 3,), generator=rng),
        trained_features=randn(n + 5, width),
    )


def naive_probabilities(logits):
    rows = []
    for row in logits.double().tolist():
        exponentials = [math.exp(value - max(row)) for value in row]
        rows.append([e / sum(exponentials) for e in exponentials])
    return rows


def naive_entropy(probabilities):
    return -sum(p * math.log(p) for p in probabilities if p > 0)


@pytest.mark.parametrize("classes", [2, 10])
def test_uniform_predictions_have_entropy_ln_classes_and_no_information(classes):
    logits = torch.full((20, classes), 3.7)
    assert target_entropy(seen(logits)) == pytest.approx(-math.log(classes))
    assert information_maximisation(seen(logits)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 10])
def test_sure_predictions_spread_over_the_classes_have_ln_classes_of_information(classes):
    logits = one_hot(list(range(classes)) * 3, classes)
    assert target_entropy(seen(logits)) == pytest.approx(0, abs=1e-9)
    assert information_maximisation(seen(logits)) == pytest.approx(math.log(classes))


def test_a_collapse_to_one_class_has_the_highest_negative_entropy_and_no_information():
    collapsed, good = one_hot([4] * 30, 10), one_hot(list(range(10)) * 3, 10) / SURE * 3
    assert target_entropy(seen(collapsed)) == pytest.approx(0, abs=1e-9)
    assert target_entropy(seen(collapsed)) > target_entropy(seen(good))
    assert information_maximisation(seen(collapsed)) == pytest.approx(0, abs=1e-9)
    assert information_maximisation(seen(collapsed)) < information_maximisation(seen(good))


def test_sure_predictions_in_known_shares_have_the_entropy_of_the_shares():
    logits = one_hot([0] * 5 + [1] * 3 + [2] * 2, 4)
    assert information_maximisation(seen(logits)) == pytest.approx(naive_entropy([0.5, 0.3, 0.2]))


def test_the_scores_are_those_of_a_loop_over_the_images():
    torch.manual_seed(0)
    logits = 3 * torch.randn(40, 7)
    rows = naive_probabilities(logits)
    mean_of_entropies = sum(map(naive_entropy, rows)) / 40
    mean = [sum(row[c] for row in rows) / 40 for c in range(7)]
    assert target_entropy(seen(logits)) == pytest.approx(-mean_of_entropies)
    assert information_maximisation(seen(logits)) == pytest.approx(naive_entropy(mean) - mean_of_entropies)


def test_entropy_is_taken_over_the_last_dimension():
    probabilities = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.9, 0.1]]], dtype=torch.float64)
    expected = [[naive_entropy(row) for row in rows] for rows in probabilities.tolist()]
    assert torch.allclose(entropy(probabilities), torch.tensor(expected, dtype=torch.float64))


# The others against loops ---------------------------------------------------------------------------------------------


def test_the_nuclear_norm_is_that_of_known_matrices():
    same = one_hot([2] * 9, 3)  # rank 1: one singular value, sqrt(9)
    assert nuclear_norm(seen(same)) == pytest.approx(3 / 9)
    spread = one_hot([0] * 4 + [1] * 9 + [2] * 16, 3)  # orthogonal columns of lengths 2, 3, 4
    assert nuclear_norm(seen(spread)) == pytest.approx((2 + 3 + 4) / 29)
    uniform = torch.zeros(8, 2)  # rank 1: every entry 1/2, the Frobenius norm is sqrt(16 / 4)
    assert nuclear_norm(seen(uniform)) == pytest.approx(2 / 8)


def test_the_density_of_neighbourhoods_is_that_of_a_loop_over_pairs():
    features = some_evidence().target_features
    rows = (features / features.norm(dim=1, keepdim=True)).double().tolist()
    total = 0.0
    for i, a in enumerate(rows):
        cosines = [sum(x * y for x, y in zip(a, b, strict=True)) for j, b in enumerate(rows) if j != i]
        weights = [math.exp((c - max(cosines)) / 0.05) for c in cosines]
        total += naive_entropy([w / sum(weights) for w in weights])
    found = soft_neighbourhood_density(seen(torch.zeros(40, 4), features))
    assert found == pytest.approx(total / 40, rel=1e-4)


def test_equal_features_are_all_neighbours_and_one_image_has_none():
    assert soft_neighbourhood_density(seen(torch.zeros(6, 2), torch.ones(6, 3))) == pytest.approx(math.log(5))
    assert soft_neighbourhood_density(seen(torch.zeros(1, 2), torch.ones(1, 3))) == 0


def test_predictions_that_are_the_clusters_score_one_and_unrelated_ones_about_zero():
    labels = torch.arange(300) % 3
    rng = torch.Generator().manual_seed(0)
    features = 10 * torch.eye(3)[labels] + torch.randn(300, 3, generator=rng)
    assert class_ami(seen(one_hot(labels.tolist(), 3), features)) == pytest.approx(1)
    renamed = (labels + 1) % 3
    assert class_ami(seen(one_hot(renamed.tolist(), 3), features)) == pytest.approx(1)
    unrelated = torch.randint(3, (300,), generator=rng)
    assert abs(class_ami(seen(one_hot(unrelated.tolist(), 3), features))) < 0.05


def test_fewer_distinct_images_than_classes_say_nothing_of_clusters():
    assert class_ami(seen(torch.zeros(5, 3), torch.ones(5, 2))) == 0


def test_mano_is_the_fourth_norm_of_the_probabilities():
    logits = some_evidence().target_logits
    powers = [p**4 for row in naive_probabilities(logits) for p in row]
    assert mano(seen(logits)) == pytest.approx((sum(powers) / len(powers)) ** 0.25)
    assert mano(seen(one_hot([0, 1], 2))) == pytest.approx(0.5**0.25)


def test_dev_is_its_formula_with_the_weights_of_a_logistic_regression():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    evidence = some_evidence()
    trained, target = evidence.trained_features.double().numpy(), evidence.target_features.double().numpy()
    scaler = StandardScaler().fit([*trained, *target])
    model = LogisticRegression(tol=1e-10, max_iter=1000).fit(scaler.transform([*trained, *target]), [0] * 45 + [1] * 40)
    chances = model.predict_proba(scaler.transform(evidence.source_features.double().numpy()))
    weights = [p1 / p0 * 45 / 40 for p0, p1 in chances.tolist()]
    rows = naive_probabilities(evidence.source_logits)
    losses = [-math.log(row[label]) for row, label in zip(rows, evidence.source_labels.tolist(), strict=True)]
    weighted = [w * loss for w, loss in zip(weights, losses, strict=True)]
    n, mean_w, mean_wl = 43, sum(weights) / 43, sum(weighted) / 43
    covariance = sum((a - mean_wl) * (w - mean_w) for a, w in zip(weighted, weights, strict=True)) / n
    eta = -covariance / (sum((w - mean_w) ** 2 for w in weights) / n)
    assert deep_embedded_validation(evidence) == pytest.approx(-(mean_wl + eta * mean_w - eta), rel=1e-6)


def test_dev_of_equal_domains_is_the_source_risk():
    """Domains that no feature tells apart have weights of 1, and a control variate of 0."""
    evidence = some_evidence()
    blind = dict.fromkeys(("target_features", "source_features", "trained_features"))
    for key in blind:
        blind[key] = torch.ones(len(getattr(evidence, key)), 2)
    evidence = ValidatorInputs(**{**vars(evidence), **blind})
    risk = torch.nn.functional.cross_entropy(evidence.source_logits.double(), evidence.source_labels).item()
    assert deep_embedded_validation(evidence) == pytest.approx(-risk, rel=1e-3)


def test_shares_are_counted():
    logits = torch.tensor([[3.0, 0.0], [0.0, 0.5], [0.0, 9.0], [2.0, 0.0]])  # top probabilities .95 .62 1 .88
    views = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    evidence = seen(logits, view_logits=views, source_logits=logits, source_labels=torch.tensor([0, 1, 1, 1]))
    assert coverage(evidence) == 0.5
    assert coverage(evidence, threshold=0.6) == 1.0
    assert augmentation_consistency(evidence) == 0.5
    assert source_accuracy(evidence) == 0.75


def test_kept_information_is_fanos_bound_and_nothing_where_all_predictions_are_the_same():
    assert kept_information([0.1] * 10, 1.0) == pytest.approx(math.log(10))
    assert kept_information([1.0, 0.0], 1.0) == pytest.approx(0)
    # two classes, a tenth changes: ln 2 - h(0.1), the capacity of a binary symmetric channel
    assert kept_information([0.5, 0.5], 0.9) == pytest.approx(math.log(2) - naive_entropy([0.1, 0.9]))


def test_kept_information_is_below_the_mutual_information_of_the_predictions():
    rng = torch.Generator().manual_seed(0)
    joint = torch.rand(5, 5, generator=rng, dtype=torch.float64) + 4 * torch.eye(5)
    joint /= joint.sum()
    independent = joint.sum(1, keepdim=True) * joint.sum(0)
    information = float((joint * (joint / independent).log()).sum())
    assert 0 < kept_information(joint.sum(1).tolist(), float(joint.trace())) <= information


def test_the_combined_score_is_the_sum_of_its_parts():
    evidence = some_evidence()
    predicted = evidence.target_logits.argmax(1).tolist()
    shares = [predicted.count(label) / len(predicted) for label in range(4)]
    kept = kept_information(shares, augmentation_consistency(evidence))
    expected = (information_maximisation(evidence) + kept) / math.log(4) + source_accuracy(evidence)
    assert combined(evidence) == pytest.approx(expected)
    perfect = one_hot([0, 1, 2, 3], 4)
    assert combined(seen(perfect, source_logits=perfect, source_labels=torch.arange(4))) == pytest.approx(3)


# All of them ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VALIDATORS)
def test_the_order_of_the_images_does_not_matter(name):
    evidence = some_evidence()
    rng = torch.Generator().manual_seed(3)
    orders = {group: torch.randperm(n, generator=rng) for group, n in (("target", 40), ("source", 43), ("trained", 45))}
    orders["view"] = orders["target"]
    shuffled = ValidatorInputs(**{key: value[orders[key.split("_")[0]]] for key, value in vars(evidence).items()})
    tolerance = 0.1 if name == "class_ami" else 1e-6  # k-means begins at images that are drawn by their place
    assert VALIDATORS[name](shuffled) == pytest.approx(VALIDATORS[name](evidence), abs=tolerance)


@pytest.mark.parametrize("name", VALIDATORS)
def test_the_names_of_the_classes_do_not_matter(name):
    evidence = some_evidence()
    renaming = torch.tensor([2, 0, 3, 1])
    renamed = {
        key: value[:, renaming.argsort()] if key.endswith("logits") else value for key, value in vars(evidence).items()
    } | {"source_labels": renaming[evidence.source_labels]}
    assert VALIDATORS[name](ValidatorInputs(**renamed)) == pytest.approx(VALIDATORS[name](evidence), abs=1e-9)


@pytest.mark.parametrize(("n", "classes"), [(30, 1), (1, 4), (1, 1), (2, 30)])
@pytest.mark.parametrize("name", VALIDATORS)
def test_a_score_is_finite_for_one_class_or_one_image(name, n, classes):
    assert math.isfinite(VALIDATORS[name](some_evidence(n=n, classes=classes)))


@pytest.mark.parametrize("name", VALIDATORS)
def test_a_score_is_finite_on_extreme_logits_and_features(name):
    logits = torch.tensor([[1e30, -1e30, 0.0], [-1e30, -1e30, -1e30], [1e30, 1e30, 1e30]])
    features = torch.tensor([[1e15, 0.0], [-1e15, 1.0], [0.0, 0.0]])
    evidence = ValidatorInputs(logits, features, logits, logits, features, torch.tensor([0, 1, 2]), features)
    assert math.isfinite(VALIDATORS[name](evidence))


def test_evidence_has_no_place_for_target_labels():
    assert [name for name in ValidatorInputs.__annotations__ if "label" in name] == ["source_labels"]


def test_the_default_is_one_of_the_validators():
    assert DEFAULT_VALIDATOR in VALIDATORS
    evidence = some_evidence()
    assert scores(evidence) == {name: validator(evidence) for name, validator in VALIDATORS.items()}
