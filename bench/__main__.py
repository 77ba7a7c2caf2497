"""`python -m bench +method=mod`: train a method and its dense twin at matched FLOPs, compare, report.

Exit status: 0 done, 1 a run diverged or failed its audit, 2 a mistake (one line says which),
130 interrupted (the same command resumes), 141 whoever read the output closed it.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys

from bench.errors import Interrupted, UserError

_USAGE = """\
usage: python -m bench +method=NAME [KEY=VALUE ...]        compare a method with its dense twin
       python -m bench -m +method=NAME,NAME seed=0,1,2     a sweep
       python -m bench +study=NAME                         a study: {studies}

methods:
{methods}

groups:  {groups}
keys:    bench/config/schema.py lists them; for example model.d_model=512 train.budget_flops=1e13 seed=3 dry_run=true"""


def usage() -> str:
    """The help text, with the methods and studies that conf/ holds."""
    from bench.config.compose import groups, method_file, options

    about = []
    for name in options("method"):
        comment = method_file(name).read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        about.append(f"  {name:<14} {comment}")
    chosen = [f"{group}={'|'.join(options(group))}" for group in groups() if group not in ("method", "study", "train")]
    return _USAGE.format(
        methods="\n".join(about), studies=", ".join(options("study")), groups="\n         ".join(chosen)
    )


def main(arguments: list[str]) -> int:
    """Run what the command line asks for; returns the exit status."""
    if not arguments:
        print(usage(), file=sys.stderr)
        return 2
    if {"-h", "--help"} & set(arguments):
        print(usage())
        return 0
    multirun = bool({"-m", "--multirun"} & set(arguments))
    words = [word for word in arguments if word not in ("-m", "--multirun")]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both mean: stop
    try:
        status = _execute(words, multirun)
        sys.stdout.flush()  # here, where a reader that has gone away is expected
        return status
    except Interrupted:
        return _interrupted(words, multirun, "stopped; a checkpoint is saved.")
    except KeyboardInterrupt:
        return _interrupted(words, multirun, "stopped.")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except BrokenPipeError:  # whoever read the output has closed it, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        return 128 + signal.SIGPIPE
    except OSError as error:  # a disk that fills up, a folder that vanishes: whatever else was being written
        print(f"error: {error.filename or 'the disk'}: {error.strerror or error}.", file=sys.stderr)
    return 2


def _execute(words: list[str], multirun: bool) -> int:
    from bench.config.compose import configure, expand

    runs = expand(words, multirun)
    configs = [configure(overrides) for overrides in runs]
    commands = [shlex.join(["python", "-m", "bench", *overrides]) for overrides in runs]
    if configs[0].study is not None:
        if len(configs) > 1:
            raise UserError("a study is not swept, for its runs are its own: give one +study and one value a key.")
        from bench.studies import run_study

        return run_study(configs[0], commands[0])
    if configs[0].dry_run:
        from bench.runs.dry_run import describe

        print("\n\n".join(describe(config) for config in configs))
        return 0
    from bench.runs.comparison import compare

    return 0 if compare(configs, commands) else 1


def _interrupted(words: list[str], multirun: bool, told: str) -> int:
    again = shlex.join(["python", "-m", "bench", *(["-m"] if multirun else []), *words])
    print(f"\n{told} To go on from there: {again}", file=sys.stderr)
    return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
