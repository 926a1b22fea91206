"""The page of one run, from its folder alone."""

from __future__ import annotations

from importlib.metadata import version

from mutualign.report.audit_section import audit_section
from mutualign.report.evaluation_sections import (
    confusion_section,
    embedding_section,
    gallery_section,
    reliability_section,
    samples_section,
)
from mutualign.report.finished import Run, measured, percent
from mutualign.report.page import AlarmBox, Block, Details, KeyNumber, Page, Plot, Prose, Section, Table
from mutualign.report.plots import learning_curves
from mutualign.runs.folder import RunFolder

NO_ALARMS = (
    "No alarms. Looked for: gradients that vanish or point the wrong way, a teacher that does not move, a source that "
    "is not learnt, a saturated discriminator, predictions that collapse or whose classes are far from the source's, "
    "pseudo-labels that confirm themselves, domains that are the same, "
)
ORACLE = "oracle (needs labels)"


def run_page(folder: RunFolder) -> Page:
    """The report of a run. Raises MutualignError, which says what to do, where there is none to make."""
    run = Run.read(folder)
    names, validator = run.result["class_names"], run.validator.replace("_", " ")
    return Page(
        title=f"{run.name} on {run.result['task']}",
        where=run.where,
        summary=summary_sentence(run),
        numbers=_key_numbers(run),
        sections=[
            Section("result", "Result", [_result_table(run)]),
            Section("alarms", "Alarms", _alarms(run)),
            Section("curves", "Learning curves", [_learning_curves(run, validator)]),
            embedding_section(run.outputs, run.review, names),
            confusion_section(run.review, names),
            reliability_section(run.review),
            audit_section(run),
            gallery_section(run.outputs, run.review, names),
            samples_section(run.review),
            Section("config", "Config", [Details("config.toml", run.config_text)]),
            Section("environment", "Command and environment", _environment(run)),
        ],
        version=version("mutualign"),
    )


def summary_sentence(run: Run) -> str:
    """The run in one sentence of plain words."""
    alarms = [alarm["name"] for alarm in run.result["alarms"]]
    told = "no alarms" if not alarms else f"{len(alarms)} alarm{'s' * (len(alarms) > 1)}: {', '.join(alarms)}"
    last, selected = run.selections["last"], run.selected
    if last.get("target_accuracy") is None:
        source = percent(selected["source_accuracy"])
        return (
            f"`{run.name}` was adapted to the target of `{run.result['task']}`, where there are no labels to judge by; "
            f"of held-out source images {source} are right; {told}."
        )
    reached = f"`{run.name}` reaches {percent(last['target_accuracy'])} on the target of `{run.result['task']}`"
    return f"{reached} (last epoch), {percent(selected['target_accuracy'])} at the epoch chosen without labels; {told}."


def _key_numbers(run: Run) -> list[KeyNumber]:
    last, selected, oracle = run.selections["last"], run.selected, run.selections.get("oracle", {})
    numbers = [
        KeyNumber(percent(last.get("target_accuracy")), "target accuracy, last epoch"),
        KeyNumber(
            percent(selected.get("target_accuracy")),
            f"target accuracy at the epoch chosen without labels ({selected['epoch']})",
        ),
        KeyNumber(percent(last["source_accuracy"]), "source accuracy, last epoch"),
        KeyNumber(f"{sum(stage['train_seconds'] for stage in run.result['stages']):.0f} s", "of training"),
        KeyNumber(str(len(run.result["alarms"])), "alarms" if len(run.result["alarms"]) != 1 else "alarm"),
    ]
    if oracle.get("target_accuracy") is not None:
        numbers.insert(2, KeyNumber(percent(oracle["target_accuracy"]), f"{ORACLE}, epoch {oracle['epoch']}", True))
    return numbers


def _result_table(run: Run) -> Table:
    rows: list[tuple[str, ...]] = []
    muted: set[int] = set()
    for number, stage in enumerate(run.result["stages"], start=1):
        for name, chosen in stage["selections"].items():
            if name == "oracle":
                muted.add(len(rows))
            shown = {"last": "last epoch", "oracle": ORACLE}.get(name) or name.split(":")[-1].replace("_", " ")
            accuracies = percent(chosen.get("target_accuracy")), percent(chosen["source_accuracy"])
            epoch = f"{chosen['epoch']} of {stage['epochs']}"
            rows.append((f"{number}: {stage['method']}", shown, epoch, *accuracies, f"{stage['train_seconds']:.0f}"))
    return Table(
        ("stage", "epoch chosen by", "epoch", "target accuracy", "source accuracy", "seconds of stage"),
        rows,
        f"On the test images of both domains ({len(run.outputs['target_logits']):,} of the target are kept for the "
        "sections below). The oracle is the best epoch by target test labels: it is no result, and stands here only to "
        "show what choosing without labels costs.",
        numbers=frozenset({2, 3, 4, 5}),
        muted_rows=frozenset(muted),
    )


def _alarms(run: Run) -> list[Block]:
    if not run.result["alarms"]:
        other = run.result.get("compared_with")
        transfer = (
            "and negative transfer" if other else "but not for negative transfer, as no source-only run is beside"
        )
        return [Prose(f"{NO_ALARMS}{transfer}.")]
    names = run.stages.names
    return [AlarmBox(a["name"], f"stage {names[a['stage']]}", a["seen"], a["cause"]) for a in run.result["alarms"]]


def _learning_curves(run: Run, validator: str) -> Plot:
    accuracies = measured({name: run.curve(f"{name}_accuracy") for name in ("target", "source")})
    caveat = "There are no target labels, so there is no target curve."
    if "target" in accuracies:
        caveat = "The target curve needs labels: it is for the reader, and nothing was chosen by it."
    return Plot(
        "learning-curves",
        "Accuracy by epoch, and the label-free score",
        f"The dashed line is the epoch chosen without labels: the highest {validator} (below) of the last stage. "
        f"{caveat}",
        learning_curves(accuracies, run.curve("scores", run.validator), validator, run.stages.chosen, run.stages),
        wide=True,
    )


def _environment(run: Run) -> list[Block]:
    result = run.result
    lines = [
        ("made", result["created"]),
        ("seed", str(result["seed"])),
        ("hardware", result["hardware"]),
        ("data", result["data"]),
        *((name, str(found)) for name, found in result["versions"].items()),
    ]
    text = "\n".join(f"{name:<18}{value}" for name, value in lines)
    return [Details("Command", result["command"], opened=True), Details("Environment", text)]
