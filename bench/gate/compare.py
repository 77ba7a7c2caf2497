"""Two sides compared figure by figure, each under its own rule: what regressed, changed, vanished or improved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from bench.gate.load import Key, NoDataError, Side, time_and_memory, title
from bench.gate.rules import LOSS_CURVE, PACE, SAMPLES, P, Rule, rule_of, words
from bench.stats.interval import Interval

Kind = Literal["regressed", "changed", "vanished", "improved", "new"]
FAILING: tuple[Kind, ...] = ("regressed", "changed", "vanished")

_SPLITS = 20_000  # above the 12,870 of eight and eight samples, so that the test is exact for those

# Settings that say where a run is written, not what it does.
_PLACES = {"name", "study", "results_dir", "reports_dir", "data.cache_dir", "dry_run"}


@dataclass(frozen=True)
class Finding:
    """A figure that changed. `figure` and `method` are names as recorded; `was` and `now` are formatted.

    share: the change as a share of the baseline, where defined. severity: the change as a multiple of its tolerance.
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
        """Direction and size, formatted."""
        return "" if self.share is None else percent(self.share)


@dataclass(frozen=True)
class Verdict:
    """The outcome.

    findings: the worst first. compared: the number of figures compared. skipped: figures of both sides that were not
    compared -> the reason. notes: the same for people, in fewer lines. timed_again: whether a slower step was.
    """

    baseline: Side
    current: Side
    findings: list[Finding]
    compared: int
    skipped: dict[Key, str]
    notes: list[str]
    timed_again: bool = False

    @property
    def broken(self) -> list[str]:
        """Unreliable records on either side, one line each."""
        sides = (("baseline", self.baseline), ("current", self.current))
        return [f"{name}: {line}" for name, side in sides for line in side.broken]

    @property
    def figures(self) -> dict[Key, Interval]:
        """The current ones, without speeds timed while the machine was not as fast as for the baseline."""
        timed_off = off_pace(self.baseline, self.current) is not None
        samples, figures = self.current.samples, self.current.figures
        return {key: figure for key, figure in figures.items() if not (timed_off and key in samples)}

    @property
    def word(self) -> str:
        """fine | regressed | broken."""
        return {0: "fine", 1: "regressed", 4: "broken"}[self.status]

    @property
    def retime(self) -> list[str]:
        """The methods to time once more before the verdict counts, dense among them; empty unless speed alone fails."""
        failing = [finding for finding in self.findings if finding.fails]
        if self.broken or self.timed_again or not failing:
            return []
        rules = [rule_of(finding.figure, finding.method) for finding in failing if finding.kind == "regressed"]
        if len(rules) < len(failing) or not all(rule and rule.sampled for rule in rules):
            return []
        return list(dict.fromkeys(["dense", *(finding.method for finding in failing)]))

    @property
    def speed_unjudged(self) -> str | None:
        """Why no time was compared, in a few words; None if one was, or there is none."""
        timed = self.baseline.samples.keys() & self.current.figures.keys()
        if not timed or not timed <= self.skipped.keys():
            return None
        if self.baseline.machine != self.current.machine:
            return "the baseline ran on another machine"
        pace = off_pace(self.baseline, self.current) is not None
        return "the machine ran at another pace" if pace else f"fewer than {SAMPLES} samples"

    @property
    def status(self) -> int:
        """The exit status: 0 fine, 1 regressed, 4 broken."""
        if self.broken:
            return 4
        return 1 if any(finding.fails for finding in self.findings) else 0


def compare(baseline: Side, current: Side) -> Verdict:
    """Every figure of both sides under its rule.

    Raises NoDataError if the sides are different studies or no figure can be compared. With time and memory alone, it
    is raised if no time can be compared, unless memory regressed.
    """
    whole = not (baseline.broken or current.broken)
    if whole:
        _check_comparable(baseline, current)
    findings = [*_config_findings(baseline, current), *(_missing(baseline, current) if whole else ())]
    common = [key for key in baseline.figures if key in current.figures]
    skipped = {key: why for key in common if (why := _not_compared(*key, baseline, current)) is not None}
    repeated = {method for method in dict(common) if _repeated(method, baseline, current)}
    rounded = 0
    for method, name in (key for key in common if key not in skipped):
        rule = rule_of(name, method)
        assert rule is not None
        rule = rule.after_same_training() if method in repeated else rule
        finding = _finding((method, name), rule, baseline, current)
        if finding is not None:
            findings.append(finding)
        elif not rule.sampled and baseline.figures[method, name].value != current.figures[method, name].value:
            rounded += 1
    notes = _notes(skipped, rounded)
    sampled = {key for key in common if (rule := rule_of(key[1], key[0])) is not None and rule.sampled}
    of_speed = sampled if not baseline.whole and not any(finding.fails for finding in findings) else set()
    if whole and (len(skipped) == len(common) or (of_speed and of_speed <= skipped.keys())):
        raise NoDataError(f"{baseline.folder} and {current.folder}: nothing can be compared. {' '.join(notes)}")
    findings.sort(key=lambda f: (not f.fails, f.kind == "new", -f.severity, f.method, f.figure))
    return Verdict(baseline, current, findings, len(common) - len(skipped), skipped, notes)


