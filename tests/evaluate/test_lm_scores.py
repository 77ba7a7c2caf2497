"""The lm-eval model: its scores against direct computation, for any batch size and order."""

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance

from bench.config.schema import DepthConfig, MethodConfig, ModelConfig
from bench.data import Document
from bench.data.tokenizer import ByteTokenizer
from bench.evaluate import lm, rolling_difference
from bench.evaluate.lm import BenchLM, pieces
from bench.measure.quality import document_losses, windows
from bench.methods import build_model
from bench.methods.depth import calibrate
from bench.model.prefix_tree import grow

torch.set_num_threads(1)
TEXT = ByteTokenizer()
WINDOW = 24


def _model(method: str = "dense"):
    depth = DepthConfig(capacity=0.5, causal="threshold") if method == "mod" else None
    shape = ModelConfig(n_layers=2, d_model=32, n_heads=2, context=WINDOW)
    model = build_model(shape, MethodConfig(name=method, depth=depth), TEXT.vocab_size, seed=1)
    with torch.no_grad():  # sharper than at initialisation, so that choices differ
        for parameter in model.parameters():
            parameter.mul_(0.7 if parameter.dim() > 1 else 4.0)
    model.eval()
    if method == "mod":  # as it comes, it lets nobody through
        text = torch.tensor([TEXT.encode(each.ljust(WINDOW, ".")[:WINDOW]) for each, _ in PAIRS])
        calibrate(model, text)
        _, routings = model(text, causal=True)
        assert all(0.2 < routing.metrics["fraction_processed"] < 0.8 for routing in routings)
    return model


def _requests(kind, arguments):
    return [Instance(request_type=kind, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)]


PAIRS = [
    ("In the beginning", " God"),
    ("", "created"),
    ("a", "bc"),
    ("the heaven and the earth, and the earth was without form", " and void"),
    ("and ", "darkness"),
    ("x" * 23, "yz"),
    ("short", " " + "a continuation that is longer than the whole window of the model"),
]


def _direct(model, context, continuation):
    """Each token's log-probability from at most WINDOW tokens before it, by one unbatched pass a window.

    lm-eval scores spaces at the end of a context as part of the continuation.
    """
    bare = context.rstrip()
    context, continuation = bare, context[len(bare) :] + continuation
    tokens = TEXT.encode(context) or [TEXT.eot]
    wanted = TEXT.encode(continuation)
    whole = tokens + wanted
    total = 0.0
    if len(wanted) <= WINDOW:
        starts = [(max(0, len(whole) - WINDOW - 1), len(tokens), len(whole))]
    else:
        cuts = range(len(tokens), len(whole), WINDOW)
        starts = [(cut - 1, cut, min(cut + WINDOW, len(whole))) for cut in cuts]
    for first, begin, end in starts:
        row = torch.tensor([whole[first : end - 1]])
        logits = model.causal_logits(row, torch.tensor([row.shape[1]]))[0].log_softmax(-1)
        for position in range(begin, end):
            total += logits[position - 1 - first, whole[position]].item()
    return total


@pytest.mark.parametrize("method", ["dense", "mod"])
def test_loglikelihood_equals_a_direct_sum(method):
    model = _model(method)
    scores = BenchLM(model, TEXT, 4).loglikelihood(_requests("loglikelihood", PAIRS), disable_tqdm=True)
    for (value, _), pair in zip(scores, PAIRS, strict=True):
        assert value == pytest.approx(_direct(model, *pair), abs=1e-4)


@pytest.mark.parametrize("method", ["dense", "mod"])
def test_scores_do_not_depend_on_batch_size_or_order(method):
    model = _model(method)
    one = BenchLM(model, TEXT, 1).loglikelihood(_requests("loglikelihood", PAIRS), disable_tqdm=True)
    turned = BenchLM(model, TEXT, 5).loglikelihood(_requests("loglikelihood", PAIRS[::-1]), disable_tqdm=True)[::-1]
    for (alone, greedy), (together, greedy_too) in zip(one, turned, strict=True):
        assert together == pytest.approx(alone, abs=1e-5)
        assert greedy == greedy_too


