"""`+study=decode`: the speed-up of decoding with a KV cache, realised against the roofline.

Weights are fresh, since speed does not depend on their values. It does depend on how many tokens a routed block
processes, so before each point every causal router is set to pass its capacity of the prompt and of the timed tokens.
Targets: MoD over dense at batch sizes 1 and 64, and nowhere slower; the size of the cache; dense over Hugging Face's
Llama; lm-eval scoring over one request at a time; the predictor of the default comparison, where its records exist.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
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
from bench.records.packed import find_records
from bench.records.record import DecodePoint, Timing, load_record
from bench.records.targets import Target
from bench.studies.reference_models import check_transformers, llama
from bench.studies.targets import finish, model_shape

_CONTEXT = 256  # of the targets
_AT_LEAST = {1: 1.6, 64: 1.25}  # batch size -> dense seconds over the method's
_NEVER_BELOW = 0.97
_CACHE_AT_MOST = 0.60
_OVER_LLAMA = 1.15
_OVER_SINGLE_REQUESTS = 4.0
_AGREEMENT = 0.95
_LOSS_OVER_TOPK = 1.005
_FAR = 0.2  # relative to the capacity: a share processed that differs by more is printed in capitals
_REFERENCE_ROUNDS, _REFERENCE_TOKENS = 8, 32
_CALIBRATION_TOKENS = 1 << 15


def run(config: RunConfig, command: str) -> int:
    """Time every point, write `targets.json` and its page, print the targets; status 1 if one is missed."""
    assert config.study is not None
    if config.study.rounds < GROUP:
        raise UserError(f"study.rounds={config.study.rounds} is not allowed: a speed-up needs at least {GROUP} steps.")
    check_transformers()
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
    targets = []
    for name in config.study.methods:
        targets += _method_targets(name, points[name], _capacity(models[name]))
    targets.append(_llama_target(config, corpus, machine, models["dense"]))
    targets.append(_requests_target(config, corpus, machine))
    targets += _predictor_targets(Path(config.results_dir) / "default")
    return finish("decode", config, command, machine.device, model_shape(config.model), targets, points)


def _rows(corpus: Corpus, rows: int, length: int) -> Tensor:
    """Rows (B, T) of training text, evenly spread over it."""
    step = (len(corpus.train) - length) // rows
    return torch.stack([torch.tensor(corpus.train[row * step :][:length].astype("int64")) for row in range(rows)])


def _pass_capacity(models: list[Transformer], text: Tensor, context: int) -> Callable[[], None]:
    """Set predictors and thresholds so that every routed block processes its capacity of `text[:, :context]`.

    The returned function sets them for the timed tokens, those after the first step. The scores of fresh weights drift
    with the position: with one value for both, more tokens than the capacity pass before and fewer after.
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
    """The value that shifts all decisions of a causal router."""
    if isinstance(router, Threshold):
        return router.value
    assert isinstance(router, Predictor)
    return router.score.bias.data


