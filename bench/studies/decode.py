"""`+study=decode`: what decoding with a KV cache gains, realised against the roofline.

Weights are fresh, for speed does not depend on what they say; only how many tokens go through a routed
block does, so before each point every block's causal router is set to let its capacity of the text
that is decoded through, of the prompt and of the timed tokens each. The bars: MoD over dense at batch
sizes 1 and 64, and nowhere slower; the cache's size; dense over Hugging Face's Llama; lm-eval scoring over
one request at a time; and the predictor of the default comparison, where its records are there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from lm_eval.api.instance import Instance
from torch import Tensor, nn

from bench.config.compose import configure, configure_method
from bench.config.schema import EvaluateConfig, RunConfig
from bench.data import Corpus, prepare
from bench.errors import UserError
from bench.evaluate import offline_documents
from bench.evaluate.lm import BenchLM
from bench.measure.decode import GROUP, Roofline, decode_point
from bench.measure.machine import Machine, make_machine
from bench.measure.speed import interleave, matmul_rate, memory_rate, ratios
from bench.methods import build_model
from bench.methods.depth import DepthRouted
from bench.methods.routers import Predictor, Threshold, lowest_of
from bench.model import Transformer
from bench.model.sampling import Continuations
from bench.records.record import DecodePoint, Timing, load_record
from bench.records.targets import Bar
from bench.studies.reference_models import check_peer, llama
from bench.studies.targets import finish, model_shape

_CONTEXT = 256  # of the bars
_AT_LEAST = {1: 1.6, 64: 1.25}  # batch size -> dense seconds over the method's
_NEVER_BELOW = 0.97
_CACHE_AT_MOST = 0.60
_OVER_LLAMA = 1.15
_OVER_SINGLE_REQUESTS = 4.0
_AGREEMENT = 0.95
_LOSS_OVER_TOPK = 1.005
_FAR = 0.2  # of the capacity: a point that processed more or less than so much else is said to
_PEER_ROUNDS, _PEER_TOKENS = 8, 32
_CALIBRATION_TOKENS = 1 << 15


def run(config: RunConfig, command: str) -> int:
    """Time every point, write `bars.json` and its page, print the bars; status 1 where one is missed."""
    assert config.study is not None
    if config.study.rounds < GROUP:
        raise UserError(f"study.rounds={config.study.rounds} is not allowed: a speed-up takes at least {GROUP} steps.")
    check_peer()
    corpus, machine = prepare(config.data), make_machine(config)
    vocab_size = corpus.tokenizer.vocab_size
    models = {"dense": build_model(config.model, config.method, vocab_size, config.seed)}
    for name in config.study.methods:
        models[name] = build_model(config.model, configure_method(name), vocab_size, config.seed)
    for model in models.values():
        model.to(machine.device).eval()
        if machine.device.type == "cpu":
            model.lay_out_for_decoding()
    points = _points(config, corpus, machine, models)
    bars = [bar for name in config.study.methods for bar in _method_bars(name, points[name], _capacity(models[name]))]
    bars.append(_llama_bar(config, corpus, machine, models["dense"]))
    bars.append(_requests_bar(config, corpus, machine))
    bars += _predictor_bars(Path(config.results_dir) / "default")
    return finish("decode", config, command, machine.device, model_shape(config.model), bars, points)


def _rows(corpus: Corpus, rows: int, length: int) -> Tensor:
    """Rows (B, T) of training text, evenly spread over it."""
    step = (len(corpus.train) - length) // rows
    return torch.stack([torch.tensor(corpus.train[row * step :][:length].astype("int64")) for row in range(rows)])


def _let_capacity_through(models: list[Transformer], text: Tensor, context: int) -> Callable[[], None]:
    """Set predictors and thresholds to let the capacity of `text[:, :context]` through every routed block.

    What it returns sets them to do so for the timed tokens, those after the first step. What fresh weights make
    of a token drifts with its position: with one value for both, more go through before and fewer after.
    """
    routed = [layer for model in models for layer in model.layers if isinstance(layer, DepthRouted)]
    capacities: dict[nn.Module, float] = {
        layer.causal_router: layer.config.capacity
        for layer in routed
        if isinstance(layer.causal_router, Predictor | Threshold)
    }
    lowest: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def find(router: nn.Module, inputs: tuple[Tensor, Tensor], logits: Tensor) -> Tensor:
        free = inputs[1] if isinstance(router, Threshold) else logits - _settable(router)
        before, after = (lowest_of(free[:, part].flatten(), capacities[router]) for part in parts)
        lowest[router] = before, after
        return torch.cat((free[:, :context] - before, free[:, context:] - after), dim=1)

    parts = slice(0, context), slice(context + 1, None)
    hooks = [router.register_forward_hook(find) for router in capacities]
    with torch.inference_mode():
        for model in models:
            model(text, causal=True)
    for hook in hooks:
        hook.remove()

    def set_to(part: int) -> None:
        for router, values in lowest.items():
            _settable(router).copy_(values[part] if isinstance(router, Threshold) else -values[part])

    set_to(0)
    return lambda: set_to(1)


def _settable(router: nn.Module) -> Tensor:
    """What moves all decisions of a causal router at once."""
    if isinstance(router, Threshold):
        return router.value
    assert isinstance(router, Predictor)
    return router.score.bias.data


def _points(
    config: RunConfig, corpus: Corpus, machine: Machine, models: dict[str, Transformer]
) -> dict[str, list[DecodePoint]]:
    assert config.study is not None
    points: dict[str, list[DecodePoint]] = {name: [] for name in models}
    twin, *others = models.values()
    rate = matmul_rate(machine.device, twin.head.weight.dtype)  # which need not be the one of training
    roofline = Roofline(rate, memory_rate(machine.device))
    for rows, context in config.study.points:
        text = _rows(corpus, rows, context + 1 + config.study.rounds).to(machine.device)
        some = text[: max(1, _CALIBRATION_TOKENS // text.shape[1])]
        for_steps = _let_capacity_through(others, some, context)
        measured = decode_point(twin, others, text, context, config.study.rounds, roofline, for_steps)
        for (name, model), point in zip(models.items(), measured, strict=True):
            points[name].append(point)
            if point.speedup_realised and point.speedup_ideal:
                print(
                    f"{name}, {rows} rows, context {context}: {point.speedup_realised.median:.2f} x dense, "
                    f"ideal {point.speedup_ideal:.2f}, {point.tokens_per_second:,.0f} tokens/s"
                    f"{_processed(point, _capacity(model))}", flush=True,
                )  # fmt: skip
    return points


def _capacity(model: Transformer) -> float | None:
    return next((layer.config.capacity for layer in model.layers if isinstance(layer, DepthRouted)), None)


def _processed(point: DecodePoint, capacity: float | None) -> str:
    """The share of tokens that a point processed, in words, and whether that is far from the capacity."""
    share = point.fraction_processed
    if share is None or capacity is None:
        return ""
    far = abs(share - capacity) > _FAR * capacity
    return f", {100 * share:.1f} % processed" + (f", FAR FROM THE CAPACITY OF {100 * capacity:g} %" if far else "")


def _method_bars(name: str, points: list[DecodePoint], capacity: float | None) -> list[Bar]:
    bars = []
    for point in points:
        if point.context != _CONTEXT or point.speedup_realised is None:
            continue
        where = f"batch {point.batch_size}, context {_CONTEXT}"
        bars.append(
            Bar(
                figure=f"{name} decode over dense, {where}{_processed(point, capacity)}",
                value=point.speedup_realised,
                at_least=_AT_LEAST.get(point.batch_size, _NEVER_BELOW),
                step_seconds=point.step_seconds,
            )
        )
        if point.kv_cache_ratio is not None:
            value = Timing.of([point.kv_cache_ratio])
            bars.append(Bar(figure=f"{name} KV cache bytes over dense's, {where}", value=value, at_most=_CACHE_AT_MOST))
    return bars


def _predictor_bars(comparison: Path) -> list[Bar]:
    """The causal predictor of `mod` after the default comparison's training, over its seeds; none without records."""
    records = [load_record(path) for path in sorted(comparison.glob("mod-seed*/record.json"))]
    routers = [(each.routing.causal_routers or {}).get("predictor") for each in records if each.routing]
    found = [router for router in routers if router is not None]
    if not found:
        return []
    return [
        Bar(
            figure="mod predictor's agreement with top-k, default comparison",
            value=Timing.of([router.accuracy for router in found]),
            at_least=_AGREEMENT,
        ),
        Bar(
            figure="mod loss with the predictor over the loss with top-k, default comparison",
            value=Timing.of([1 + router.loss_over_topk for router in found]),
            at_most=_LOSS_OVER_TOPK,
        ),
    ]


