"""A quadratic response surface: where a few settings on ladders give the lowest loss, from few runs.

A round runs the points of a face-centred central composite design (Box and Wilson 1951) around a centre. A quadratic is
fitted to them, and its lowest neighbour of the centre becomes the next centre, until the centre stays.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Point = tuple[int, ...]  # a place on each ladder

_MOST_ROUNDS = 4
_SCALE = 0.05  # a loss this share above the lowest counts half: far away, the surface is no quadratic


@dataclass(frozen=True)
class Search:
    """centre: of the last round. missing: its points without a run; empty if the search has ended.

    predicted: point -> the fitted loss, of the neighbours of the centre, lowest first; empty while runs are missing.
    """

    centre: Point
    missing: list[Point]
    predicted: dict[Point, float]


def search(losses: Mapping[Point, float | None], start: Point, sizes: Point) -> Search:
    """Follow the search from `start` through the runs that have ended, point -> loss or None if it diverged.

    sizes: of the ladders, each at least 3. A centre is moved inside, so that its design fits. Runs of no design are
    ignored, so the result does not change when more of them end.
    """
    centre, visited, planned = _inside(start, sizes), set[Point](), set[Point]()
    for _ in range(_MOST_ROUNDS):
        planned |= set(_design(centre))
        missing = sorted(planned - set(losses))
        if missing:
            return Search(centre, missing, {})
        predicted = _predicted({point: losses[point] for point in planned}, centre)
        visited.add(centre)
        best = _inside(next(iter(predicted)), sizes)
        if best in visited:
            break
        centre = best
    return Search(centre, [], predicted)


def _inside(point: Point, sizes: Point) -> Point:
    return tuple(min(max(place, 1), size - 2) for place, size in zip(point, sizes, strict=True))


def _design(centre: Point) -> list[Point]:
    """The centre, the corners and the middles of the faces of the cube around it."""
    offsets = [each for each in _cube(len(centre)) if sum(map(abs, each)) in (0, 1, len(centre))]
    return [_moved(centre, offset) for offset in offsets]


def _cube(factors: int) -> list[Point]:
    return list(itertools.product((-1, 0, 1), repeat=factors))


def _moved(point: Point, offset: Point) -> Point:
    return tuple(place + step for place, step in zip(point, offset, strict=True))


def _predicted(losses: Mapping[Point, float | None], centre: Point) -> dict[Point, float]:
    """The weighted least-squares quadratic of the runs within two steps of `centre`, at its neighbours."""
    near = {
        point: loss
        for point, loss in losses.items()
        if loss is not None and max(abs(a - b) for a, b in zip(point, centre, strict=True)) <= 2
    }
    if not near:
        raise ValueError("no run around the centre has a loss")
    values = np.array(list(near.values()))
    weights = 1 / (1 + ((values / values.min() - 1) / _SCALE) ** 2)
    terms = _terms(np.array(list(near)) - np.array(centre))
    root = np.sqrt(weights)
    coefficients = np.linalg.lstsq(terms * root[:, None], values * root, rcond=None)[0]
    cube = _cube(len(centre))
    fitted = _terms(np.array(cube)) @ coefficients
    points = [_moved(centre, offset) for offset in cube]
    return dict(sorted(zip(points, map(float, fitted), strict=True), key=lambda each: each[1]))


def _terms(x: np.ndarray) -> np.ndarray:
    """x (n, factors) -> 1, the factors, and their products in pairs, (n, terms)."""
    pairs = itertools.combinations_with_replacement(range(x.shape[1]), 2)
    return np.column_stack([np.ones(len(x)), x, *(x[:, a] * x[:, b] for a, b in pairs)])
