"""Methods that bring code: in the tree, from an installed package, and how their mistakes are refused."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import bench.methods.modules
from bench.config import plugins
from bench.config.compose import configure, options
from bench.config.identity import config_hash
from bench.config.options import _installed_dirs, installed_methods
from bench.config.schema import MethodConfig, ModelConfig, RunConfig
from bench.errors import UserError
from bench.flops.match import plan
from bench.methods import build_model
from bench.methods.registry import check_shapes

SHAPE = ModelConfig(n_layers=2, d_model=16, n_heads=2, context=8)
MODULE = """
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from bench.model import Attention, Residual


@dataclass
class Options:
    blocks: Annotated[int, Field(ge=1)] = 3
    order: Literal["first", "last"] = "first"


def build_layers(model, method, options):
    return [Residual(Attention(model)) for _ in range(options.blocks)]
"""


@pytest.fixture
def in_tree(tmp_path, monkeypatch):
    """A folder in place of bench/methods/modules."""
    monkeypatch.setattr(plugins, "_IN_TREE", tmp_path)
    monkeypatch.setattr(bench.methods.modules, "__path__", [str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("bench.methods.modules.")]:
        del sys.modules[name]


def _forget_installed():
    installed_methods.cache_clear()
    _installed_dirs.cache_clear()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder of installed packages, with one that brings the method attention_only."""
    package = tmp_path / "their_methods"
    (package / "conf" / "method").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "only.py").write_text(MODULE)
    (package / "conf" / "method" / "attention_only.yaml").write_text(
        "# Blocks of attention alone.\nname: attention_only\noptions: {blocks: 4}\n"
    )
    about = tmp_path / "their_methods-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-methods\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[bench.methods]\nattention_only = their_methods.only\n")
    monkeypatch.syspath_prepend(tmp_path)
    _forget_installed()
    yield package
    _forget_installed()
    for name in [name for name in sys.modules if name.startswith("their_methods")]:
        del sys.modules[name]


def test_module_in_the_tree_builds_its_layers(in_tree):
    (in_tree / "attention_only.py").write_text(MODULE)
    model = build_model(SHAPE, MethodConfig(name="attention_only"), vocab_size=11)
    assert len(model.layers) == 3
    assert set(model.flops(8)) == {"attention projections", "attention scores", "lm head"}
    logits, routings = model(torch.zeros(1, 8, dtype=torch.int64))
    assert logits.shape == (1, 8, 11)
    assert routings == []


def test_edited_module_in_the_tree_is_another_run(in_tree):
    config = RunConfig(method=MethodConfig(name="attention_only"))
    hashes = [config_hash(config)]
    for source in (MODULE, MODULE.replace("= 3", "= 4"), MODULE):
        (in_tree / "attention_only.py").write_text(source)
        hashes.append(config_hash(config))
    assert len(set(hashes)) == 3 and hashes[1] == hashes[3]


def test_edited_file_of_an_installed_package_is_another_run(installed):
    config = configure(["+method=attention_only"])
    before = config_hash(config)
    (installed / "helpers.py").write_text("HALF = 0.5\n")
    after = config_hash(config)
    assert before != after
    (installed / "notes.md").write_text("no code")
    assert config_hash(config) == after


def test_method_named_like_a_module_of_bench_is_built():
    for name in ("experts", "depth", "registry"):
        assert len(build_model(SHAPE, MethodConfig(name=name), vocab_size=11).layers) == 2


def test_installed_package_brings_method_and_yaml(installed):
    assert "attention_only" in options("method")
    method = configure(["+method=attention_only", "method.options.order=last"]).method
    assert method.options == {"blocks": 4, "order": "last"}  # the YAML's, the command line's
    assert len(build_model(SHAPE, method, vocab_size=11).layers) == 4
    assert configure(["+method=mod"]).method.options == {}


def test_command_lists_installed_method(installed):
    path = {"PYTHONPATH": f"{installed.parent}:{Path(__file__).parents[2]}"}
    shown = subprocess.run([sys.executable, "-m", "bench", "--help"], capture_output=True, text=True, env=path)
    assert "attention_only Blocks of attention alone." in shown.stdout, shown.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method.options.block=4"], "unknown key method.options.block: it must be one of blocks, order"),
        (["method.options.blocks=0"], "method.options.blocks=0 is not allowed: it must be at least 1.$"),
        (["method.options.blocks=many"], "method.options.blocks='many' is not allowed: it must be a whole number.$"),
        (["method.options.blocks=1.5"], "method.options.blocks=1.5 is not allowed: it must be a whole number.$"),
        (["method.options.blocks=[1]"], r"method.options.blocks=\[1\] is not allowed: it must be a whole number.$"),
        (
            ["method.options.order=middle"],
            "method.options.order='middle' is not allowed: it must be one of first, last",
        ),
    ],
)
def test_option_that_is_wrong_is_refused_in_one_line(installed, words, said):
    with pytest.raises(UserError, match=said) as caught:
        configure(["+method=attention_only", *words])
    assert "\n" not in str(caught.value)


