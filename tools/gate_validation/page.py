"""The page of the validation: what the gate caught, what it missed, and its false positives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.formats import percent
from bench.gate.load import title
from bench.gate.rules import EFFECT, words
from bench.web.figures import MUTED, Drawing, canvas, finish, method_colours, styled
from bench.web.page import Page, write_page
from bench.web.tables import Table
from tools.gate_validation.record import Trial, Validation

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Goal:
    """A target of the validation: of `wanted` trials, at least (or at most) `limit` are counted."""

    figure: str
    trials: list[Trial]
    wanted: int
    limit: int
    at_most: bool = False

    @property
    def counted(self) -> int:
        """False positives of unchanged re-runs, or caught regressions."""
        return sum(trial.flagged if self.at_most else trial.caught for trial in self.trials)

    @property
    def outcome(self) -> str:
        """met | missed | not yet, if too few trials were run to decide."""
        slack = self.limit if self.at_most else self.wanted - self.limit
        against = self.counted if self.at_most else len(self.trials) - self.counted
        if against > slack:
            return "missed"
        return "met" if len(self.trials) >= self.wanted else "not yet"


def goals(validation: Validation) -> list[Goal]:
    """All of 20 deterministic regressions, 9 of 10 slow-downs, and at most one false positive in 100 re-runs."""
    return [
        Goal("injected regressions caught", validation.of(True), 20, 20),
        Goal("steps 10 % slower, caught", validation.of(True, slows=True), 10, 9),
        Goal("false positives in unchanged re-runs", validation.of(False), 100, 1, at_most=True),
    ]


def all_met(validation: Validation) -> bool:
    """Whether every target is met, by enough trials."""
    return all(goal.outcome == "met" for goal in goals(validation))


def write_validation(validation: Validation, reports: Path) -> Path:
    """Write index.html, report.md, the figure and the tables in `reports`/gate_validation; returns the page."""
    drawing = _speed_figure(validation)
    tables = [table(validation) for table in (_targets_table, _batches_table, _mutants_table, _false_positives_table)]
    values = {"validation": validation, "tables": tables, "drawing": drawing}
    found = goals(validation)
    page = Page(
        name="gate_validation",
        kind="Regression gate",
        finding=_finding(*found),
        facts=[f"{validation.side_by_side} trials at a time"],
        created=max((batch.created for batch in validation.batches), default=""),
        commits=[validation.judged_by] if validation.judged_by else [],
    )
    return write_page(reports, page, "validation", [drawing], tables, values, _TEMPLATES)


def _finding(caught: Goal, slowed: Goal, false: Goal) -> str:
    return (
        f"The gate caught {caught.counted} of {len(caught.trials)} injected regressions and {slowed.counted} of "
        f"{len(slowed.trials)} slow-downs; {false.counted} of {len(false.trials)} unchanged re-runs were false "
        "positives"
    )


def _targets_table(validation: Validation) -> Table:
    rows = [
        [goal.figure, f"{goal.counted} of {len(goal.trials)}",
         f"{'at most' if goal.at_most else 'at least'} {goal.limit} of {goal.wanted}", goal.outcome]
        for goal in goals(validation)
    ]  # fmt: skip
    columns = ["figure", "measured", "target", "outcome"]
    caption = (
        "A regression is caught if the gate's exit status is 1 (regressed) or 4 (a record failed its audit). A "
        "slower step is caught only if a figure of speed is among the findings. A false positive is an unchanged "
        "re-run with any status but 0, or whose study failed. The speed of re-runs counts even if the machine was "
        "busy, although the gate itself would then skip it."
    )
    return Table("targets", caption, columns, rows, pd.DataFrame(rows, columns=columns))


def _batches_table(validation: Validation) -> Table:
    rows = []
    for number, batch in enumerate(validation.batches, 1):
        own = [trial for trial in validation.trials if trial.batch == number]
        mutated, place = sum(trial.mutant is not None for trial in own), batch.environment
        started = f"{batch.created[:16].replace('T', ' ')} UTC"
        machine = f"{place.processor or place.device_name}, {place.threads} thread{'s' * (place.threads != 1)}"
        row = [started, f"{mutated}", f"{len(own) - mutated}", batch.git_commit or "unknown", machine, place.torch]
        rows.append(row)
    columns = ["started", "mutants", "unchanged", "commit", "machine", "torch"]
    caption = (
        "Batches of trials. Each batch is compared with a baseline of its own commit and machine, which ran alone. "
        "Rules of a gate that is newer than a batch may have been chosen after seeing that batch."
    )
    return Table("batches", caption, columns, rows, pd.DataFrame(rows, columns=columns))


def _mutants_table(validation: Validation) -> Table:
    mutated = [*validation.of(True), *validation.of(True, slows=True)]
    rows = [
        [trial.name, trial.mutant or "", _outcome(trial), f"{trial.findings_total:,}",
         trial.findings[0] if trial.findings else ""]
        for trial in mutated
    ]  # fmt: skip
    caption = "The injected regressions, one per copy of the source, and the worst finding of the gate."
    columns = ["name", "regression", "outcome", "findings", "worst finding"]
    return Table("mutants", caption, columns, rows, _frame(mutated))


def _outcome(trial: Trial) -> str:
    return "study failed" if trial.status is None else "caught" if trial.caught else "missed"


def _false_positives_table(validation: Validation) -> Table:
    reruns = validation.of(False)
    rows = [[trial.name, "; ".join(trial.findings)] for trial in reruns if trial.flagged]
    caption = "Unchanged re-runs that the gate flagged, with the worst few findings."
    return Table("false_positives", caption, ["name", "findings"], rows, _frame(reruns))


def _frame(trials: list[Trial]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"trial": t.name, "mutant": t.mutant, "status": t.status, "findings": t.findings_total,
          "worst": t.findings[0] if t.findings else None} | t.speed for t in trials]
    )  # fmt: skip


@styled
def _speed_figure(validation: Validation) -> Drawing:
    """Each speed ratio relative to the baseline's: unchanged re-runs, and slowed ones."""
    names = list(dict.fromkeys(name for trial in validation.trials for name in trial.speed))
    figure, axes = canvas(height=0.9 + 0.34 * max(1, len(names)))
    slowed = method_colours(["mod"])["mod"]
    groups = ((validation.of(False), MUTED, "unchanged", -0.16), (validation.of(True, True), slowed, "slowed", 0.16))
    for trials, colour, label, shift in groups:
        for row, name in enumerate(names):
            values = np.array([trial.speed[name] - 1 for trial in trials if name in trial.speed])
            axes.scatter(values, np.full(len(values), row + shift), s=9, color=colour, alpha=0.6, linewidths=0)
        axes.scatter([], [], s=9, color=colour, label=label)
    axes.axvline(EFFECT, color=MUTED, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), [_label(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(lambda value, _: percent(value, 0))
    axes.set_xlabel("change of the median, relative to the baseline", loc="right")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return finish(
        figure, "speed", "Step time of each trial", "Change of the median step time ratio of each trial.",
        "A dot is a trial. Right of the dashed line the gate reports a slow-down if its test confirms it. Slowed "
        "trials slow one kind of method, or all methods; only the ratio to torch’s own encoder shows the latter.",
    )  # fmt: skip


def _label(name: str) -> str:
    method, figure = name.split(" ", 1)
    return f"{title(method)}, {words(figure).removeprefix('training step time ')}"
