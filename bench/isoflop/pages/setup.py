"""What a study's runs were: how many, of what, on which text and machine, what is equal, and the terms."""

from __future__ import annotations

from typing import Any

from bench.config.identity import MethodId
from bench.formats import decimal, duration, percent, power, scaled
from bench.isoflop.analysis.results import Results, title
from bench.isoflop.pages.section import UNIT
from bench.records.isoflop import Study
from bench.web.tables import Table

_ONCE = 1.05  # passes over the training text up to which it counts as new

_TERMS = [
    ("Dense", "the baseline; every token passes through every block"),
    ("MoE", "mixture of experts; a router picks a few feed-forwards for each token"),
    ("MoD", "mixture of depths; a router picks the tokens that a block processes, its capacity"),
    ("MoDE", "both: staged (depth router, then experts) or integrated (null experts among the experts)"),
    ("isoFLOP", "runs of different sizes at equal training FLOPs; larger models see fewer tokens"),
    ("optimum", "the size of lowest loss at a budget, by a parabola in the log of the size"),
    ("causal router", "replaces top-k at inference and in every loss here; it sees no later token"),
    ("iso-loss", "Dense’s best loss, reached with the fewest forward FLOPs at equal training FLOPs"),
    ("dense-equivalent compute", "how many times the training FLOPs Dense needs for a method’s best loss"),
]


def terms(results: Results) -> list[tuple[str, str]]:
    """The words of the page and their meaning, without those of methods that the study does not have."""
    names = {MethodId.parse(method).name for method in results.methods}
    kinds = {"MoE": "moe", "MoD": "mod", "MoDE": "mode"}
    absent = {term for term, name in kinds.items() if name not in names}
    routed = any(own in names for own in ("mod", "mode"))
    return [(term, meaning) for term, meaning in _TERMS if term not in absent and (routed or term != "causal router")]


def facts(results: Results) -> list[str]:
    """Budgets, runs, text, sizes and machine, in a few words each."""
    runs, first = results.runs, next(iter(results.files.values())).record
    least, most = (scaled(float(each)) for each in (runs["params_total"].min(), runs["params_total"].max()))
    return [
        f"{', '.join(map(power, results.budgets))} training FLOPs", f"{len(results.files)} runs",
        f"{least} to {most} parameters", first.config["data"]["name"], first.environment.device_name,
    ]  # fmt: skip


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
        text = f" ({scaled(study.train_tokens)} training tokens, up to {decimal(results.passes.max(), 1)} passes)"
    ablations = " and ablations" if (results.runs["stage"] == "controls").any() else ""
    commits = ", ".join(sorted({record.run.git_commit or "unknown" for record in records}))
    threads = first.environment.threads
    return (
        f"{len(records)} runs of {', '.join(map(title, results.methods))}{ablations} at "
        f"{', '.join(power(b) for b in results.budgets)} training FLOPs; {least} to {most} parameters; "
        f"{first.config['data']['name']}{text}. Losses in {UNIT}, on {first.quality.tokens_evaluated:,} tokens of "
        f"{first.quality.documents_evaluated} validation documents. {first.environment.device_name}, {packed}{threads} "
        f"thread{'s' * (threads != 1)} each, torch {first.environment.torch}, commit {commits}"
    )


def equal_for_all(results: Results) -> str:
    """What is equal between methods, and what each method is."""
    config = results.files[results.sized["id"].iloc[0]].record.config
    train, model, tokens = (config.get(part, {}) for part in ("train", "model", "data"))
    if "batch_size" not in train or "context" not in model:
        return ""
    kind = (tokens.get("tokenizer") or {}).get("kind", "")
    unit = f" ({kind})" if kind else ""
    methods = []
    for method in results.methods:
        own = results.sized[results.sized["method"] == method]["id"].iloc[0]
        if words := _conditional(results.files[own].record.config.get("method") or {}):
            methods.append(f"{title(method)}: {words}")
    shared = (
        f"Equal for all methods: batches of {train['batch_size']} sequences of {model['context']} tokens{unit}, the "
        f"data order of a seed, AdamW, {percent(train['warmup'], 0)} warm-up and a cosine to "
        f"{percent(train['lr_final'], 0)} of the peak learning rate. Each method has its own peak. FLOPs are executed "
        "FLOPs of training steps, with routers and attention scores."
    )
    return f"{shared} {'. '.join(methods)}." if methods else shared


def _conditional(config: dict[str, Any]) -> str:
    """What is conditional in a method, from its settings; or empty."""
    depth, experts = config.get("depth"), config.get("experts")
    words = []
    if depth:
        blocks = {1: "every block", 2: "every other block"}.get(depth["every"], f"one block in {depth['every']}")
        words.append(f"{blocks} processes {percent(depth['capacity'])} of the tokens")
    if experts:
        null = f" and {experts['n_noop']} null experts" if experts.get("n_noop") else ""
        mean = " on average" if experts.get("routing") == "expert_choice" else ""
        words.append(f"{experts['n_experts']} experts{null}, {experts['top_k']} per token{mean}")
    return "; ".join(words)


def repeats(results: Results) -> str:
    """The budgets at which best shapes read the training text more than once, and how often each; or empty."""
    if results.passes is None:
        return ""
    found = []
    for budget in results.budgets:
        best = {method: results.best(method, budget).index for method in results.methods}
        passes = {method: float(results.passes[runs].mean()) for method, runs in best.items() if len(runs)}
        if max(passes.values(), default=0.0) > _ONCE:
            often = ", ".join(f"{title(method)} {decimal(value, 1)}" for method, value in passes.items())
            found.append(f"at {power(budget)} FLOPs {often}")
    if not found:
        return ""
    return (
        f"Passes of the best shapes over the training text: {'; '.join(found)}. Repeated text may teach less than new "
        "text (hardly less up to four passes: Muennighoff et al. 2023, arXiv 2305.16264)."
    )


def packings(study: Study) -> str:
    """The measured speeds of concurrent runs, the chosen number first."""
    each = [
        f"{packing.workers} with {packing.threads} thread{'s' * (packing.threads != 1)} each "
        f"{decimal(packing.flops_per_second / 1e9, 0)} GFLOP/s"
        for packing in study.packings
    ]
    return f"Concurrent runs, the chosen number first: {', '.join(each)}" if each else ""


def rerun(study: Study) -> str:
    """How to train the study from scratch if its records exist."""
    took = f", in about {duration(study.study_seconds)} on such a machine" if study.study_seconds else ""
    return (
        "With these records in results, the command only rewrites the report. Add results_dir=out to train from "
        f"scratch{took}"
    )


def runs_table(results: Results) -> Table:
    """Every run, for the CSV alone, with everything known about it."""
    ordered = results.runs.sort_values(["stage", "budget", "method", "forward_flops", "seed"]).drop_duplicates("id")
    return Table("runs", "every run: stage, budget, shape, tokens, learning rate, losses, record", [], [], ordered)
