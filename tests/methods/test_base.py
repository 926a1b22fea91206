"""What methods share: warm starts between stages, the sum of losses, resizable buffers, and small metrics."""

from __future__ import annotations

import pytest
import torch

from mutualign.methods import METHODS, Method, Update, accuracy, mean_of


def test_a_method_without_a_forward_says_so(build, make_batch):
    method = Method(build("dann").classifier)
    with pytest.raises(TypeError, match="Method must override forward or updates"):
        list(method.updates(make_batch(method), torch.tensor(0.0)))


def kind_of(method, part):
    """Type and shapes of a part; some methods use the name for a discriminator of another size."""
    shapes = {key: value.shape for key, value in method.state_dict().items() if key.startswith(f"{part}.")}
    return type(getattr(method, part, None)), shapes


@pytest.mark.parametrize("earlier", METHODS)
def test_a_stage_copies_the_parts_that_the_previous_one_trained_and_no_others(build, earlier):
    for later in METHODS:
        previous, method = build(earlier, seed=1), build(later, seed=2)
        before = {key: value.clone() for key, value in method.state_dict().items()}
        assert method.warm_start_from(previous) is method
        theirs = {key: value.clone() for key, value in previous.state_dict().items()}
        with torch.no_grad():  # what was copied stays
            for parameter in previous.parameters():
                parameter.zero_()
        for key, value in method.state_dict().items():
            part = key.partition(".")[0]
            same = kind_of(method, part) == kind_of(previous, part)
            copied = key in theirs and part not in ("classifier", "teacher") and same
            assert torch.equal(value, (theirs if copied else before)[key]), (later, key)


def test_the_total_is_the_sum_in_float32_whatever_the_precision_of_the_losses():
    losses = {"a": torch.tensor(1024.0, dtype=torch.bfloat16), "b": torch.tensor(1.0), "c": torch.tensor(0.25)}
    total = Update("all", losses).total
    assert (total.item(), total.dtype) == (1025.25, torch.float32)  # bfloat16 rounds to 1024


def test_accuracy_and_mean_are_shares_without_gradient_and_shapes_must_match():
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [-1.0, -2.0], [0.0, 5.0]], requires_grad=True)
    share = accuracy(logits, torch.tensor([1, 0, 1, 1]))
    assert share.item() == 0.75
    assert not share.requires_grad
    assert mean_of(torch.tensor([True, False, False, True, True])).item() == pytest.approx(0.6)
    with pytest.raises(ValueError, match=r"accuracy: labels has shape \[4, 1\], expected \[n\] with n = 4"):
        accuracy(logits, torch.ones(4, 1, dtype=torch.int64))
