"""Tables of the blind test: what evidence without labels says, against the truth."""

from __future__ import annotations

from collections.abc import Mapping

from tools.markdown import markdown, table
from tools.results import Results


@table("blind-estimates", source="blind")
@table("photos-estimates", source="evidence-photos")
def estimates_table(results: Results) -> list[str]:
    """Errors, coverage and width of every kind of evidence about the accuracy, at last epochs."""
    lines = [
        [
            line["kind"],
            line["estimator"].replace("_", " "),
            f"{line['mean_absolute_error']:.1f}",
            f"{line['bias']:+.1f}",
            share(line["holds"]),
            f"{line['width']:.1f}",
            str(line["runs"]),
        ]
        for line in results["summary"]["estimates"]
        if line["epoch"] == "last"
    ]
    return markdown(["tasks", "evidence", "mean absolute error", "bias", "range holds", "mean width", "runs"], lines)


@table("blind-alarms", source="blind")
@table("photos-alarms", source="evidence-photos")
def alarms_table(results: Results) -> list[str]:
    """How often an alarm is raised when it should be, and when it should not."""
    lines = [
        [line["kind"], line["alarm"], share(line["hit"]), share(line["false"]), f"{line['runs'][0]}, {line['runs'][1]}"]
        for line in results["summary"]["alarms"]
    ]
    return markdown(["tasks", "alarm", "raised when it should be", "raised when it should not", "runs of each"], lines)


@table("blind-verdicts", source="blind")
@table("photos-verdicts", source="evidence-photos")
def verdicts_table(results: Results) -> list[str]:
    """Verdicts without labels, and what target labels say of the same runs."""
    lines = []
    for line in results["summary"]["verdicts"]:
        if line["verdict"] == "all":
            wrong = f"wrong {share(line['wrong'])}; not `cannot tell` {share(line['given'])}"
            lines.append([line["kind"], "*all*", str(line["runs"]), "", "", "", wrong])
            continue
        counts = (str(line["by_labels"].get(name, 0)) for name in ("better", "neither", "worse"))
        lines.append([line["kind"], line["verdict"], str(line["runs"]), *counts, ""])
    return markdown(["tasks", "verdict without labels", "runs", "better", "neither", "worse", "of all, by task"], lines)


@table("blind-choices", source="blind")
@table("photos-choices", source="evidence-photos")
def choices_table(results: Results) -> list[str]:
    """Points won over the last epoch by choosing one, points lost by choosing a recipe, and rank correlations."""
    keys = ("epoch_gain", "recipe_loss", "rank_correlation", "given_the_epoch")
    lines = [
        [line["kind"], line["by"].replace("_", " "), *(points(line.get(key)) for key in keys)]
        for line in results["summary"]["choices"]
    ]
    heads = ("epoch: won over the last", "recipe: lost", "rank correlation", "given the epoch")
    return markdown(["tasks", "chosen by", *heads], lines)


@table("split")
def split_table(results: Results) -> list[str]:
    """What evidence from half of the source test is worth, on the same and on other digits of the target test."""
    lines = [
        [
            line["what"].replace("_", " "),
            f"{line['same']:.2f}",
            f"{line['other']:.2f}",
            points({"mean": line["difference"], "half_width": line["half_width"]}),
        ]
        for line in results["summary"]
    ]
    return markdown(["evidence", "same digits", "other digits", "difference"], lines)


def share(one: Mapping[str, float] | None) -> str:
    """`95 % (80 to 100)`: a rate with its limits; nothing if there was nothing to count."""
    return "" if one is None else f"{100 * one['rate']:.0f} % ({100 * one['low']:.0f} to {100 * one['high']:.0f})"


def points(one: Mapping[str, float | None] | None) -> str:
    """A mean with half the width of its interval."""
    if one is None:
        return ""
    return f"{one['mean']:+.2f}" + ("" if one["half_width"] is None else f" ± {one['half_width']:.2f}")
