"""The throughput benchmark: what it counts, compares and writes. No test here measures a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import plain_loop
import pytest
import throughput
import torch
import torch.nn.functional as F
from measurements import Measurements

from mutualign.data.datasets import find_task
from mutualign.data.types import Batch, ImageShape
from mutualign.methods.dann import DANN, DANNConfig
from mutualign.nn.backbones import ManiCNN
from mutualign.nn.classifier import Classifier
from mutualign.recipes import load_recipe


def test_the_operations_that_torch_counts_in_a_training_step_equal_the_closed_form(tmp_path):
    task = find_task("digits").load(tmp_path)
    counted = throughput.OurStep(task, "float32").count_flops()
    assert counted == throughput.dann_step_flops(task.shape, 10, 64, 64)


def test_the_closed_form_equals_the_operations_of_the_layers_counted_by_hand():
    conv1, conv2 = 128 * 24 * 24 * 32 * 75, 128 * 20 * 20 * 64 * 800  # multiply-adds, forward
    heads = 64 * (6400 * 32 + 32 * 10) + 128 * (6400 * 32 + 32)
    by_hand = 2 * (2 * conv1 + 3 * conv2 + 3 * heads)
    assert throughput.dann_step_flops(ImageShape(3, 28, 28), 10, 64, 64) == by_hand


@pytest.fixture
def twins() -> tuple[DANN, plain_loop.PlainDANN]:
    """Our network and the plain one, in evaluation mode, with the same weights."""
    torch.manual_seed(0)
    ours = DANN(Classifier(ManiCNN(3, 28, 28), 10), DANNConfig()).eval()
    plain = plain_loop.PlainDANN().eval()

    def copy(target: torch.nn.Module, source: torch.nn.Module, permute: bool = False) -> None:
        weight = source.weight.detach()
        if permute:  # (row, column, channel) for ours, (channel, row, column) for the plain one
            weight = weight.view(-1, 10, 10, 64).permute(0, 3, 1, 2).flatten(1)
        target.weight.data.copy_(weight)
        target.bias.data.copy_(source.bias.detach())

    copy(plain.features[0], ours.classifier.features.conv1)
    copy(plain.features[2], ours.classifier.features.conv2)
    copy(plain.class_head[0], ours.classifier.head[0], permute=True)
    copy(plain.class_head[3], ours.classifier.head[3])
    copy(plain.domain_head[0], ours.discriminator.layers[0], permute=True)
    copy(plain.domain_head[2], ours.discriminator.layers[2])
    return ours, plain


def test_the_plain_network_returns_the_features_and_logits_of_ours(twins):
    ours, plain = twins
    images = torch.rand(5, 3, 28, 28)
    features = ours.classifier.features(images)
    plain_features = plain.features(images).view(5, 64, 10, 10).permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(plain_features, features)
    class_logits, domain_logits = plain(images, n_source=3)
    torch.testing.assert_close(class_logits, ours.classifier.head(features[:3]))
    torch.testing.assert_close(domain_logits, ours.discriminator(features))


def test_a_plain_step_computes_the_gradients_of_ours(twins):
    ours, plain = twins
    images, labels = torch.rand(5, 3, 28, 28), torch.tensor([1, 2, 3])
    losses, _ = ours(Batch(images, labels), torch.tensor(0.5))
    torch.stack(list(losses.values())).sum().backward()
    class_logits, domain_logits = plain(images, n_source=3)
    is_source = torch.tensor([1.0, 1, 1, 0, 0])
    (F.cross_entropy(class_logits, labels) + F.binary_cross_entropy_with_logits(domain_logits, is_source)).backward()
    torch.testing.assert_close(plain.features[0].weight.grad, ours.classifier.features.conv1.weight.grad)
    torch.testing.assert_close(plain.features[2].weight.grad, ours.classifier.features.conv2.weight.grad)
    torch.testing.assert_close(plain.domain_head[2].weight.grad, ours.discriminator.layers[2].weight.grad)


def test_an_item_of_the_plain_dataset_is_a_digit_and_a_digit_blended_with_a_crop():
    digits = torch.arange(2 * 28 * 28).view(2, 28, 28).remainder(256).to(torch.uint8).numpy()
    photo = torch.full((28, 28, 3), 255, dtype=torch.uint8).numpy()  # so large that only one crop fits
    source, label, target = plain_loop.PairedDigits(digits, [7, 8], [photo])[1]
    assert label == 8
    expected = torch.from_numpy(digits).float() / 255
    torch.testing.assert_close(source, expected[1].expand(3, 28, 28))
    assert any(torch.allclose(target, 1 - digit.expand(3, 28, 28)) for digit in expected)


def test_measuring_the_parts_of_a_step_does_not_change_what_it_computes(tmp_path):
    task = find_task("digits").load(tmp_path)
    weights = []
    for timed in (False, True):
        torch.manual_seed(0)
        step = throughput.OurStep(task, "float32", "fast")
        if timed:
            step.time_parts()
        step.seconds(steps=1, warm_up=1)
        weights.append(torch.cat([value.flatten() for value in step.trainer.method.state_dict().values()]))
    parts = {"augmentation", "teacher", "moving average"}
    assert set(step.part_seconds) == {"data", "forward", "backward", "optimiser"} | parts
    assert all(seconds > 0 for seconds in step.part_seconds.values())
    assert torch.equal(*weights)


def test_a_row_has_median_minimum_and_maximum_and_states_whether_its_requirement_is_met():
    results = Measurements()
    share = "our rate / matmul rate"
    results.add(share, "a, bf16", "%", 53.0, 51.0, 52.0)
    results.add(share, "b, bf16", "%", 55.0)
    results.add(share, "b, float32", "%", 54.0)
    common = {"name": share, "unit": "%"}
    assert results.rows(partial(throughput.bound, judged="bf16")) == [
        common | {"case": "a, bf16", "value": 52, "n": 3, "min": 51, "max": 53, "required": ">= 55", "met": False},
        common | {"case": "b, bf16", "value": 55, "n": 1, "min": 55, "max": 55, "required": ">= 55", "met": True},
        common | {"case": "b, float32", "value": 54, "n": 1, "min": 54, "max": 54},
    ]
    assert not any("required" in row for row in results.rows())


def test_the_results_on_the_embedded_task_have_every_row(run_benchmark, monkeypatch, tmp_path):
    def load_small(name, overrides=()):  # one network is small, so that its evaluation is quick
        return load_recipe(name, [*overrides, "backbone=mlp"] if name == "mani" else overrides)

    monkeypatch.setattr(throughput, "load_recipe", load_small)
    monkeypatch.setattr(throughput, "_fresh_process", lambda **options: ThreadPoolExecutor(1, **options))
    monkeypatch.setattr(throughput, "WORKERS", (0, 1))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # the benchmark changes it
    options = ["--task", "digits", "--steps", "1", "--rounds", "1", "--warm-up", "0", "--size", "64"]
    results, _ = run_benchmark("throughput.py", *options)
    assert all(row["n"] == 1 and row["min"] == row["value"] == row["max"] for row in results["rows"])
    assert {row["name"]: row["unit"] for row in results["rows"]} == {
        "operations of a step": "GFLOP",
        "matmul rate": "GFLOP/s",
        "our step": "ms",
        "our step: data": "ms",
        "our step: forward": "ms",
        "our step: backward": "ms",
        "our step: optimiser": "ms",
        "our step: the rest": "ms",
        "fast: operations of a step": "GFLOP",
        "fast: our step": "ms",
        "fast: our step: data": "ms",
        "fast: our step: augmentation": "ms",
        "fast: our step: teacher": "ms",
        "fast: our step: forward": "ms",
        "fast: our step: backward": "ms",
        "fast: our step: optimiser": "ms",
        "fast: our step: moving average": "ms",
        "fast: our step: the rest": "ms",
        "fast: augmentation / our step": "%",
        "fast: our rate": "GFLOP/s",
        "fast: our rate / matmul rate": "%",
        "our rate": "GFLOP/s",
        "our rate / matmul rate": "%",
        "data path alone, batches": "1/s",
        "data path alone, images": "1/s",
        "data path alone / our step": "%",
        "plain step, decoded an item": "ms",
        "plain step, decoded once": "ms",
        "plain step, decoded an item / our step": "x",
        "plain step, decoded once / our step": "x",
        "peak memory": "MiB",
    }
    cases = {(row["name"], row["case"]) for row in results["rows"]}
    assert {("plain step, decoded once", f"{workers} worker(s)") for workers in (0, 1)} <= cases
