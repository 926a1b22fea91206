"""The audit by epoch: pseudo-labels, predicted classes, confidence and gradients."""

from __future__ import annotations

from mutualign.evaluation.records import EpochRecord
from mutualign.io.numbers import percent
from mutualign.report.class_plots import class_shares, confidence_histograms, shares_by_class
from mutualign.report.epoch_plots import gradient_norms, shares_by_epoch
from mutualign.report.page import Block, Plot, Prose, Section, Table
from mutualign.report.run_data import FinishedRun, measured, spaced


def audit_section(run: FinishedRun) -> Section:
    """Show the audit over all epochs and at the selected one."""
    blocks: list[Block] = [
        Prose(
            "Measured at the end of each epoch on up to 2,000 target training images."
            + (" Only what is marked so needs target labels." if run.has_target_labels else "")
        ),
        *_classes(run),
        *_pseudo_labels(run),
        *_drift(run),
        *_confidence(run),
        *_gradients(run),
        _table(run),
    ]
    return Section("audit", "Audit by epoch", blocks)


def _precision(record: EpochRecord) -> float | None:
    return record.pseudo_labels.precision if record.pseudo_labels else None


def _pseudo_labels(run: FinishedRun) -> list[Block]:
    curves = measured(
        {
            "coverage": run.curve(lambda record: record.audit.coverage),
            "precision (needs labels)": run.curve(_precision),
            "agreement": run.curve(lambda record: record.audit.teacher_agreement),
        }
    )
    if not curves:
        return []
    meanings = {
        "coverage": "Coverage: share of target images that receive a pseudo-label.",
        "precision (needs labels)": "Precision: share of those labels that are right. Rising coverage with falling "
        "precision means that the model confirms its own errors.",
        "agreement": "Agreement: share of images that teacher and student put into the same class.",
    }
    caption = " ".join(meaning for name, meaning in meanings.items() if name in curves)
    return [Plot("pseudo-labels", "Pseudo-labels", caption, shares_by_epoch(curves, run.stages))]


def _drift(run: FinishedRun) -> list[Block]:
    curves = measured({"changed predictions": run.curve(lambda record: record.audit.drift)})
    if not curves:
        return []
    caption = (
        "Share of images whose predicted class differs from the previous epoch's. It should settle. The first epoch "
        "of a stage has no value."
    )
    return [Plot("drift", "Changed predictions", caption, shares_by_epoch(curves, run.stages))]


def _classes(run: FinishedRun) -> list[Block]:
    names, prior, selected = run.class_names, run.result.source_class_shares, run.selected_record.audit
    shares = {"source labels": prior, "target, predicted": selected.predicted_shares}
    if selected.coverage and selected.pseudo_label_shares:
        shares["pseudo-labels"] = selected.pseudo_label_shares
    by_epoch = [record.audit.predicted_shares for record in run.records]
    return [
        Plot(
            "class-shares",
            "Predicted classes and the source's",
            "At the selected epoch. A mark far from its bar is a class that is rarer or more frequent in the target "
            "than in the source, or a sign that predictions collapse into a few classes.",
            class_shares(shares, names),
        ),
        Plot(
            "shares-by-epoch",
            "Predicted classes by epoch",
            "Up, in orange: predicted more often than the class occurs in the source; down, in blue: less often. A "
            "strip at its full height: at least twice as often, or never. Flat: as often as in the source.",
            shares_by_class(by_epoch, prior, names, run.stages),
        ),
    ]


def _confidence(run: FinishedRun) -> list[Block]:
    record = run.selected_record
    histograms = {f"epoch {record.epoch}, selected": record.audit.confidence_histogram}
    caption = "Highest class probability of each target image at the selected epoch."
    if len(run.records) > 1:
        histograms["first epoch"] = run.records[0].audit.confidence_histogram
        caption = "Highest class probability of each target image: selected epoch (bars), first epoch (line)."
    note = " A confident model is not always right: see the reliability diagram." if "reliability" in run.review else ""
    return [Plot("confidence", "Confidence", caption + note, confidence_histograms(histograms))]


def _gradients(run: FinishedRun) -> list[Block]:
    gradients = [record.audit.gradients for record in run.records]
    names = dict.fromkeys(name for found in gradients for name in found)
    norms = {spaced(name): [found.get(name) for found in gradients] for name in names}
    if not norms:
        return []
    caption = (
        "Gradient norm of each loss at the features, as weighted in training. A curve on the lower edge is a loss with "
        "a gradient of zero."
    )
    return [Plot("gradients", "Gradient norms", caption, gradient_norms(norms, run.stages))]


def _table(run: FinishedRun) -> Table:
    columns = measured(
        {
            "coverage": run.curve(lambda record: record.audit.coverage),
            "precision (needs labels)": run.curve(_precision),
            "teacher and student agree": run.curve(lambda record: record.audit.teacher_agreement),
            "changed predictions": run.curve(lambda record: record.audit.drift),
            "discriminator accuracy": run.curve(lambda record: record.means.get("domain_accuracy")),
            "stable under augmentation": run.curve(lambda record: record.scores.get("augmentation_consistency")),
        }
    )
    rows = [
        (
            run.stages.names[record.stage],
            str(record.epoch),
            *("" if (value := curve[number]) is None else percent(value) for curve in columns.values()),
        )
        for number, record in enumerate(run.records)
    ]
    head = ("stage", "epoch", *columns)
    return Table(head, rows, numbers=frozenset(range(1, len(head))), folded="The same as numbers")
