"""The page of the experiment on the gate: what it caught, what it missed, and how often it cried wolf."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.formats import percent
from bench.gate.rules import EFFECT, words
from bench.report.figures import MUTED, Drawing, canvas, finish, method_colours, styled
from bench.report.page import write_page
from bench.report.tables import Table
from tools.gate_validation.proof import Proof, Trial


@dataclass(frozen=True)
class ProofBar:
    """A bar of the experiment: of `wanted` trials, at least (or at most) `limit` have to be `counted`."""

    figure: str
    trials: list[Trial]
    wanted: int
    limit: int
    at_most: bool = False

    @property
    def counted(self) -> int:
        """Unchanged reruns that raised an alarm; planted regressions that the gate caught."""
        return sum(trial.alarm if self.at_most else trial.caught for trial in self.trials)

    @property
    def outcome(self) -> str:
        """met | missed | not yet, where too few trials were made to tell."""
        slack = self.limit if self.at_most else self.wanted - self.limit
        against = self.counted if self.at_most else len(self.trials) - self.counted
        if against > slack:
            return "missed"
        return "met" if len(self.trials) >= self.wanted else "not yet"


def bars(proof: Proof) -> list[ProofBar]:
    """All of 20 planted deterministic regressions, 9 of 10 slow-downs, and at most one false alarm in 100 reruns."""
    return [
        ProofBar("planted regressions caught", proof.of(True), 20, 20),
        ProofBar("steps 10 % slower, caught", proof.of(True, slows=True), 10, 9),
        ProofBar("false alarms in unchanged reruns", proof.of(False), 100, 1, at_most=True),
    ]


def missed(proof: Proof) -> bool:
    """Whether a bar is, or cannot be told yet."""
    return any(bar.outcome != "met" for bar in bars(proof))


def write_proof(proof: Proof, reports: Path) -> Path:
    """Write `index.html`, `report.md`, the figure and the tables below `reports`; returns the page."""
    drawing = _spread_figure(proof)
    tables = [_bars_table(proof), _pieces_table(proof), _planted_table(proof), _alarms_table(proof)]
    values = {"proof": proof, "tables": tables, "drawing": drawing}
    return write_page(reports / proof.study, "proof", [drawing], tables, values)


def _bars_table(proof: Proof) -> Table:
    rows = [
        [bar.figure, f"{bar.counted} of {len(bar.trials)}",
         f"{'at most' if bar.at_most else 'at least'} {bar.limit} of {bar.wanted}", bar.outcome]
        for bar in bars(proof)
    ]  # fmt: skip
    data = pd.DataFrame(rows, columns=["figure", "measured", "bar", "outcome"])
    caption = (
        "A plant is caught where the gate's exit status is 1, regressed, or 4, a record that failed its audit; a "
        "slower step, only where a figure of speed is among the findings. An alarm is any status but 0, or a study "
        "that broke down. The speed of reruns is judged however busy the machine was; the gate would not compare it."
    )
    return Table("bars", caption, ["figure", "measured", "bar", ""], rows, data)


def _pieces_table(proof: Proof) -> Table:
    rows = []
    for number, piece in enumerate(proof.pieces, 1):
        own = [trial for trial in proof.trials if trial.piece == number]
        planted, place = sum(trial.planted is not None for trial in own), piece.environment
        begun = f"{piece.created[:16].replace('T', ' ')} UTC"
        machine = f"{place.processor or place.device_name}, {place.threads} thread{'s' * (place.threads != 1)}"
        rows.append([begun, f"{planted}", f"{len(own) - planted}", piece.git_commit or "unknown", machine, place.torch])
    columns = ["begun", "planted", "unchanged", "commit", "machine", "torch"]
    caption = (
        "Pieces of the experiment, each held to a baseline of its own commit and machine, which ran alone. Where the "
        "gate that judged is of a later commit than a piece, its rules may have been settled in sight of that piece."
    )
    return Table("pieces", caption, columns, rows, pd.DataFrame(rows, columns=columns))


def _planted_table(proof: Proof) -> Table:
    planted = [*proof.of(True), *proof.of(True, slows=True)]
    rows = [
        [trial.name, trial.planted or "", _outcome(trial), f"{trial.findings_total:,}",
         trial.findings[0] if trial.findings else ""]
        for trial in planted
    ]  # fmt: skip
    caption = "What was planted, one at a time, into a copy of the source, and the worst that the gate found."
    return Table("planted", caption, ["", "planted", "", "findings", "the worst"], rows, _frame(planted))


def _outcome(trial: Trial) -> str:
    return "broke down" if trial.status is None else "caught" if trial.caught else "missed"


def _alarms_table(proof: Proof) -> Table:
    reruns = proof.of(False)
    rows = [[trial.name, "; ".join(trial.findings)] for trial in reruns if trial.alarm]
    caption = (
        "Unchanged reruns that raised an alarm, with the worst few findings; nothing here is what one wants to see."
    )
    return Table("false_alarms", caption, ["", "findings"], rows, _frame(reruns))


def _frame(trials: list[Trial]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"trial": t.name, "planted": t.planted, "status": t.status, "findings": t.findings_total,
          "worst": t.findings[0] if t.findings else None} | t.speed for t in trials]
    )  # fmt: skip


@styled
def _spread_figure(proof: Proof) -> Drawing:
    """Where each speed ratio came to lie over the baseline's: unchanged reruns, and slowed ones."""
    names = list(dict.fromkeys(name for trial in proof.trials for name in trial.speed))
    figure, axes = canvas(height=0.9 + 0.34 * max(1, len(names)))
    slower = method_colours(["mod"])["mod"]
    groups = ((proof.of(False), MUTED, "unchanged", -0.16), (proof.of(True, slows=True), slower, "10 % slower", 0.16))
    for trials, colour, label, shift in groups:
        for row, name in enumerate(names):
            values = np.array([trial.speed[name] - 1 for trial in trials if name in trial.speed])
            axes.scatter(values, np.full(len(values), row + shift), s=9, color=colour, alpha=0.6, linewidths=0)
        axes.scatter([], [], s=9, color=colour, label=label)
    axes.axvline(EFFECT, color=MUTED, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), [_told(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(lambda value, _: percent(value, 0))
    axes.set_xlabel("median over the baseline’s", loc="right")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return finish(
        figure, "speed", "Speed, trial by trial", "Median speed ratio of each trial over the baseline's.",
        "A dot: a trial. Right of the dashed line a slow-down is told, if the test finds it to be more than that. A "
        "plant slows the methods of one kind, or all, which only the step over torch’s own encoder can show.",
    )  # fmt: skip


def _told(name: str) -> str:
    method, figure = name.split(" ", 1)
    return f"{method}: {words('speed.' + figure.removeprefix('speed.'))}"
