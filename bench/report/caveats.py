"""What a reader must know before trusting the figures, from the records themselves."""

from __future__ import annotations

from bench.formats import decimal, percent
from bench.report.differences import exclusion
from bench.report.load import Group, contract_words
from bench.stats.verdict import FEWEST_SEEDS


def caveats(group: Group) -> list[str]:
    """One or two sentences per caveat; those that need action come first."""
    return [
        *_excluded(group),
        *_not_reported(group),
        *_mixtures(group),
        *_seeds(group),
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
        reasons.append("There is no dense baseline with these settings, so nothing is compared.")
    return reasons + group.notes


def _not_reported(group: Group) -> list[str]:
    """What methods with a module of their own do not report."""
    return [
        f"{method.label} does not report {', '.join(routing.not_reported)}: no figure on this page shows it."
        for method in group.methods
        if (routing := method.first.routing) and routing.not_reported
    ]


def _mixtures(group: Group) -> list[str]:
    """Runs in one table should share a machine and a commit."""
    machines = sorted(
        {f"{run.record.environment.device_name} ({run.record.environment.threads} threads)" for run in group.runs}
    )
    commits = {run.record.run.git_commit for run in group.runs}
    mixed = []
    if len(machines) > 1:
        mixed.append(f"The runs used different machines ({'; '.join(machines)}): compare their times with care.")
    if len(commits) > 1:
        mixed.append(f"The runs used {len(commits)} different commits of the code.")
    return mixed


def _seeds(group: Group) -> list[str]:
    lines = [
        "Seeds are the units: CIs are Welch t intervals over seeds (runs are not paired: losses of one seed do not "
        "correlate between methods), with the variance of validation documents where runs have their losses by "
        "document. They do not cover the choice of learning rate. The minimum detectable effect (80 % power, 5 % "
        "two-sided) is estimated from the same few runs, so it is rough.",
        "Better, worse: the CI excludes 0. Equivalent: the 90 % CI lies within the smallest effect of interest. "
        "Inconclusive: neither. The methods of this page are one family: verdicts are Holm-adjusted, CIs are not.",
    ]
    if min(len(method.runs) for method in group.methods) < 2:
        lines.insert(0, f"Some methods have one seed: they have no verdict. Train at least {FEWEST_SEEDS} seeds.")
    return lines


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
        "Model FLOPs are matrix products. A multiply-add counts as 2, attention scores have no causal discount, and "
        "the backward pass is twice the forward. Norms, softmax and token movement are excluded, which is one reason "
        "why realised speed-ups stay below ideal ones."
    )
    return [contract, rate, convention]


def _measured(group: Group) -> list[str]:
    causality = (
        "Causality: top-k over a sequence looks at the future. Training uses it, but every quality figure and every "
        "lm-eval score uses the causal router. The top-k loss is labelled non-causal and is not a quality figure."
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
        f"Speed: method and baseline were timed alternately in one process, at least {samples} pairs of steps, on "
        f"{first.environment.device_name} with {first.environment.threads} threads in {first.training.dtype}. The CIs "
        f"include timing noise and are up to {percent(widest)} of the speed-up wide. Other hardware and other sizes "
        "have other ratios."
    )
    return [line]


def _documents(group: Group) -> list[str]:
    quality = next((run.record.quality for run in group.runs if run.record.quality), None)
    if quality is None:
        return []
    line = (
        f"Quality is measured on {quality.documents_evaluated} validation documents ({quality.tokens_evaluated:,} "
        "tokens) of the same corpus. The loss of one run has a standard error of about "
        f"{decimal(quality.val_loss_nats_stderr)} nats/token over documents. Most of it cancels in paired differences."
    )
    return [line]
