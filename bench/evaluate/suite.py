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
from importlib.util import find_spec
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
_PER_TEXT = ("bits_per_byte", "byte_perplexity", "word_perplexity")  # metrics that divide by the length of the text
_TRAINING_TOKENS = 1 << 22  # of the training text, from its beginning, that items are made from

Scores = dict[str, dict[str, float]]


def evaluate(model: Transformer, corpus: Corpus, config: EvaluateConfig, seed: int) -> Scores:
    """Task -> metric -> value, with `<metric>_stderr` if there is one and `chance` if it is known.

    The offline tasks are made from the corpus and `seed`. Bits/byte is measured on the documents of the quality
    figures, and absent where the tokenizer loses text. Tasks that `excluded_tasks` names have no score. The global
    random state is left as it was. Raises UserError for a task that is unknown or whose data cannot be downloaded.
    """
    scores: Scores = {}
    made = offline_documents(corpus, config, seed)
    offline = [name for name, documents in made.items() if len(documents) >= PROBES[name].fewest]
    others = _of_lm_eval(config.tasks)
    with _random_state_kept(), _quiet(), tempfile.TemporaryDirectory() as folder:
        if offline:
            os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
            tasks = [_task(name, made[name], Path(folder)) for name in offline]
            scores |= _run(model, corpus.tokenizer, tasks, config, offline=True)
        if others:
            check_tasks(config)
            scores |= _run(model, corpus.tokenizer, others, config, offline=False)
    return scores if corpus.loses is None else _without_lengths(scores)


def _without_lengths(scores: Scores) -> Scores:
    """Without metrics of a length that the tokens do not hold, and without tasks that have no other."""
    kept = {
        task: {metric: value for metric, value in metrics.items() if not metric.startswith(_PER_TEXT)}
        for task, metrics in scores.items()
    }
    return {task: metrics for task, metrics in kept.items() if metrics.keys() - {"chance"}}


def excluded_tasks(corpus: Corpus, config: EvaluateConfig) -> list[str]:
    """A sentence for each offline task that the text yields too few items for, and one if bits/byte are excluded."""
    lossy = f"Bits/byte are excluded: {corpus.tokenizer.name} loses text ({corpus.loses}). Compare in nats/token."
    return [lossy] * (corpus.loses is not None) + [
        f"{name} is excluded: the text yields {len(documents)} items, and the task needs {PROBES[name].fewest}."
        for name, documents in offline_documents(corpus, config, 0).items()
        if len(documents) < PROBES[name].fewest
    ]


def offline_documents(corpus: Corpus, config: EvaluateConfig, seed: int) -> dict[str, list[Doc]]:
    """Task -> its items, for the offline tasks among `config.tasks`."""
    offline = [name for name in config.tasks if name in PROBES]
    if not offline:
        return {}
    training = corpus.tokenizer.decode(corpus.train[:_TRAINING_TOKENS].tolist())
    whole, measured = (
        Texts([document.text for document in documents], training)
        for documents in (corpus.validation, choose(corpus.validation, config.validation_tokens))
    )
    return {
        name: PROBES[name].make(
            measured if name == "bench_heldout" else whole, PROBES[name].most, random.Random(f"{seed} {name}")
        )
        for name in offline
    }


def _task(name: str, documents: Sequence[Doc], folder: Path) -> dict[str, Any]:
    """The task's YAML with its items, which are written to `folder`."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    task = yaml.safe_load((_TASKS / f"{name}.yaml").read_text(encoding="utf-8"))
    task["dataset_kwargs"] = {"data_files": {"test": str(path)}, "cache_dir": str(folder / "cache")}
    return task


def check_tasks(config: EvaluateConfig) -> None:
    """Raise UserError for a task that neither this suite nor lm-eval knows, nor `evaluate.include_path`."""
    others = _of_lm_eval(config.tasks)
    if config.include_path is not None and not Path(config.include_path).is_dir():
        raise UserError(f"evaluate.include_path={config.include_path}: there is no such folder of lm-eval task files.")
    unknown = [name for name in others if not _mentioned(name, config.include_path)]
    if others and not unknown:
        unknown = sorted(set(others) - set(_manager(config).all_tasks))
    if unknown:
        raise UserError(
            f"evaluate.tasks: {unknown[0]} is unknown; choose from {', '.join(PROBES)}, "
            "or lm-eval's own, such as hellaswag or piqa. For own task files set evaluate.include_path to their folder."
        )


def _mentioned(name: str, include_path: str | None) -> bool:
    """Whether a task file holds the name: lm-eval's index of them says for certain, but takes 20 s to build."""
    spec = find_spec("lm_eval")
    places = [Path(place) / "tasks" for place in (spec and spec.submodule_search_locations) or []]
    places += [Path(include_path)] if include_path else []
    wanted = name.encode()
    files = (Path(folder, name) for place in places for folder, _, names in os.walk(place) for name in names)
    return any(wanted in path.read_bytes() for path in files if path.suffix in (".yaml", ".yml"))


def _manager(config: EvaluateConfig) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=config.include_path)


def load_tasks(config: EvaluateConfig) -> None:
    """Download what lm-eval's own tasks need, so that a missing network is reported before any training."""
    others = _of_lm_eval(config.tasks)
    if not others:
        return
    try:
        with _quiet():
            _manager(config).load(others)
    except Exception as error:  # the hub's libraries raise dozens of kinds
        raise _unavailable(others, error) from error


def _of_lm_eval(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in PROBES]


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
            task_manager=TaskManager(include_path=str(_TASKS), include_defaults=False) if offline else _manager(config),
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
    """lm-eval's `acc,none` -> `acc`, `acc_stderr,none` -> `acc_stderr`, without values that are no numbers."""
    named = {key.split(",")[0]: value for key, value in metrics.items() if "," in key}
    return {name: float(value) for name, value in named.items() if isinstance(value, int | float) and value == value}


def _add_bits_stderr(scores: dict[str, float], samples: list[dict[str, Any]]) -> None:
    """A standard error over documents for bits/byte, for which lm-eval computes none."""
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
    """Silences lm-eval, datasets and git, which lm-eval calls; a benchmark run has its own progress."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    kept = os.dup(2)  # a child process writes to the descriptor itself
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        logging.disable(disabled)
