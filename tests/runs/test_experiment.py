"""One experiment end to end."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch

from mutualign.data.datasets import find_task
from mutualign.data.types import LabelledImages, UnlabelledImages
from mutualign.errors import MutualignError
from mutualign.evaluation.measure import Evaluator
from mutualign.methods import METHODS, Method, ParameterGroup, Update, register_method
from mutualign.recipes import load_recipe
from mutualign.runs.checkpoints import Checkpoints
from mutualign.runs.experiment import Experiment, Observer
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import curves, summarise
from mutualign.runs.predictor import Predictor
from mutualign.training.loop import Stopped
from tests.run_contents import contents
from tests.runs.samples import SPEC, chosen, config, recipe, record
from tests.tiny_task import make_tiny_task

TWO = recipe("dann", "mani")


def run(path, task, seed=0, trained=TWO, **settings):
    return Experiment.start(trained, task, seed, path, **settings).run()


def test_a_run_leaves_a_folder_with_everything_about_it(whole, tiny_task):
    result, records = whole.result(), whole.metrics()
    assert [(one.stage, one.epoch) for one in records] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert result.data == "made in a test"
    assert {"python", "torch", "mutualign", "commit"} <= result.versions.keys()
    names = {path.name for path in whole.checkpoints.path.iterdir()}
    kinds = ("last", "selected", "last-outputs", "selected-outputs", "predictions")
    stages = {f"stage-{stage}-{kind}.safetensors" for stage in (0, 1) for kind in kinds}
    assert names == {"last.safetensors", "last-1.safetensors", "review.safetensors"} | stages
    assert {path.name for path in whole.path.iterdir()} == {
        "config.toml",
        "metrics.jsonl",
        "result.json",
        "checkpoints",
    }
    assert records[0].audit.drift is None  # there is no earlier epoch of the stage
    predicted = whole.checkpoints.load("stage-1-predictions")[0]["predicted"]
    assert records[-1].audit.drift == (predicted[0] != predicted[1]).double().mean()
    assert records[-1].audit.gradients.keys() == {"class", "domain", "mi"}


def test_kept_outputs_are_those_of_the_kept_weights(whole, tiny_task):
    outputs, info = whole.checkpoints.load_outputs(1, "last")
    assert info.epoch == 2
    assert "target_labels" not in outputs
    last = whole.metrics()[-1]
    right = outputs["target_logits"].argmax(1) == tiny_task.target_test.reveal_labels()
    assert right.double().mean() == last.target_accuracy
    source = outputs["source_logits"].argmax(1) == outputs["source_labels"]
    assert source.double().mean() == last.source_accuracy
    review, _ = whole.checkpoints.load("review")
    assert review["confusion"].sum() == len(tiny_task.target_test)
    assert torch.equal(review["target_samples"][0], tiny_task.target_test.images.pixels[0])


def test_the_selected_weights_are_those_of_the_epoch_with_the_best_score(whole):
    for stage in (0, 1):
        scores = {one.epoch: one.scores["combined"] for one in whole.metrics() if one.stage == stage}
        assert whole.checkpoints.load_weights(stage, "selected")[1].epoch == max(scores, key=scores.__getitem__)


def without_target_labels(found):
    """What a run may not owe to target labels: tensors, scores, chosen epochs."""
    tensors = {name: value for name, value in found["tensors"].items() if name != "review"}
    hidden = ("target_accuracy", "pseudo_labels")
    records = [{key: value for key, value in one.items() if key not in hidden} for one in found["records"]]
    selections = [
        [(one["selection"], one["epoch"]) for one in stage["selections"] if one["selection"]["kind"] != "oracle"]
        for stage in found["result"]["stages"]
    ]
    return tensors, records, selections


@pytest.mark.parametrize("methods", [("dann", "mani"), ("mutual_align",)], ids=" ".join)
def test_target_labels_touch_neither_training_nor_selection(tmp_path, methods):
    trained = recipe(*methods, epochs=3, batch_size=10)
    found = []
    for name, task in (("truth", make_tiny_task()), ("noise", make_tiny_task(target_label_seed=5))):
        run(tmp_path / name, task, trained=trained)
        found.append(contents(RunFolder.open(tmp_path / name)))
    assert without_target_labels(found[0]) == without_target_labels(found[1])
    accuracies = [[one["target_accuracy"] for one in each["records"]] for each in found]
    assert accuracies[0] != accuracies[1]  # the labels really differ, and the evaluation really reads them


def test_the_same_seed_gives_the_same_run_and_another_seed_another(whole, tmp_path, tiny_task):
    for name, seed in (("same", 0), ("other", 1)):
        run(tmp_path / name, tiny_task, seed)
    assert contents(RunFolder(tmp_path / "same")) == contents(whole)
    ours, theirs = (folder.checkpoints.load_weights(1, "last")[0] for folder in (whole, RunFolder(tmp_path / "other")))
    assert not all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_run_on_the_cpu_starts_no_gpu(tmp_path, tiny_task, monkeypatch):
    for name in ("get_rng_state", "set_rng_state"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: pytest.fail("a GPU would be started"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    # Where torch is built for GPUs, its Adam asks for one in each step, even on the CPU; those two do not exist.
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    run(tmp_path / "run", tiny_task, accelerator="cpu")
    Predictor.load(tmp_path / "run", accelerator="cpu")


def test_an_experiment_pickles_and_gives_the_same_run(whole, tmp_path, tiny_task):
    experiment = Experiment.start(TWO, tiny_task, 0, tmp_path / "run")
    pickle.loads(pickle.dumps(experiment)).run()  # noqa: S301 - made here
    assert contents(RunFolder(tmp_path / "run")) == contents(whole)


def test_a_record_without_its_checkpoint_is_trained_again_and_not_recorded_twice(whole, tmp_path, tiny_task):
    class Killed(Exception):
        pass

    class KillAtEpoch(Observer):
        def epoch(self, one):
            if (one.stage, one.epoch) == (1, 1):
                raise Killed  # the record is written, the checkpoint is not yet

    with pytest.raises(Killed):
        run(tmp_path / "killed", tiny_task, observer=KillAtEpoch())
    folder = RunFolder.open(tmp_path / "killed")
    assert (folder.metrics()[-1].stage, folder.metrics()[-1].epoch) == (1, 1)
    Experiment(TWO, tiny_task, folder.config().seed, folder).run()
    assert contents(folder) == contents(whole)


def test_the_selected_weights_are_those_of_the_records_although_a_best_epoch_was_killed_and_ended_worse(
    tmp_path, tiny_task, monkeypatch
):
    """As on another machine, the epoch that is trained again after the kill has another score."""
    scores, measure, save = {1: 0.4, 2: 0.6, 3: 0.8, 4: 0.5}, Evaluator.epoch, Checkpoints.save_resumable

    class Killed(Exception):
        pass

    def scored(self, method, name, epoch, previous):
        record, latest = measure(self, method, name, epoch, previous)
        return dataclasses.replace(record, scores=record.scores | {"combined": scores[epoch.number]}), latest

    def save_until_killed(self, tensors, info, keep=2):
        if info["steps_done"] == 3 * 3:
            raise Killed
        save(self, tensors, info, keep)

    monkeypatch.setattr(Evaluator, "epoch", scored)
    four, path = recipe("dann", epochs=4), tmp_path / "run"
    monkeypatch.setattr(Checkpoints, "save_resumable", save_until_killed)
    with pytest.raises(Killed):
        run(path, tiny_task, trained=four)
    monkeypatch.setattr(Checkpoints, "save_resumable", save)
    scores[3] = 0.3
    result = Experiment(four, tiny_task, 0, RunFolder.open(path)).run()
    store = RunFolder.open(path).checkpoints
    assert result.stages[0].selected.epoch == 2
    assert [store.load_weights(0, which)[1].epoch for which in ("selected", "last")] == [2, 4]
    assert store.load_outputs(0, "selected")[1].epoch == 2


def test_a_run_whose_weights_are_not_those_that_its_records_choose_is_not_completed(copied, tiny_task):
    (copied.path / "result.json").unlink()
    weights, info = copied.checkpoints.load_weights(0, "last")
    copied.checkpoints.save_weights(0, "last", weights, dataclasses.replace(info, epoch=1))
    with pytest.raises(MutualignError, match=r"last weights of stage 0 are of epoch 1; .* epoch 2.*\n  hint: "):
        Experiment(TWO, tiny_task, 0, copied).run()


def test_a_complete_run_returns_its_result_without_training_and_only_for_its_data(copied, tiny_task):
    before = copied.result()
    (copied.checkpoints.path / "last.safetensors").unlink()
    assert Experiment(TWO, tiny_task, 0, copied).run() == before
    other = dataclasses.replace(tiny_task, identity="another draw")
    with pytest.raises(MutualignError, match=r"made in a test(.|\n)*another draw"):
        Experiment(TWO, other, 0, copied).run()


def test_a_run_neither_starts_twice_nor_resumes_with_other_data(tmp_path, tiny_task):
    begun = Experiment.start(TWO, tiny_task, 0, tmp_path / "run")
    with pytest.raises(MutualignError, match="already holds a run"):
        Experiment.start(TWO, tiny_task, 0, tmp_path / "run")
    other = dataclasses.replace(tiny_task, identity="another draw")
    with pytest.raises(MutualignError, match=r"made in a test(.|\n)*another draw"):
        dataclasses.replace(begun, task=other).run()


def test_a_run_of_data_that_an_earlier_version_named_otherwise_is_completed(tmp_path, tiny_task):
    begun = Experiment.start(TWO, tiny_task, 0, tmp_path / "run")
    renamed = dataclasses.replace(tiny_task, identity="a better name", former_identities=(tiny_task.identity,))
    dataclasses.replace(begun, task=renamed).run()
    assert begun.folder.result().data == tiny_task.identity  # as in its config


def as_vectors(images):
    return UnlabelledImages(images.pixels.float().mean((1, 2), keepdim=True))


def test_a_start_that_fails_before_anything_is_saved_can_be_made_again_with_other_settings(tmp_path, tiny_task):
    vectors = {
        part: dataclasses.replace(images := getattr(tiny_task, part), images=as_vectors(images.images))
        for part in ("source_train", "source_test", "target_train", "target_test")
    }
    tiny_task = dataclasses.replace(tiny_task, **vectors)
    single = recipe("source_only", batch_size=1, backbone="bottleneck")
    with pytest.raises(MutualignError, match=r"stage 0 \(source_only\): batch norm.*batch_size is 1\n  hint: "):
        run(tmp_path / "run", tiny_task, trained=single)
    with pytest.raises(MutualignError, match="cannot train on accelerator"):
        run(tmp_path / "run", tiny_task, trained=single, accelerator="nothing")
    assert run(tmp_path / "run", tiny_task, trained=recipe("source_only", backbone="bottleneck")).stages
    with pytest.raises(MutualignError, match="already holds a run"):
        run(tmp_path / "run", tiny_task, trained=single)


def test_a_method_that_would_do_nothing_in_the_network_is_refused_and_makes_nothing(tmp_path, tiny_task):
    without = recipe("source_only", "adabn")
    message = r"adabn adapts the statistics of batch norm, and the backbone mani_cnn has none\n  hint: "
    with pytest.raises(MutualignError, match=message):
        Experiment.start(without, tiny_task, 0, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    Experiment.start(dataclasses.replace(without, backbone="two_block_cnn"), tiny_task, 0, tmp_path / "run")


def test_a_config_that_lacks_a_key_is_an_error_that_names_it(tmp_path):
    RunFolder.create(tmp_path / "run", config(SPEC) | {"recipe": {}})
    with pytest.raises(MutualignError, match=r"config\.toml, recipe: missing the key"):
        Experiment.resume(tmp_path / "run", tmp_path)


def test_a_summary_names_the_last_the_selected_and_the_best_epoch_of_each_stage():
    records = [
        record(epoch=epoch, scores={"v": score}, target_accuracy=target)
        for epoch, (score, target) in enumerate(((0.2, 0.8), (0.9, 0.6), (0.5, 0.7)), start=1)
    ]
    (stage,) = summarise(records, "v")
    assert (stage.epochs, stage.train_seconds) == (3, 30.0)
    assert chosen(stage) == {"last": (3, 0.7), "validator:v": (2, 0.6), "oracle": (1, 0.8)}
    (unknown,) = summarise([dataclasses.replace(one, target_accuracy=None) for one in records], "v")
    assert unknown.oracle is None
    assert curves([]) == {}
    assert curves(records)["target_accuracy"] == [0.8, 0.6, 0.7]


# Methods of new kinds -------------------------------------------------------------------------------------------------


class Statistics(Method):
    """Like AdaBN: no source, no optimiser; the target's statistics pass through the network in training mode."""

    uses_source = False

    def updates(self, batch, progress):
        with torch.no_grad():
            self.classifier.features(batch.images)
        yield from ()

    def parameter_groups(self):
        return {}


