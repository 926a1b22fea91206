"""The page of one run, from its folder alone."""

from __future__ import annotations

from mutualign.io.numbers import percent
from mutualign.report.audit_section import audit_section
from mutualign.report.epoch_plots import accuracy_curves, score_curve
from mutualign.report.output_sections import (
    confusion_section,
    embedding_section,
    predictions_section,
    reliability_section,
)
from mutualign.report.page import AlarmBox, Block, Bullets, Details, Page, Plot, Prose, Section, Table
from mutualign.report.run_data import FinishedRun, measured, spaced
from mutualign.report.verdict_blocks import badge, key_numbers, limits, summary
from mutualign.runs.folder import RunFolder

ORACLE = "oracle (needs labels)"
CHECKED = (
    "gradients that are zero or reversed, a teacher that does not move, a source that was not learnt, a saturated "
    "discriminator, collapsed or missing classes, class frequencies that differ, pseudo-labels that confirm "
    "themselves, identical domains, a low target accuracy"
)


def run_page(folder: RunFolder) -> Page:
    """Make the report of a run. Raises MutualignError with a hint if the run is not complete."""
    run = FinishedRun.read(folder)
    sections = [
        Section("alarms", "Alarms", _alarms(run)),
        predictions_section(run),
        confusion_section(run),
        reliability_section(run),
        embedding_section(run),
        Section("curves", "Learning curves", [*_learning_curves(run), _stage_table(run)]),
        audit_section(run),
        Section("images", "Images", [Bullets(notes)] if (notes := run.config.first_notes) else []),
        Section("config", "Config", [Details("config.toml", _config_text(run))]),
        Section("environment", "Command and environment", _environment(run)),
    ]
    return Page(
        title=f"{run.name} on {run.result.task}",
        where="/".join(folder.path.absolute().parts[-3:]),
        summary=summary(run),
        numbers=key_numbers(run),
        sections=[section for section in sections if section.blocks],
        badge=badge(run),
        reads_labels=run.has_target_labels,
    )


def _stage_table(run: FinishedRun) -> Table:
    labels = run.has_target_labels
    head = ["stage", "epoch chosen by", "epoch", *(["target accuracy"] if labels else []), "source accuracy", "seconds"]
    rows: list[tuple[str, ...]] = []
    muted: set[int] = set()
    for stage, name in zip(run.result.stages, run.stages.names, strict=True):
        for one in stage.selections:
            if one.selection.kind == "oracle":
                muted.add(len(rows))
            rule = {"last": "last epoch", "oracle": ORACLE}.get(one.selection.kind)
            accuracies = [percent(one.target_accuracy)] if labels else []
            rows.append(
                (
                    name,
                    rule or f"{spaced(str(one.selection.validator))} (no labels)",
                    f"{one.epoch} of {stage.epochs}",
                    *accuracies,
                    percent(one.source_accuracy),
                    f"{stage.train_seconds:.0f}",
                )
            )
    caption = "Accuracy on held-out source images; seconds of training per stage."
    folded = "Every stage, by the way of choosing its epoch"
    if labels:
        caption = (
            "Accuracy on the test images of both domains; seconds of training per stage. The oracle is the best epoch "
            "by target test labels. It is not a result: it shows what selecting without labels costs."
        )
    return Table(
        head, rows, caption, numbers=frozenset(range(2, len(head))), muted_rows=frozenset(muted), folded=folded
    )


def _alarms(run: FinishedRun) -> list[Block]:
    names = run.stages.names
    boxes: list[Block] = [
        AlarmBox(alarm.name, f"stage {names[alarm.stage]}", alarm.seen, alarm.cause) for alarm in run.alarms
    ]
    checked = CHECKED if run.compared_with is None else f"{CHECKED}, negative transfer"
    blocks = boxes or [Prose(f"No alarms. Checked: {checked}.")]
    if run.lacks_baseline:
        train = "" if run.config.is_of_arrays else " `mutualign compare` trains one."
        blocks.append(
            Prose(
                "Negative transfer was not checked, because there was no complete source-only run of the same network, "
                f"epochs, data and seed in the same output folder.{train}"
            )
        )
    return [*blocks, Prose(limits(run))]


def _learning_curves(run: FinishedRun) -> list[Block]:
    curves = {
        "target": run.curve(lambda record: record.target_accuracy),
        "source": run.curve(lambda record: record.source_accuracy),
    }
    accuracies = measured(curves)
    about = "Of held-out source images: it does not say how the target is classified."
    if "target" in accuracies:
        about = (
            "On the test images of both domains. Target labels are read at every epoch for this curve; nothing is "
            "trained or selected by it."
        )
    score, name = run.curve(lambda record: record.scores.get(run.validator)), spaced(run.validator)
    return [
        Plot(
            "accuracy-by-epoch",
            "Accuracy by epoch" if "target" in accuracies else "Source accuracy by epoch",
            f"{about} The dashed line is the epoch selected without labels.",
            accuracy_curves(accuracies, run.stages),
        ),
        Plot(
            "score-by-epoch",
            "Label-free score by epoch",
            f"The epoch of the last stage with the highest score ({name}) is selected. It uses no target labels.",
            score_curve(score, name, run.stages),
        ),
    ]


def _config_text(run: FinishedRun) -> str:
    return (run.folder.path / "config.toml").read_text(encoding="utf-8")


def _environment(run: FinishedRun) -> list[Block]:
    result = run.result
    lines = [
        ("created", result.created),
        ("seed", str(result.seed)),
        ("hardware", result.hardware),
        ("data", result.data),
        *result.versions.items(),
    ]
    text = "\n".join(f"{name:<18}{value}" for name, value in lines)
    return [Details("Command", result.command, opened=True), Details("Environment", text)]
