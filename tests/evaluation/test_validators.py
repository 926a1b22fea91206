"""Label-free scores against closed forms and naive loops."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from mutualign.evaluation.validators import (
    DEFAULT_VALIDATOR,
    VALIDATORS,
    ValidatorInputs,
    entropy,
    kept_information,
    register_validator,
    scores,
)
from mutualign.evaluation.validators.transfer import angle_deviation, hopkins_statistic

SURE = 1e4  # a logit that makes a softmax one-hot in double precision


def one_hot(labels, classes):
    return SURE * F.one_hot(torch.tensor(labels), classes).float()


def score(name, logits, features=None, **others):
    """Score target logits; what is not given is random or zero."""
    rng = torch.Generator().manual_seed(0)
    n, classes = logits.shape
    features = torch.randn(n, 6, generator=rng) if features is None else features
    width = features.shape[1]
    inputs = {
        "target_logits": logits,
        "target_features": features,
        "view_logits": logits,
        "source_logits": torch.zeros(4, classes),
        "source_features": torch.randn(4, width, generator=rng),
        "source_labels": torch.zeros(4, dtype=torch.int64),
        "trained_features": torch.randn(9, width, generator=rng),
    }
    return VALIDATORS[name](ValidatorInputs(**inputs | others))


def random_inputs(seed=0, n=40, classes=4, width=6, shift=0.5):
    """Random inputs from two overlapping domains."""
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
        class_weights=randn(classes, width),
    )


def naive_probabilities(logits):
    rows = []
    for row in logits.double().tolist():
        exponentials = [math.exp(value - max(row)) for value in row]
        rows.append([e / sum(exponentials) for e in exponentials])
    return rows


def naive_entropy(probabilities):
    return -sum(p * math.log(p) for p in probabilities if p > 0)


# Confidence -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logits", "negative_entropy", "information"),
    [
        (torch.full((20, 10), 3.7), -math.log(10), 0),  # uniform
        (one_hot(list(range(10)) * 3, 10), 0, math.log(10)),  # sure and spread
        (one_hot([4] * 30, 10), 0, 0),  # collapsed
        (one_hot([0] * 5 + [1] * 3 + [2] * 2, 4), 0, naive_entropy([0.5, 0.3, 0.2])),
    ],
)
def test_entropy_and_information_of_known_predictions(logits, negative_entropy, information):
    assert score("target_entropy", logits) == pytest.approx(negative_entropy, abs=1e-9)
    assert score("information_maximisation", logits) == pytest.approx(information, abs=1e-9)


def test_entropy_and_information_equal_a_loop_over_the_images():
    logits = random_inputs().target_logits
    rows = naive_probabilities(logits)
    mean_of_entropies = sum(map(naive_entropy, rows)) / 40
    mean = [sum(row[c] for row in rows) / 40 for c in range(4)]
    assert score("target_entropy", logits) == pytest.approx(-mean_of_entropies)
    assert score("information_maximisation", logits) == pytest.approx(naive_entropy(mean) - mean_of_entropies)
    nested = torch.tensor([[rows[0], rows[1]], [rows[2], rows[3]]])
    assert entropy(nested).flatten().tolist() == pytest.approx([naive_entropy(row) for row in rows[:4]])


def test_the_nuclear_norm_of_known_matrices():
    assert score("nuclear_norm", one_hot([2] * 9, 3)) == pytest.approx(3 / 9)  # rank 1: one singular value, sqrt(9)
    spread = one_hot([0] * 4 + [1] * 9 + [2] * 16, 3)  # orthogonal columns of lengths 2, 3, 4
    assert score("nuclear_norm", spread) == pytest.approx((2 + 3 + 4) / 29)


def test_mano_is_the_fourth_norm_of_the_softmax_or_of_its_taylor_expansion():
    def fourth_norm(rows):
        powers = [p**4 for row in rows for p in row]
        return (sum(powers) / len(powers)) ** 0.25

    far = 20 * random_inputs().target_logits  # cross-entropy with uniform labels: far above 5 nats
    assert score("mano", far) == pytest.approx(fourth_norm(naive_probabilities(far)))
    near = 0.1 * random_inputs().target_logits
    terms = [[1 + q + q * q / 2 for q in row] for row in near.double().tolist()]
    assert score("mano", near) == pytest.approx(fourth_norm([[t / sum(row) for t in row] for row in terms]))


@pytest.mark.parametrize(("difference", "is_softmax"), [(9.8, False), (10.2, True)])
def test_mano_takes_the_softmax_from_a_cross_entropy_of_5_nats_with_uniform_labels(difference, is_softmax):
    logits = torch.tensor([[difference, 0.0]])  # cross-entropy: half of the difference, but for 1e-4
    first = 1 / (1 + math.exp(-difference))
    if not is_softmax:
        first = (expanded := 1 + difference + difference**2 / 2) / (expanded + 1)
    assert score("mano", logits) == pytest.approx(((first**4 + (1 - first) ** 4) / 2) ** 0.25, rel=1e-6)


# Structure ------------------------------------------------------------------------------------------------------------


def test_snd_is_the_entropy_of_neighbours_in_the_space_of_probabilities():
    logits = random_inputs().target_logits
    rows = naive_probabilities(logits)
    total = 0.0
    for i, a in enumerate(rows):
        cosines = [
            sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
            for j, b in enumerate(rows)
            if j != i
        ]
        weights = [math.exp((c - max(cosines)) / 0.05) for c in cosines]
        total += naive_entropy([w / sum(weights) for w in weights])
    assert score("soft_neighbourhood_density", logits) == pytest.approx(total / 40, rel=1e-4)
    assert score("soft_neighbourhood_density", torch.zeros(6, 2)) == pytest.approx(math.log(5))  # five neighbours each
    assert score("soft_neighbourhood_density", torch.zeros(1, 2)) == 0


def test_class_ami_is_one_for_predictions_that_are_the_clusters_and_about_zero_for_unrelated_ones():
    labels = torch.arange(300) % 3
    rng = torch.Generator().manual_seed(0)
    features = 10 * torch.eye(3)[labels] + torch.randn(300, 3, generator=rng)
    assert score("class_ami", one_hot(((labels + 1) % 3).tolist(), 3), features) == pytest.approx(1)
    unrelated = torch.randint(3, (300,), generator=rng)
    assert abs(score("class_ami", one_hot(unrelated.tolist(), 3), features)) < 0.05
    assert score("class_ami", torch.zeros(5, 3), torch.ones(5, 2)) == 0  # fewer distinct images than classes


def test_the_dispersion_score_is_the_logarithm_of_the_spread_of_the_predicted_classes():
    inputs = random_inputs()
    groups, features = {}, inputs.target_features.double()
    for label, row in zip(inputs.target_logits.argmax(1).tolist(), features, strict=True):
        groups.setdefault(label, []).append(row)
    mean, total = features.mean(0), 0.0
    for rows in groups.values():
        total += len(rows) * float(((sum(rows) / len(rows) - mean) ** 2).sum())
    assert VALIDATORS["dispersion_score"](inputs) == pytest.approx(math.log(total / 40 / (len(groups) - 1)))
    apart = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert score("dispersion_score", one_hot([0, 2], 3), apart) == pytest.approx(0)  # two classes at distance 1
    assert score("dispersion_score", one_hot([1, 1], 3), apart) == pytest.approx(math.log(1e-12))


# The Transfer Score ---------------------------------------------------------------------------------------------------


def test_hopkins_statistic_tells_clusters_from_an_even_spread():
    rng = torch.Generator().manual_seed(0)
    even = torch.rand(2000, 2, generator=rng)
    assert hopkins_statistic(even) == pytest.approx(0.5, abs=0.05)
    clusters = 10 * torch.eye(4)[torch.arange(400) % 4] + 0.01 * torch.randn(400, 4, generator=rng)
    assert hopkins_statistic(clusters) > 0.95
    lattice = torch.cartesian_prod(torch.arange(20.0), torch.arange(20.0))  # any image's neighbour is at distance 1,
    assert hopkins_statistic(lattice) == pytest.approx(
        0.3826 / 1.3826, abs=0.02
    )  # a point's in a unit square at 0.3826
    assert hopkins_statistic(torch.ones(5, 3)) == hopkins_statistic(torch.ones(1, 3)) == 0.5


def test_angles_deviate_by_nothing_in_a_simplex_and_by_known_values_elsewhere():
    simplex = torch.eye(5) - 1 / 5
    assert angle_deviation(3 * simplex) == pytest.approx(0, abs=1e-12)
    assert angle_deviation(torch.eye(3)) == pytest.approx((math.pi / 2 - math.acos(-0.5)) ** 2)
    same_and_opposite = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])  # angles 0, pi, pi; 2 pi / 3 is the best
    best = 2 * math.pi / 3
    assert angle_deviation(same_and_opposite) == pytest.approx((best**2 + 2 * (math.pi - best) ** 2) / 3)


def test_the_transfer_score_is_the_sum_of_its_parts():
    inputs = random_inputs()
    clusters = hopkins_statistic(inputs.target_features)
    information = VALIDATORS["information_maximisation"](inputs) / math.log(4)
    angles = angle_deviation(inputs.class_weights)
    assert VALIDATORS["transfer_score"](inputs) == pytest.approx(clusters + information - angles)
    unknown = dataclasses.replace(inputs, class_weights=None)
    assert VALIDATORS["transfer_score"](unknown) == pytest.approx(clusters + information)


# Source ---------------------------------------------------------------------------------------------------------------


def test_dev_equals_its_formula_with_the_weights_of_a_logistic_regression():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    inputs = random_inputs()
    trained, target = inputs.trained_features.double().numpy(), inputs.target_features.double().numpy()
    scaler = StandardScaler().fit([*trained, *target])
    model = LogisticRegression(tol=1e-10, max_iter=1000).fit(scaler.transform([*trained, *target]), [0] * 45 + [1] * 40)
    chances = model.predict_proba(scaler.transform(inputs.source_features.double().numpy()))
    weights = [p1 / p0 * 45 / 40 for p0, p1 in chances.tolist()]
    rows = naive_probabilities(inputs.source_logits)
    losses = [-math.log(row[label]) for row, label in zip(rows, inputs.source_labels.tolist(), strict=True)]
    weighted = [w * loss for w, loss in zip(weights, losses, strict=True)]
    n, mean_w, mean_wl = 43, sum(weights) / 43, sum(weighted) / 43
    covariance = sum((a - mean_wl) * (w - mean_w) for a, w in zip(weighted, weights, strict=True)) / n
    eta = -covariance / (sum((w - mean_w) ** 2 for w in weights) / n)
    assert VALIDATORS["deep_embedded_validation"](inputs) == pytest.approx(-(mean_wl + eta * mean_w - eta), rel=1e-6)


def test_dev_of_domains_with_equal_features_is_the_source_risk():
    inputs = random_inputs()
    names = ("target_features", "source_features", "trained_features")
    blind = dataclasses.replace(inputs, **{name: torch.ones(len(getattr(inputs, name)), 2) for name in names})
    risk = F.cross_entropy(inputs.source_logits.double(), inputs.source_labels).item()
    assert VALIDATORS["deep_embedded_validation"](blind) == pytest.approx(-risk, rel=1e-3)


def test_dev_weighs_a_source_image_that_is_certainly_of_the_target_e_to_the_20_times():
    inputs = random_inputs()
    far = dataclasses.replace(inputs, source_features=1e9 * inputs.target_features.mean(0).expand(43, 6))
    risk = F.cross_entropy(inputs.source_logits.double(), inputs.source_labels).item()
    assert VALIDATORS["deep_embedded_validation"](far) == pytest.approx(-math.exp(20) * 45 / 40 * risk, rel=1e-6)


# Shares, and the combined score ---------------------------------------------------------------------------------------


def test_shares_of_images_are_counted():
    logits = torch.tensor([[3.0, 0.0], [0.0, 0.5], [0.0, 9.0], [2.0, 0.0]])  # top probabilities .95 .62 1 .88
    views = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1, 1, 1])
    assert score("coverage", logits) == 0.5
    assert score("augmentation_consistency", logits, view_logits=views) == 0.5
    assert score("source_accuracy", logits, source_logits=logits, source_labels=labels) == 0.75


def test_kept_information_is_fanos_bound():
    assert kept_information([0.1] * 10, 1.0) == pytest.approx(math.log(10))
    assert kept_information([1.0, 0.0], 1.0) == pytest.approx(0)
    # two classes, a tenth changes: ln 2 - h(0.1), the capacity of a binary symmetric channel
    assert kept_information([0.5, 0.5], 0.9) == pytest.approx(math.log(2) - naive_entropy([0.1, 0.9]))
    rng = torch.Generator().manual_seed(0)
    joint = torch.rand(5, 5, generator=rng, dtype=torch.float64) + 4 * torch.eye(5)
    joint /= joint.sum()
    information = float((joint * (joint / (joint.sum(1, keepdim=True) * joint.sum(0))).log()).sum())
    assert 0 < kept_information(joint.sum(1).tolist(), float(joint.trace())) <= information


def test_the_combined_score_is_the_sum_of_its_parts():
    inputs = random_inputs()
    predicted = inputs.target_logits.argmax(1).tolist()
    shares = [predicted.count(label) / len(predicted) for label in range(4)]
    parts = scores(inputs)
    kept = kept_information(shares, parts["augmentation_consistency"])
    expected = (parts["information_maximisation"] + kept) / math.log(4) + parts["source_accuracy"]
    assert parts["combined"] == pytest.approx(expected)
    perfect = one_hot([0, 1, 2, 3], 4)
    assert score("combined", perfect, source_logits=perfect, source_labels=torch.arange(4)) == pytest.approx(3)


def simulated(quality, n, classes):
    """Outputs of a network that is right, stable and sure with about the given share, of n images of some classes."""
    rng = torch.Generator().manual_seed(round(100 * quality))
    labels = torch.arange(n) % classes

    def logits_of(rate, answers):
        kept = torch.rand(n, generator=rng) < rate
        predicted = torch.where(kept, answers, torch.randint(classes, (n,), generator=rng))
        sure = 8 * quality + math.log(classes)
        return sure * F.one_hot(predicted, classes) + 0.5 * torch.randn(n, classes, generator=rng), predicted

    logits, predicted = logits_of(quality, labels)
    views, source, none = logits_of(quality, predicted)[0], logits_of(0.5 + quality / 2, labels)[0], torch.zeros(n, 2)
    return ValidatorInputs(logits, none, views, source, none, labels, none)


def test_the_combined_score_compares_models_alike_whatever_the_number_of_images_and_classes():
    qualities = (0.2, 0.4, 0.6, 0.8, 1.0)
    curves = {
        (n, classes): [VALIDATORS["combined"](simulated(quality, n, classes)) for quality in qualities]
        for n in (200, 2000)
        for classes in (2, 10, 50)
    }
    for curve in curves.values():
        assert curve == sorted(curve)
    for classes in (2, 10, 50):
        assert curves[200, classes] == pytest.approx(curves[2000, classes], abs=0.25)  # 200 images: chance
    for low, high in zip(curves[2000, 2], curves[2000, 50], strict=True):
        assert abs(low - high) < 0.3  # of a scale from -1 to 3


# Every registered validator -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VALIDATORS)
def test_neither_the_order_of_images_nor_the_numbers_of_classes_matter(name):
    inputs = random_inputs()
    rng, renaming = torch.Generator().manual_seed(3), torch.tensor([2, 0, 3, 1])
    orders = {group: torch.randperm(n, generator=rng) for group, n in (("target", 40), ("source", 43), ("trained", 45))}
    orders["view"] = orders["target"]
    changed = {}
    orders["class"] = renaming.argsort()
    for key, value in vars(inputs).items():
        rows = value[orders[key.split("_")[0]]]
        changed[key] = rows[:, renaming.argsort()] if key.endswith("logits") else rows
    changed["source_labels"] = renaming[changed["source_labels"]]
    tolerance = 0.1 if name == "class_ami" else 1e-6  # k-means starts from images drawn by their position
    assert VALIDATORS[name](ValidatorInputs(**changed)) == pytest.approx(VALIDATORS[name](inputs), abs=tolerance)


@pytest.mark.parametrize("name", VALIDATORS)
def test_a_score_is_finite_for_one_class_for_one_image_and_for_extreme_values(name):
    for n, classes in ((30, 1), (1, 4), (1, 1), (2, 30)):
        assert math.isfinite(VALIDATORS[name](random_inputs(n=n, classes=classes)))
    logits = torch.tensor([[1e30, -1e30, 0.0], [-1e30, -1e30, -1e30], [1e30, 1e30, 1e30]])
    features = torch.tensor([[1e15, 0.0], [-1e15, 1.0], [0.0, 0.0]])
    inputs = ValidatorInputs(logits, features, logits, logits, features, torch.tensor([0, 1, 2]), features)
    assert math.isfinite(VALIDATORS[name](inputs))


def test_the_inputs_of_a_validator_have_no_target_labels():
    assert [name for name in ValidatorInputs.__annotations__ if "label" in name] == ["source_labels"]


def test_a_registered_validator_is_scored_by_name_and_the_default_is_registered():
    @register_validator("constant")
    def constant(inputs):
        return 7.0

    try:
        assert scores(random_inputs())["constant"] == 7.0
    finally:
        del VALIDATORS["constant"]
    assert DEFAULT_VALIDATOR in VALIDATORS
