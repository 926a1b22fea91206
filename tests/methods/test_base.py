"""What methods share: inheritance between stages, and the small measures."""

from __future__ import annotations

import pytest
import torch

from mutualign.methods.base import Method, accuracy, mean_of


def test_an_method_without_a_forward_says_so(build, make_batch):
    method = Method(build("dann").classifier)
    with pytest.raises(TypeError, match="Method defines no forward"):
        method(make_batch(method), torch.tensor(0.0))


@pytest.mark.parametrize("earlier", ["source_only", "dann", "mani", "mutual_align"])
@pytest.mark.parametrize("later", ["source_only", "dann", "mani", "mutual_align"])
def test_a_stage_inherits_the_parts_that_an_earlier_one_trained_and_no_others(build, earlier, later):
    previous, method = build(earlier, seed=1), build(later, seed=2)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    assert method.warm_start_from(previous) is method
    theirs = previous.state_dict()
    for key, value in method.state_dict().items():
        inherited = key in theirs and not key.startswith(("classifier.", "teacher."))
        assert torch.equal(value, (theirs if inherited else before)[key]), key


def test_what_is_inherited_is_a_copy(build):
    previous, method = build("dann", seed=1), build("mani", seed=2)
    method.warm_start_from(previous)
    kept = method.discriminator.layers[0].weight.clone()
    with torch.no_grad():
        previous.discriminator.layers[0].weight.zero_()
    assert torch.equal(method.discriminator.layers[0].weight, kept)


def test_accuracy_is_the_share_of_rows_whose_largest_logit_is_the_labels():
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [-1.0, -2.0], [0.0, 5.0]], requires_grad=True)
    share = accuracy(logits, torch.tensor([1, 0, 1, 1]))
    assert share.item() == 0.75
    assert not share.requires_grad


def test_mean_of_is_the_share_of_flags_that_are_set():
    assert mean_of(torch.tensor([True, False, False, True, True])).item() == pytest.approx(0.6)
