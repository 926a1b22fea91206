"""The verdict on a run and its alarms as they stand now, and what to do next: commands, most useful first."""

from __future__ import annotations

from dataclasses import fields

from mutualign.data.folders.folder_task import FolderTask
from mutualign.errors import MutualignError
from mutualign.evaluation.alarms import negative_transfer
from mutualign.evaluation.few_labels import RANDOM
from mutualign.evaluation.verdict import Verdict
from mutualign.io.numbers import percent
from mutualign.io.plugins import mutualign_command
from mutualign.recipes.recipe import SOURCE_ONLY
from mutualign.runs.folder import RunFolder
from mutualign.runs.history import Result, StageAlarm
from mutualign.runs.spec import RunConfig
from mutualign.runs.verdict import verdict_of

LABELS, SEEDS = 50, 5  # images to label, and seeds to train, that are advised


def current_verdict(folder: RunFolder) -> Verdict | None:
    """Return the verdict of a complete run; None without outputs, as in runs of early versions.

    One that had nothing to compare with is made again, since the source-only run may have come later.
    """
    kept = folder.require_result().verdict
    if kept is not None and (kept.compared_with or kept.kind == "baseline"):
        return kept
    try:
        return verdict_of(folder)
    except MutualignError:
        return kept


def current_alarms(result: Result, verdict: Verdict | None) -> list[StageAlarm]:
    """Return the alarms of a complete run, with that of harm if its source-only run came later."""
    later = None if verdict is None or result.compared_with else negative_transfer(verdict)
    if later is None:
        return result.alarms
    return [*result.alarms, StageAlarm(later.name, later.seen, later.cause, len(result.stages) - 1)]


def next_steps(verdict: Verdict, run: RunFolder, *, alarms: bool) -> list[str]:
    """Return sentences on what to do with a run; commands stand between backticks."""
    steps = ["Read the alarms before you use the run."] if alarms else []
    if verdict.headline == "source not learnt":
        steps.append(
            "Train until the source is learnt: more epochs, another learning rate, labels that fit the images."
        )
        return steps
    if verdict.kind == "made it worse":
        steps.append(f"Use the source-only run `{verdict.compared_with}` instead, or try another recipe.")
    elif verdict.kind == "no difference":
        steps.append(f"The source-only run `{verdict.compared_with}` does as well; another recipe may do better.")
    elif verdict.kind == "baseline":
        how = "fit another recipe" if run.config().is_of_arrays else "`mutualign compare` trains both"
        steps.append(f"Compare an adapted run with it: {how}.")
    elif verdict.kind == "cannot tell" and verdict.compared_with is None:
        steps.append(
            "Train the source-only run of the same network and epochs, to know whether adaptation helped: "
            + _train_source_only(run)
        )
    elif verdict.kind == "cannot tell" and verdict.true_gain is not None:
        steps.append(f"Train more seeds: `{compare_command(run, SEEDS)}` has their mean gain.")
    if verdict.true_accuracy is None:
        steps.append(few_labels(verdict, run))
    elif verdict.kind == "helped":
        steps.append(f"Use it: `{mutualign_command('export', run.path)}` writes the network to a file.")
    return steps


def bound_in_words(bound: float) -> str:
    """Say what a lower bound says, which for 0 is nothing."""
    if bound == 0:
        return "no lower bound: images too few, or too unlike the source"
    return f"at least {percent(bound)} right, by a bound at 95 % confidence"


def contradiction(bound: float | None, estimate: float | None, run: RunFolder, *, labelled: bool) -> str:
    """Say that the estimate of a run's accuracy lies below its lower bound, and what decides; empty if it does not.

    With `labelled`, the target accuracy is known.
    """
    if bound is None or estimate is None or estimate >= bound:
        return ""
    decides = f"Labelling {LABELS} images decides"
    if labelled:
        decides = "The target labels decide"
    elif not run.config().is_of_arrays:
        decides += f": `{mutualign_command('report', run.path, '--label-these', LABELS)}`"
    return f"The lower bound and the estimate contradict each other: at least one of them is wrong. {decides}."


def labels_show(config: RunConfig) -> str:
    """End a text on what no evidence without labels can see."""
    how = "" if config.is_of_arrays else f": `mutualign report RUN --label-these {LABELS}` chooses the images"
    return f"A few labels show them{how}."


def few_labels(verdict: Verdict, run: RunFolder) -> str:
    """Say how a few labels decide what no evidence without labels can."""
    if run.config().is_of_arrays:
        return f"Label {LABELS} target rows, drawn at random: `DomainAdapter.score` gives the accuracy on them."
    write = mutualign_command("report", run.path, "--label-these", LABELS)
    read = mutualign_command("estimate", run.path, "--labels", run.path / "label-these" / "labels.csv")
    use = (
        f"Label {LABELS} images: `{write}` chooses them, and `{read}` gives an exact interval of the accuracy, valid "
        "whatever the errors"
    )
    if verdict.compared_with is not None:
        return (
            f"{use}, from {round(RANDOM * LABELS)} or more that are drawn at random, and one of the gain over source "
            "only, from those on which the two runs differ."
        )
    return f"{use}." if verdict.kind == "baseline" else f"{use}; of the gain too, if source only is trained before."


def _train_source_only(run: RunFolder) -> str:
    """Say how to train a run's source-only run: by a command or, on arrays, by a fit that `fair_baseline` finds."""
    config, path = run.config(), run.path.absolute()
    if not config.is_of_arrays:
        return f"`{compare_command(run)}` does so."
    recipe, seed, changes = config.recipe, f"seed-{config.seed}", (f"method={SOURCE_ONLY}", "options={}")
    stages = [f"stages.{number}.{change}" for number in range(len(recipe.stages)) for change in changes]
    in_place = path.name == seed  # in a folder of the form OUT/arrays/NAME/seed-SEED
    place = path.parent.parent if in_place else path.parent / config.task
    settings = {
        "overrides": [f"name={SOURCE_ONLY}", *stages],
        "random_state": config.seed,
        "run_folder": str(place / recipe.source_only().name / seed),
    }
    words = [repr(str(path / "config.toml")), *(f"{name}={value!r}" for name, value in settings.items())]
    move = "" if in_place else f"; then move this run to `{place / recipe.name / seed}`"
    return f"`DomainAdapter({', '.join(words)})` does so, with the arrays and other parameters of this fit{move}."


def compare_command(run: RunFolder, seeds: int = 1) -> str:
    """Return the command that trains a run's source-only run, and not the run again if it is where `run` puts it."""
    config, path = run.config(), run.path if len(run.path.parts) > 3 else run.path.absolute()
    if (own := config.own_images) is None:
        data = ["--task", config.task, *(["--data", config.data_folder] if config.data_folder else [])]
    else:
        given = {one.name: getattr(own, one.name) for one in fields(FolderTask) if one.name != "features"}
        changed = [name for name, value in given.items() if value != getattr(FolderTask, name, None)]
        data = [word for name in changed for word in (f"--{name.replace('_', '-')}", given[name])]
    place = ["--out", path.parents[2]] if config.run_spec.path(path.parents[2]) == path else []
    counted = ["--seeds", max(seeds, config.seed + 1)]
    return mutualign_command("compare", "--recipes", path / "config.toml", *data, *counted, *place)