def confirmed(verdict: Verdict, again: Side) -> Verdict:
    """The verdict in which a slower step counts only if it is also slower in `again`, where it was timed once more.

    Steps that `again` cannot judge still count.
    """
    verdict = replace(verdict, timed_again=True)
    try:
        second = compare(*time_and_memory(verdict.baseline, again))
    except NoDataError as error:
        return replace(verdict, notes=[*verdict.notes, f"Speed could not be timed once more: {error}"])
    slower = {(finding.method, finding.figure) for finding in second.findings if finding.fails}
    judged = again.samples.keys() - second.skipped.keys()
    cleared = [
        finding
        for finding in verdict.findings
        if finding.kind == "regressed" and (key := (finding.method, finding.figure)) in judged and key not in slower
    ]
    if second.broken or not cleared:
        return verdict
    names = ", ".join(title(finding.method) for finding in cleared)
    note = f"Timed once more, and no longer slower: {names}."
    return replace(
        verdict, findings=[each for each in verdict.findings if each not in cleared], notes=[*verdict.notes, note]
    )


def _not_compared(method: str, name: str, baseline: Side, current: Side) -> str | None:
    """Why a figure of both sides is not compared; None if it is."""
    rule = rule_of(name, method)
    if rule is None:
        return f"{title(method)}, {name}: not compared because it has no rule."
    if rule.here and baseline.machine != current.machine:
        return (
            "Speed and memory are not compared because the baseline ran on another machine "
            f"({baseline.machine_name}; now {current.machine_name})."
        )
    if rule.sampled and baseline.sample_count(method, name) < SAMPLES:
        return f"{title(method)}, {rule.words}: not compared because a test needs {SAMPLES} samples per side."
    off = off_pace(baseline, current)
    if rule.sampled and off is not None and current.sample_count(method, name) >= SAMPLES:
        slow = "study" if off > 1 else "baseline"
        return (
            "Speed is not compared because the machine was not as fast as for the baseline: a step of torch’s own "
            f"encoder took {off:.2f} times as long. Re-run the {slow} while the machine is less busy."
        )
    return None


def off_pace(baseline: Side, current: Side) -> float | None:
    """The time of a step of torch's own encoder relative to the baseline's; None within PACE or on another machine."""
    was, now = baseline.encoder_seconds, current.encoder_seconds
    if not was or not now or baseline.machine != current.machine or 1 / PACE <= now / was <= PACE:
        return None
    return now / was


def _repeated(method: str, baseline: Side, current: Side) -> bool:
    """Whether training losses are bitwise equal, so that the trained weights are too."""
    names = ["training.final_loss", *(f"loss_curve.{step}" for step in LOSS_CURVE)]
    was, now = ([side.figures.get((method, name)) for name in names] for side in (baseline, current))
    return was == now and was[0] is not None and any(was[1:])


def _notes(skipped: dict[Key, str], rounded: int) -> list[str]:
    notes = list(dict.fromkeys(skipped.values()))
    if rounded:
        notes.append(f"{rounded:,} figure{'s differ' if rounded > 1 else ' differs'} within what rounding explains.")
    return notes


def _check_comparable(baseline: Side, current: Side) -> None:
    if baseline.study != current.study:
        raise NoDataError(
            f"these are different studies: {baseline.study!r} in {baseline.folder}, {current.study!r} in "
            f"{current.folder}."
        )
    if not baseline.figures.keys() & current.figures.keys():
        raise NoDataError(f"{baseline.folder} and {current.folder} have no figure in common.")


