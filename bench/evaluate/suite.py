"""Runs lm-eval tasks on a model: the offline suite shipped here, or any task of lm-eval's by name."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from bench.config.schema import EvaluateConfig
from bench.data import Corpus, Tokenizer
from bench.errors import UserError
from bench.evaluate.probes import PROBES, Doc, Texts
from bench.measure.quality import choose
from bench.model import Transformer
from bench.stats.paired import ratio_stderr

_TASKS = Path(__file__).parent / "tasks"
_TRAINED_ON = 1 << 22  # tokens of the training text that tasks are made from

Scores = dict[str, dict[str, float]]


def evaluate(model: Transformer, corpus: Corpus, config: EvaluateConfig, seed: int) -> Scores:
    """Task -> metric -> value, with `<metric>_stderr` where there is one and `chance` where it is known.

    Tasks of ours are made from the corpus and `seed`, bits per byte from the documents that the quality figures are
    taken over; those that `left_out` names have no score. Raises UserError for a task that is unknown or needs a
    network that is not there. The global random state is left as it was.
    """
    scores: Scores = {}
    made = offline_documents(corpus, config, seed)
    ours = [name for name, documents in made.items() if len(documents) >= PROBES[name].fewest]
    theirs = [name for name in config.tasks if name not in PROBES]
    with _random_state_kept(), _quiet(), tempfile.TemporaryDirectory() as folder:
        if ours:
            os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
            tasks = [_task(name, made[name], Path(folder)) for name in ours]
            scores |= _run(model, corpus.tokenizer, tasks, config, offline=True)
        if theirs:
            check_tasks(theirs)
            scores |= _run(model, corpus.tokenizer, theirs, config, offline=False)
    return scores


def left_out(corpus: Corpus, config: EvaluateConfig) -> list[str]:
    """A sentence for each task of ours that the text gives too few documents for."""
    return [
        f"{name} is left out: the text gives {len(documents)} items for it, and fewer than {PROBES[name].fewest} "
        "would say little."
        for name, documents in offline_documents(corpus, config, 0).items()
        if len(documents) < PROBES[name].fewest
    ]


def offline_documents(corpus: Corpus, config: EvaluateConfig, seed: int) -> dict[str, list[Doc]]:
    """Task -> its documents, for those of ours in `config.tasks`."""
    ours = [name for name in config.tasks if name in PROBES]
    if not ours:
        return {}
    trained_on = corpus.tokenizer.decode(corpus.train[:_TRAINED_ON].tolist())
    whole, measured = (
        Texts([document.text for document in documents], trained_on)
        for documents in (corpus.validation, choose(corpus.validation, config.validation_tokens))
    )
    return {
        name: PROBES[name].make(
            measured if name == "bench_heldout" else whole, PROBES[name].most, random.Random(f"{seed} {name}")
        )
        for name in ours
    }


def _task(name: str, documents: Sequence[Doc], folder: Path) -> dict[str, Any]:
    """The task's YAML, pointed at its documents, which are written for it now."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    task = yaml.safe_load((_TASKS / f"{name}.yaml").read_text(encoding="utf-8"))
    task["dataset_kwargs"] = {"data_files": {"test": str(path)}, "cache_dir": str(folder / "cache")}
    return task


def check_tasks(names: Sequence[str]) -> None:
    """Raise UserError for a task that neither this suite nor lm-eval knows."""
    theirs = [name for name in names if name not in PROBES]
    if not theirs:
        return
    from lm_eval.tasks import TaskManager

    unknown = sorted(set(theirs) - set(TaskManager().all_tasks))
    if unknown:
        raise UserError(
            f"evaluate.tasks: {unknown[0]} is unknown; choose from {', '.join(PROBES)}, "
            "or lm-eval's own, such as hellaswag or piqa."
        )


def load_tasks(names: Sequence[str]) -> None:
    """Fetch what lm-eval's own tasks need, so that a network that is not there is told before any training."""
    theirs = [name for name in names if name not in PROBES]
    if not theirs:
        return
    from lm_eval.tasks import TaskManager

    try:
        with _quiet():
            TaskManager().load(theirs)
    except Exception as error:  # the hub's libraries raise dozens of kinds
        raise _unavailable(theirs, error) from error


def _unavailable(names: Sequence[str], error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return UserError(
        f"evaluate.tasks: {', '.join(names)} could not be loaded ({reason}). They come from the Hugging Face hub and "
        f"need a network; without one choose from {', '.join(PROBES)}."
    )


def _run(
    model: Transformer,
    tokenizer: Tokenizer,
    tasks: list[Any],
    config: EvaluateConfig,
    offline: bool,
) -> Scores:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from bench.evaluate.lm import BenchLM

    try:
        results = simple_evaluate(
            model=BenchLM(model, tokenizer, config.batch_size),
            tasks=tasks,
            task_manager=TaskManager(include_path=str(_TASKS), include_defaults=not offline),
            limit=config.limit,
            bootstrap_iters=100 if offline else 1000,
            log_samples=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        if offline:
            raise
        raise _unavailable(tasks, error) from error
    assert results is not None
    scores = {name: _plain(metrics) for name, metrics in results["results"].items()}
    for name in scores:
        _add_bits_stderr(scores[name], results["samples"].get(name, []))
        chance = (results["configs"].get(name, {}).get("metadata") or {}).get("chance")
        if chance is not None:
            scores[name]["chance"] = chance
    return scores


def _plain(metrics: dict[str, Any]) -> dict[str, float]:
    """lm-eval's `acc,none` -> `acc`, `acc_stderr,none` -> `acc_stderr`; what is no number is left out."""
    named = {key.split(",")[0]: value for key, value in metrics.items() if "," in key}
    return {name: float(value) for name, value in named.items() if isinstance(value, int | float) and value == value}


def _add_bits_stderr(scores: dict[str, float], samples: list[dict[str, Any]]) -> None:
    """A standard error over documents for bits per byte, which lm-eval leaves without one."""
    if "bits_per_byte" not in scores:
        return
    nats, sizes = (np.array(column, dtype=float) for column in zip(*(s["bits_per_byte"] for s in samples), strict=True))
    stderr = ratio_stderr(-nats, sizes)
    if stderr is not None:
        scores["bits_per_byte_stderr"] = stderr / math.log(2)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])


@contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval, datasets and the git that lm-eval asks report on stderr; a benchmark run has its own progress."""
    names = ("lm-eval", "lm_eval", "datasets", "evaluate", "fsspec")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    kept = os.dup(2)  # a child process writes to the descriptor itself
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