@pytest.mark.parametrize("method", ["dense", "mod"])
def test_shared_prefixes_change_no_score(method):
    """Choices of one question, and questions with one preamble, are read together and scored as if alone."""
    model = _model(method)
    pairs = [(f"All: {question}?", answer) for question in ("who", "what way") for answer in (" he", " she went", " x")]
    together = BenchLM(model, TEXT, 6).loglikelihood(_requests("loglikelihood", pairs), disable_tqdm=True)
    for (value, _), pair in zip(together, pairs, strict=True):
        assert value == pytest.approx(_direct(model, *pair), abs=1e-4)


def test_shared_prefixes_are_read_once(monkeypatch):
    """The question, what answers begin with, and the same request twice; no answer's last token is read."""
    model, read = _model(), []
    tree_logits = model.tree_logits
    monkeypatch.setattr(
        model, "tree_logits", lambda trees, wanted: read.append(list(trees)) or tree_logits(trees, wanted)
    )
    pairs = [("a long question", answer) for answer in (" yes", " yet", " no", " no")]
    scores = BenchLM(model, TEXT, 3).loglikelihood(_requests("loglikelihood", pairs), disable_tqdm=True)
    assert [len(tree.tokens) for trees in read for tree in trees] == [len("a long question" + " ye" + "n")]
    assert scores[2] == scores[3]


def test_single_token_answers_share_one_tree():
    (tree,) = grow([(1, 2, 3)] * 4)
    assert tree.tokens == [1, 2, 3]


@pytest.mark.parametrize("method", ["dense", "mod"])
def test_empty_continuation_has_probability_one(method):
    pairs = [("a", ""), ("", ""), ("In the", " God")]
    scores = BenchLM(_model(method), TEXT, 2).loglikelihood(_requests("loglikelihood", pairs), disable_tqdm=True)
    assert scores[:2] == [(0.0, True), (0.0, True)]
    assert scores[2][0] == pytest.approx(_direct(_model(method), *pairs[2]), abs=1e-4)


def test_greedy_flag_is_true_only_for_the_most_likely_token():
    model = _model()
    context = "In the beginning"
    row = torch.tensor([TEXT.encode(context)])
    best = int(model.causal_logits(row, torch.tensor([row.shape[1]]))[0, -1].argmax())
    lm = BenchLM(model, TEXT, 2)
    names = ("", "")
    scored = lm._loglikelihood_tokens(
        [(names, TEXT.encode(context), [best]), (names, TEXT.encode(context), [(best + 1) % 256])]
    )
    assert [greedy for _, greedy in scored] == [True, False]


def test_rolling_covers_every_byte_once():
    model = _model("mod")
    text = "And God said, Let there be light: and there was light. " * 3
    value = BenchLM(model, TEXT, 3).loglikelihood_rolling(_requests("loglikelihood_rolling", [(text,)]))[0]
    tokens = [TEXT.eot, *TEXT.encode(text)]
    expected = 0.0
    for start in range(0, len(tokens) - 1, WINDOW):
        piece = torch.tensor([tokens[start : start + WINDOW + 1]])
        logits = model.causal_logits(piece[:, :-1], torch.tensor([piece.shape[1] - 1]))
        expected -= torch.nn.functional.cross_entropy(logits[0], piece[0, 1:], reduction="sum").item()
    assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", ["dense", "mod"])
def test_rolling_equals_the_validation_loss(method):
    """Of texts shorter than a window, as long, and longer: one definition of windows."""
    texts = ["a", "In the beginning", "x" * WINDOW, "And God said, Let there be light. " * 3]
    documents = [Document(each, np.array(TEXT.encode(each)), len(each)) for each in texts]
    model = _model(method)
    assert rolling_difference(model, TEXT, documents, 3) < 1e-6
    losses = document_losses(model, documents, TEXT.eot, 3, noncausal=False)
    requests = _requests("loglikelihood_rolling", [(each,) for each in texts])
    found = BenchLM(model, TEXT, 3).loglikelihood_rolling(requests)
    for value, loss in zip(found, losses, strict=True):
        assert -value / loss.tokens == pytest.approx(loss.nats / loss.tokens, abs=1e-6)


