"""The comparison with other packages: every one trains the same network, and rows. No test here measures a time."""

from __future__ import annotations

from pathlib import Path

import peers
import pytest
import torch

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of the libraries
    pytest.mark.usefixtures("torchvision_operators"),
]


@pytest.fixture(scope="module")
def task():
    return peers.find_task("digits").load(Path())


@pytest.mark.parametrize("name", peers.SYSTEMS)
def test_every_system_trains_the_published_network_on_both_domains(task, name):
    """The weights of all three parts move, and those of our network and theirs have the same shapes."""
    torch.manual_seed(0)
    system = peers.SYSTEMS[name](task, False, 1e-2)
    network = system.trainer.method if name == peers.OURS else system.network
    before = {key: weight.detach().clone() for key, weight in network.named_parameters()}
    system.step()
    moved = {key for key, weight in network.named_parameters() if not torch.equal(weight, before[key])}
    assert moved == before.keys()
    plain = peers.PlainDANN(task.shape.height, task.shape.width, len(task.class_names))
    assert sorted(weight.shape for weight in before.values()) == sorted(weight.shape for weight in plain.parameters())
    assert system.logits(torch.rand(3, 3, 28, 28)).shape == (3, 10)


def test_a_run_to_a_goal_stops_at_it_or_at_the_limit(task):
    test = task.target_test.subset(torch.arange(50))
    system = peers.PlainLoop(task, False, 1e-3)
    assert peers.seconds_to(0.0, 1e9, system, test) > 0
    assert peers.seconds_to(1.1, 1e-9, system, test) is None


def test_the_results_have_every_system_and_the_ratios_that_are_required(run_benchmark):
    results, _ = run_benchmark("peers.py", "--task", "digits", "--quick")
    ratios = [row for row in results["rows"] if row["name"] == "step / our step, float32"]
    assert [row["case"] for row in ratios] == ["plain loop", "pytorch-adapt", "skada", "the fastest other"]
    assert ratios[3]["value"] == min(row["value"] for row in ratios)
    assert ratios[3]["required"] == ">= 3"
    assert {"skada", "pytorch-adapt"} <= results["versions"].keys()
