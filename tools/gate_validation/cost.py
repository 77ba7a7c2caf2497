"""`python -m tools.gate_validation.cost`: the cost of the gate and its dashboard, on a long synthetic history.

Times whole commands, as CI runs them, on the ci baseline, and the waiting time of a reader in Chromium.
Exit status: 0 every target met, 1 a target missed, 2 usage error.
"""

from __future__ import annotations

import argparse
import datetime
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from bench.config.schema import RunConfig, StudyConfig
from bench.errors import UserError, reports_errors
from bench.gate import history
from bench.gate.dashboard import build
from bench.gate.load import Side, read_side
from bench.measure.speed import interleave
from bench.records.record import Timing
from bench.records.targets import Target
from bench.studies.targets import finish

_BASELINE = Path(__file__).resolve().parents[2] / "results" / "ci"
_ROWS, _MACHINES = 5_000, 3
_GATE, _APPEND, _BUILD, _LOAD, _FILTER = 2.0, 0.05, 10.0, 1.0, 1.0  # seconds at most
_CPU = torch.device("cpu")


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Time each, write the record and its page, print the targets, and return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    about = "Times the gate, its history and the dashboard on 5,000 rows."
    parser = argparse.ArgumentParser(prog="python -m tools.gate_validation.cost", description=about)
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="samples of each figure (8)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="folder of records")
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help="folder of reports")
    options = parser.parse_args(words)
    study = StudyConfig(name="gate_cost", rounds=options.rounds)
    config = RunConfig(results_dir=str(options.results), reports_dir=str(options.reports), study=study)
    shape, targets = _measure(options.rounds)
    command = shlex.join(["python", "-m", "tools.gate_validation.cost", *words])
    return finish("gate_cost", config, command, _CPU, shape, targets)


def _measure(rounds: int) -> tuple[dict[str, int], list[Target]]:
    """The size of the history, and the times."""
    browser, side = _browser(), read_side(_BASELINE)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = list(_rows(side))
        _write(rows, folder)
        targets = [
            _target("bench.gate on two ci studies, whole command", _gate, rounds, _GATE),
            _target(
                f"append to a history of {_ROWS:,} rows", lambda: history.append(rows[-1], folder), rounds, _APPEND
            ),
            _target(f"dashboard of {_ROWS:,} rows, whole command", lambda: _dashboard(folder), rounds, _BUILD),
            *_browser_targets(browser, build(rows, folder / "site"), rounds),
        ]
    return {"rows": _ROWS, "figures": len(side.figures), "machines": _MACHINES}, targets


def _browser() -> str:
    """The path of Chromium. Raises UserError if it or playwright is not installed."""
    if find_spec("playwright") is None:
        raise UserError(
            "the dashboard is timed in a browser, so it needs playwright: pip install 'isoflop-bench[test]'."
        )
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise UserError("the dashboard is timed in a browser, but no chromium was found; install it.")
    return found


def _target(figure: str, action: Callable[[], object], rounds: int, limit: float) -> Target:
    return Target(figure=figure, value=Timing.of(interleave([action], rounds, _CPU)[0]), unit="s", at_most=limit)


def _rows(side: Side) -> Iterator[history.Row]:
    """The baseline's figures repeated on three machines in turn; speed is noisy, and the loss has one step."""
    noise = random.Random(0)
    first = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    for number in range(_ROWS):
        figures = {}
        for (method, name), figure in side.figures.items():
            factor = noise.gauss(1.0, 0.02) if (method, name) in side.samples else 1.0
            if name == "quality.val_loss_nats" and number > _ROWS * 9 // 10:
                factor = 1.005
            figures[f"{method} {name}"] = [factor * value for value in (figure.value, *(figure.ends or ()))]
        machine = number % _MACHINES
        yield history.Row(
            created=(first + datetime.timedelta(hours=2 * number)).isoformat(), commit=f"{number:012x}",
            study=side.study, machine=f"{machine:08x}", machine_name=f"machine {machine}", verdict="fine",
            figures=figures,
        )  # fmt: skip


def _write(rows: list[history.Row], folder: Path) -> None:
    """The history as appending each row would leave it."""
    lines = (row.model_dump_json(exclude_none=True) for row in rows)
    (folder / history.FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _gate() -> None:
    _run("bench.gate", str(_BASELINE), str(_BASELINE))


def _dashboard(folder: Path) -> None:
    _run("bench.gate.dashboard", str(folder), "--reports", str(folder / "reports"))


def _run(*module: str) -> None:
    subprocess.run([sys.executable, "-m", *module], check=True, capture_output=True)


def _browser_targets(browser: str, front: Path, rounds: int) -> list[Target]:
    """From opening the page to the first readable chart, and from choosing a method to its charts, in Chromium."""
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
            other = {"MoD": "MoE", "MoE": "MoD"}[chosen[0]]
            page.get_by_label(chosen[0], exact=True).uncheck()
            page.get_by_label(other, exact=True).check()
            chosen[0] = other
            page.locator(".chart h2", has_text=f"{other}:").first.wait_for()
            page.locator(".readout", has_text="commit").first.wait_for()

        targets = [
            _target(f"charts of {_ROWS:,} rows, from opening the page to the first readable chart", load, rounds, _LOAD)
        ]
        chosen = ["MoE"]
        page.get_by_label("MoE", exact=True).check()
        targets.append(_target(f"charts of {_ROWS:,} rows, another method chosen", choose, rounds, _FILTER))
        chromium.close()
    return targets


if __name__ == "__main__":
    sys.exit(main())
