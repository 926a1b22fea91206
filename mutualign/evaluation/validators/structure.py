"""Validators of structure: whether target images form clusters that agree with the predictions."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from mutualign.evaluation.validators.base import ValidatorInputs, entropy, probabilities, register_validator

TEMPERATURE = 0.05  # of soft_neighbourhood_density
STARTS = 5  # of k-means in class_ami


@register_validator("soft_neighbourhood_density")
def soft_neighbourhood_density(inputs: ValidatorInputs) -> float:
    """Density of the neighbourhoods of target images in the space of predictions (SND).

    Mean entropy, in nats, of softmax(cosine / 0.05) over the other target images, with the cosine of the vectors of
    class probabilities. A single image has no neighbours and scores 0. Source: Saito et al., "Tune it the right way:
    unsupervised validation of domain adaptation via soft neighborhood density", ICCV 2021, eq. 2 to 4; the authors'
    code uses softmax outputs, as this does.
    """
    p = F.normalize(probabilities(inputs.target_logits).float(), dim=1)
    if len(p) < 2:
        return 0.0
    similarities = p @ p.T / TEMPERATURE
    similarities.fill_diagonal_(-torch.inf)
    return float(entropy(similarities.softmax(1)).mean())


@register_validator("dispersion_score")
def dispersion_score(inputs: ValidatorInputs) -> float:
    """How far the features of the predicted classes are apart (dispersion score).

    ln(sum over predicted classes of share x squared distance of the class's mean feature from the mean of all / (number
    of predicted classes - 1)). The authors' code has numbers of images instead of shares, which adds the same to all
    models. It grows with the features' scale: only models with alike features compare. One predicted class scores
    ln 1e-12. Source: Xie et al., "On the importance of feature separability in predicting out-of-distribution error",
    NeurIPS 2023, section 4.
    """
    features, predicted = inputs.target_features.double(), inputs.target_logits.argmax(1)
    members = F.one_hot(predicted).double()
    counts = members.sum(0)
    found = counts > 0
    means = (members.T @ features)[found] / counts[found, None]
    distances = (means - features.mean(0)).square().sum(1)
    dispersion = float(counts[found] @ distances) / len(features) / max(int(found.sum()) - 1, 1)
    return math.log(max(dispersion, 1e-12))


@register_validator("class_ami")
def class_ami(inputs: ValidatorInputs) -> float:
    """Adjusted mutual information between predicted classes and k-means clusters of the target features.

    As many clusters as classes, the best of 5 starts of k-means. At most 1, and about 0 if the clusters say nothing
    about the predictions. With fewer distinct images than classes, 0. Source: Musgrave et al., "Three new validators
    and a large-scale benchmark ranking for unsupervised domain adaptation", 2022, section 3.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_mutual_info_score

    features, classes = inputs.target_features.float().numpy(), inputs.target_logits.shape[1]
    if len(np.unique(features, axis=0)) < classes:
        return 0.0
    clusters = KMeans(classes, n_init=STARTS, random_state=0).fit_predict(features)
    return float(adjusted_mutual_info_score(inputs.target_logits.argmax(1).numpy(), clusters))