def _llama_bar(config: RunConfig, corpus: Corpus, machine: Machine, dense: Transformer) -> Bar:
    """Greedy tokens after the first, of one row: the peer's `generate` against the same here."""
    peer = llama(config.model, corpus.tokenizer.vocab_size).to(machine.device).eval()
    prompt = _rows(corpus, 1, _CONTEXT).to(machine.device)

    def peer_makes(tokens: int) -> Callable[[], object]:
        return lambda: peer.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, use_cache=True, pad_token_id=0,
            eos_token_id=None, min_new_tokens=tokens, max_new_tokens=tokens,
        )  # fmt: skip

    def own_makes(tokens: int) -> Callable[[], object]:
        def make() -> None:
            text = Continuations(dense, [prompt[0].tolist()])
            for _ in range(tokens - 1):
                text.go_on([int(text.logits[0].argmax())])

        return make

    actions = [makes(tokens) for makes in (peer_makes, own_makes) for tokens in (1 + _PEER_TOKENS, 1)]
    with torch.inference_mode():
        many, one, own_many, own_one = interleave(actions, _PEER_ROUNDS, machine.device)
    theirs, own = ([a - b for a, b in zip(*pair, strict=True)] for pair in ((many, one), (own_many, own_one)))
    return Bar(
        figure="dense decode tokens/s over Hugging Face Llama's generate, batch 1",
        value=Timing.of(ratios(theirs, own)),
        at_least=_OVER_LLAMA,
        step_seconds=Timing.of([seconds / _PEER_TOKENS for seconds in own]),
    )


