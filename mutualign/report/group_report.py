"""The part of a comparison's page for runs on the same data: sentence, tables, figures, alarms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean

from mutualign.evaluation.estimators import Estimate
from mutualign.evaluation.verdict import Headline
from mutualign.io.numbers import percent
from mutualign.report.comparison_data import RunGroup
from mutualign.report.comparison_samples import sample_gallery
from mutualign.report.group_plots import group_plots
from mutualign.report.page import AlarmBox, Badge, Block, Details, Prose, Section, Table
from mutualign.report.run_data import spaced
from mutualign.report.verdict_blocks import TONES, limits
from mutualign.runs.next_steps import contradiction, next_steps
from mutualign.runs.statistics import Interval, Summary, differences, summarise

Estimates = Mapping[str, tuple[str, Estimate]]  # by the path of the run

MANY_RUNS = 12  # more are folded
RANGE = (
    "The range of `consensus` is the agreement with other seeds, widened by how much the seeds disagree; other ranges "
    "cover only the number of images. None of them is a confidence interval: errors that all runs share are invisible."
)
UNCHECKED = (
    "Some adapted runs were not checked for negative transfer, because no complete source-only run with the same data "
    "and seed was in their output folder."
)


class GroupReport:
    """The part of the page for one group of runs.

    The best system comes first: by target accuracy if it is known, else by the label-free score. The verdict is on the
    best adapted one, `judged`, if there is any.
    """

    def __init__(self, anchor: str, group: RunGroup) -> None:
        self.anchor, self.group, self.runs = anchor, group, group.runs
        self.of_arrays = group.runs[0].run.config.is_of_arrays
        self.validator = spaced(group.validator or "")
        self.scores = {one.path: group.score(one) for one in group.runs}
        self.estimates: Estimates = group.estimates()
        self.rows = group.rows()
        self.summaries = sorted(summarise(self.rows), key=self._quality, reverse=True)
        self.systems = {summary.recipe: group.systems[summary.recipe] for summary in self.summaries}
        self.has_labels = any(summary.target for summary in self.summaries)
        source_only = {one.system for one in group.runs if one.run.config.recipe.is_source_only}
        self.best = self.summaries[0].recipe
        self.judged = next((system for system in self.systems if system not in source_only), self.best)

    def _quality(self, summary: Summary) -> tuple[float, float]:
        last = summary.target_by("last")
        return (last.mean if last else -1.0, self._score(summary.recipe) or -1e9)

    def _score(self, system: str) -> float | None:
        return _mean([self.scores[one.path] for one in self.group.systems[system]])

    def _estimate(self, system: str) -> float | None:
        found = [self.estimates.get(one.path) for one in self.group.systems[system]]
        return _mean([one and one[1].accuracy for one in found])

    def sentence(self) -> str:
        """Name the best system, and the best adapted one."""
        adapted = "" if self.judged == self.best else f" Of the adapted systems, `{self.judged}` ranks first."
        return f"{self._best()}{adapted}"

    def _best(self) -> str:
        best, where = self.summaries[0], f"On `{self.group.title}`"
        runs = f"n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{best.source.n}"
        last = best.target_by("last")
        if last is not None:
            return f"{where}, `{best.recipe}` has the highest target accuracy: {last.percent()} % (last epoch, {runs})."
        estimate, score = self._estimate(best.recipe), self._score(best.recipe)
        estimated = "" if estimate is None else f"; its target accuracy is estimated at {percent(estimate, 0)}"
        if score is None:
            return f"{where}, the runs have no label-free score in common, and the target has no labels{estimated}."
        return (
            f"{where}, which has no target labels, `{best.recipe}` ranks first by the label-free score "
            f"({self.validator}, {runs}){estimated}."
        )

    def badge(self) -> Badge | None:
        """Return the verdict on the best adapted system, `cannot tell` if its runs do not agree; None without one."""
        found = [(one.run, verdict) for one in self.systems[self.judged] if (verdict := one.run.verdict) is not None]
        if not found:
            return None
        run, verdict = found[0]
        if len(self._headlines(self.judged)) > 1:
            verdict = replace(verdict, kind="cannot tell", source_learnt=True)
        steps = next_steps(verdict, run.folder, alarms=bool(run.alarms))
        if verdict.kind == "helped" and verdict.true_accuracy is not None and self.judged != self.best:
            steps[-1] = f"Use `{self.best}` instead: without adaptation, it is better still."
        return Badge(f"{self.judged}: {verdict.headline}", TONES[verdict.headline], steps)

    def _headlines(self, system: str) -> Counter[Headline]:
        """Count the verdicts on the runs of a system."""
        verdicts = [one.run.verdict for one in self.systems[system]]
        return Counter(verdict.headline for verdict in verdicts if verdict is not None)

    def _bound(self, system: str) -> float | None:
        verdicts = [one.run.verdict for one in self.systems[system]]
        return _mean([None if verdict is None else verdict.lower_bound for verdict in verdicts])

    def section(self) -> Section:
        """Return tables, figures and alarms."""
        targets = [self._target_table(), *self._gains()] if self.has_labels else []
        blocks = [
            self._table(),
            *self._contradictions(),
            *targets,
            *sample_gallery(f"samples-{self.anchor}", self.systems),
            self._run_table(),
            *group_plots(self.anchor, self.group.validator, self.systems),
            *self._alarms(),
            Details("Data", self.group.data),
        ]
        return Section(self.anchor, self.group.title, blocks)

    # Tables -----------------------------------------------------------------------------------------------------------

    def _table(self) -> Table:
        rows = []
        for summary in self.summaries:
            alarmed = sum(bool(one.run.alarms) for one in self.systems[summary.recipe])
            rows.append(
                (
                    summary.recipe,
                    str(summary.source.n),
                    _counted(self._headlines(summary.recipe)),
                    _points(self._bound(summary.recipe)),
                    _points(self._estimate(summary.recipe)),
                    _number(self._score(summary.recipe)),
                    summary.source.percent(),
                    str(alarmed),
                    f"{summary.seconds:.0f}",
                )
            )
        order = "target accuracy at the last epoch" if self.has_labels else "label-free score"
        head = (
            *("system", "n", "verdict", "at least", "estimate", "label-free score"),
            *("source", "runs with alarms", "seconds"),
        )
        caption = (
            f"Means over n seeds, sorted by {order}. Verdict: whether adaptation helped, against a source-only run of "
            f"the same network and epochs. At least, estimate: of target accuracy at the selected epoch, in %, "
            f"without labels; the first is a bound at 95 %. Score: {self.validator or 'none in common'} (higher is "
            "better). Source: accuracy on held-out source images, in %, with its 95 % interval over seeds. Seconds: "
            "of training, of the fastest seed."
        )
        return Table(head, rows, caption, numbers=frozenset({1, *range(3, len(head))}))

    def _target_table(self) -> Table:
        rows = [
            (
                summary.recipe,
                str(summary.source.n),
                *(_interval(summary.target_by(kind)) for kind in ("last", "validator", "oracle")),
            )
            for summary in self.summaries
        ]
        head = ("system", "n", "last epoch", "selected epoch", "oracle")
        caption = (
            "Target accuracy in %, mean and 95 % interval over n seeds. Needs labels. Selected: the epoch with the "
            "highest label-free score. The oracle is the best epoch by target test labels. It is not a result: it "
            "shows what selecting without labels costs."
        )
        return Table(head, rows, caption, numbers=frozenset({1, 2, 3, 4}), muted=frozenset({4}))

    def _contradictions(self) -> list[Block]:
        texts = {
            system: contradiction(
                self._bound(system), self._estimate(system), runs[0].run.folder, labelled=self.has_labels
            )
            for system, runs in self.systems.items()
        }
        return [Prose(f"`{system}`: {text}") for system, text in texts.items() if text]

    def _gains(self) -> list[Block]:
        paired = {one.recipe: one for one in differences(self.rows, self.group.baselines)}
        if not paired:
            return []
        head = ("system", "over", "pairs", "last epoch", "selected epoch")
        lines = [
            (
                one.recipe,
                one.baseline,
                str(max(gain.n for gain in one.target.values())),
                *(_interval(one.target_by(kind), sign="+") for kind in ("last", "validator")),
            )
            for one in (paired[system] for system in self.systems if system in paired)
        ]
        caption = (
            "Gain in target accuracy over the source-only system of the same network and epochs, in points, mean and "
            "95 % interval over pairs of runs with the same seed. Needs labels."
        )
        return [Table(head, lines, caption, numbers=frozenset({2, 3, 4}))]

    def _run_table(self) -> Table:
        rows = []
        for one in sorted(self.runs, key=lambda one: -(self.scores[one.path] or 0.0)):
            estimator, estimate, interval = "", "", ""
            if one.path in self.estimates:
                name, found = self.estimates[one.path]
                estimator, estimate = spaced(name), _points(found.accuracy)
                interval = f"{100 * found.low:.1f} to {100 * found.high:.1f}"
            true = [_points(one.run.selected.target_accuracy)] if self.has_labels else []
            epoch = f"{one.run.selected.epoch} of {one.run.last_stage.epochs}"
            rows.append((one.path, epoch, _number(self.scores[one.path]), estimate, interval, estimator, *true))
        true = ["true (needs labels)"] if self.has_labels else []
        head = ("run", "selected epoch", "score", "estimate", "range", "estimator", *true)
        numbers = {1, 2, 3, 4, 6}
        caption = f"Each run at its selected epoch, sorted by label-free score; accuracies in %. {RANGE}"
        if any(name != "consensus" for name, _ in self.estimates.values()):
            more = "" if self.of_arrays else ": `mutualign compare --seeds 3` trains more seeds"
            caption += f" An estimate from a single run is a rough guess{more}."
        links = {one.path: one.page for one in self.runs if one.page is not None}
        if links:
            caption += " A link opens the page of a run."
        else:
            caption += " With `--with-runs`, `mutualign report` also writes the pages of the runs, and links them here."
        folded = f"Each of the {len(rows)} runs" if len(rows) > MANY_RUNS else ""
        return Table(head, rows, caption, numbers=frozenset(numbers), muted=frozenset({6}), folded=folded, links=links)

    # Figures and alarms -----------------------------------------------------------------------------------------------

    def _alarms(self) -> list[Block]:
        blocks: list[Block] = [
            AlarmBox(alarm.name, one.path, alarm.seen, alarm.cause) for one in self.runs for alarm in one.run.alarms
        ]
        unchecked = [one for one in self.runs if one.run.lacks_baseline]
        train = "" if self.of_arrays else " `mutualign compare` trains one if its recipes include `source_only`."
        return [
            *(blocks or [Prose("No run raised an alarm.")]),
            *([Prose(f"{UNCHECKED}{train}")] if unchecked else []),
            *([] if self.has_labels else [Prose(limits(self.runs[0].run))]),
        ]


def _counted(words: Counter[Headline]) -> str:
    total = words.total()
    return ", ".join(word if count == total else f"{word} {count} of {total}" for word, count in words.most_common())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _interval(interval: Interval | None, sign: str = "") -> str:
    return "" if interval is None else interval.percent(sign=sign)
