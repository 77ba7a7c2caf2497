"""Hydra's options on the command line: they work, or one line says what to use instead."""

import subprocess
import sys

import pytest
import yaml

from bench.__main__ import main


@pytest.fixture
def config_dir(tmp_path, monkeypatch):
    """A user's own folder of configuration, with a method and two primary configurations."""
    folder = tmp_path / 'my "conf'
    (folder / "method").mkdir(parents=True)
    (folder / "method" / "mine.yaml").write_text("# Half of the tokens.\nname: mine\ndepth: {capacity: 0.5}\n")
    (folder / "my.yaml").write_text("defaults:\n  - config\n  - _self_\nseed: 7\n")
    (folder / "bare.yaml").write_text("seed: 7\n")
    monkeypatch.setattr("bench.config.options.config_dirs", dirs := [])
    monkeypatch.setattr("bench.config.explain.config_dirs", dirs)
    return str(folder)


def printed(capsys, *words):
    assert main(list(words)) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refused(capsys, *words):
    assert main(list(words)) == 2
    return capsys.readouterr().err


def test_cfg_job_prints_the_configuration_as_yaml(capsys):
    config = yaml.safe_load(printed(capsys, "+method=mode", "seed=3", "--cfg", "job"))
    assert config["method"]["variant"] == "staged" and config["method"]["experts"]["n_noop"] == 0
    assert config["seed"] == 3 and config["model"]["d_model"] == 24 and "hydra" not in config


def test_cfg_job_without_a_method_prints_the_defaults(capsys):
    assert yaml.safe_load(printed(capsys, "--cfg=job"))["method"]["name"] == "???"


def test_cfg_job_of_a_bad_value_is_refused(capsys):
    assert "train.lr=-1.0 is not allowed: it must be more than 0." in refused(
        capsys, "+method=mod", "train.lr=-1", "--cfg", "job"
    )


def test_cfg_job_of_a_sweep_is_refused(capsys):
    assert "describe one run" in refused(capsys, "-m", "+method=mod", "seed=0,1", "--cfg", "job")


def test_info_prints_the_defaults_tree_and_the_search_path(capsys, config_dir):
    tree = printed(capsys, "+method=mod", "--info", "defaults-tree")
    assert "method: mod" in tree and "scale: tiny" in tree
    assert config_dir in printed(capsys, "--info", "searchpath", "--config-dir", config_dir)


def test_config_dir_adds_a_method(capsys, config_dir):
    config = yaml.safe_load(printed(capsys, "--config-dir", config_dir, "+method=mine", "--cfg", "job"))
    assert config["method"]["depth"]["capacity"] == 0.5


def test_config_dir_may_not_shadow_conf(capsys, config_dir, tmp_path):
    (tmp_path / 'my "conf' / "method" / "mod.yaml").write_text("name: mod\n")
    message = refused(capsys, "--config-dir", config_dir, "+method=mod", "--cfg", "job")
    assert "method/mod.yaml would be ignored, because conf/ has one too; rename it" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# caf\xe9\nname: odd\n", "method/odd.yaml is not UTF-8 (byte 0xe9 at offset 5)"),
        ("name: odd\n".encode("utf-16"), "method/odd.yaml is not UTF-8 (byte 0xff at offset 0)"),
        (b"name: odd\ndepth: {\n", "odd.yaml, line 3: not YAML ("),
        (b"name: odd\nname: odd\n", "odd.yaml, line 2: not YAML (found duplicate key name)"),
        (b"- odd\n", "odd.yaml must hold keys and values, such as seed: 1."),
        (b"depth: {}\n", "method=odd is not allowed: its file must give name: odd."),
    ],
)
def test_config_dir_with_a_file_that_cannot_be_read_names_it(capsys, config_dir, tmp_path, content, message):
    (tmp_path / 'my "conf' / "method" / "odd.yaml").write_bytes(content)
    said = refused(capsys, "--config-dir", config_dir, "+method=odd", "--cfg", "job")
    assert message in said.splitlines()[-1]


