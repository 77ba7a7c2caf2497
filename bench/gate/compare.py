"""Two sides, figure by figure, each under its own rule: what got worse, changed, vanished or improved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from bench.gate.load import Figure, NoDataError, Side
from bench.gate.rules import LOSS_CURVE, PACE, SAMPLES, P, Rule, rule_of, words

Kind = Literal["regressed", "changed", "vanished", "improved", "new"]
FAILING: tuple[Kind, ...] = ("regressed", "changed", "vanished")

_SPLITS = 20_000  # more than there are of eight and eight samples, 12,870: then all are counted

# What a record's configuration says about where, not what.
_PLACES = {"name", "study", "results_dir", "reports_dir", "data.cache_dir", "dry_run"}


@dataclass(frozen=True)
class Finding:
    """A figure that moved. `figure` and `method` are names as recorded; `was` and `now` are written out.

    share: the change as a share of the baseline, where it has one. severity: how many times its tolerance it moved.
    """

    kind: Kind
    method: str
    figure: str
    words: str
    was: str
    now: str
    share: float | None
    certainty: str
    severity: float

    @property
    def fails(self) -> bool:
        return self.kind in FAILING

    @property
    def change(self) -> str:
        """With its direction and size, in words."""
        return "" if self.share is None else _percent(self.share)


@dataclass(frozen=True)
class Verdict:
    """The outcome.

    findings: the worst first. compared: how many figures were. skipped: (method, figure) of both sides that were not
    compared -> why. notes: the same for people, in fewer lines.
    """

    baseline: Side
    current: Side
    findings: list[Finding]
    compared: int
    skipped: dict[tuple[str, str], str]
    notes: list[str]

    @property
    def broken(self) -> list[str]:
        """Records that cannot be relied on, on either side."""
        sides = (("baseline", self.baseline), ("current", self.current))
        return [f"{name}: {line}" for name, side in sides for line in side.broken]

    @property
    def figures(self) -> dict[tuple[str, str], Figure]:
        """The current ones, but for speeds timed while the machine was not as fast as for the baseline."""
        timed_off = off_pace(self.baseline, self.current) is not None
        return {key: figure for key, figure in self.current.figures.items() if not (timed_off and figure.samples)}

    @property
    def word(self) -> str:
        """fine | regressed | broken."""
        return {0: "fine", 1: "regressed", 4: "broken"}[self.status]

    @property
    def status(self) -> int:
        """The exit status: 0 fine, 1 regressed, 4 broken."""
        if self.broken:
            return 4
        return 1 if any(finding.fails for finding in self.findings) else 0


def compare(baseline: Side, current: Side) -> Verdict:
    """Every figure of both sides under its rule.

    Raises NoDataError where the sides are different studies or have no figure that can be compared; of sides that hold
    time and memory alone, no figure of time, unless one of memory got worse.
    """
    whole = not (baseline.broken or current.broken)
    if whole:
        _check_comparable(baseline, current)
    findings = [*_config_findings(baseline, current), *(_missing(baseline, current) if whole else ())]
    common = [key for key in baseline.figures if key in current.figures]
    skipped = {key: why for key in common if (why := _not_compared(*key, baseline, current)) is not None}
    repeated = {method for method in dict(common) if _repeated(method, baseline, current)}
    moved = 0
    for method, name in (key for key in common if key not in skipped):
        was, now = baseline.figures[method, name], current.figures[method, name]
        rule = rule_of(name, method)
        assert rule is not None
        finding = _finding(method, name, rule.after_same_training() if method in repeated else rule, was, now)
        if finding is not None:
            findings.append(finding)
        elif not rule.sampled and was.value != now.value:
            moved += 1
    notes = _notes(skipped, moved)
    sampled = {key for key in common if (rule := rule_of(key[1], key[0])) is not None and rule.sampled}
    of_speed = sampled if not baseline.whole and not any(finding.fails for finding in findings) else set()
    if whole and (len(skipped) == len(common) or (of_speed and of_speed <= skipped.keys())):
        raise NoDataError(f"{baseline.folder} and {current.folder}: nothing can be compared. {' '.join(notes)}")
    findings.sort(key=lambda f: (not f.fails, f.kind == "new", -f.severity, f.method, f.figure))
    return Verdict(baseline, current, findings, len(common) - len(skipped), skipped, notes)


def _not_compared(method: str, name: str, baseline: Side, current: Side) -> str | None:
    """Why a figure of both sides is not compared; None where it is."""
    rule = rule_of(name, method)
    if rule is None:
        return f"{method}, {name}: has no rule, not compared."
    if rule.here and baseline.machine != current.machine:
        return (
            f"The baseline is of another machine ({baseline.machine_name}; now {current.machine_name}): speed and "
            "memory are not compared."
        )
    if rule.sampled and len(baseline.figures[method, name].samples) < SAMPLES:
        return f"{method}, {rule.words}: not compared, for a test needs {SAMPLES} samples a side."
    off = off_pace(baseline, current)
    if rule.sampled and off is not None and len(current.figures[method, name].samples) >= SAMPLES:
        mend = "run the study" if off > 1 else "make the baseline"
        return (
            f"The machine was not as it was for the baseline: a step of torch’s own encoder took {off:.2f} times as "
            f"long. Speed is not compared; {mend} again when less runs beside it."
        )
    return None


def off_pace(baseline: Side, current: Side) -> float | None:
    """How many times as long a step of torch's own encoder took on the baseline's machine, where it is not as fast."""
    was, now = baseline.encoder_seconds, current.encoder_seconds
    if not was or not now or baseline.machine != current.machine or 1 / PACE <= now / was <= PACE:
        return None
    return now / was


def _repeated(method: str, baseline: Side, current: Side) -> bool:
    """Whether training gave the same losses to the bit, so that what it left is the same."""
    names = ["training.final_loss", *(f"loss_curve.{step}" for step in LOSS_CURVE)]
    was, now = ([side.figures.get((method, name)) for name in names] for side in (baseline, current))
    return was == now and was[0] is not None and any(was[1:])


def _notes(skipped: dict[tuple[str, str], str], moved: int) -> list[str]:
    notes = list(dict.fromkeys(skipped.values()))
    if moved:
        figures, them = ("figure is", "it") if moved == 1 else ("figures are", "them")
        notes.append(
            f"{moved:,} {figures} not the same to the bit, but moved no farther than rounding may take {them}."
        )
    return notes


def _check_comparable(baseline: Side, current: Side) -> None:
    if baseline.study != current.study:
        raise NoDataError(
            f"these are different studies: {baseline.study!r} in {baseline.folder}, {current.study!r} in "
            f"{current.folder}."
        )
    if not baseline.figures.keys() & current.figures.keys():
        raise NoDataError(f"{baseline.folder} and {current.folder} have no figure in common.")


def _finding(method: str, name: str, rule: Rule, was: Figure, now: Figure) -> Finding | None:
    if rule.sampled and len(now.samples) < SAMPLES:
        before, after = (f"{len(side.samples)} samples" for side in (was, now))
        return Finding("vanished", method, name, words(name), before, after, None, f"{SAMPLES} are needed", math.inf)
    move = now.value - was.value
    size = abs(move) / abs(was.value) if rule.relative and was.value else abs(move)
    if size <= rule.tolerance:
        return None
    certainty = "exact" if rule.tolerance <= 1e-9 else f"{_number(size / rule.tolerance, 2)} times what is allowed"
    if rule.sampled:
        p = _mann_whitney(was.samples, now.samples, math.copysign(rule.tolerance, move))
        if p >= P:
            return None
        processes = f"{len(was.samples)} and {len(now.samples)} processes"
        certainty = f"by more than {100 * rule.tolerance:g} %: p = {p:.1g} of {processes}"
    if rule.better != "same" and (move > 0) == (rule.better == "lower"):
        kind: Kind = "regressed"
    else:
        kind = "changed" if rule.better == "same" or rule.suspicious else "improved"
    share = move / abs(was.value) if was.value else None
    if share is not None and not math.isfinite(share):
        share = None
    severity = size / rule.tolerance if rule.tolerance else math.inf
    return Finding(kind, method, name, words(name), _written(was, now), _written(now, was), share, certainty, severity)


def _mann_whitney(was: tuple[float, ...], now: tuple[float, ...], share: float) -> float:
    """One-sided p of `now` not being moved from `was` by more than that share of it (Mann and Whitney 1947).

    Exact up to eight a side; with ties, too, for which scipy by itself has only a normal approximation.
    """
    from scipy.stats import PermutationMethod, mannwhitneyu  # take most of a second, and only where something moved

    allowed = tuple(sample * (1 + share) for sample in was)
    tied = len({*allowed, *now}) < len(was) + len(now)
    method = PermutationMethod(n_resamples=_SPLITS, rng=0) if tied else "auto"
    return float(mannwhitneyu(now, allowed, alternative="greater" if share > 0 else "less", method=method).pvalue)


def _missing(baseline: Side, current: Side) -> Iterator[Finding]:
    """Figures of one side alone; where a whole method is, that."""
    sides: tuple[tuple[Kind, Side, Side], ...] = (("vanished", baseline, current), ("new", current, baseline))
    for kind, there, gone in sides:
        methods = {method for method, _ in gone.figures}
        alone = [key for key in there.figures if key not in gone.figures]
        for method in dict.fromkeys(method for method, _ in alone if method not in methods):
            count = sum(other == method for other, _ in alone)
            yield _lone(kind, method, "", f"all {count} figures", "there", "absent")
        for method, name in alone:
            if method in methods:
                yield _lone(kind, method, name, words(name), _number(there.figures[method, name].value), "absent")


def _lone(kind: Kind, method: str, figure: str, told: str, there: str, absent: str) -> Finding:
    was, now = (there, absent) if kind == "vanished" else (absent, there)
    return Finding(kind, method, figure, told, was, now, None, "exact", math.inf if kind == "vanished" else 0.0)


def _config_findings(baseline: Side, current: Side) -> Iterator[Finding]:
    """Settings that differ, so that other numbers were to be expected; one that the baseline did not know is new."""
    for method, config in baseline.configs.items():
        was, now = dict(_settings(config)), dict(_settings(current.configs.get(method, config)))
        for key in sorted(was.keys() | now.keys()):
            figure, told = f"config.{key}", f"setting {key}"
            if key not in was:
                yield _lone("new", method, figure, told, repr(now[key]), "absent")
            elif was[key] != now.get(key):
                before, after = repr(was[key]), repr(now.get(key))
                yield Finding("changed", method, figure, told, before, after, None, "exact", math.inf)


def _settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in _PLACES:
            continue
        if isinstance(value, dict):
            yield from _settings(value, f"{name}.")
        else:
            yield name, value


def _written(figure: Figure, other: Figure) -> str:
    """A value with as many digits as show its move, and its interval where it was sampled."""
    digits = 4
    while digits < 12 and f"{figure.value:.{digits}g}" == f"{other.value:.{digits}g}":
        digits += 1
    text = _number(figure.value, digits + 1)
    if figure.samples and figure.low is not None and figure.high is not None:
        text += f" ({_number(figure.low)} to {_number(figure.high)})"
    return text


def _number(value: float, digits: int = 4) -> str:
    whole = abs(value) < 1e15 and (value.is_integer() or abs(value) >= 10**digits)
    return f"{value:,.0f}" if whole else f"{value:.{digits}g}"


def _percent(share: float) -> str:
    return f"{100 * share:+.2g} %" if abs(share) < 0.1 else f"{100 * share:+.0f} %"
