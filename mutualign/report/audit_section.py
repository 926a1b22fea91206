"""The section of the audit: what each epoch tells of pseudo-labels, predictions and gradients."""

from __future__ import annotations

from mutualign.report.finished import Run, measured, percent
from mutualign.report.page import Block, Plot, Prose, Section, Table
from mutualign.report.plots import (
    class_shares,
    confidence_histograms,
    gradient_norms,
    shares_by_epoch,
    shares_heatmap,
)


def audit_section(run: Run) -> Section:
    """Pseudo-labels, drift, classes, confidence and gradients, by epoch and at the chosen one."""
    pseudo = {
        "coverage": run.curve("audit", "coverage"),
        "precision (needs labels)": run.curve("pseudo_labels", "precision"),
        "agreement": run.curve("audit", "teacher_agreement"),
    }
    pseudo = measured(pseudo)
    blocks: list[Block] = [
        Prose("Of up to 2,000 target training images, at the end of each epoch. Only what says so needs target labels.")
    ]
    if pseudo:
        blocks.append(
            Plot(
                "pseudo-labels",
                "Pseudo-labels",
                "Coverage is the share of target images that the teacher is sure enough of to label; precision, the "
                "share of those labels that are right; agreement, that "
                "teacher and student predict the same class. Coverage that rises while precision falls is a model that "
                "confirms its own errors.",
                shares_by_epoch(pseudo, run.stages),
            )
        )
    else:
        blocks.append(Prose("This recipe has no teacher, so there are no pseudo-labels to audit."))
    drift = measured({"predictions that changed": run.curve("audit", "drift")})
    if drift:
        blocks.append(
            Plot(
                "drift",
                "Drift of predictions",
                "The share of images whose predicted class differs from the epoch before. It should settle; the first "
                "epoch of a stage has none.",
                shares_by_epoch(drift, run.stages),
            )
        )
    return Section("pseudo-labels", "Audit by epoch", [*blocks, *_shares(run), *_gradients(run), _audit_table(run)])


def _shares(run: Run) -> list[Block]:
    chosen, names = run.chosen_record["audit"], run.result["class_names"]
    prior = run.result["source_class_shares"]
    shares = {"source labels": prior, "target, predicted": chosen["predicted_shares"]}
    if chosen.get("coverage"):
        shares["pseudo-labels"] = chosen["pseudo_label_shares"]
    histograms = {
        f"epoch {run.chosen_record['epoch']}, chosen": chosen["confidence_histogram"],
        "first epoch": run.records[0]["audit"]["confidence_histogram"],
    }
    return [
        Plot(
            "class-shares",
            "Predicted classes against the source's",
            "At the chosen epoch. Marks far from the bars are classes that are rarer or more frequent than in the "
            "source, or predictions that collapse into a few classes.",
            class_shares(shares, names),
        ),
        Plot(
            "confidence",
            "Confidence",
            "Top probabilities at the chosen epoch (bars) and after the first epoch of all (outline). Sure is not the "
            "same as right: see the reliability diagram.",
            confidence_histograms(histograms),
        ),
        Plot(
            "shares-by-epoch",
            "Predicted classes, by epoch",
            "Orange: predicted more often than the class occurs in the source; blue: less often. The fullest colour is "
            "twice the share, or none. A row that stays orange draws the others in.",
            shares_heatmap([record["audit"]["predicted_shares"] for record in run.records], prior, names, run.stages),
        ),
    ]


def _gradients(run: Run) -> list[Block]:
    names = dict.fromkeys(name for record in run.records for name in record["audit"].get("gradients", {}))
    norms = {name.replace("_", " "): run.curve("audit", "gradients", name) for name in names}
    if not norms:
        return []
    caption = (
        "Of each loss, at the features, as weighted in training. A curve on the lower edge is a loss that teaches the "
        "features nothing."
    )
    return [Plot("gradients", "Gradient norms", caption, gradient_norms(norms, run.stages))]


def _audit_table(run: Run) -> Table:
    columns = {
        "coverage": ("audit", "coverage"),
        "precision (needs labels)": ("pseudo_labels", "precision"),
        "teacher and student agree": ("audit", "teacher_agreement"),
        "drift": ("audit", "drift"),
        "discriminator right": ("means", "domain_accuracy"),
        "survive a slight change": ("scores", "augmentation_consistency"),
    }
    curves = measured({name: run.curve(*keys) for name, keys in columns.items()})
    head = ("stage", "epoch", *curves)
    rows = [
        (
            run.stages.names[record["stage"]],
            str(record["epoch"]),
            *("" if (value := curve[number]) is None else percent(value) for curve in curves.values()),
        )
        for number, record in enumerate(run.records)
    ]
    return Table(head, rows, "The same as numbers.", numbers=frozenset(range(1, len(head))))
