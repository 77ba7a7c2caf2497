"""`python -m bench +method=mod`: train a method and its dense baseline at matched FLOPs, compare, report.

Exit status: 0 done, 1 a run diverged or failed its audit, 2 a mistake (one line says which),
130 interrupted (the same command resumes), 141 the reader closed the output.
"""

from __future__ import annotations

import difflib
import os
import shlex
import signal
import sys
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.errors import Interrupted, UserError, out_of_memory

_USAGE = """\
usage: python -m bench +method=NAME [KEY=VALUE ...]     compare with dense
       python -m bench -m +method=NAME,NAME seeds=5     a sweep
       python -m bench +study=NAME                      a study

studies: {studies}

methods:
{methods}

groups:  {groups}
keys:    bench/config/schema.py lists them; for example
         model.d_model=512 train.budget_flops=1e13 seed=3 dry_run=true

options:
  -m, --multirun               run every combination of comma-separated values
  --cfg job                    print the configuration as YAML and run nothing
  --info [TOPIC]               how the configuration is composed, by topic:
                               {topics}
  --config-dir DIR             also search DIR for configuration, such as
                               DIR/method/mine.yaml
  --config-name NAME           start from NAME.yaml instead of config.yaml
  --shell-completion install=SHELL
                               print completion of the command `bench` for bash,
                               zsh or fish
  --help                       print this"""

_TOPICS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_SHORT = {
    "-h": "--help", "-m": "--multirun", "-c": "--cfg", "-i": "--info", "-cd": "--config-dir", "-cn": "--config-name",
    "-sc": "--shell-completion", "-cp": "--config-path", "-p": "--package", "-r": "--run",
}  # fmt: skip
_WITH_VALUE = ("--cfg", "--config-dir", "--config-name", "--shell-completion")
_OPTIONS = ("--help", "--multirun", "--info", *_WITH_VALUE)
_REFUSED = {  # Hydra options
    "--config-path": "use --config-dir DIR to add a folder of configuration",
    "--experimental-rerun": "use the command in the run's record.json",
    "--hydra-help": "use --help",
    "--package": "--cfg job prints the whole configuration",
    "--resolve": "--cfg job prints the configuration as it was given",
    "--run": "leave it out: a command without -m runs once",
    "--version": "python -m pip list shows the version",
}


@dataclass
class _Command:
    """A parsed command line."""

    words: list[str] = field(default_factory=list)  # KEY=VALUE
    options: dict[str, str] = field(default_factory=dict)  # --name -> its value, empty if it takes none

    @property
    def config_options(self) -> list[str]:
        """What has to be given again for the same configuration."""
        return [part for name in ("--config-dir", "--config-name") if name in self.options
                for part in (name, self.options[name])]  # fmt: skip

    @property
    def config_name(self) -> str:
        return self.options.get("--config-name", "config").removesuffix(".yaml")


def usage() -> str:
    """The help text, with the methods and studies that conf/ holds."""
    from bench.config.options import about, groups, options

    chosen = [f"{group}={'|'.join(options(group))}" for group in groups() if group not in ("method", "study", "train")]
    return _USAGE.format(
        methods="\n".join(f"  {name:<14} " + _wrapped(about("method", name), 17, 63) for name in options("method")),
        studies=_wrapped(", ".join(options("study")), 9),
        groups="\n         ".join(_wrapped(group.replace("|", " | "), 9) for group in chosen),
        topics=_wrapped(", ".join(_TOPICS), 31, 49),
    )


def _wrapped(text: str, indent: int, width: int = 71) -> str:
    """`text` in lines that fit into 80 columns behind a heading of 9, the later ones indented."""
    first, *more = textwrap.wrap(text, width, break_on_hyphens=False)
    rest = textwrap.wrap(" ".join(more), 80 - indent, break_on_hyphens=False)
    return "\n".join([first, *(" " * indent + line for line in rest)])


def main(arguments: list[str]) -> int:
    """Run what the command line asks for; returns the exit status."""
    if not arguments:
        print(usage(), file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both mean: stop
    try:
        status = _execute(_read(arguments), arguments)
        sys.stdout.flush()  # here, where a reader that has gone away is expected
        return status
    except Interrupted:
        return _interrupted(arguments, "stopped; a checkpoint is saved.")
    except KeyboardInterrupt:
        return _interrupted(arguments, "stopped.")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except BrokenPipeError:  # the reader of the output has closed it, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        return 141
    except OSError as error:  # a disk that fills up, a folder that vanishes
        print(f"error: {error.filename or 'the disk'}: {error.strerror or error}.", file=sys.stderr)
    except (MemoryError, RuntimeError, ImportError) as error:
        told = out_of_memory(error)
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr)
    return 2


