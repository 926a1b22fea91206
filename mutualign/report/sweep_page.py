"""The page of a sweep: what was found, what mattered, and how far the score agrees with the labels."""

from __future__ import annotations

import json
from pathlib import Path

from mutualign.errors import MutualignError
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.io.numbers import percent
from mutualign.report.page import Details, KeyNumber, Page, Plot, Prose, Section, Table
from mutualign.report.sweep_plots import history, importances, parallel_coordinates, score_by_accuracy
from mutualign.runs.sweeps.study import BEST, Study

SCORE = DEFAULT_VALIDATOR
MOST_ROWS = 20


def sweep_page(folder: Path) -> Page:
    """Make the report of a sweep's folder. Raises MutualignError if no trial is complete."""
    study = Study(folder)
    complete, best = study.complete(), study.best()
    if best is None:
        raise MutualignError(f"{folder}: no trial is complete yet")
    states = [trial.state.name for trial in study.study.trials]
    accuracies = {trial.number: study.accuracy(trial) for trial in complete}
    facts = {name: json.loads(text) for name, text in study.study.user_attrs.items()}
    settings = ", ".join(f"{name} = {_shown(value)}" for name, value in best.params.items())
    numbers = [
        KeyNumber(str(len(states)), "trials"),
        KeyNumber(str(states.count("PRUNED")), "pruned"),
        KeyNumber(f"{best.values[0]:.3f}", f"best {SCORE}"),
    ]
    if (accuracy := accuracies[best.number]) is not None:
        numbers.append(KeyNumber(percent(accuracy), "its target accuracy (needs labels)", muted=True))
    return Page(
        title="Sweep",
        where="/".join(folder.absolute().parts[-2:]),
        summary=f"{facts['recipe']['name']} on {facts['task']}, by {SCORE}, a score without target labels. "
        f"Trial {best.number} is best: {settings}.",
        numbers=numbers,
        sections=[
            _best(folder, study),
            _course(study),
            _parameters(study),
            *([_labels(study, accuracies)] if None not in accuracies.values() else []),
        ],
        reads_labels=any(accuracy is not None for accuracy in accuracies.values()),
    )


def _best(folder: Path, study: Study) -> Section:
    ranked = sorted(study.complete(), key=lambda trial: -trial.values[0])[:MOST_ROWS]
    names = list(ranked[0].params)
    rows = [(str(one.number), f"{one.values[0]:.4f}", *(_shown(one.params[name]) for name in names)) for one in ranked]
    blocks: list[Prose | Table | Details] = [
        Prose(f"`{study.best_command()}` trains the best one."),
        Table(("trial", "score", *names), rows, numbers=frozenset(range(len(names) + 2))),
    ]
    if (path := folder / BEST).is_file():
        blocks.append(Details(BEST, path.read_text(encoding="utf-8")))
    return Section("best", "The best trials", blocks)


def _course(study: Study) -> Section:
    scores = [(trial.number, trial.values[0]) for trial in study.complete()]
    caption = "Each point is a complete trial; the line is the best score so far. Pruned trials have no point."
    return Section("history", "History", [Plot("sweep-history", "Score by trial", caption, history(scores, SCORE))])


def _parameters(study: Study) -> Section:
    complete = study.complete()
    log = [name for name, found in complete[0].distributions.items() if getattr(found, "log", False)]
    lines = [(trial.params, trial.values[0]) for trial in complete]
    caption = (
        "A line per trial, from the lowest to the highest value that was tried; darker is better, orange the best."
    )
    plots = [Plot("sweep-parallel", "Settings and score", caption, parallel_coordinates(lines, log))]
    if len({trial.values[0] for trial in complete}) > 1 and len(complete) >= 4:
        evaluator = study.optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = study.optuna.importance.get_param_importances(study.study, evaluator=evaluator)
        caption = f"fANOVA over {len(complete)} complete trials. With few trials this is a hint, no more."
        plots.insert(0, Plot("sweep-importance", "Importance", caption, importances(shares)))
    return Section("settings", "What mattered", plots)


def _labels(study: Study, accuracies: dict[int, float | None]) -> Section:
    complete, best = study.complete(), study.best()
    assert best is not None  # noqa: S101 - the page needs one
    points = [(trial.values[0], accuracies[trial.number] or 0.0) for trial in complete]
    chosen = [trial.number for trial in complete].index(best.number)
    regret = max(accuracy for _, accuracy in points) - points[chosen][1]
    text = (
        "This section needs target labels, which had no part in the search. By labels, the best of all trials has a "
        f"target accuracy {100 * regret:.1f} points above that of the chosen one (regret)."
    )
    caption = "Grey: each complete trial, at its selected epochs. Orange: the chosen one."
    plot = Plot("sweep-labels", "Score and target accuracy", caption, score_by_accuracy(points, chosen, SCORE))
    return Section("labels", "Score against accuracy (needs labels)", [Prose(text), plot])


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
