"""The page of an isoFLOP study and its Markdown twin."""

from __future__ import annotations

import json
from pathlib import Path

from bench.errors import UserError
from bench.fit.page import table as fit_table
from bench.fit.parabolas import Estimate
from bench.isoflop import Study
from bench.record import write_atomically
from bench.report.formats import decimal, power, scaled
from bench.report.isoflop.adding_up import adding_up_part
from bench.report.isoflop.cells import difference_cell
from bench.report.isoflop.claims import FAILS, HOLDS, OPEN, Claim, claims
from bench.report.isoflop.comparisons import Comparison, comparisons
from bench.report.isoflop.contracts import contracts_part
from bench.report.isoflop.controls import controls_part
from bench.report.isoflop.laws import laws_part, study_fits
from bench.report.isoflop.parity import parities
from bench.report.isoflop.part import Part, there
from bench.report.isoflop.results import REFERENCE, Results, read_study
from bench.report.isoflop.runs import runs_part
from bench.report.isoflop.seeds import SeedDifference, best_difference
from bench.report.isoflop.sizes import AT_EDGE, edge, sizes_part
from bench.report.isoflop.speed import speed_part
from bench.report.isoflop.terms import TERMS
from bench.report.isoflop.tokens import tokens_part
from bench.report.render import render
from bench.report.routing import accuracy_figure, heat_maps, weight_figures

_ONCE = 1.05  # readings of the training text up to which it is as good as new


def write_isoflop(folder: Path, reports: Path) -> Path:
    """Write index.html, report.md, figures/, tables/ and fit.json of the study in `folder`; returns the page.

    Raises UserError where the study cannot be read or the report cannot be written.
    """
    results = read_study(folder)
    compared, matched, fits = comparisons(results), parities(results), study_fits(results)
    found = claims(results, compared, matched, fits)
    parts = [
        sizes_part(results, fits), contracts_part(results, compared), adding_up_part(results),
        speed_part(results, matched), laws_part(fits), controls_part(results), _routing_part(results),
        tokens_part(results.study.tokens), runs_part(results),
    ]  # fmt: skip
    target = reports / results.study.name
    verdicts = _verdicts(results, compared)
    try:
        for name in ("figures", "tables"):
            (target / name).mkdir(parents=True, exist_ok=True)
        for part in parts:
            for drawing in part.drawings:
                write_atomically(target / "figures" / f"{drawing.name}.svg", drawing.svg)
            for each in part.tables:
                write_atomically(
                    target / "tables" / f"{each.name}.csv", each.data.to_csv(index=False, lineterminator="\n")
                )
        write_atomically(target / "fit.json", json.dumps(fits.plain(), indent=2, allow_nan=False) + "\n")
        write_atomically(target / "fit.md", fit_table(fits))
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}. Choose another folder for reports.") from error
    left_out = [*results.problems, *(f"By stored parameters, {note}" for note in fits.notes)]
    shown = {
        "study": results.study, "environment": results.study.environment, "verdicts": verdicts, "claims": found,
        "parts": parts, "problems": left_out, "settings": _settings(results), "repeats": _repeats(results),
        "shares": results.study.shares(sum(files.record.training.seconds for files in results.files.values())),
        "packings": _packings(results.study),
        "tally": _tally(found), "marks": {HOLDS: "holds", FAILS: "fails", OPEN: "open"},
        "terms": TERMS,
    }  # fmt: skip
    for template, name in (("isoflop.md", "report.md"), ("isoflop.html", "index.html")):
        write_atomically(target / name, render(template, **shown))
    return target / "index.html"


def _settings(results: Results) -> str:
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


def _verdicts(results: Results, compared: list[Comparison]) -> list[tuple[str, str]]:
    """A sentence a method: whether it is better or worse than dense at every budget, by two analyses."""
    found = []
    for method in results.methods:
        own = [c for c in compared if c.method == method and c.contract == "train_flops"]
        if not own:
            continue
        sides: dict[str, list[str]] = {}
        values = []
        for each in own:
            seeds = best_difference(results, method, REFERENCE, each.budget)
            answers = [side for side in (_side(seeds), _side(each.value)) if side]
            if len(set(answers)) == 1:
                surely = "by both analyses" if len(answers) == 2 else "by one of the two"
                sides.setdefault(f"{answers[0]} {surely}", []).append(power(each.budget))
            curve = difference_cell(each.value) if each.value else each.why
            every = difference_cell(seeds.every if seeds else None)
            at = f"{power(each.budget)} FLOPs{_bound(results, method, each.budget)}"
            values.append(f"{at}: {difference_cell(seeds)}, with the seed of the choice {every}; by curves {curve}")
        told = ", ".join(f"{side} at {' and '.join(budgets)} FLOPs" for side, budgets in sides.items())
        left = len(own) - sum(map(len, sides.values()))
        rest = f"{', and ' if told else ''}not to be told from it at {left} of {len(own)} budgets" if left else ""
        minus = f"Loss minus dense’s, nats a token: {'. '.join(values)}."
        found.append((method, f"against dense: {told}{rest}. {minus}{_rate_at_an_end(results, method)}"))
    return found


def _rate_at_an_end(results: Results, method: str) -> str:
    """Whose learning rate is the lowest or highest that trained well, which is no optimum; or empty."""
    rules = results.study.learning_rates
    ends = {results.labels.get(name, name) for name, rule in rules.items() if rule.status == "edge"}
    names = [name for name in (method, REFERENCE) if name in ends]
    if not names:
        return ""
    return (
        f" The learning rate of {' and '.join(names)} is at an end of those that trained well; another may do better."
    )


def _bound(results: Results, method: str, budget: float) -> str:
    """Whose best shape is at the end of what was run, so that a better one may lie beyond; or empty."""
    names = [name for name in (method, REFERENCE) if edge(results, name, budget) == AT_EDGE]
    return f" (best shape of {' and '.join(names)}{AT_EDGE.replace(',', '')})" if names else ""


def _repeats(results: Results) -> str:
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


def _packings(study: Study) -> str:
    """What runs at once were measured to reach together, the number that was settled on first."""
    each = [
        f"{packing.workers} with {packing.threads} thread{'s' * (packing.threads != 1)} each "
        f"{decimal(packing.flops_per_second / 1e9, 0)} GFLOP/s"
        for packing in study.packings
    ]
    return f"Runs at once, measured before training, the number settled on first: {', '.join(each)}" if each else ""


def _side(value: Estimate | SeedDifference | None) -> str:
    """better | worse, where the whole interval says so."""
    if value is None or value.low is None or value.high is None:
        return ""
    return "better" if value.high < 0 else "worse" if value.low > 0 else ""


def _tally(found: list[Claim]) -> str:
    held, failed = (sum(claim.verdict == verdict for claim in found) for verdict in (HOLDS, FAILS))
    return f"Of {len(found)} claims {held} hold here, {failed} do not, {len(found) - held - failed} cannot be told."


def _routing_part(results: Results) -> Part:
    largest = results.group(results.budgets[-1])
    drawings = there(*weight_figures(largest), accuracy_figure(largest))
    return Part("routing", "Who was processed where", [], drawings, heat_maps=heat_maps(largest))