def run() -> int:
    """The console script `bench`."""
    return main(sys.argv[1:])


def _read(arguments: list[str]) -> _Command:
    """Parse the command line. Raises UserError for an option that bench does not have."""
    command, left = _Command(), list(arguments)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            command.words.append(word)
            continue
        given, equals, value = word.partition("=")
        name = _SHORT.get(given, given)
        if name in _REFUSED:
            raise UserError(f"{given} is a Hydra option that bench does not support: {_REFUSED[name]}.")
        if name not in _OPTIONS:
            raise UserError(f"unknown option {given}{_suggest(given, equals)}")
        if name in _WITH_VALUE and not equals:
            if not left or left[0].startswith("-"):
                raise UserError(f"{given} needs a value; python -m bench --help shows which.")
            value = left.pop(0)
        elif name == "--info" and not equals:
            value = left.pop(0) if left and left[0] in _TOPICS else "all"
        elif equals and name not in (*_WITH_VALUE, "--info"):
            raise UserError(f"{word}: {given} takes no value.")
        command.options[name] = value
    return command


def _suggest(given: str, equals: str) -> str:
    close = difflib.get_close_matches(given, _OPTIONS, n=1, cutoff=0.8)
    if close:
        return f"; did you mean {close[0]}?"
    if equals:
        return f"; write a key without dashes: {given.lstrip('-')}=VALUE."
    return "; python -m bench --help lists the options."


def _execute(command: _Command, arguments: list[str]) -> int:
    options = command.options
    if "--help" in options:
        print(usage())
        return 0
    if "--config-dir" in options:
        from bench.config.options import add_config_dir

        add_config_dir(options["--config-dir"])
    from bench.config.compose import complete, configure, expand

    if "--shell-completion" in options:
        complete(options["--shell-completion"])
        return 0
    runs = expand(command.words, "--multirun" in options)
    if "--cfg" in options or "--info" in options:
        return _describe(runs, command)
    configs = [configure(overrides, command.config_name) for overrides in runs]
    commands = [shlex.join(["python", "-m", "bench", *command.config_options, *overrides]) for overrides in runs]
    if not any(word.startswith("seeds=") for word in command.words) and len({each.seed for each in configs}) > 1:
        configs = [replace(config, seeds=1) for config in configs]  # a sweep over seed lists them
    if configs[0].study is not None and len(configs) > 1:
        raise UserError("a study cannot be swept, because it defines its own runs: give one +study, one value per key.")
    if not configs[0].dry_run:
        from bench.records.files import check_writable

        for key in ("results_dir", "reports_dir"):
            for folder in dict.fromkeys(getattr(config, key) for config in configs):
                check_writable(Path(folder), key)
    if configs[0].study is not None:
        from bench.studies import run_study

        return run_study(configs[0], commands[0])
    if configs[0].dry_run:
        from bench.runs.dry_run import describe

        print("\n\n".join(describe(config) for config in configs))
        return 0
    from bench.runs.comparison import compare

    return 0 if compare(configs, commands) else 1


def _describe(runs: list[list[str]], command: _Command) -> int:
    """`--cfg` and `--info`: print how one run is configured."""
    from bench.config.compose import as_yaml, print_info

    if len(runs) > 1:
        raise UserError(f"--cfg and --info describe one run, and this sweep has {len(runs)}: leave -m out.")
    if "--info" in command.options:
        topic = command.options["--info"]
        if topic not in _TOPICS:
            raise UserError(f"--info {topic} is unknown; choose from {', '.join(_TOPICS)}.")
        print_info(topic, runs[0], command.config_name)
    elif command.options["--cfg"] == "job":
        print(as_yaml(runs[0], command.config_name), end="")
    else:
        raise UserError(f"--cfg {command.options['--cfg']} is not available; use --cfg job.")
    return 0


def _interrupted(arguments: list[str], what: str) -> int:
    print(f"\n{what} To resume: {shlex.join(['python', '-m', 'bench', *arguments])}", file=sys.stderr)
    return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
