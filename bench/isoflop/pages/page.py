"""The page of an isoFLOP study and its Markdown copy."""

from __future__ import annotations

import json
from pathlib import Path

from bench.fit.page import table as fit_table
from bench.formats import power
from bench.isoflop.analysis.claims import PAPER, POPULAR, claims
from bench.isoflop.analysis.contracts import comparisons
from bench.isoflop.analysis.curves import outliers
from bench.isoflop.analysis.iso_loss import iso_losses
from bench.isoflop.analysis.results import Results, read_study, title
from bench.isoflop.analysis.studies import questions
from bench.isoflop.analysis.verdicts import against_dense
from bench.isoflop.pages.ablations import ablations_part
from bench.isoflop.pages.answer import first_screen
from bench.isoflop.pages.claims import claim_rows, claims_table, tally
from bench.isoflop.pages.differences import additivity_part, contracts_part
from bench.isoflop.pages.explore import explore_data
from bench.isoflop.pages.hero import hero_figures
from bench.isoflop.pages.laws import laws_part, study_fits
from bench.isoflop.pages.section import there
from bench.isoflop.pages.setup import equal_for_all, facts, packings, rerun, runs_table, settings, terms
from bench.isoflop.pages.sizes import sizes_part
from bench.isoflop.pages.speed import speed_part
from bench.isoflop.pages.tokens import tokens_part
from bench.isoflop.pages.verdict import power_table, studies_table, verdict_part, verdict_table, verdicts
from bench.report.routing import accuracy_figure, heat_map_figures, passages, weight_figures
from bench.web.data import data_element
from bench.web.page import Page, Part, write_page

_TEMPLATES = Path(__file__).parent / "templates"


def write_isoflop(folder: Path, reports: Path) -> Path:
    """Write index.html, report.md, figures/, tables/ and fit.json of the study in `folder`; returns the page.

    Raises UserError if the study cannot be read or the report cannot be written.
    """
    results = read_study(folder)
    compared, matched, fits = comparisons(results), iso_losses(results), study_fits(results)
    against, asked = against_dense(results), questions(results)
    found = claims(results, against, matched, fits)
    answer = first_screen(results, against)
    decided = [verdict_table(results, against, compared), power_table(results, against),
               studies_table(results, asked)]  # fmt: skip
    parts = [
        verdict_part(results, decided, against), sizes_part(results, fits), contracts_part(results, compared),
        additivity_part(results), speed_part(results, matched), laws_part(fits), ablations_part(results),
        _routing_part(results), tokens_part(results),
    ]  # fmt: skip
    hero = hero_figures(results)
    tables = [claims_table(found), *(table for part in parts for table in part.tables), runs_table(results)]
    study = results.study
    shown = {
        "study": study, "answer": answer, "hero_pictures": hero, "claims": claim_rows(found),
        "parts": [part for part in parts if part],
        "problems": [*results.problems, *(f"By total parameters, {note}" for note in fits.notes), *outliers(results)],
        "settings": settings(results), "equal": equal_for_all(results), "verdicts": verdicts(results, against, asked),
        "shares": study.shares(sum(files.record.training.seconds for files in results.files.values())),
        "packings": packings(study), "rerun": rerun(study), "tally": tally(found), "paper": PAPER,
        "popular": POPULAR, "terms": terms(results), "data": data_element("isoflop-data", explore_data(results)),
        "csv_only": [table for table in tables if not table.rows and table.caption],
    }  # fmt: skip
    files = {
        "fit.json": json.dumps(fits.plain(), indent=2, allow_nan=False) + "\n",
        "fit.md": fit_table(fits, title),
    }
    drawings = [*hero, *(drawing for part in parts for drawing in (*part.drawings, *part.pictures))]
    written = [table for table in tables if len(table.data.columns)]
    page = Page(
        name=study.name, kind="isoFLOP study", finding=answer.finding, facts=facts(results), created=study.created,
        records=folder, commits=[study.git_commit] if study.git_commit else [], marks=answer.marks,
    )  # fmt: skip
    return write_page(reports, page, "isoflop", drawings, written, shown, _TEMPLATES, files)


def _routing_part(results: Results) -> Part:
    largest = results.group(results.budgets[-1])
    drawings = there(*weight_figures(largest), accuracy_figure(largest))
    maps, pictures = passages(largest), heat_map_figures(largest)
    folded = f"What the routers of the best shapes do with text, at {power(results.budgets[-1])} FLOPs"
    return Part("routing", "Routing", [], drawings, widgets=maps, pictures=pictures, folded=folded)
