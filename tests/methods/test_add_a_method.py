"""docs/add_a_method.md: its files, installed as a package, keep the contract and run from the command line."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench.records.record import load_record

ROOT = Path(__file__).parents[2]
TINY = [
    "model.n_layers=4", "model.d_model=32", "model.n_heads=2", "model.context=32", "train.batch_size=4",
    "train.budget_flops=2e9", "train.threads=1", "train.device=cpu", "evaluate.validation_tokens=2000",
    "evaluate.tasks=[]", "evaluate.timing_steps=1", "evaluate.decode_batch_sizes=[2]", "name=doc",
    "seeds=1", "evaluate.speed_shape=null",
]  # fmt: skip


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The files of the page, and the metadata that pip would write from its pyproject.toml."""
    folder = tmp_path_factory.mktemp("my-methods")
    page = (ROOT / "docs" / "add_a_method.md").read_text(encoding="utf-8")
    for title, text in re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL):
        path = folder / title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "my_methods" / "__init__.py").write_text("")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    about = folder / "my_methods-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["bench.methods"].items()
    (about / "entry_points.txt").write_text("[bench.methods]\n" + "".join(f"{k} = {v}\n" for k, v in points))
    return folder


def _python(package, *words):
    paths = {"PYTHONPATH": f"{package}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], cwd=package, capture_output=True, text=True, env=os.environ | paths)


def test_guide_example_passes_its_own_test(package):
    done = _python(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_hash_skip.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_guide_example_runs_from_the_command_line(package):
    cache = f"data.cache_dir={ROOT / '.cache' / 'bench'}"
    done = _python(package, "-m", "bench", "+method=hash_skip", "method.options.share=0.25", cache, *TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    record = load_record(next((package / "results" / "doc").glob("hash_skip-*/record.json")))
    assert record.causality.passed
    assert record.config["method"]["options"] == {"share": 0.25, "every": 2}
    flops = record.flops
    assert flops.forward_fvcore == pytest.approx(flops.forward_analytic, rel=1e-6)
    assert flops.forward_torch == pytest.approx(flops.forward_analytic, rel=1e-6)
    assert record.routing.fraction_processed == pytest.approx(0.25, abs=0.05)
    assert record.routing.not_reported == ["expert load"]
    assert record.speed.decode[0].fraction_processed == pytest.approx(0.25, abs=0.2)
    dense = load_record(next((package / "results" / "doc").glob("dense-*/record.json")))
    assert flops.forward_per_token < 0.8 * dense.flops.forward_per_token
    page = next((package / "reports").rglob("report.md")).read_text(encoding="utf-8")
    assert "does not report expert load" in page and "heat_map_hash_skip" in page


def test_comparison_with_wrong_counts_refuses_before_training(package):
    module = package / "my_methods" / "hash_skip.py"
    right = module.read_text()
    module.write_text(right.replace("build_layers(", "_build(") + WRONG)
    try:
        done = _python(package, "-m", "bench", "+method=hash_skip", *TINY, "name=wrong")
    finally:
        module.write_text(right)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "the FLOP counts of" in done.stderr and "Masked (layers 1, 3): counted" in done.stderr
    assert "computed and then masked" in done.stderr
    assert not (package / "results" / "wrong").exists()


WRONG = """

class Masked(HashSkip):
    def forward(self, x, context):
        return x + self.branch(x, context) * self.choose(x, context).unsqueeze(-1)


def build_layers(model, method, options):
    layers = _build(model, method, options)
    for layer in layers:
        if isinstance(layer, HashSkip):
            layer.__class__ = Masked
    return layers
"""
