"""The offline tasks in lm-eval: an oracle scores 1, a uniform model scores chance."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from bench.config.schema import DataConfig, EvaluateConfig
from bench.data import Document, prepare
from bench.errors import UserError
from bench.evaluate import evaluate, excluded_tasks, load_tasks, offline_documents, suite
from bench.evaluate.probes import PROBES
from bench.measure.quality import choose

CHOICES = [name for name in PROBES if name != "bench_heldout"]


@pytest.fixture(scope="module")
def corpus():
    return prepare(DataConfig(name="kjv"))


class _Uniform:
    """Gives every byte the same probability."""

    context, vocab_size, device = 256, 256, torch.device("cpu")

    def eval(self):
        return self

    def tree_logits(self, trees, wanted):
        """A row for each token of the trees, by the text that leads to it; those that are `wanted`."""
        said = [b""] * sum(len(tree.tokens) for tree in trees)
        start = 0
        for tree in trees:
            for text, path in tree.paths.items():
                for length, place in enumerate(path, 1):
                    said[start + place] = bytes(text[:length])
            start += len(tree.tokens)
        logits = torch.zeros(len(said), 256)
        for row, text in enumerate(said):
            self.after(text, logits[row])
        return logits[wanted]

    def after(self, said, logits):
        pass


class _Oracle(_Uniform):
    """Knows the right answers: it is given the prompts with their answers."""

    def __init__(self, texts):
        self.texts = [text.encode() for text in texts]

    def after(self, said, logits):
        for text in self.texts:
            if len(said) < len(text) and text.startswith(said):
                logits[text[len(said)]] = 20.0


@pytest.mark.parametrize("name", CHOICES)
def test_oracle_scores_one(corpus, name):
    config = EvaluateConfig(tasks=[name], limit=40)
    items = offline_documents(corpus, config, 0)[name][:40]
    answers = [f"{item['prompt']} {item['choices'][item['answer']]}" for item in items]
    assert evaluate(_Oracle(answers), corpus, config, seed=0)[name]["acc"] == 1.0


@pytest.mark.parametrize("name", CHOICES)
def test_uniform_model_scores_near_chance(corpus, name):
    scores = evaluate(_Uniform(), corpus, EvaluateConfig(tasks=[name], limit=160), seed=0)[name]
    # uniform bytes prefer short answers, which the length-normalised accuracy takes out up to ties
    assert abs(scores["acc_norm"] - scores["chance"]) < 4 * max(scores["acc_norm_stderr"], 0.03)


def test_bits_per_byte_of_uniform_model_is_eight(corpus):
    config = EvaluateConfig(tasks=["bench_heldout"], validation_tokens=8192)
    scores = evaluate(_Uniform(), corpus, config, seed=0)["bench_heldout"]
    assert scores["bits_per_byte"] == pytest.approx(8.0, abs=1e-3)
    assert 0 <= scores["bits_per_byte_stderr"] < 1e-3


def test_tokenizer_that_loses_text_has_no_scores_by_length(corpus):
    lossy, config = replace(corpus, loses="'a' is decoded as ''"), EvaluateConfig(tasks=["bench_heldout", "bench_copy"])
    assert excluded_tasks(lossy, config) == [
        "Bits/byte are excluded: bytes loses text ('a' is decoded as ''). Compare in nats/token."
    ]
    scores = evaluate(_Uniform(), lossy, replace(config, limit=4), seed=0)
    assert list(scores) == ["bench_copy"] and {"acc", "chance"} <= scores["bench_copy"].keys()


def test_bits_per_byte_use_the_documents_of_the_quality_figures(corpus):
    for tokens in (1, 8192, 1 << 30):
        config = EvaluateConfig(tasks=["bench_heldout"], validation_tokens=tokens)
        measured = choose(corpus.validation, tokens)
        assert offline_documents(corpus, config, 0)["bench_heldout"] == [{"text": each.text} for each in measured]


def test_evaluate_without_tasks_gives_no_scores(corpus):
    assert evaluate(_Uniform(), corpus, EvaluateConfig(tasks=[]), seed=0) == {}


def test_unknown_task_is_one_line(corpus):
    with pytest.raises(UserError, match="no_such_task is unknown.*bench_copy"):
        evaluate(_Uniform(), corpus, EvaluateConfig(tasks=["no_such_task"]), seed=0)


def test_tasks_with_too_few_items_are_excluded_and_reported(corpus):
    text = corpus.validation[0].text[:2000].upper()
    document = Document(text, np.frombuffer(text.encode(), np.uint8), len(text))
    short = replace(corpus, validation=[document])
    config = EvaluateConfig(tasks=list(PROBES), limit=4)
    sentences = excluded_tasks(short, config)
    assert [sentence.split(" ")[0] for sentence in sentences] == ["bench_last_word", "bench_spelling"]
    assert sentences[1] == "bench_spelling is excluded: the text yields 0 items, and the task needs 50."
    assert set(evaluate(_Uniform(), short, config, seed=0)) == {"bench_heldout", "bench_copy", "bench_agreement"}
    assert excluded_tasks(corpus, config) == []


def test_evaluate_restores_the_random_state(corpus):
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    evaluate(_Uniform(), corpus, EvaluateConfig(tasks=["bench_copy"], limit=4), seed=0)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


@pytest.mark.parametrize(("name", "version"), [("bench_last_word", 3.0), ("bench_copy", 2.0), ("bench_heldout", 2.0)])
def test_changed_tasks_have_a_new_version(name, version):
    task = yaml.safe_load((Path(suite.__file__).parent / "tasks" / f"{name}.yaml").read_text())
    assert task["metadata"]["version"] == version


def test_hub_task_without_a_network_is_refused_by_load_tasks(monkeypatch):
    """lm-eval knows the name, so only loading the task shows that its data are unavailable."""
    from lm_eval.tasks import TaskManager

    def offline(self, names):
        raise ConnectionError("no route to the hub\nand a page of reasons")

    monkeypatch.setattr(TaskManager, "load", offline)
    with pytest.raises(UserError, match=r"piqa could not be loaded \(no route to the hub\).*need a network") as caught:
        load_tasks(EvaluateConfig(tasks=["bench_copy", "piqa"]))
    assert "\n" not in str(caught.value)
    load_tasks(EvaluateConfig(tasks=["bench_copy"]))


@pytest.mark.slow  # lm-eval's index of its own tasks takes 20 s
def test_own_task_file_is_scored_on_a_share_of_its_items(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    (tmp_path / "items.jsonl").write_text('{"question": "And", "answer": 0}\n' * 4)
    (tmp_path / "mine.yaml").write_text(
        f"task: my_own_task\ndataset_path: json\noutput_type: multiple_choice\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/items.jsonl}}, cache_dir: {tmp_path}/cache}}\n"
        "doc_to_text: '{{question}}'\ndoc_to_choice: [a, bcd]\ndoc_to_target: answer\nmetric_list: [{metric: acc}]\n"
    )
    own = EvaluateConfig(tasks=["my_own_task"], include_path=str(tmp_path), limit=0.5)
    assert evaluate(_Uniform(), corpus, own, seed=0)["my_own_task"]["acc"] == 1.0


@pytest.mark.parametrize(("folder", "said"), [("none", "no such folder"), ("", "no_such_task is unknown")])
def test_mistake_in_own_tasks_is_refused_in_one_line(folder, said, tmp_path):
    own = EvaluateConfig(tasks=["no_such_task"], include_path=str(tmp_path / folder))
    with pytest.raises(UserError, match=said):
        suite.check_tasks(own)
