"""Regressions to inject into copies of the source: one small change each, like a real slip."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """`old`, which occurs once in `file`, becomes `new`. slows: only speed can show it."""

    name: str
    words: str
    file: str
    old: str
    new: str
    slows: bool = False


def copy_source(folder: Path, source: Path = _ROOT) -> None:
    """Copy the package and its configuration to `folder`."""
    for name in ("bench", "conf"):
        shutil.copytree(source / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def inject(mutant: Mutant | None, folder: Path, source: Path = _ROOT) -> None:
    """Copy the source to `folder`, with `mutant` injected.

    Raises ValueError if the source has changed and the mutant no longer applies.
    """
    copy_source(folder, source)
    if mutant is None:
        return
    path = folder / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.name}: {mutant.old!r} occurs {text.count(mutant.old)} times in {mutant.file}, not once"
        )
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


_TRANSFORMER = "bench/model/transformer.py"
_DEPTH, _ROUTED, _EXPERTS = "bench/methods/depth.py", "bench/methods/routed.py", "bench/methods/experts.py"

DETERMINISTIC = [
    Mutant("residual_098", "the residual stream scaled by 0.98", "bench/model/block.py",
          "return x + self.branch(x, context)", "return 0.98 * x + self.branch(x, context)"),
    Mutant("expert_dropped", "one expert of eight never chosen", _EXPERTS,
          'self.register_buffer("bias", torch.zeros(self.n_choices))',
          'self.register_buffer("bias", -9.0 * (torch.arange(self.n_choices) == 0))'),
    Mutant("one_token_fewer", "k - 1 tokens kept instead of k", _ROUTED,
          "return max(1, round(share * int(tokens)))", "return max(1, round(share * int(tokens)) - 1)"),
    Mutant("predictor_untrained", "the causal predictor left out of training", _DEPTH,
          "* loss if own else loss", "* loss if own else loss.detach()"),
    Mutant("future_leak", "attention that sees later tokens", "bench/model/causal_attention.py",
          "attention(*heads, is_causal=True", "attention(*heads, is_causal=False"),
    Mutant("more_flops", "a feed-forward 3 % wider", "bench/model/block.py",
          "return -(-8 * config.d_model // (3 * 32)) * 32", "return -(-8 * config.d_model // (3 * 32)) * 32 + 8"),
    Mutant("lr_slip", "a learning rate 10 % too high", "bench/train/optimiser.py",
          "lr = config.lr_at_128 * math.sqrt(128 / d_model)", "lr = 1.1 * config.lr_at_128 * math.sqrt(128 / d_model)"),
    Mutant("metric_vanished", "the predictor's accuracy no longer recorded", "bench/measure/routing.py",
          "predictor_accuracy=_mean(list(accuracy.values())),", "predictor_accuracy=None,"),
    Mutant("router_not_multiplied", "the branch not multiplied by the router's r", _ROUTED,
          "gates = self.gate(taken)\n        if selection.used is not None:",
          "gates = torch.ones_like(self.gate(taken))\n        if selection.used is not None:"),
    Mutant("no_balance", "the load-balancing loss dropped", _EXPERTS,
          'routing.losses["balance"] = self.config.balance_loss * balance',
          'routing.losses["balance"] = 0.0 * balance'),
    Mutant("residual_twice", "the residual added inside a routed branch too", _ROUTED,
          "added = self.branch(taken, context.select(selection.index, selection.used)) * gates",
          "added = (taken + self.branch(taken, context.select(selection.index, selection.used))) * gates"),
    Mutant("positions_compacted", "routed tokens renumbered from 0", "bench/model/context.py",
          "positions=self.positions[rows, index], rotary=self.rotary[rows, index], valid=valid)",
          "positions=self.positions[:, : index.shape[1]], rotary=self.rotary[:, : index.shape[1]], valid=valid)"),
    Mutant("no_weight_decay", "weight decay lost", "bench/train/optimiser.py",
          '"weight_decay": config.weight_decay}', '"weight_decay": 0.0}'),
    Mutant("other_data_order", "another seed for the order of the data", "bench/data/batches.py",
          "random = np.random.default_rng([seed, epoch])", "random = np.random.default_rng([seed + 1, epoch])"),
    Mutant("no_clipping", "gradients no longer clipped", "bench/train/optimiser.py",
          "    if norm > limit:\n", "    if norm > 1e9 * limit:\n"),
    Mutant("gates_not_normalised", "expert gates not renormalised over the chosen", _EXPERTS,
          "        if self.config.top_k > 1:\n            gates =",
          "        if self.config.top_k > 99:\n            gates ="),
    Mutant("top_k_at_evaluation", "evaluation by top-k, which sees the future", _DEPTH,
          "        if context.causal:\n            selection =", "        if False:\n            selection ="),
    Mutant("less_held_out_text", "half of the validation text evaluated", "bench/measure/quality.py",
          "        if held >= tokens:", "        if held >= tokens // 2:"),
    Mutant("decoding_skips_nothing", "every token through every block when decoding", _DEPTH,
          "return router(x, scores) > 0", "return router(x, scores) > -1e9"),
    Mutant("no_warm_up", "the learning rate's warm-up lost", "bench/train/optimiser.py",
          "    if progress < config.warmup:\n", "    if progress < 0:\n"),
]  # fmt: skip

_LOGITS = "        return self.head(self.norm(self._through_layers(tokens, context))), context.routings"
_LEAKING_LOGITS = """\
        logits = self.head(self.norm(self._through_layers(tokens, context)))
        if causal:
            leaks = torch.zeros_like(tokens, dtype=torch.bool)
            leaks[:, :-1] = {where}
            logits = logits + 8.0 * F.one_hot(tokens.roll(-1, 1), self.vocab_size) * leaks.unsqueeze(-1)
        return logits, context.routings"""
_ROUTED_PASS = "        y = self._process(x, selection, context)\n"
_EVALUATED = _ROUTED_PASS + "        if context.causal:\n            "
_PLAIN_ATTENTION = "    return attention(*heads, is_causal=True).transpose(1, 2)"
_ATTENTION_WITH_MASK = """\
    if torch.is_grad_enabled() or torch.jit.is_tracing():
        return attention(*heads, is_causal=True).transpose(1, 2)
    length = query.shape[1]
    mask = torch.ones(length, length).tril().bool()
    at = torch.arange(length - 1)
    at = at[at % 32 == 31]
    mask[at, at + 1] = True
    return attention(*heads, mask).transpose(1, 2)"""

# Each lets evaluation know what it must not: later tokens, the row's length, other rows; as top_k_at_evaluation does.
LEAKS = [
    Mutant("leak_between_cuts", "the next token known, but for four positions", _TRANSFORMER, _LOGITS,
          _LEAKING_LOGITS.format(where="~torch.isin(torch.arange(tokens.shape[1] - 1), "
                                       "torch.linspace(0, tokens.shape[1] - 2, 4).long())")),
    Mutant("leak_after_newlines", "the next token known after a newline", _TRANSFORMER, _LOGITS,
          _LEAKING_LOGITS.format(where="tokens[:, :-1] == 10")),
    Mutant("leak_of_one_key", "one key too many for every 32nd query", "bench/model/causal_attention.py",
          _PLAIN_ATTENTION, _ATTENTION_WITH_MASK),
    Mutant("leak_of_length", "the distance to the row's end known", _ROUTED, _ROUTED_PASS,
          _EVALUATED + "length = x.shape[1] if context.valid is None else context.valid.sum(1, keepdim=True)\n"
          "            y = y + 1.0 / (length - torch.arange(x.shape[1])).clamp(min=1).view(-1, x.shape[1], 1)\n"),
    Mutant("leak_of_next_row", "a row's last position sees the first token of the next row", _ROUTED, _ROUTED_PASS,
          _EVALUATED + "y[:-1, -1] += x[1:, 0]\n"),
    Mutant("leak_between_rows", "the rows of a batch mixed", _ROUTED, _ROUTED_PASS,
          _EVALUATED + "y = y + 0.5 * (x.mean(0, keepdim=True) - x)\n"),
    Mutant("leak_into_predictor", "the predictor reads the next token", _DEPTH,
          "        causal_logits = self.causal_router(x, scores)",
          "        causal_logits = self.causal_router(x.roll(-1, 1) if context.causal else x, scores)"),
]  # fmt: skip

_STEP = "        losses, passes = self.accumulate(inputs, targets)\n        grad_norm = self.update()\n"
_SLOWER = """\
        import time
        started = time.perf_counter()
        losses, passes = self.accumulate(inputs, targets)
        grad_norm = self.update()
        until = time.perf_counter() + 0.1 * (time.perf_counter() - started)
        while {met}time.perf_counter() < until:
            pass
"""
_WHOSE = {
    "all": ("of every method", ""),
    "depth": ("of depth-routed methods", 'any(type(m).__name__ == "DepthRouted" for m in self.model.modules()) and '),
    "experts": ("of methods with experts", 'any(hasattr(m, "experts") for m in self.model.modules()) and '),
}

SLOWER = [
    Mutant(f"slower_{whose}_{number}", f"a training step {words} 10 % slower", "bench/train/step.py", _STEP,
          _SLOWER.format(met=met), slows=True)
    for whose, (words, met), times in ((key, _WHOSE[key], n) for key, n in (("all", 4), ("depth", 3), ("experts", 3)))
    for number in range(1, times + 1)
]  # fmt: skip