def _requests_bar(config: RunConfig, corpus: Corpus, machine: Machine) -> Bar:
    """The multiple choices of the offline tasks, on the default model: batched as trees, and one by one."""
    shape = configure(["+method=dense"])
    model = build_model(shape.model, shape.method, corpus.tokenizer.vocab_size, config.seed).to(machine.device).eval()
    pairs = _choices(corpus, shape.evaluate)
    batched, single = BenchLM(model, corpus.tokenizer, shape.evaluate.batch_size), corpus.tokenizer

    def together() -> list[float]:
        asked = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
        return [value for value, _ in batched.loglikelihood(asked, disable_tqdm=True)]

    def one_by_one() -> list[float]:
        values = []
        for prompt, answer in pairs:
            tokens = torch.tensor([single.encode(prompt + answer)], device=machine.device)
            scored = len(single.encode(answer))
            logits = model.causal_logits(tokens[:, :-1], torch.tensor([tokens.shape[1] - 1], device=machine.device))
            chosen = logits[0, -scored:].log_softmax(-1).gather(1, tokens[0, -scored:, None])
            values.append(chosen.sum().item())
        return values

    with torch.inference_mode():
        torch.testing.assert_close(together(), one_by_one(), atol=1e-3, rtol=0)
        seconds = interleave([one_by_one, together], _PEER_ROUNDS, machine.device)
    return Bar(
        figure=f"lm-eval loglikelihood over one request at a time ({len(pairs)} requests)",
        value=Timing.of(ratios(*seconds)),
        at_least=_OVER_SINGLE_REQUESTS,
    )


def _choices(corpus: Corpus, config: EvaluateConfig) -> list[tuple[str, str]]:
    """(context, continuation) of every choice of the offline suite, as a default run is asked them."""
    suite = offline_documents(corpus, config, 0)
    choices = [document for documents in suite.values() for document in documents if "choices" in document]
    return [(document["prompt"], f" {choice}") for document in choices for choice in document["choices"]]
