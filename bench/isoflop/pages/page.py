"""The page of an isoFLOP study and its Markdown twin."""

from __future__ import annotations

import json
from pathlib import Path

from bench.errors import UserError
from bench.fit.page import table as fit_table
from bench.isoflop.analysis.contracts import comparisons
from bench.isoflop.analysis.curves import outliers
from bench.isoflop.analysis.iso_loss import parities
from bench.isoflop.analysis.results import Results, read_study
from bench.isoflop.pages.ablations import controls_part
from bench.isoflop.pages.additivity import adding_up_part
from bench.isoflop.analysis.claims import UNTESTED, Claim, claims
from bench.isoflop.analysis.evidence import FAILS, HOLDS, OPEN
from bench.isoflop.pages.contracts import contracts_part
from bench.isoflop.pages.laws import laws_part, study_fits
from bench.isoflop.pages.runs import runs_part
from bench.isoflop.pages.section import Part, there
from bench.isoflop.pages.setup import equal_for_all, packings, repeats, rerun, settings
from bench.isoflop.pages.sizes import sizes_part
from bench.isoflop.pages.speed import speed_part
from bench.isoflop.pages.terms import TERMS
from bench.isoflop.pages.tokens import tokens_part
from bench.isoflop.pages.verdict import how_sure, verdicts, winners
from bench.records.files import write_atomically
from bench.report.render import render
from bench.report.routing import accuracy_figure, heat_map_figures, heat_maps, weight_figures


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
    try:
        for name in ("figures", "tables"):
            (target / name).mkdir(parents=True, exist_ok=True)
        for part in parts:
            for drawing in (*part.drawings, *part.pictures):
                write_atomically(target / "figures" / f"{drawing.name}.svg", drawing.svg)
            for each in part.tables:
                write_atomically(
                    target / "tables" / f"{each.name}.csv", each.data.to_csv(index=False, lineterminator="\n")
                )
        write_atomically(target / "fit.json", json.dumps(fits.plain(), indent=2, allow_nan=False) + "\n")
        write_atomically(target / "fit.md", fit_table(fits))
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}. Choose another folder for reports.") from error
    left_out = [*results.problems, *(f"By stored parameters, {note}" for note in fits.notes), *outliers(results)]
    shown = {
        "study": results.study, "environment": results.study.environment, "claims": found, "parts": parts,
        "problems": left_out, "settings": settings(results), "equal": equal_for_all(results),
        "repeats": repeats(results), "winners": winners(results), "verdicts": verdicts(results, compared),
        "sure": how_sure(results, compared),
        "shares": results.study.shares(sum(files.record.training.seconds for files in results.files.values())),
        "packings": packings(results.study), "rerun": rerun(results.study),
        "tally": _tally(found), "marks": {HOLDS: "holds", FAILS: "fails", OPEN: "open"},
        "terms": TERMS,
    }  # fmt: skip
    for template, name in (("isoflop.md", "report.md"), ("isoflop.html", "index.html")):
        write_atomically(target / name, render(template, **shown))
    return target / "index.html"


def _tally(found: list[Claim]) -> str:
    tested = [claim for claim in found if claim.by != UNTESTED]
    held, failed = (sum(claim.verdict == verdict for claim in tested) for verdict in (HOLDS, FAILS))
    return (
        f"Of {len(found)} claims {held} hold here, {failed} do not, {len(tested) - held - failed} cannot be told from "
        "what "
        f"was run, and {len(found) - len(tested)} were not tested."
    )


def _routing_part(results: Results) -> Part:
    largest = results.group(results.budgets[-1])
    drawings = there(*weight_figures(largest), accuracy_figure(largest))
    maps, pictures = heat_maps(largest), heat_map_figures(largest)
    return Part("routing", "Who was processed where", [], drawings, heat_maps=maps, pictures=pictures)
