"""What a study's runs were: how many, of what, on which text and machine, and what is equal between methods."""

from __future__ import annotations

from typing import Any

from bench.formats import decimal, duration, percent, power, scaled
from bench.isoflop.analysis.results import Results
from bench.records.isoflop import Study

_ONCE = 1.05  # readings of the training text up to which it is as good as new


def settings(results: Results) -> str:
    """Runs, methods, budgets, text, machine and commit."""
    runs, study = results.runs, results.study
    least, most = (scaled(float(each)) for each in (runs["params_total"].min(), runs["params_total"].max()))
    records = [files.record for files in results.files.values()]
    first = records[0]
    assert first.quality is not None
    packed = f"{study.packings[0].workers} at a time, " if study.packings else ""
    text = ""
    if results.passes is not None:
        text = f" ({scaled(study.train_tokens)} training tokens, read up to {decimal(results.passes.max(), 1)} times)"
    controls = " and their controls" if (results.runs["stage"] == "controls").any() else ""
    commits = ", ".join(sorted({record.run.git_commit or "unknown" for record in records}))
    return (
        f"{len(records)} runs of {', '.join(results.methods)}{controls} at "
        f"{', '.join(power(b) for b in results.budgets)} "
        f"training FLOPs, {least} to {most} parameters, on {first.config['data']['name']}{text}; losses in nats a "
        f"token, on "
        f"{first.quality.tokens_evaluated:,} tokens of {first.quality.documents_evaluated} held-out documents. Trained "
        f"on {first.environment.device_name}, {packed}{first.environment.threads} "
        f"thread{'s' * (first.environment.threads != 1)} each, torch {first.environment.torch}, commit {commits}"
    )


def equal_for_all(results: Results) -> str:
    """What does not differ between methods, and what each method is."""
    config = results.files[results.sized["id"].iloc[0]].record.config
    train, model, tokens = (config.get(part, {}) for part in ("train", "model", "data"))
    if "batch_size" not in train or "context" not in model:
        return ""
    kind = (tokens.get("tokenizer") or {}).get("kind", "")
    unit = f" ({kind})" if kind else ""
    methods = []
    for label in results.methods:
        own = results.sized[results.sized["method"] == label]["id"].iloc[0]
        if words := _method(results.files[own].record.config.get("method") or {}):
            methods.append(f"{label}: {words}")
    told = (
        f"The same for all methods: steps of {train['batch_size']} texts of {model['context']} tokens{unit}, in an "
        "order "
        "that the seed alone decides, so that a method that trains on more tokens reads on where another stops; AdamW, "
        f"with a learning rate that warms up over {percent(train['warmup'], 0)} of the budget and falls along a cosine "
        f"to {percent(train['lr_final'], 0)} of its peak, which each method has of its own. FLOPs are those that a "
        "training step executes, routers and attention scores among them."
    )
    return f"{told} {'. '.join(methods)}." if methods else told


def _method(config: dict[str, Any]) -> str:
    """What is conditional in a method, from its settings; or empty."""
    depth, experts = config.get("depth"), config.get("experts")
    words = []
    if depth:
        blocks = {1: "every block", 2: "every other block"}.get(depth["every"], f"one block in {depth['every']}")
        words.append(f"{blocks} processes {percent(depth['capacity'])} of the tokens")
    if experts:
        no_op = f" and {experts['n_noop']} that do nothing" if experts.get("n_noop") else ""
        mean = " on average" if experts.get("routing") == "expert_choice" else ""
        words.append(
            f"{experts['n_experts']} experts{no_op} in place of a feed-forward, {experts['top_k']} a token{mean}"
        )
    return "; ".join(words)


def repeats(results: Results) -> str:
    """Where methods' best shapes read the training text more than once, and how often each; or empty."""
    if results.passes is None:
        return ""
    told = []
    for budget in results.budgets:
        best = {name: results.best(name, budget).index for name in results.methods}
        passes = {name: float(results.passes[runs].mean()) for name, runs in best.items() if len(runs)}
        if max(passes.values(), default=0.0) > _ONCE:
            often = ", ".join(f"{name} {decimal(value, 1)}" for name, value in passes.items())
            told.append(f"at {power(budget)} FLOPs {often}")
    if not told:
        return ""
    return (
        f"The training text is short. Times that best shapes read it: {'; '.join(told)}. What is read again may teach "
        "less than new text would (little less up to four times, in Muennighoff et al. 2023, arXiv 2305.16264), and a "
        "method that reads more tokens for its FLOPs reads more of them again."
    )


def packings(study: Study) -> str:
    """What runs at once were measured to reach together, the number that was settled on first."""
    each = [
        f"{packing.workers} with {packing.threads} thread{'s' * (packing.threads != 1)} each "
        f"{decimal(packing.flops_per_second / 1e9, 0)} GFLOP/s"
        for packing in study.packings
    ]
    return f"Runs at once, measured before training, the number settled on first: {', '.join(each)}" if each else ""


def rerun(study: Study) -> str:
    """How to have all trained anew where the records are there already."""
    took = f", in about {duration(study.study_seconds)} on such a machine" if study.study_seconds else ""
    return (
        "Where these records are in results already, as in a copy of the repository, the command trains nothing and "
        "writes "
        f"the report again; with results_dir=out added to it, it trains everything anew{took}"
    )
