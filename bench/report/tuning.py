"""The page of a tuning study: what was found best for each method, and how far the default is from the best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pandas as pd

from bench.config.identity import MethodId
from bench.formats import DASH, decimal, scaled
from bench.records.tuning import Candidate, Settings, Tuning, load_tuning
from bench.stats.difference import Source, of_mean, satterthwaite
from bench.stats.interval import Interval
from bench.web.figures import Drawing, canvas, error_bars, finish, method_colours, slug, styled
from bench.web.intervals import MOST_MARKS, Mark, Scale
from bench.web.page import Page, write_page
from bench.web.tables import Table

TEMPLATES = Path(__file__).parent / "templates"

_METHOD = (
    "One seed runs the points of a central composite design around a starting setting. A quadratic in the four ladders "
    "is fitted to their losses. Its lowest neighbour becomes the next centre, until the centre stays. The neighbours "
    "that the last fit predicts to be best are the candidates. More seeds choose among them by the mean loss."
)


def write_study(path: Path, reports: Path) -> Path:
    """Write the page of the tuning study at `path`; returns the page."""
    study = load_tuning(path)
    tables = [_chosen(study), _candidates(study)]
    drawings = [_figure(study)]
    answers = _answers(study)
    scale = Scale([each.mark for each in answers], [])
    values = {"study": study, "tables": tables, "drawings": drawings, "finding": finding(study), "method": _METHOD,
              "answers": answers, "scale": scale}  # fmt: skip
    return write_page(reports, _page(study, path), "tuning", drawings, tables, values, TEMPLATES)


def _page(study: Tuning, path: Path) -> Page:
    return Page(
        name=study.name,
        kind="Evidence",
        finding=finding(study),
        facts=[f"{scaled(study.budget)} training FLOPs", study.environment.device_name],
        created=study.created,
        records=path.parent,
        marks=[each.mark for each in _answers(study)][:MOST_MARKS],
        line=fmean(study.methods["dense"].candidates[0].selection),
        commits=[study.git_commit] if study.git_commit else [],
    )


def finding(study: Tuning) -> str:
    """The chosen dense setting against the best of the other candidates, on seeds that chose neither."""
    chosen, *others = study.methods["dense"].candidates
    seeds = f"{len(chosen.fresh)} fresh seeds each"
    if not others:
        return f"The chosen dense setting was the only candidate; it was measured on {len(chosen.fresh)} fresh seeds."
    best = min(others, key=lambda each: fmean(each.fresh))
    ratio = over(chosen.fresh, best.fresh)
    low, high = ratio.ends or (ratio.value, ratio.value)
    return (
        f"The default dense setting has {decimal(ratio.value)} times the loss of the best other candidate "
        f"(95 % CI {decimal(low)} to {decimal(high)}, {seeds})"
    )


def over(chosen: list[float], best: list[float]) -> Interval:
    """Ratio of two mean losses of unpaired seeds, with Welch's interval by the delta method."""
    means = fmean(chosen), fmean(best)
    sources = [of_mean(each) for each in (chosen, best)]
    relative = [Source(own.variance / mean**2, own.degrees) for own, mean in zip(sources, means, strict=True)]
    total, ratio = satterthwaite(relative), means[0] / means[1]
    return Interval.from_stderr(ratio, ratio * math.sqrt(total.variance), total.degrees)


@dataclass(frozen=True)
class Answer:
    """A candidate's row. fresh: its loss on seeds that chose nothing."""

    method: str
    settings: str
    mark: Mark
    fresh: str


def _answers(study: Tuning) -> list[Answer]:
    colours = method_colours([slug(name) for name in study.methods])
    return [
        Answer(title, _words(each.settings), Mark(title, _interval(each.selection), colours[slug(name)]),
               _mean(each.fresh))
        for name, tuned in study.methods.items()
        for title in [MethodId.parse(name).title]
        for each in tuned.candidates
    ]  # fmt: skip


