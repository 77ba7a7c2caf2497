"""What a reader must know before trusting the figures, from the records themselves."""

from __future__ import annotations

from bench.formats import decimal, percent
from bench.report.differences import exclusion
from bench.report.load import Group
from bench.report.settings import contract_words


def caveats(group: Group) -> list[str]:
    """One sentence or two a caveat; those that need action come first."""
    return [
        *_excluded(group),
        *_not_reported(group),
        *_mixtures(group),
        _seeds(group),
        *_held_equal(group),
        *_measured(group),
    ]


def _excluded(group: Group) -> list[str]:
    reasons = [
        f"{run.record.run.id} is shown but its quality is not compared: {reason}."
        for run in group.runs
        if (reason := exclusion(run.record))
    ]
    if group.twin is None:
        reasons.append("There is no dense twin with these settings, so nothing is compared.")
    return reasons + group.notes


def _not_reported(group: Group) -> list[str]:
    """What methods with a module of their own leave out."""
    return [
        f"{method.label} does not report {', '.join(routing.not_reported)}: no figure of this page shows it."
        for method in group.methods
        if (routing := method.first.routing) and routing.not_reported
    ]


def _mixtures(group: Group) -> list[str]:
    """Runs of one table should share a machine and a commit."""
    machines = sorted(
        {f"{run.record.environment.device_name} ({run.record.environment.threads} threads)" for run in group.runs}
    )
    commits = {run.record.run.git_commit for run in group.runs}
    mixed = []
    if len(machines) > 1:
        mixed.append(
            f"The runs were made on different machines ({'; '.join(machines)}): compare their times with care."
        )
    if len(commits) > 1:
        mixed.append(f"The runs were made from {len(commits)} different commits of the code.")
    return mixed


def _seeds(group: Group) -> str:
    if min(len(method.runs) for method in group.methods) < 2:
        return (
            "A method with one seed shows what happened once. Its interval comes from differences on the same held-out "
            "documents, so it says whether other documents would agree; it cannot say whether another training seed "
            "would, and seeds often move the loss by as much as methods do. Run three seeds and more before deciding."
        )
    return (
        "Runs are paired by seed, because a seed fixes the order of the data. Intervals are t intervals of the paired "
        "differences; with few seeds they are wide, and the detectable difference (80 % power, 5 % two-sided) says how "
        "large a true difference has to be to be found. It is estimated from the same few runs, so it is rough. "
        "Intervals are not widened for the number of methods compared."
    )


def _held_equal(group: Group) -> list[str]:
    first = group.methods[0].first
    rules = sorted({f"{run.record.training.lr_rule} (lr {run.record.training.lr:.3g})" for run in group.runs})
    off = [abs(run.record.flops.train_total / run.record.flops.budget - 1) for run in group.runs]
    contract = (
        f"Contract: methods are compared {contract_words(first.contract)} ({first.contract}). A method that wins under "
        "one contract may lose under another. Executed training FLOPs are within "
        f"{percent(max(off), 2)} of each run’s budget."
    )
    rate = f"Learning rate: {'; '.join(rules)}. It was not tuned for each method, unless the rule says so."
    convention = (
        "Model FLOPs are matrix products, with a multiply-add counted as 2, attention scores without a causal "
        "discount and the backward pass as twice the forward. Norms, softmax and the moving of tokens are not in "
        "them, which is one reason why realised speed-ups stay below ideal ones."
    )
    return [contract, rate, convention]


def _measured(group: Group) -> list[str]:
    causality = (
        "Causality: top-k over a sequence looks at the future, so training uses it but every quality figure and "
        "every lm-eval score uses the causal router. The top-k loss beside it is labelled non-causal and is no "
        "quality figure."
    )
    return [causality, *_speed(group), *_documents(group)]


def _speed(group: Group) -> list[str]:
    speeds = [run.record.speed for run in group.runs if run.record.speed]
    timings = [speed.train_speedup_realised for speed in speeds if speed.train_speedup_realised]
    if not timings:
        return []
    widest = max((timing.high - timing.low) / timing.median for timing in timings)
    samples = min(timing.samples for timing in timings)
    first = group.methods[0].first
    line = (
        f"Speed: method and twin were timed alternately in one process, at least {samples} pairs of steps, on "
        f"{first.environment.device_name} with {first.environment.threads} threads in {first.training.dtype}. The "
        f"noise of timing is in the intervals, which are up to {percent(widest)} of the speed-up wide; other hardware "
        "and other sizes have other ratios."
    )
    return [line]


def _documents(group: Group) -> list[str]:
    quality = next((run.record.quality for run in group.runs if run.record.quality), None)
    if quality is None:
        return []
    line = (
        f"Quality is measured on {quality.documents_evaluated} held-out documents ({quality.tokens_evaluated:,} "
        f"tokens) of the same corpus. The loss of one run has a standard error of about "
        f"{decimal(quality.val_loss_nats_stderr)} nats over documents, most of which cancels in paired differences."
    )
    return [line]