def test_options_of_method_without_any_are_refused():
    with pytest.raises(UserError, match="unknown key method.options.blocks: .*left out, because mod has no options"):
        configure(["+method=mod", "method.options.blocks=3"])


def test_method_in_two_places_is_refused(installed):
    (installed / "conf" / "method" / "mod.yaml").write_text("# Theirs.\nname: mod\n")
    with pytest.raises(UserError, match="method mod is in two places"):
        configure(["+method=mod"])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named"),
        ("x = 1", "has no function build_layers"),
    ],
)
def test_module_that_cannot_be_used_is_refused_in_one_line(in_tree, source, said):
    (in_tree / "broken.py").write_text(source)
    with pytest.raises(UserError, match=f"broken.*{said}"):
        build_model(SHAPE, MethodConfig(name="broken"), vocab_size=11)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("class Options: pass", "broken: its Options must be a dataclass"),
        ("@dataclass\nclass Options:\n    x: torch.Tensor = None", "its Options cannot be used .*Tensor"),
        ("@dataclass\nclass Options:\n    x: object = torch.float32", "its Options cannot be recorded"),
        ("@dataclass\nclass Options:\n    x: int = 1\n    def __post_init__(self): 1 / 0", "cannot be used .division"),
        (
            "@dataclass\nclass Options:\n    x: int = 1\n    def __post_init__(self):\n        assert 0, 'Two\\nlines'",
            "method.options is not allowed: two.$",
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused_in_one_line(in_tree, options, said):
    lines = ["from dataclasses import dataclass", "import torch", options, "def build_layers(*_): return []"]
    (in_tree / "broken.py").write_text("\n".join(lines))
    with pytest.raises(UserError, match=said) as caught:
        plugins.resolved_options(MethodConfig(name="broken"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ("return None", "must return a list of layers"),
        ("return []", "must return a list of layers"),
        ("return [torch.nn.Linear(model.d_model, model.d_model)]", "each a bench.model.Layer"),
        ("raise ValueError('odd\\nlayers')", "broken.py, line 10, in build_layers, raised ValueError: odd. Nothing"),
        ("return [Wrong(lambda x: x[:, 1:])]", r"layer 1, Wrong, must .* \(1, 8, 16\), and returned \(1, 7, 16\)"),
        ("return [Wrong(lambda x: (x, x))]", "and returned tuple"),
        ("return [Wrong(lambda x: x @ x)]", "broken.py, line 10, in <lambda>, raised RuntimeError: "),
    ],
)
def test_layers_that_cannot_be_used_are_refused_in_one_line(in_tree, layers, said):
    source = "import torch\nfrom bench.model import Layer\n\nclass Wrong(Layer):\n    def __init__(self, f):\n"
    source += "        super().__init__()\n        self.f = f\n    def forward(self, x, context): return self.f(x)\n"
    (in_tree / "broken.py").write_text(f"{source}def build_layers(model, method, options):\n    {layers}\n")
    method = MethodConfig(name="broken")
    with pytest.raises(UserError, match=f"method broken: .*{said}") as caught:
        check_shapes(build_model(SHAPE, method, vocab_size=11), method, torch.zeros(1, 8, dtype=torch.int64))
    assert "\n" not in str(caught.value)


def test_cost_that_is_not_stated_is_refused_in_one_line(in_tree):
    source = "from bench.model import Layer\n\nclass Bare(Layer):\n    def forward(self, x, context): return x\n"
    (in_tree / "broken.py").write_text(f"{source}def build_layers(model, *_): return [Bare()]\n")
    config = configure(["+method=dense", "scale=tiny"])
    with pytest.raises(UserError, match="method broken: block.py, .* in flops, raised NotImplementedError"):
        plan(replace(config, method=MethodConfig(name="broken")), 256)


def test_package_cannot_replace_a_method_of_bench(installed):
    about = installed.parent / "their_methods-1.0.dist-info"
    (about / "entry_points.txt").write_text("[bench.methods]\nmod = their_methods.only\n")
    with pytest.raises(UserError, match="method mod is in two places, .*their_methods.only: remove or rename one"):
        configure(["+method=mod"])


def test_module_that_raises_on_import_is_one_line(installed):
    (installed / "only.py").write_text("raise RuntimeError('no licence\\nfound')")
    with pytest.raises(UserError, match="attention_only is in their_methods.only.*RuntimeError: no licence.$"):
        configure(["+method=attention_only"])


def test_method_without_its_package_is_said_to_be_missing():
    with pytest.raises(UserError, match="method theirs is not installed: install the package that brings it"):
        plugins.typed_options(MethodConfig(name="theirs", options={"share": 0.5}))
