"""isoFLOP fits to any points: the optimum of each method, how it scales with compute, and how certain it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from bench.stats.fits import Fits


def isoflop(
    points: pd.DataFrame | Path | str, bootstraps: int = 1000, seed: int = 0, *, title: Callable[[str], str] = str,
    progress: bool | None = None, cluster: float | None = None, within: float | None = None, at: Sequence[float] = (),
) -> Fits:  # fmt: skip
    """Fit isoFLOP parabolas, their power laws and the parametric law L(N, D) to points of one or several methods.

    points: a frame, or the path of a CSV file, with a row per run and the columns method, flops (training FLOPs), loss
    (nats/token) and params or tokens or both; a missing one follows from flops = 6 params tokens. A column budget, if
    there is one, says which points belong together.
    bootstraps: resamples behind the 95 % intervals, 0 for none. seed: of the resampling.
    title: how to write a method's name in notes. progress: a bar on stderr; None draws it on a terminal only.
    cluster: points share a budget if their flops are within this share of the least of them (0.01 otherwise).
    within: parabolas leave out points whose loss is more than this share above the best of their budget.
    at: FLOPs to predict the optimal params and tokens of, and the loss there.

    Returns the fits by method: `.optima`, `.parametric`, `.equivalents`, `.predictions`, `.notes` and `.frame()`, a row
    per method and budget. Methods: Hoffmann et al. 2022, arXiv 2203.15556, sections 3.2 and 3.3. Raises UserError if a
    column is missing or in another unit, or if no row can be used.
    """
    from bench.stats.fits import fit
    from bench.stats.points import check_points, read_points

    by_path = isinstance(points, (Path, str))
    checked = read_points(Path(points), cluster) if by_path else check_points(points, "the frame", cluster)
    return fit(checked, bootstraps, seed, title, progress, within, at)