def _chosen(study: Tuning) -> Table:
    rows, data = [], []
    for name, tuned in study.methods.items():
        best = tuned.candidates[0]
        rows.append(
            [
                MethodId.parse(name).title,
                *_settings(best.settings),
                scaled(best.params_active),
                decimal(best.tokens / best.params_active, 1),
                decimal(fmean(best.selection), 4),
                str(tuned.searched),
                str(tuned.diverged),
                ", ".join(tuned.at_edge) or "no",
            ]
        )
        data.append(
            best.settings.model_dump()
            | {
                "method": name,
                "loss": fmean(best.selection),
                "searched": tuned.searched,
                "params_total": best.params_total,
                "params_active": best.params_active,
                "tokens": best.tokens,
            }
        )
    columns = ["method", "layers × width", "batch", "rate at width 128", "active parameters", "tokens/parameter",
               "loss (nats/token)", "settings run", "diverged", "at a ladder’s end"]  # fmt: skip
    caption = (
        "The best setting of each method by the same search. Loss: mean of the seeds that chose it, so it is slightly "
        "too low. A batch is in sequences."
    )
    return Table("chosen", caption, columns, rows, pd.DataFrame(data))


def _settings(each: Settings) -> list[str]:
    return [f"{each.n_layers} × {each.d_model}", str(each.batch_size), f"{each.lr_at_128:g}"]


def _candidates(study: Tuning) -> Table:
    rows, data = [], []
    for name, tuned in study.methods.items():
        for rank, each in enumerate(tuned.candidates, start=1):
            own = [_mean(losses) for losses in (each.selection, each.fresh)]
            rows.append([MethodId.parse(name).title, str(rank), *_settings(each.settings), *own])
            data.append({"method": name, "rank": rank} | _flat(each))
    columns = ["method", "rank", "layers × width", "batch", "rate at width 128", "loss, selecting seeds", "fresh seeds"]
    caption = (
        "The candidates that more seeds chose among: mean loss and standard deviation, in nats/token. Of dense, fresh "
        "seeds that chose nothing measure every candidate."
    )
    return Table("candidates", caption, columns, rows, pd.DataFrame(data))


def _flat(each: Candidate) -> dict[str, object]:
    losses = {name: " ".join(f"{loss:.5f}" for loss in getattr(each, name)) for name in ("selection", "fresh")}
    return each.settings.model_dump() | losses


def _mean(losses: list[float]) -> str:
    if not losses:
        return DASH
    spread = f" ± {stdev(losses):.4f}" if len(losses) > 1 else ""
    return f"{fmean(losses):.4f}{spread} (n = {len(losses)})"


@styled
def _figure(study: Tuning) -> Drawing:
    """Each method's candidates: loss and its standard error, best first."""
    figure, axes = canvas(4.8, 0.9 + 0.3 * sum(len(tuned.candidates) for tuned in study.methods.values()))
    colours = method_colours([slug(name) for name in study.methods])
    labels: list[str] = []
    for name, tuned in study.methods.items():
        at = len(labels) + np.arange(len(tuned.candidates))
        error_bars(
            axes, at, [_interval(each.selection) for each in tuned.candidates], colours[slug(name)],
            horizontal=True,
        )  # fmt: skip
        labels += [f"{MethodId.parse(name).title}, {_words(each.settings)}" for each in tuned.candidates]
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("validation loss, nats/token")
    return finish(
        figure, "candidates", "Candidates of each method", "Mean loss of each method's candidates, with intervals.",
        f"At {scaled(study.budget)} training FLOPs a run. Error bars: 95 % t intervals over the selecting seeds.",
    )  # fmt: skip


def _words(each: Settings) -> str:
    return f"{each.n_layers} × {each.d_model}, batch {each.batch_size}, {each.lr_at_128:g}"


def _interval(losses: list[float]) -> Interval:
    if len(losses) < 2:
        return Interval(fmean(losses))
    own = of_mean(losses)
    return Interval.from_stderr(fmean(losses), math.sqrt(own.variance), own.degrees)