class Entropy(Method):
    """Like SHOT: no source; the head is fixed, the features make predictions sure, pseudo-labels are looked up."""

    uses_source = False
    resizable_buffers = frozenset({"pseudo_labels"})

    def __init__(self, classifier, config=None):
        super().__init__(classifier, config)
        self.register_buffer("pseudo_labels", torch.empty(0, dtype=torch.int64))

    def begin_epoch(self, look):
        self.pseudo_labels = look().logits.argmax(1).to(self.pseudo_labels.device)

    def forward(self, batch, progress):
        logits = self.classifier(batch.images)
        pseudo = torch.nn.functional.cross_entropy(logits, self.pseudo_labels[batch.target_rows])
        return {"pseudo": 0.3 * pseudo, "entropy": torch.distributions.Categorical(logits=logits).entropy().mean()}, {}

    def parameter_groups(self):
        return {"all": [ParameterGroup(list(self.classifier.features.parameters()))]}


class TwoPlayers(Method):
    """Like a GAN: the classifier, and a discriminator with its own optimiser on detached features."""

    def __init__(self, classifier, config=None):
        super().__init__(classifier, config)
        self.discriminator = torch.nn.Linear(classifier.feature_dim, 1)

    def updates(self, batch, progress):
        def domain_loss(features, targets):
            logits = self.discriminator(features)[:, 0]
            return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)

        features = self.classifier.features(batch.images)
        yield Update("discriminator", {"domain": domain_loss(features.detach(), batch.is_source)})
        features = self.classifier.features(batch.images)
        classes = torch.nn.functional.cross_entropy(self.classifier.head(features[: batch.n_source]), batch.labels)
        yield Update("classifier", {"class": classes, "confusion": domain_loss(features, 1 - batch.is_source)})

    def parameter_groups(self):
        return {
            "classifier": [ParameterGroup(list(self.classifier.parameters()))],
            "discriminator": [ParameterGroup(list(self.discriminator.parameters()))],
        }