def _finding(key: Key, rule: Rule, baseline: Side, current: Side) -> Finding | None:
    if rule.sampled and current.sample_count(*key) < SAMPLES:
        before, after = (f"{side.sample_count(*key)} samples" for side in (baseline, current))
        return Finding("vanished", *key, words(key[1]), before, after, None, f"{SAMPLES} are needed", math.inf)
    was, now = baseline.figures[key], current.figures[key]
    move = now.value - was.value
    size = abs(move) / abs(was.value) if rule.relative and was.value else abs(move)
    if size <= rule.tolerance:
        return None
    certainty = "exact" if rule.tolerance <= 1e-9 else f"{_number(size / rule.tolerance, 2)} × tolerance"
    if rule.sampled:
        samples = baseline.samples[key], current.samples[key]
        p = _mann_whitney(*samples, math.copysign(rule.tolerance, move))
        if p >= P:
            return None
        processes = f"n = {len(samples[0])} and {len(samples[1])} processes"
        certainty = f"more than {100 * rule.tolerance:g} % (p = {p:.1g}, {processes})"
    if rule.better != "same" and (move > 0) == (rule.better == "lower"):
        kind: Kind = "regressed"
    else:
        kind = "changed" if rule.better == "same" or rule.suspicious else "improved"
    share = move / abs(was.value) if was.value else None
    if share is not None and not math.isfinite(share):
        share = None
    severity = size / rule.tolerance if rule.tolerance else math.inf
    before, after = _written(was, now, rule.sampled), _written(now, was, rule.sampled)
    return Finding(kind, *key, words(key[1]), before, after, share, certainty, severity)


def _mann_whitney(was: tuple[float, ...], now: tuple[float, ...], share: float) -> float:
    """One-sided p of `now` differing from `was` by no more than `share` of it (Mann and Whitney 1947).

    Exact up to eight samples per side, also with ties, where scipy by itself only has a normal approximation.
    """
    from scipy.stats import PermutationMethod, mannwhitneyu  # takes most of a second, rarely needed

    allowed = tuple(sample * (1 + share) for sample in was)
    tied = len({*allowed, *now}) < len(was) + len(now)
    method = PermutationMethod(n_resamples=_SPLITS, rng=0) if tied else "auto"
    return float(mannwhitneyu(now, allowed, alternative="greater" if share > 0 else "less", method=method).pvalue)


def _missing(baseline: Side, current: Side) -> Iterator[Finding]:
    """Figures that only one side has; a whole method is one finding."""
    sides: tuple[tuple[Kind, Side, Side], ...] = (("vanished", baseline, current), ("new", current, baseline))
    for kind, there, gone in sides:
        methods = {method for method, _ in gone.figures}
        alone = [key for key in there.figures if key not in gone.figures]
        for method in dict.fromkeys(method for method, _ in alone if method not in methods):
            count = sum(other == method for other, _ in alone)
            yield _lone(kind, method, "", f"all {count} figures", "present", "absent")
        for method, name in alone:
            if method in methods:
                yield _lone(kind, method, name, words(name), _number(there.figures[method, name].value), "absent")


def _lone(kind: Kind, method: str, figure: str, words: str, present: str, absent: str) -> Finding:
    was, now = (present, absent) if kind == "vanished" else (absent, present)
    return Finding(kind, method, figure, words, was, now, None, "exact", math.inf if kind == "vanished" else 0.0)


def _config_findings(baseline: Side, current: Side) -> Iterator[Finding]:
    """Settings that differ, which explain differences in numbers; a setting that the baseline lacks is new."""
    for method, config in baseline.configs.items():
        was, now = dict(_settings(config)), dict(_settings(current.configs.get(method, config)))
        for key in sorted(was.keys() | now.keys()):
            figure, label = f"config.{key}", f"setting {key}"
            if key not in was:
                yield _lone("new", method, figure, label, repr(now[key]), "absent")
            elif was[key] != now.get(key):
                before, after = repr(was[key]), repr(now.get(key))
                yield Finding("changed", method, figure, label, before, after, None, "exact", math.inf)


def _settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in _PLACES:
            continue
        if isinstance(value, dict):
            yield from _settings(value, f"{name}.")
        else:
            yield name, value


def _written(figure: Interval, other: Interval, sampled: bool) -> str:
    """A value with as many digits as show its change, and its interval where it was sampled."""
    digits = 4
    while digits < 12 and f"{figure.value:.{digits}g}" == f"{other.value:.{digits}g}":
        digits += 1
    text = _number(figure.value, digits + 1)
    if sampled and figure.ends:
        text += " ({} to {})".format(*map(_number, figure.ends))
    return text


def _number(value: float, digits: int = 4) -> str:
    whole = abs(value) < 1e15 and (value.is_integer() or abs(value) >= 10**digits)
    return f"{value:,.0f}" if whole else f"{value:.{digits}g}"


def percent(share: float) -> str:
    """A change as a signed percentage: two digits, from 10 % on whole percents."""
    return f"{100 * share:+.2g} %" if abs(share) < 0.1 else f"{100 * share:+,.0f} %"
