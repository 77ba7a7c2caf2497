"""Points of a law whose parameters are known."""

from __future__ import annotations

import numpy as np
import pandas as pd

LAW = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}  # Hoffmann et al. 2022, table A3 (approach 3)
EXPONENT = LAW["beta"] / (LAW["alpha"] + LAW["beta"])
BUDGETS = (1e18, 3e18, 1e19, 3e19, 1e20)


def law_loss(params, tokens):
    return LAW["E"] + LAW["A"] / params ** LAW["alpha"] + LAW["B"] / tokens ** LAW["beta"]


def best_params(flops):
    ratio = LAW["alpha"] * LAW["A"] / (LAW["beta"] * LAW["B"])
    return ratio ** (1 / (LAW["alpha"] + LAW["beta"])) * (flops / 6) ** EXPONENT


def make_points(noise=0.0, seed=0, sizes=7, seeds=1, span=8.0, budgets=BUDGETS, method="dense", better=1.0):
    """A grid around the optimum; `better`: the method does with its FLOPs what dense does with as many times more."""
    rng = np.random.default_rng(seed)
    rows = []
    for flops in budgets:
        for params in np.geomspace(
            best_params(flops * better) / span**0.5, best_params(flops * better) * span**0.5, sizes
        ):
            for _ in range(seeds):
                loss = law_loss(params, flops * better / (6 * params)) * (1 + noise * rng.standard_normal())
                rows.append({"method": method, "flops": flops, "loss": loss, "params": params})
    return pd.DataFrame(rows)


def floor_then_cliff(frame):
    """The losses of 1e19 made a floor with a cliff: a parabola's minimum then lies below all of them."""
    own = frame.index[frame["flops"] == 1e19]
    frame.loc[own, "loss"] = [3.0, 3.02, 3.0, 3.01, 3.0, 3.3, 3.9]
    return frame