@pytest.mark.parametrize("kind", [Statistics, Entropy, TwoPlayers], ids=lambda kind: kind.__name__)
def test_a_method_of_a_new_kind_is_measured_resumed_and_raises_no_false_alarm(tmp_path, tiny_task, kind):
    name = f"like_{kind.__name__.lower()}"
    register_method(name)(kind)
    try:
        trained = recipe("source_only", name, batch_size=10)
        result = run(tmp_path / "run", tiny_task, trained=trained)
        false = {
            "no adaptation gradient",
            "source is not learnt",
            "reversal with the wrong sign",
            "teacher does not move",
        }
        assert not {alarm.name for alarm in result.alarms} & false
        last = RunFolder(tmp_path / "run").metrics()[-1]
        losses = {Statistics: set(), Entropy: {"pseudo", "entropy"}, TwoPlayers: {"class", "confusion"}}
        assert last.audit.gradients.keys() == losses[kind]
        stops = iter(range(1, 100))
        stopped = Experiment.start(
            trained, tiny_task, 0, tmp_path / "stopped", should_stop=lambda: next(stops) == 13
        )  # of the second stage's ten steps, the third
        with pytest.raises(Stopped):
            stopped.run()
        Experiment(trained, tiny_task, 0, RunFolder.open(tmp_path / "stopped")).run()
        whole, resumed = contents(RunFolder(tmp_path / "run")), contents(RunFolder(tmp_path / "stopped"))
        assert resumed["records"] == whole["records"]
        assert resumed["result"] == whole["result"]
    finally:
        del METHODS[name]