def _points(
    config: RunConfig, corpus: Corpus, machine: Machine, models: dict[str, Transformer]
) -> dict[str, list[DecodePoint]]:
    assert config.study is not None
    points: dict[str, list[DecodePoint]] = {name: [] for name in models}
    baseline, *others = models.values()
    rate = matmul_rate(machine.device, baseline.head.weight.dtype)  # may differ from the dtype of training
    roofline = Roofline(rate, memory_rate(machine.device))
    for rows, context in config.study.points:
        text = _rows(corpus, rows, context + 1 + config.study.rounds).to(machine.device)
        some = text[: max(1, _CALIBRATION_TOKENS // text.shape[1])]
        for_steps = _pass_capacity(others, some, context)
        measured = decode_point(baseline, others, text, context, config.study.rounds, roofline, for_steps)
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
    """The share of tokens that a point processed, in words; in capitals if it is far from the capacity."""
    share = point.fraction_processed
    if share is None or capacity is None:
        return ""
    far = abs(share - capacity) > _FAR * capacity
    return f", {100 * share:.1f} % processed" + (f", FAR FROM THE CAPACITY OF {100 * capacity:g} %" if far else "")


def _method_targets(name: str, points: list[DecodePoint], capacity: float | None) -> list[Target]:
    targets = []
    for point in points:
        if point.context != _CONTEXT or point.speedup_realised is None:
            continue
        where = f"batch {point.batch_size}, context {_CONTEXT}"
        targets.append(
            Target(
                figure=f"{name} decode over dense, {where}{_processed(point, capacity)}",
                value=point.speedup_realised,
                at_least=_AT_LEAST.get(point.batch_size, _NEVER_BELOW),
                step_seconds=point.step_seconds,
            )
        )
        if point.kv_cache_ratio is not None:
            value = Timing.of([point.kv_cache_ratio])
            targets.append(
                Target(figure=f"{name} KV cache bytes over dense's, {where}", value=value, at_most=_CACHE_AT_MOST)
            )
    return targets


def _predictor_targets(comparison: Path) -> list[Target]:
    """The causal predictor of MoD in the default comparison, over its seeds; none without records."""
    records = [record for record in map(load_record, find_records(comparison)) if record.method == "mod"]
    routers = [(each.routing.causal_routers or {}).get("predictor") for each in records if each.routing]
    found = [router for router in routers if router is not None]
    if not found:
        return []
    return [
        Target(
            figure="mod predictor's agreement with top-k, default comparison",
            value=Timing.of([router.accuracy for router in found]),
            at_least=_AGREEMENT,
        ),
        Target(
            figure="mod loss with the predictor over the loss with top-k, default comparison",
            value=Timing.of([1 + router.loss_over_topk for router in found]),
            at_most=_LOSS_OVER_TOPK,
        ),
    ]


def _llama_target(config: RunConfig, corpus: Corpus, machine: Machine, dense: Transformer) -> Target:
    """Greedy tokens after the first, of one row: the `generate` of Hugging Face compared with bench's decoding."""
    reference = llama(config.model, corpus.tokenizer.vocab_size).to(machine.device).eval()
    prompt = _rows(corpus, 1, _CONTEXT).to(machine.device)

    def reference_makes(tokens: int) -> Callable[[], object]:
        return lambda: reference.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, use_cache=True, pad_token_id=0,
            eos_token_id=None, min_new_tokens=tokens, max_new_tokens=tokens,
        )  # fmt: skip

    def own_makes(tokens: int) -> Callable[[], object]:
        def make() -> None:
            text = Continuations(dense, [prompt[0].tolist()])
            for _ in range(tokens - 1):
                text.go_on([int(text.logits[0].argmax())])

        return make

    actions = [makes(tokens) for makes in (reference_makes, own_makes) for tokens in (1 + _REFERENCE_TOKENS, 1)]
    with torch.inference_mode():
        many, one, own_many, own_one = interleave(actions, _REFERENCE_ROUNDS, machine.device)
    theirs, own = ([a - b for a, b in zip(*pair, strict=True)] for pair in ((many, one), (own_many, own_one)))
    return Target(
        figure="dense decode tokens/s over Hugging Face Llama's generate, batch 1",
        value=Timing.of(ratios(theirs, own)),
        at_least=_OVER_LLAMA,
        step_seconds=Timing.of([seconds / _REFERENCE_TOKENS for seconds in own]),
    )


def _requests_target(config: RunConfig, corpus: Corpus, machine: Machine) -> Target:
    """The multiple choices of the offline tasks on the default model: batched as prefix trees, and one by one."""
    shape = configure(["+method=dense"])
    model = build_model(shape.model, shape.method, corpus.tokenizer.vocab_size, config.seed).to(machine.device).eval()
    pairs = _choices(corpus, shape.evaluate)
    batched, single = BenchLM(model, corpus.tokenizer, shape.evaluate.batch_size), corpus.tokenizer

    def together() -> list[float]:
        return batched.log_probabilities(pairs)

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
        seconds = interleave([one_by_one, together], _REFERENCE_ROUNDS, machine.device)
    return Target(
        figure=f"lm-eval loglikelihood over one request at a time ({len(pairs)} requests)",
        value=Timing.of(ratios(*seconds)),
        at_least=_OVER_SINGLE_REQUESTS,
    )


def _choices(corpus: Corpus, config: EvaluateConfig) -> list[tuple[str, str]]:
    """(context, continuation) of every choice of the offline suite, as in a default run."""
    suite = offline_documents(corpus, config, 0)
    choices = [document for documents in suite.values() for document in documents if "choices" in document]
    return [(document["prompt"], f" {choice}") for document in choices for choice in document["choices"]]