@pytest.mark.parametrize(("mark", "end"), [("\ufeff", "\n"), ("", "\r\n")])
def test_config_dir_reads_byte_order_marks_and_crlf(capsys, config_dir, tmp_path, mark, end):
    text = mark + "# Mine." + end + "name: odd" + end + "depth: {capacity: 0.25}" + end
    (tmp_path / 'my "conf' / "method" / "odd.yaml").write_bytes(text.encode())
    config = yaml.safe_load(printed(capsys, "--config-dir", config_dir, "+method=odd", "--cfg", "job"))
    assert config["method"]["depth"]["capacity"] == 0.25


def test_config_dir_is_named_in_help(capsys, config_dir):
    assert "mine" in printed(capsys, "--config-dir", config_dir, "--help")


def test_config_name_gives_other_defaults(capsys, config_dir):
    words = ["--config-dir", config_dir, "--config-name", "my", "+method=mine", "--cfg", "job"]
    config = yaml.safe_load(printed(capsys, *words))
    assert config["seed"] == 7 and config["method"]["name"] == "mine"
    assert yaml.safe_load(printed(capsys, *words, "seed=8"))["seed"] == 8


def test_config_name_without_the_schema_is_refused(capsys, config_dir):
    message = refused(capsys, "--config-dir", config_dir, "--config-name", "bare", "+method=mod")
    assert "its defaults must start with `config`" in message


@pytest.mark.parametrize("chosen", ["  - method: mod\n", ""])
def test_config_name_may_not_rename_a_method(capsys, config_dir, tmp_path, chosen):
    text = f"defaults:\n  - config\n{chosen}  - _self_\nmethod: {{name: moe, depth: {{capacity: 0.5}}}}\n"
    (tmp_path / 'my "conf' / "renamed.yaml").write_text(text)
    message = refused(capsys, "--config-dir", config_dir, "--config-name", "renamed", "--cfg", "job")
    assert "method.name=moe is not allowed" in message


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_is_installed_for_the_console_script(capsys, shell, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench/__main__.py"])
    script = printed(capsys, "--shell-completion", f"install={shell}")
    assert "bench" in script and "python bench" not in script


def test_shell_completion_completes_groups_and_keys(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench"])
    monkeypatch.setenv("COMP_LINE", "bench method=mo")
    assert "method=mod" in printed(capsys, "-sc", "query=bash").split()
    monkeypatch.setenv("COMP_LINE", "bench method=mod train.d")
    assert printed(capsys, "-sc", "query=bash").split() == ["train.device=", "train.dtype="]


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ("hydra.run.dir=x", "set results_dir= and name="),
        ("hydra.sweep.dir=x", "set results_dir= and name="),
        ("hydra.job.name=x", "set name="),
        ("hydra.searchpath=[x]", "--config-dir DIR"),
        ("hydra.verbose=true", "leave it out"),
        ("hydra/launcher=ray", "leave it out"),
        ("+hydra.foo=1", "leave it out"),
    ],
)
def test_hydra_override_is_refused_by_name(capsys, word, instead):
    message = refused(capsys, "+method=mod", word)
    assert message.startswith(f"error: {word} is not allowed") and instead in message


def test_console_script_has_the_exit_statuses_of_the_module(monkeypatch):
    code = "import sys; from bench.__main__ import run; sys.argv[1:] = {}; sys.exit(run())"
    for words, status in ((["--help"], 0), (["--foo"], 2), ([], 2)):
        done = subprocess.run([sys.executable, "-c", code.format(words)], capture_output=True)
        assert done.returncode == status


def test_import_of_bench_changes_nothing():
    code = """
import os, sys
environment, modules = dict(os.environ), set(sys.modules)
import bench
new = {name.partition(".")[0] for name in set(sys.modules) - modules}
print(dict(os.environ) == environment, sorted(new - sys.stdlib_module_names))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True ['bench']"


def test_help_imports_neither_hydra_nor_pydantic():
    code = "import sys; from bench.__main__ import main; main(['--help'])"
    check = "print(sorted({'hydra', 'pydantic', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True)
    assert done.stdout.endswith("[]\n")
