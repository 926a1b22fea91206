"""The example scripts run and learn, and their losses are the formulas of their docstrings."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mutualign.data.types import Batch
from mutualign.io import plugins
from mutualign.nn.backbones import TwoBlockCNN
from mutualign.nn.classifier import Classifier
from mutualign.recipes import load_recipe
from tests.cli.conftest import call
from tests.examples.conftest import EXAMPLES, load_example


def percentages(line):
    return [float(found) for found in re.findall(r"([\d.]+) ?%", line)]


@pytest.mark.slow
def test_the_two_losses_of_the_plain_loop_gain_target_accuracy(run_example):
    source_only, adapted = run_example("plain_loop")  # five seeds gained 5.0 to 8.4 points; shorter runs vary too much
    assert source_only.startswith("source only")
    assert adapted.startswith("adapted")
    (source_before, target_before), (source_after, target_after) = percentages(source_only), percentages(adapted)
    assert min(source_before, source_after) > 97
    assert target_after > target_before + 2


@pytest.mark.usefixtures("torchvision_operators")  # lightning imports torchvision where it is installed
@pytest.mark.filterwarnings("ignore:`isinstance\\(treespec:FutureWarning")  # lightning's own use of torch
def test_the_lightning_loop_trains_and_prints_both_target_accuracies(run_example):
    source_only, adapted = run_example("lightning_loop", "--epochs", "1")
    assert source_only.startswith("source only")
    assert adapted.startswith("adapted")
    assert 20 < percentages(source_only)[0] != percentages(adapted)[0] > 20


class Certain(nn.Module):
    """A teacher that is certain: the first image is a zero, the next a one, and so on."""

    def forward(self, images):
        return 100 * nn.functional.one_hot(torch.arange(len(images)) % 10, 10).float()


@pytest.mark.usefixtures("torchvision_operators")
@pytest.mark.parametrize("adapt", [False, True])
def test_the_lightning_losses_reach_the_parts_they_should_and_no_others(adapt):
    torch.manual_seed(0)
    module = load_example("lightning_loop").Adaptation(adapt)
    module._trainer = SimpleNamespace(max_steps=2)
    type(module).global_step = property(lambda _: 1)
    module.teacher.model = Certain()
    module.training_step(Batch(torch.rand(40, 3, 28, 28), torch.arange(20) % 10), 0).backward()

    def reached(part):
        return any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())

    assert reached(module.classifier.features)
    assert reached(module.classifier.head)
    assert [reached(module.discriminator), reached(module.projection), reached(module.critic)] == [adapt] * 3


@pytest.fixture
def coral():
    return load_example("own_method")


def losses_of(coral, images, labels):
    classifier = Classifier(TwoBlockCNN(3, 28, 28), 10).eval()
    losses, _ = coral.CORAL(classifier, coral.CORALConfig(weight=3.0))(Batch(images, labels), torch.tensor(0.5))
    return losses["coral"].detach(), classifier(images).detach().double()


def test_coral_is_the_squared_distance_of_covariances_summed_entry_by_entry(coral):
    loss, logits = losses_of(coral, torch.rand(20, 3, 28, 28), torch.arange(8))
    source, target = logits[:8], logits[8:]
    expected = 0.0
    for i in range(10):
        for j in range(10):
            of_source, of_target = (
                ((rows[:, i] - rows[:, i].mean()) * (rows[:, j] - rows[:, j].mean())).sum() / (len(rows) - 1)
                for rows in (source, target)
            )
            expected += float(of_source - of_target) ** 2 / (4 * 10**2)
    assert expected > 0
    assert loss.item() == pytest.approx(3 * expected, rel=1e-3)


def test_coral_is_zero_between_a_batch_and_itself(coral):
    images = torch.rand(8, 3, 28, 28)
    loss, _ = losses_of(coral, torch.cat([images, images]), torch.arange(8))
    assert loss.item() == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_the_own_method_beats_source_only(run_example):
    head, *rows = run_example("own_method", "--epochs", "1")
    assert "last epoch" in head
    assert "selected epoch" in head
    assert [row.split()[0] for row in rows] == ["source_only", "my_coral"]
    source_only, adapted = (percentages(row) for row in rows)
    assert adapted[0] > source_only[0] + 4
    assert adapted[1] > source_only[1] + 4


def test_the_recipe_of_the_own_method_has_the_conditions_of_its_script_and_is_shown_in_the_guide(coral):
    path = EXAMPLES / "own_method.toml"
    guide = (EXAMPLES.parent / "docs" / "guides" / "own-method.md").read_text(encoding="utf-8")
    assert f'```toml title="examples/{path.name}"\n{path.read_text(encoding="utf-8")}```' in guide
    script, recipe = coral.recipe("my_coral", 3), load_recipe(str(path))
    assert (recipe.stages, recipe.backbone) == (script.stages, script.backbone)


def test_the_own_method_trains_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(plugins, "_loaded", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    recipe, plugin = (str(EXAMPLES / f"own_method.{kind}") for kind in ("toml", "py"))
    short = ("--set", "stages.0.epochs=1", "stages.0.epoch_steps=1", "--task", "digits", "--out", str(tmp_path))
    try:
        assert call("run", "--recipe", recipe, "--plugin", plugin, *short) == 0
    finally:
        sys.modules.pop("own_method", None)
    assert len([*tmp_path.glob("digits/own_method-*/seed-0/result.json")]) == 1


def test_an_adaptation_that_fails_is_sure_of_itself_and_thirty_labels_show_it(run_example):
    _, *lines = run_example("failed_adaptation", "--degrees", "55", "75")
    near, far = map(percentages, lines)  # source only, adapted, confidence, bound, and both ends of the interval
    assert near[1] > near[0] + 20
    assert near[4] > 80
    assert far[1] < 5
    assert far[2] > 95
    assert far[3] > far[1]  # the bound does not hold: the example says why
    assert far[5] < 30