def test_rolling_by_other_windows_differs_from_the_validation_loss(monkeypatch):
    documents = [Document("And God said. " * 4, np.array(TEXT.encode("And God said. " * 4)), 56)]
    other = lambda documents, context, eot: windows(documents, context // 2, eot)  # noqa: E731
    monkeypatch.setattr(lm, "windows", other)
    assert rolling_difference(_model(), TEXT, documents, 3) > 1e-3


def test_pieces_score_each_continuation_token_once():
    for length in (1, WINDOW, WINDOW + 1, 5 * WINDOW + 3):
        made = pieces([1, 2, 3], list(range(length)), WINDOW)
        assert sum(scored for _, scored in made) == length
        assert all(len(tokens) <= WINDOW + 1 and scored < len(tokens) for tokens, scored in made)


def test_generation_ends_at_stop_or_limit_independent_of_the_batch():
    model = _model("mod")
    asked = [("In the beginning", {"until": [], "max_gen_toks": 12}), ("a", {"until": [], "max_gen_toks": 5})]
    together = BenchLM(model, TEXT, 2).generate_until(_requests("generate_until", asked))
    alone = [BenchLM(model, TEXT, 1).generate_until(_requests("generate_until", [one]))[0] for one in asked]
    assert together == alone
    assert "\ufffd" not in together[1][-1:]
    stop = together[0][2:4]
    stopped = BenchLM(model, TEXT, 1).generate_until(
        _requests("generate_until", [("In the beginning", {"until": [stop], "max_gen_toks": 12})])
    )[0]
    assert stopped == together[0][: together[0].index(stop)]


def test_generation_equals_uncached_greedy_decoding():
    model = _model("mod")
    for prompt in ("In the", "and so", ""):
        made = BenchLM(model, TEXT, 1).generate_until(_requests("generate_until", [(prompt, {"max_gen_toks": 10})]))[0]
        tokens = TEXT.encode(prompt) or [TEXT.eot]
        start = len(tokens)
        while len(tokens) - start < 10 and tokens[start:][-1:] != [TEXT.eot]:
            tokens.append(int(model.causal_logits(torch.tensor([tokens]), torch.tensor([len(tokens)]))[0, -1].argmax()))
        assert made == TEXT.decode([t for t in tokens[start:] if t != TEXT.eot]).rstrip("\ufffd")


def test_generation_continues_past_the_context():
    model = _model("mod")
    asked = [("the heaven and the earth", {"max_gen_toks": 3 * WINDOW, "until": ["no such string"]})]
    made = BenchLM(model, TEXT, 1).generate_until(_requests("generate_until", asked))[0]
    assert len(made.encode()) > WINDOW


def test_long_generation_keeps_half_a_window_of_the_prompt():
    """Text longer than the window drops its beginning as it is generated."""
    model, half = _model(), "Then God said"[-WINDOW // 2 :]

    def made(prompt, limit):
        settings = {"max_gen_toks": limit, "until": []}
        return BenchLM(model, TEXT, 1).generate_until(_requests("generate_until", [(prompt, settings)]))[0]

    for limit in (WINDOW - 1, 10 * WINDOW):
        assert made("a" + half, limit) == made("b" + half, limit) == made(half, limit) != made(half[-1], limit)


def _sampled(requests, rows):
    return BenchLM(_model("mod"), TEXT, rows).generate_until(_requests("generate_until", requests))


def test_sampled_text_depends_on_its_request_alone():
    settings = {"do_sample": True, "temperature": 2.0, "max_gen_toks": 8, "until": []}
    asked = [("In the", settings), ("and so", settings), ("In the", settings)]
    torch.manual_seed(1)
    together = _sampled(asked, 3)
    torch.manual_seed(2)
    assert _sampled(asked, 1) == together
    assert _sampled(asked[:1], 1) == together[:1]
    assert together[0] != together[2]  # a repeat is another draw


def test_generation_settings_are_read_as_by_lm_eval():
    greedy = _sampled([("In the", {"max_gen_toks": 6})], 1)
    same = [
        {"max_new_tokens": 6}, {"max_tokens": 6}, {"max_gen_toks": 6, "temperature": 0.0, "top_p": None},
        {"max_gen_toks": 6, "do_sample": False, "temperature": 2.0},
        {"max_gen_toks": 6, "do_sample": True, "temperature": 3.0, "top_p": 0},
    ]  # fmt: skip
    for settings in same:
        assert _sampled([("In the", settings)], 1) == greedy
    drawn = {_sampled([("In the", {"max_gen_toks": 6, "do_sample": True, "n": n})], 1)[0] for n in range(8)}
    assert len(drawn) > 1  # at temperature 1
