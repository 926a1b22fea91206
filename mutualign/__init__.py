"""Unsupervised domain adaptation of image classifiers by mutual information."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mutualign.estimator import DomainAdapter
    from mutualign.nn.layers import GradientReversal, reverse_gradient
    from mutualign.nn.losses import (
        Pairs,
        all_pairs_mutual_information,
        batch_nuclear_norm,
        batch_spectral_penalty,
        class_confusion,
        classifier_discrepancy,
        coral,
        divergence,
        entropy,
        entropy_minimisation,
        gaussian_kernels,
        information_maximisation,
        joint_mmd,
        jsd_mutual_information,
        margin_disparity,
        mmd,
        nuclear_wasserstein,
        sample_pairs,
        stepwise_feature_norm,
        transport_cost,
        virtual_adversarial_loss,
    )
    from mutualign.runs.api import Compared, Run, compare, load_run, run

# How often an OpenMP thread looks for work before it sleeps; read once, when torch is loaded. The default, 300,000
# times, takes 8 ms on an EPYC: more than a time slice, in which the thread that it waits for could run. 20,000 times
# take 0.5 ms, still more than most gaps between two parallel operations. No result changes.
if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
    os.environ["GOMP_SPINCOUNT"] = "20000"

__version__ = "0.1.0"
__all__ = [
    "Compared",
    "DomainAdapter",
    "GradientReversal",
    "Pairs",
    "Run",
    "all_pairs_mutual_information",
    "batch_nuclear_norm",
    "batch_spectral_penalty",
    "class_confusion",
    "classifier_discrepancy",
    "compare",
    "coral",
    "divergence",
    "entropy",
    "entropy_minimisation",
    "gaussian_kernels",
    "information_maximisation",
    "joint_mmd",
    "jsd_mutual_information",
    "load_run",
    "margin_disparity",
    "mmd",
    "nuclear_wasserstein",
    "reverse_gradient",
    "run",
    "sample_pairs",
    "stepwise_feature_norm",
    "transport_cost",
    "virtual_adversarial_loss",
]

_MODULES = {
    "DomainAdapter": "mutualign.estimator",
    "GradientReversal": "mutualign.nn.layers",
    "reverse_gradient": "mutualign.nn.layers",
    **dict.fromkeys(("Compared", "Run", "compare", "load_run", "run"), "mutualign.runs.api"),
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import mutualign` and `mutualign --help` do not import torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES.get(name, "mutualign.nn.losses")), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
