"""What a reader must know before trusting the figures, from the records themselves."""

from __future__ import annotations

from bench.formats import decimal, percent
from bench.report.degenerate import degenerate
from bench.report.differences import exclusion
from bench.report.load import Group, contract_words
from bench.stats.verdict import FEWEST_SEEDS

_TOLERANCE = 0.005  # of contracts, where a record does not hold it


def caveats(group: Group) -> list[str]:
    """One or two sentences per caveat; those that need action come first."""
    return [
        *_degenerate(group),
        *_excluded(group),
        *_whole_steps(group),
        *_not_reported(group),
        *_passes(group),
        *_tokenizer(group),
        *_mixtures(group),
        *_seeds(group),
        *_held_equal(group),
        *_measured(group),
    ]


def equal_tokens(group: Group) -> int | None:
    """The training tokens of every run, where they are equal."""
    tokens = {run.record.training.tokens for run in group.runs}
    return tokens.pop() if len(tokens) == 1 else None


def _degenerate(group: Group) -> list[str]:
    """Runs whose routers do not do what the method is about, so that its quality is not the method's."""
    return [f"{run.record.run.id}: {fault}." for run in group.runs if (fault := degenerate(run))]


def _excluded(group: Group) -> list[str]:
    reasons = [
        f"{run.record.run.id} is shown but its quality is not compared: {reason}."
        for run in group.runs
        if (reason := exclusion(run.record))
    ]
    if group.twin is None:
        reasons.append("There is no dense baseline with these settings, so nothing is compared.")
    return reasons + group.notes


def _whole_steps(group: Group) -> list[str]:
    """Budgets that so few steps do not hold; under wall_clock the seconds are equal instead."""
    missed = [
        (abs(run.record.flops.train_total / run.record.flops.budget - 1), run.record)
        for run in group.runs
        if run.record.contract != "wall_clock" and run.record.run.status != "diverged"
    ]
    off, record = max(missed, key=lambda miss: miss[0], default=(0.0, None))
    if record is None or off <= record.config.get("contract", {}).get("tolerance", _TOLERANCE):
        return []
    return [
        f"{record.run.id} trained {percent(off, 1)} off its FLOP budget, because its {record.training.steps} steps are "
        "whole ones. Lower train.batch_size or raise train.budget_flops to hold the contract more closely."
    ]


def _not_reported(group: Group) -> list[str]:
    """What methods with a module of their own do not report."""
    return [
        f"{method.label} does not report {', '.join(routing.not_reported)}: no figure on this page shows it."
        for method in group.methods
        if (routing := method.first.routing) and routing.not_reported
    ]


def _passes(group: Group) -> list[str]:
    """Repeated text flatters whatever overfits least, so it is said."""
    passes = {method.label: max(run.record.training.passes or 0 for run in method.runs) for method in group.methods}
    repeated = [f"{label} {count:.1f} times" for label, count in passes.items() if count > 1]
    if not repeated:
        return []
    return [f"The training text was read more than once: {', '.join(repeated)}. New text would teach more."]


def _tokenizer(group: Group) -> list[str]:
    """Bytes of text that the model never sees would flatter its bits/byte."""
    lost = next(
        (text.tokenizer_loses for run in group.runs if (text := run.record.corpus) and text.tokenizer_loses), None
    )
    if lost is None:
        return []
    return [
        f"There are no bits/byte, because the tokenizer loses text ({lost}). Losses in nats/token compare methods with "
        "this tokenizer only."
    ]


def _mixtures(group: Group) -> list[str]:
    """Runs in one table should share a machine and a commit."""
    machines = sorted(
        {
            f"{place.device_name} ({place.threads} thread{'s' * (place.threads != 1)})"
            for place in (run.record.environment for run in group.runs)
        }
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
    if group.twin and equal_tokens(group):
        dense = group.twin.first.flops.train_total
        apart = max(abs(run.record.flops.train_total / dense - 1) for run in group.runs)
        contract += f" Training tokens are equal, and training FLOPs within {percent(apart, 2)} of dense’s."
    tuned = [method.label for method in group.others if method.first.config.get("baseline")]
    untuned = [method.label for method in group.others if method.label not in tuned]
    rate = f"Learning rate: {'; '.join(rules)}."
    if tuned:
        rate += f" Shape, batch size and rate were tuned apart from dense’s for {', '.join(tuned)}."
    if untuned:
        rate += f" Batch size and rule are dense’s, and were not tuned, for {', '.join(untuned)}."
    convention = (
        "Model FLOPs are matrix products, forward and backward. A multiply-add counts as 2, and attention scores have "
        "no causal discount; FLOP utilisation is of the FLOPs that a step executes. Norms, softmax and token movement "
        "are excluded, which is one reason why realised speed-ups stay below ideal ones."
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
    larger = next((speed.larger for speed in speeds if speed.larger), None)
    shapes = "at the shapes that were trained"
    if larger:
        shapes += f", and fresh models of {larger.n_layers} layers × {larger.d_model} wide, batch {larger.batch_size}"
    line = (
        f"Speed: {shapes}, method and baseline were timed alternately in one process, at least {samples} pairs of "
        f"steps, on {first.environment.device_name} with {first.environment.threads} threads in "
        f"{first.training.dtype}. The CIs include timing noise and are up to {percent(widest)} of the speed-up wide. "
        "Other hardware and other sizes have other ratios."
    )
    return [line]


def _documents(group: Group) -> list[str]:
    quality = next((run.record.quality for run in group.runs if run.record.quality), None)
    if quality is None:
        return []
    text = next((run.record.corpus for run in group.runs if run.record.corpus), None)
    of_all, chosen = (f" of {text.validation_documents}", ", chosen by hash") if text else ("", "")
    line = (
        f"Quality is measured on {quality.documents_evaluated}{of_all} validation documents "
        f"({quality.tokens_evaluated:,} tokens) of the same corpus{chosen}. The loss of one "
        f"run has a standard error of about {decimal(quality.val_loss_nats_stderr)} nats/token over documents. Most of "
        "it cancels in paired differences."
    )
    if text and text.validation_copies + text.training_copies:
        line += (
            f" Left out as copies of validation documents: {text.validation_copies:,} of validation, "
            f"{text.training_copies:,} of training."
        )
    return [line]
