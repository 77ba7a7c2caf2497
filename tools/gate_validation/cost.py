"""`+study=gate_time`: what the gate and its dashboard cost, on the ci baseline and on a long made-up history.

The bars: whole commands, as CI runs them, and what a reader waits for in a real browser.
"""

from __future__ import annotations

import datetime
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from bench.config.schema import RunConfig
from bench.errors import UserError
from bench.gate import history
from bench.gate.dashboard import build
from bench.gate.load import Side, read_side
from bench.measure.speed import interleave
from bench.records.record import Timing
from bench.records.targets import Bar
from bench.studies.targets import finish

_BASELINE = Path(__file__).resolve().parents[2] / "results" / "ci"
_ROWS, _MACHINES = 5_000, 3
_GATE, _APPEND, _BUILD, _LOAD, _FILTER = 2.0, 0.05, 10.0, 1.0, 1.0  # seconds at most
_CPU = torch.device("cpu")


def run(config: RunConfig, command: str) -> int:
    """Time each, write `bars.json` and its page, print the bars; status 1 where one is missed."""
    assert config.study is not None
    rounds, browser, side = config.study.rounds, _browser(), read_side(_BASELINE)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = list(_rows(side))
        _write(rows, folder)
        bars = [
            _bar("bench.gate on two ci studies, whole command", _gate, rounds, _GATE),
            _bar(f"append to a history of {_ROWS:,} rows", lambda: history.append(rows[-1], folder), rounds, _APPEND),
            _bar(f"dashboard of {_ROWS:,} rows, whole command", lambda: _dashboard(folder), rounds, _BUILD),
            *_browser_bars(browser, build(rows, folder / "site"), rounds),
        ]
    shape = {"rows": _ROWS, "figures": len(side.figures), "machines": _MACHINES}
    return finish("gate_time", config, command, _CPU, shape, bars)


def _browser() -> str:
    """Where Chromium is. Raises UserError where it, or what drives it, is not installed."""
    if find_spec("playwright") is None:
        raise UserError("this study opens the dashboard in a browser: pip install 'isoflop-bench[test]' drives it.")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise UserError("this study opens the dashboard in a browser, and finds no chromium; install it.")
    return found


def _bar(figure: str, action: Callable[[], object], rounds: int, limit: float) -> Bar:
    return Bar(figure=figure, value=Timing.of(interleave([action], rounds, _CPU)[0]), unit="s", at_most=limit)


def _rows(side: Side) -> Iterator[history.Row]:
    """The baseline's figures again and again, by three machines in turn; speed is noisy, and one loss steps once."""
    noise = random.Random(0)
    first = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    for number in range(_ROWS):
        figures = {}
        for (method, name), figure in side.figures.items():
            factor = noise.gauss(1.0, 0.02) if figure.samples else 1.0
            if name == "quality.val_loss_nats" and number > _ROWS * 9 // 10:
                factor = 1.005
            ends = [figure.low, figure.high] if figure.low is not None and figure.high is not None else []
            figures[f"{method} {name}"] = [factor * value for value in (figure.value, *ends)]
        machine = number % _MACHINES
        yield history.Row(
            created=(first + datetime.timedelta(hours=2 * number)).isoformat(), commit=f"{number:012x}",
            study=side.study, machine=f"{machine:08x}", machine_name=f"machine {machine}", verdict="fine",
            figures=figures,
        )  # fmt: skip


def _write(rows: list[history.Row], folder: Path) -> None:
    """The history as so many appends would have left it."""
    lines = (row.model_dump_json(exclude_none=True) for row in rows)
    (folder / history.FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _gate() -> None:
    _run("bench.gate", str(_BASELINE), str(_BASELINE))


def _dashboard(folder: Path) -> None:
    _run("bench.gate.dashboard", str(folder), "--reports", str(folder / "reports"))


def _run(*module: str) -> None:
    subprocess.run([sys.executable, "-m", *module], check=True, capture_output=True)


def _browser_bars(browser: str, front: Path, rounds: int) -> list[Bar]:
    """From the address to the first chart that can be read, and from a choice to its charts, in Chromium."""
    from playwright.sync_api import sync_playwright

    address = front.with_name("charts.html").as_uri()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page()

        def load() -> None:
            page.goto("about:blank")
            page.goto(address)
            page.locator(".readout", has_text="commit").first.wait_for()

        def choose() -> None:
            other = {"mod": "moe", "moe": "mod"}[chosen[0]]
            page.get_by_label(chosen[0], exact=True).uncheck()
            page.get_by_label(other, exact=True).check()
            chosen[0] = other
            page.locator(".chart h3", has_text=f"{other}:").first.wait_for()
            page.locator(".readout", has_text="commit").first.wait_for()

        bars = [_bar(f"charts of {_ROWS:,} rows, from the address to the first that can be read", load, rounds, _LOAD)]
        chosen = ["moe"]
        page.get_by_label("moe", exact=True).check()
        bars.append(_bar(f"charts of {_ROWS:,} rows, another method chosen", choose, rounds, _FILTER))
        chromium.close()
    return bars
