"""The first screen of a comparison: its finding as a sentence, and a row for each method, sorted by effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from bench.formats import DASH, NBSP, decimal, percent, signed, span, times
from bench.report.differences import Difference, validation_loss
from bench.report.load import Group, contract_words
from bench.stats.interval import Interval
from bench.stats.verdict import SMALLEST_EFFECT, Verdict
from bench.web.figures import method_colours
from bench.web.intervals import Mark, Scale


@dataclass(frozen=True)
class Speed:
    """Realised and ideal speed-up over dense, at the larger shape where it was timed."""

    realised: float
    ideal: float | None
    shape: str  # empty: the trained shape


@dataclass(frozen=True)
class Answer:
    """One method's row."""

    label: str
    mark: Mark | None
    loss: str  # the difference and its interval, in words
    verdict: str  # a Verdict, or why there is none
    sentence: str
    speed: Speed | None
    memory: str


@dataclass(frozen=True)
class Screen:
    """The rows, best first, with the scales of their drawings. dense: the baseline's loss, in words."""

    finding: str
    answers: list[Answer]
    scale: Scale
    band: float | None
    dense: str
    speeds: Scale | None

    @property
    def marks(self) -> list[Mark]:
        return [each.mark for each in self.answers if each.mark]

    @property
    def shape(self) -> str:
        """Where speeds were measured, if not at the trained shape."""
        return next((each.speed.shape for each in self.answers if each.speed and each.speed.shape), "")


def first_screen(group: Group, compared: Sequence[Difference], sentences: Sequence[str]) -> Screen:
    """`sentences`: the verdict of each of `compared`, in full."""
    colours = method_colours([method.label for method in group.methods])
    order = sorted(range(len(compared)), key=lambda n: _effect(compared[n]))
    answers = [_answer(group, compared[n], sentences[n], colours[compared[n].label]) for n in order]
    marks = [each.mark for each in answers if each.mark]
    baseline = [validation_loss(run) for run in group.twin.comparable if run.record.quality] if group.twin else []
    speeds = [value for each in answers if each.speed for value in (each.speed.realised, each.speed.ideal or 1.0)]
    return Screen(
        finding=finding(group, [compared[n] for n in order]),
        answers=answers,
        scale=Scale(marks, [0.0]),
        band=SMALLEST_EFFECT * fmean(baseline) if baseline else None,
        dense=f"{decimal(fmean(baseline))} nats/token" if baseline else DASH,
        speeds=Scale([Mark("", Interval(value), "") for value in speeds], [0.5, 1.0]) if speeds else None,
    )


def finding(group: Group, compared: Sequence[Difference]) -> str:
    """One sentence: which methods differ from dense in validation loss, and which comparisons are inconclusive."""
    judged = [each for each in compared if each.loss and each.loss.minimum_detectable is not None]
    single = [each for each in compared if each.loss and each.loss.minimum_detectable is None]
    says = {Verdict.BETTER: "lower", Verdict.WORSE: "higher"}
    clauses = [
        f"{each.label} has {percent(abs(each.share or 0.0))} {says[each.verdict]} loss than dense"
        for each in judged if each.verdict in says
    ]  # fmt: skip
    for verdict, phrase in ((Verdict.EQUIVALENT, "equivalent to dense"), (Verdict.INCONCLUSIVE, "inconclusive")):
        if names := _listed([each.label for each in judged if each.verdict == verdict]):
            clauses.append(f"{names} {'is' if ' and ' not in names else 'are'} {phrase}")
    if names := _listed([each.label for each in single]):
        clauses.append(f"{names} has one seed, which decides nothing" if " and " not in names
                       else f"{names} have one seed each, which decides nothing")  # fmt: skip
    if not clauses:
        return f"{group.methods[0].first.run.name}: nothing to compare yet"
    words = contract_words(group.methods[0].first.contract)
    return f"{words[0].upper()}{words[1:]}, {'; '.join(clauses)}"


def finding_of_many(screens: Sequence[Screen]) -> str:
    """One sentence on all groups of a page: of each method, in how many settings it is better, worse and so on."""
    verdicts: dict[str, list[str]] = {}
    for each in (answer for screen in screens for answer in screen.answers if answer.verdict in set(Verdict)):
        verdicts.setdefault(each.label, []).append(each.verdict)
    clauses = [
        f"{label} is " + ", ".join(f"{verdict} in {own.count(verdict)}" for verdict in Verdict if verdict in own)
        for label, own in verdicts.items()
    ]
    words = f"Against dense in {len(screens)} settings"
    return f"{words}, {'; '.join(clauses)}" if clauses else f"{len(screens)} settings, and none has a verdict"


def _effect(each: Difference) -> float:
    return each.loss.value if each.loss else float("inf")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _answer(group: Group, each: Difference, sentence: str, colour: str) -> Answer:
    loss = each.loss
    share = f" ({signed(100 * each.share, 1)}{NBSP}%)" if each.share is not None else ""
    reach = f", {span(loss.low, loss.high, signed)}" if loss and loss.ends else ""
    judged = loss is not None and loss.minimum_detectable is not None
    return Answer(
        label=each.label,
        mark=Mark(each.label, loss, colour, loss.minimum_detectable) if loss else None,
        loss=f"{signed(loss.value)}{share}{reach}" if loss else DASH,
        verdict=str(each.verdict) if judged else "one seed: no verdict" if loss else "not compared",
        sentence=sentence,
        speed=_speed(group, each),
        memory=times(each.memory_ratio) if each.memory_ratio is not None else DASH,
    )


def _speed(group: Group, each: Difference) -> Speed | None:
    method = next(method for method in group.methods if method.label == each.label)
    timed = [run.record.speed.larger for run in method.runs if run.record.speed and run.record.speed.larger]
    if timed:
        realised = median(larger.train_speedup_realised.median for larger in timed)
        shape = f"{timed[0].n_layers} × {timed[0].d_model}, batch {timed[0].batch_size}"
        return Speed(realised, timed[0].train_speedup_ideal, shape)
    return Speed(each.speedup.value, each.speedup_ideal, "") if each.speedup else None