# Real tasks -----------------------------------------------------------------------------------------------------------


def test_source_only_on_digits_learns_the_source_and_not_the_target(tmp_path):
    short = ["backbone=two_block_cnn", "stages.0.epochs=1", "stages.0.epoch_steps=90", "stages.0.batch_size=32"]
    result = run(tmp_path / "run", find_task("digits").load(tmp_path), trained=load_recipe("source_only", short))
    last = result.stages[0].last
    assert last.source_accuracy > 0.85
    assert 0.15 < last.target_accuracy < last.source_accuracy - 0.2


@pytest.mark.slow
def test_a_slice_of_the_real_files_trains_end_to_end(tmp_path, real_data):
    task = find_task("mnist-mnistm").load(real_data)
    train, test = torch.arange(800), torch.arange(300)
    labelled = {
        name: LabelledImages(images.images.subset(rows), images.labels[rows])
        for name, images, rows in (("source_train", task.source_train, train), ("source_test", task.source_test, test))
    }
    few = {"target_train": task.target_train.subset(train), "target_test": task.target_test.subset(test)}
    task = dataclasses.replace(task, **labelled, **few)
    short = ["stages.0.epochs=1", "stages.0.epoch_steps=50", "stages.1.epochs=1", "stages.0.optim.lr=3e-3"]
    sizes = ["stages.0.batch_size=32", "stages.1.batch_size=64"]
    network = ["backbone=two_block_cnn", "stages.1.options.threshold=0.5"]  # after so few steps
    trained = load_recipe("mani", [*short, *sizes, *network])
    last = run(tmp_path / "run", task, trained=trained).stages[1].last
    assert last.source_accuracy > 0.6
    assert last.target_accuracy > 0.2  # chance is 0.1
    assert RunFolder.open(tmp_path / "run").metrics()[-1].pseudo_labels.coverage > 0
