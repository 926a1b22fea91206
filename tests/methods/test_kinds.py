"""The contract carries methods of every kind: alternating players, no optimiser, no source. One toy method of each."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from mutualign.methods import METHODS, Method, MethodEntry, NoConfig, ParameterGroup, Update
from mutualign.nn.randomness import derive_seed
from mutualign.recipes import Recipe, Stage
from mutualign.training.inference import predict
from tests.training.tiny_runs import (
    BATCH,
    EPOCH,
    N_TARGET,
    TARGET,
    MemoryStore,
    assert_resumes_after_every_step,
    go,
    make_trainer,
)


class ToyMCD(Method):
    """Two heads that should disagree on the target, and features that should make them agree."""

    def __init__(self, classifier, config):
        super().__init__(classifier)
        self.second = classifier.features.head(classifier.classes)

    def parameter_groups(self):
        features = list(self.classifier.features.parameters())
        heads = [*self.classifier.head.parameters(), *self.second.parameters()]
        return {
            "heads": [ParameterGroup(heads[:2], lr_factor=2.0), ParameterGroup(heads[2:])],
            "features": [ParameterGroup(features, lr_factor=0.5)],
        }

    def updates(self, batch, progress):
        yield Update(("features", "heads"), {"class": self.losses(batch)[0]})
        supervised, discrepancy = self.losses(batch)
        yield Update("heads", {"class": supervised, "discrepancy": -discrepancy})
        for _ in range(2):
            yield Update("features", {"agreement": self.losses(batch)[1]}, {"progress": progress.detach()})

    def losses(self, batch):
        features = self.features(batch.images)
        first, second = self.classifier.head(features), self.second(features)
        n = batch.n_source
        supervised = F.cross_entropy(first[:n], batch.labels) + F.cross_entropy(second[:n], batch.labels)
        return supervised, (first[n:].softmax(1) - second[n:].softmax(1)).abs().mean()


class ToyAdaBN(Method):
    """Batch-norm statistics of the target; nothing has a gradient."""

    uses_source = False

    def parameter_groups(self):
        return {}

    def updates(self, batch, progress):
        with torch.no_grad():
            self.features(batch.target)
        yield from ()


class ToySHOT(Method):
    """Features learn pseudo-labels that the whole target gets at the start of each epoch; the head stays."""

    uses_source = False
    resizable_buffers = frozenset({"pseudo_labels"})

    def __init__(self, classifier, config):
        super().__init__(classifier)
        self.register_buffer("pseudo_labels", torch.empty(0, dtype=torch.int64))
        self.looks = []

    def parameter_groups(self):
        return {"all": [ParameterGroup(list(self.classifier.features.parameters()))]}

    def begin_epoch(self, look):
        outputs = look()
        self.looks.append(outputs)
        self.pseudo_labels = (outputs.logits - outputs.logits.mean(0)).argmax(1)

    def forward(self, batch, progress):
        logits = self.classifier.head(self.features(batch.target))
        return {"pseudo": F.cross_entropy(logits, self.pseudo_labels[batch.target_rows])}, {}


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    for kind in (ToyMCD, ToyAdaBN, ToySHOT):
        monkeypatch.setitem(METHODS, kind.__name__, MethodEntry(kind.__name__, kind, NoConfig))


def recipe_of(*methods, backbone="two_block_cnn"):
    stages = tuple(Stage(name, epochs=2, batch_size=BATCH) for name in methods)
    return Recipe("toy", stages, backbone=backbone, precision="float32")


@pytest.mark.parametrize("methods", [("ToyMCD",), ("source_only", "ToyAdaBN"), ("source_only", "ToySHOT")])
def test_a_method_of_any_kind_resumes_bit_for_bit_after_every_step(methods):
    assert_resumes_after_every_step(recipe_of(*methods))


def test_players_move_in_their_turns_only_and_take_the_steps_of_a_plain_loop():
    trainer = make_trainer("ToyMCD", lr=1e-3)
    plain, moved = copy.deepcopy(trainer.method), []

    def watched(batch, progress):
        for update in ToyMCD.updates(trainer.method, batch, progress):
            before = {name: weight.detach().clone() for name, weight in trainer.method.named_parameters()}
            yield update
            changed = {
                name.split(".")[1] for name, now in trainer.method.named_parameters() if (now != before[name]).any()
            }
            moved.append((update.players, changed))

    trainer.method.updates = watched
    features, heads = plain.classifier.features, [*plain.classifier.head.parameters(), *plain.second.parameters()]
    adams = {
        "heads": torch.optim.Adam([{"params": heads[:2], "lr": 2e-3}, {"params": heads[2:]}], lr=1e-3),
        "features": torch.optim.Adam(features.parameters(), lr=5e-4),
    }
    for step in range(4):
        trainer.step()
        torch.manual_seed(derive_seed(0, 0, "step", step, 0))
        for players, loss_of in (
            (("features", "heads"), lambda supervised, discrepancy: supervised),
            (("heads",), lambda supervised, discrepancy: supervised - discrepancy),
            (("features",), lambda supervised, discrepancy: discrepancy),
            (("features",), lambda supervised, discrepancy: discrepancy),
        ):
            loss = loss_of(*plain.losses(trainer.batches[step]))
            plain.zero_grad()
            loss.backward()
            for player in players:
                adams[player].step()
    for (name, mine), theirs in zip(trainer.method.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=2e-5), name
    both = {"features", "head", "0", "3"}  # the second head's layers are numbered
    features_alone = (("features",), {"features"})
    turns = [(("features", "heads"), both), (("heads",), both - {"features"}), features_alone, features_alone]
    assert moved == turns * 4


def test_means_of_losses_are_per_step_however_many_updates_a_step_has():
    epoch = go(recipe_of("ToyMCD"), MemoryStore()).epochs[1][2]
    assert set(epoch) == {"loss_class", "loss_discrepancy", "loss_agreement", "progress"}
    # Two updates per step report progress, which is 3/6, 4/6 and 5/6 in the second of two epochs.
    assert epoch["progress"] == pytest.approx(2 * (3 + 4 + 5) / 6 / EPOCH)


def test_a_stage_without_an_optimiser_moves_statistics_of_the_target_and_no_weight():
    recorder, store = trained(recipe_of("source_only", "ToyAdaBN"))
    (_, before), (_, after) = recorder.weights[:2], recorder.weights[2:]
    assert recorder.epochs[-1] == (1, 2, {})
    expected = before["features.norm1.running_mean"]
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    kinds = ("running_mean", "running_var", "num_batches_tracked")
    assert moved == {f"features.norm{i}.{kind}" for i in (1, 2, 3) for kind in kinds}
    assert not any(name.startswith("optimiser.") for name in store.tensors)

    trainer = make_trainer("ToyAdaBN", index=1, backbone="two_block_cnn")
    trainer.method.classifier.load_state_dict(before)
    inputs = []
    trainer.method.classifier.features.norm1.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    for _ in range(2 * -(-N_TARGET // BATCH)):  # an epoch is a pass over the target
        trainer.step()
    for maps in inputs:
        expected = 0.9 * expected + 0.1 * maps.mean((0, 2, 3))
    assert torch.allclose(after["features.norm1.running_mean"], expected, rtol=1e-4, atol=1e-6)


def test_a_stage_without_source_sees_target_images_only_and_looks_at_all_of_them_before_each_epoch():
    trainer = make_trainer("ToySHOT")
    method = trainer.method
    head = copy.deepcopy(method.classifier.head.state_dict())
    per_epoch = trainer.batches.steps_per_epoch
    assert per_epoch == -(-N_TARGET // BATCH)
    for step in range(2 * per_epoch):
        batch = trainer.batches[step]
        assert (batch.n_source, len(batch.images)) == (0, len(batch.target_rows))
        assert torch.equal(batch.images, TARGET.pixels[batch.target_rows].permute(0, 3, 1, 2) / 255)
        expected = predict(method.classifier, TARGET, 3, trainer.fabric, narrow=False)
        trainer.step()
        assert method.training
        if step % per_epoch == 0:
            assert len(method.looks) == step // per_epoch + 1
            assert torch.equal(method.looks[-1].logits, expected.logits)
            assert torch.equal(method.looks[-1].features, expected.features)
            assert len(method.pseudo_labels) == N_TARGET
    assert len(method.looks) == 2
    assert all(torch.equal(value, head[name]) for name, value in method.classifier.head.state_dict().items())


def test_pseudo_labels_of_an_epoch_are_restored_within_it():
    first, second = make_trainer("ToySHOT"), make_trainer("ToySHOT")
    first.step()
    store = MemoryStore()
    first.save(store, keep=1)
    assert len(second.method.pseudo_labels) == 0
    second.restore(store.tensors, store.info)
    assert torch.equal(second.method.pseudo_labels, first.method.pseudo_labels)
    second.step()
    assert second.method.looks == []


def trained(recipe):
    store = MemoryStore()
    return go(recipe, store), store
