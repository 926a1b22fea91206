"""Training in bf16 under the rules of a GPU's autocast, applied on a CPU.

A GPU computes more operations in float32 than a CPU does, and refuses one; a method must not depend on the difference.
"""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from mutualign.methods import METHODS
from tests.training.tiny_runs import MemoryStore, go, make_recipe

# The operations that CUDA's autocast computes in float32, and the one that it refuses, from torch's documentation.
# fmt: off
IN_FLOAT32 = [
    "acos", "asin", "binary_cross_entropy_with_logits", "cdist", "cosh", "cosine_embedding_loss", "cosine_similarity",
    "cumprod", "cumsum", "dist", "erfinv", "exp", "expm1", "group_norm", "hinge_embedding_loss", "huber_loss", "kl_div",
    "l1_loss", "layer_norm", "log", "log10", "log1p", "log2", "log_softmax", "logsumexp", "margin_ranking_loss",
    "mse_loss", "multi_margin_loss", "multilabel_margin_loss", "nll_loss", "norm", "pdist", "poisson_nll_loss", "pow",
    "prod", "reciprocal", "renorm", "rsqrt", "sinh", "smooth_l1_loss", "soft_margin_loss", "softmax", "softplus", "sum",
    "tan", "triplet_margin_loss",
]
# fmt: on
REFUSED = "binary_cross_entropy"
AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)


def _in_float32(operation):
    def compute(*args, **kwargs):
        with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
            args, kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, _to_float32, (args, kwargs))
            return operation(*args, **kwargs)

    return compute


def _to_float32(tensor):
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def _refuse(*args, **kwargs):
    raise RuntimeError(f"{REFUSED} is unsafe to autocast")


@pytest.fixture(scope="module", autouse=True)
def rules_of_a_gpu():
    with torch.library._scoped_library("aten", "IMPL") as library:
        for name in (*IN_FLOAT32, REFUSED):
            packet = getattr(torch.ops.aten, name)
            for overload in packet.overloads():
                compute = _refuse if name == REFUSED else _in_float32(getattr(packet, overload))
                key = name if overload == "default" else f"{name}.{overload}"
                with warnings.catch_warnings(action="ignore"):  # torch warns of kernels that are replaced
                    library.impl(key, compute, "AutocastCPU", allow_override=True)
        yield


def test_the_rules_are_those_of_a_gpu():
    with torch.autocast("cpu", torch.bfloat16):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == torch.bfloat16
        assert product.exp().dtype == product.sum().dtype == product.softmax(1).dtype == torch.float32
        with pytest.raises(RuntimeError, match="unsafe"):
            torch.nn.functional.binary_cross_entropy(torch.ones(2), torch.ones(2))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_in_bf16_under_the_rules_of_a_gpu(name):
    epochs = go(make_recipe(name, epochs=2, precision="bf16"), MemoryStore()).epochs
    assert all(math.isfinite(value) for _, _, means in epochs for value in means.values())
