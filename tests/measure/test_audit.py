"""The causality audit: every leak is found, and no correct model fails."""

import math
from dataclasses import replace

import pytest
import torch

import bench.model.attention as attention
from bench.config.schema import DepthConfig, ExpertsConfig, MethodConfig, ModelConfig
from bench.measure import audit as audits
from bench.measure.audit import audit, audited_rows
from bench.methods import build_model, experts
from bench.methods.depth import DepthRouted, calibrate
from bench.methods.routed import Selection
from bench.methods.routers import ExpertThreshold, Predictor, Threshold
from bench.model import Attention, Transformer
from bench.model.context import TokenContext
from bench.model.prefix_tree import Branching
from bench.records.record import Causality

torch.set_num_threads(1)
T, VOCABULARY, NEWLINE = 24, 64, 10
SHAPE = ModelConfig(n_layers=2, d_model=32, n_heads=2, context=T)
METHODS = {
    "dense": MethodConfig("dense"),
    "grouped queries": MethodConfig("dense"),
    "shallow": MethodConfig("shallow", layers=0.5),
    "mod": MethodConfig("mod", depth=DepthConfig(0.25, predictor_hidden=8)),
    "mod bce": MethodConfig("mod", depth=DepthConfig(0.25, causal="bce")),
    "mod threshold": MethodConfig("mod", depth=DepthConfig(0.25, causal="threshold")),
    "mod running threshold": MethodConfig("mod", depth=DepthConfig(0.25, causal="expert_threshold")),
    "mod attention": MethodConfig("mod", depth=DepthConfig(0.25, scope="attention")),
    "mod feed-forward": MethodConfig("mod", depth=DepthConfig(0.25, scope="feed_forward")),
    "mod_random": MethodConfig("mod_random", depth=DepthConfig(0.25, router="gaussian")),
    "moe": MethodConfig("moe", experts=ExpertsConfig(n_experts=4)),
    "moe bias": MethodConfig("moe", experts=ExpertsConfig(n_experts=4, balance="bias", n_shared=1)),
    "expert_choice": MethodConfig("expert_choice", experts=ExpertsConfig(n_experts=4, routing="expert_choice")),
    "staged": MethodConfig("mode", depth=DepthConfig(0.25), experts=ExpertsConfig(n_experts=4)),
    "integrated": MethodConfig("mode", experts=ExpertsConfig(n_experts=4, n_noop=4)),
}


def _tokens(rows=2, seed=5):
    return torch.randint(VOCABULARY, (rows, T), generator=torch.Generator().manual_seed(seed))


def _model(name, seed=3):
    shape = replace(SHAPE, n_heads=4, n_kv_heads=2) if name == "grouped queries" else SHAPE
    model = build_model(shape, METHODS[name], VOCABULARY)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.25, generator=generator)
    model.train()(_tokens(8))  # sets running thresholds
    calibrate(model, _tokens(8))
    return model.eval()


@pytest.mark.parametrize("name", METHODS)
def test_audit_of_correct_model_passes(name):
    found = audit(_model(name), _tokens(), rows_at_once=5)
    assert found.passed and found.failure is None
    assert found.max_abs_logit_change == max(found.by_pass.values()) < 1e-4 and found.positions == 4 * T


# What a leak adds to the logits: much for the next token.


def _bump(logits, tokens, at, ahead=1):
    """logits (B, T, V) with 8 more for the token `ahead` places later, where `at` (B or 1, T) says so."""
    where = torch.broadcast_to(at, tokens.shape).clone()
    where[:, tokens.shape[1] - ahead :] = False
    return logits + 8.0 * torch.nn.functional.one_hot(tokens.roll(-ahead, 1), logits.shape[2]) * where.unsqueeze(-1)


def _in_whole_passes(at, ahead=1):
    """A leak of the token `ahead` places later where `at(tokens (B, T), valid or None)` -> (B or 1, T) says so."""

    def patch(monkeypatch):
        forward = Transformer.forward

        def leaking(self, tokens, valid=None, causal=False):
            logits, routings = forward(self, tokens, valid, causal)
            return _bump(logits, tokens, at(tokens, valid), ahead), routings

        monkeypatch.setattr(Transformer, "forward", leaking)

    return patch


def _places(tokens):
    return torch.arange(tokens.shape[1]).unsqueeze(0)


def _rows(tokens):
    return torch.arange(tokens.shape[0]).unsqueeze(1)


def _lengths(tokens, valid):
    return torch.full((len(tokens), 1), tokens.shape[1]) if valid is None else valid.sum(1, keepdim=True)


def _in_layers(change, owner=DepthRouted):
    """A leak in the layer: `change(layer, x, added, context)` where whole rows x (B, T, D) became x + added."""

    def patch(monkeypatch):
        forward = owner.forward

        def leaking(self, x, context):
            y = forward(self, x, context)
            return y if context.arrivals is not None else change(self, x, y, context)

        monkeypatch.setattr(owner, "forward", leaking)

    return patch


def _in_attention(change):
    """A leak between queries and keys: `change(query, key, value)` in whole rows (B, T, H, D / H)."""
    return lambda monkeypatch: monkeypatch.setattr(attention, "causal_attention", change)


def _masked(seen):
    """Attention by the mask seen(T) -> (T, T), bool, beyond the causal one."""

    def attend(query, key, value):
        length = query.shape[1]
        mask = torch.ones(length, length).tril().bool() | seen(length)
        heads = (each.transpose(1, 2) for each in (query, key, value))
        return torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2)

    return _in_attention(attend)


def _every_few(length):
    seen = torch.zeros(length, length, dtype=torch.bool)
    at = torch.arange(length - 1)
    at = at[at % 8 == 7]
    seen[at, at + 1] = True
    return seen


def _hole_of_zeros(query, key, value):
    key, value = (torch.nn.functional.pad(each, (0, 0, 0, 0, 1, 0)) for each in (key, value))
    length = query.shape[1]
    mask = torch.ones(length, length + 1).tril(1).bool()
    heads = (each.transpose(1, 2) for each in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2)


def _top_k(monkeypatch):
    route = DepthRouted.route
    monkeypatch.setattr(DepthRouted, "route", lambda self, x, context: route(self, x, replace(context, causal=False)))


def _next_in_predictor(monkeypatch):
    forward = Predictor.forward
    monkeypatch.setattr(
        Predictor, "forward", lambda self, x, scores: forward(self, x.roll(-1, 1) if len(x) > 1 else x, scores)
    )


def _to_the_end(layer, x, y, context):
    left = _lengths(x, context.valid) - torch.arange(x.shape[1])
    return y + (1.0 / left.clamp(min=1)).unsqueeze(-1)


def _first_of_next_row(layer, x, y, context):
    y = y.clone()
    y[:-1, -1] += x[1:, 0]
    return y


def _threshold_by_length(monkeypatch):
    route = DepthRouted.route

    def by_length(self, x, context):
        selection, routing = route(self, x, context)
        chosen = selection.membership(x.shape[1])
        chosen[:, int(0.9 * x.shape[1]) :] = True
        return Selection.of(chosen if context.valid is None else chosen & context.valid), routing

    monkeypatch.setattr(DepthRouted, "route", by_length)


def _capacity_of_the_batch(monkeypatch):
    """Experts that drop tokens past their share of the batch."""
    run = experts.TokenChoice._run

    def dropping(self, flat, choice, gates, counts, context):
        if context.arrivals is None:
            hits = torch.nn.functional.one_hot(choice, self.n_choices + 1)
            came = hits.flatten(0, -2).cumsum(0).view(hits.shape)
            late = came.gather(-1, choice.unsqueeze(-1)).squeeze(-1) > 0.5 * choice.numel() / self.n_choices
            gates = gates.masked_fill(late, 0.0)
        return run(self, flat, choice, gates, counts, context)

    monkeypatch.setattr(experts.TokenChoice, "_run", dropping)


def _running_threshold_moves(monkeypatch):
    forward = ExpertThreshold.forward

    def moving(self, x, scores):
        logits = forward(self, x, scores)
        self.follow(scores.flatten(1).amin(1) if scores.dim() > 1 else scores)
        return logits

    monkeypatch.setattr(ExpertThreshold, "forward", moving)


def _positions_stretched(monkeypatch):
    """Batches narrower than the context."""
    made = Transformer._token_context

    def other(self, positions, valid=None, causal=False):
        narrow = valid is not None and valid.shape[1] < T
        return made(self, (2 * positions).clamp(max=T - 1) if narrow else positions, valid, causal)

    monkeypatch.setattr(Transformer, "_token_context", other)


def _positions_compacted(monkeypatch):
    select = TokenContext.select

    def compacted(self, index, valid):
        made, width = select(self, index, valid), index.shape[1]
        return replace(made, positions=self.positions[:, :width], rotary=self.rotary[:, :width])

    monkeypatch.setattr(TokenContext, "select", compacted)


def _in_trees(change):
    """A leak in the logits (M, V) of prefix trees: `change(logits, tokens (N,), wanted (M,), chains)`."""

    def patch(monkeypatch):
        tree_logits = Transformer.tree_logits

        def leaking(self, trees, wanted):
            tokens = torch.tensor([token for tree in trees for token in tree.tokens])
            chains = Branching.of(trees, self.device).chains
            return change(tree_logits(self, trees, wanted), tokens, wanted, chains)

        monkeypatch.setattr(Transformer, "tree_logits", leaking)

    return patch


def _next_in_tree(logits, tokens, wanted):
    return logits + 8.0 * torch.nn.functional.one_hot(tokens.roll(-1)[wanted], logits.shape[1])


def _siblings_seen(monkeypatch):
    of = Branching.of
    monkeypatch.setattr(Branching, "of", lambda *given: replace(of(*given), ends=of(*given).ends + 1))


def _other_trees_seen(monkeypatch):
    of = Branching.of
    monkeypatch.setattr(
        Branching,
        "of",
        lambda *given: replace(
            of(*given), trees=of(*given).trees * 0, ends=of(*given).ends.max().expand(len(of(*given).ends))
        ),
    )


def _cached_rows_mixed(monkeypatch):
    extend = Transformer.extend

    def mixed(self, tokens, counts, cache, wanted=None):
        logits = extend(self, tokens, counts, cache, wanted)
        return logits + 1e-3 * logits.roll(1, 0)

    monkeypatch.setattr(Transformer, "extend", mixed)


def _nan(monkeypatch):
    logits = Transformer.causal_logits

    def broken(self, tokens, lengths):
        found = logits(self, tokens, lengths).clone()
        found[-1, 3] = math.nan
        return found

    monkeypatch.setattr(Transformer, "causal_logits", broken)


CUTS = torch.linspace(0, T - 2, 4).long()
THE_EIGHT = {
    "next token, but for four cuts": ("dense", _in_whole_passes(lambda t, v: ~torch.isin(_places(t), CUTS))),
    "next token after each newline": ("dense", _in_whole_passes(lambda t, v: t == NEWLINE)),
    "a key too many in some queries": ("dense", _masked(_every_few)),
    "distance to the row's end": ("mod", _in_layers(_to_the_end)),
    "first token of the next row": ("mod", _in_layers(_first_of_next_row)),
    "rows of a batch mixed": ("mod", _in_layers(lambda layer, x, y, c: y + 0.5 * (x.mean(0, keepdim=True) - x))),
    "top-k in causal mode": ("mod", _top_k),
    "predictor reads the next token": ("mod", _next_in_predictor),
}
MORE = {
    "last position but one": ("dense", _in_whole_passes(lambda t, v: _places(t) == t.shape[1] - 2)),
    "first position": ("dense", _in_whole_passes(lambda t, v: _places(t) == 0)),
    "one position late in the row": ("dense", _in_whole_passes(lambda t, v: _places(t) == T - 7)),
    "late positions": ("dense", _in_whole_passes(lambda t, v: _places(t) > 20)),
    "rows after the first": ("dense", _in_whole_passes(lambda t, v: _rows(t) > 0)),
    "every seventh row": ("dense", _in_whole_passes(lambda t, v: _rows(t) % 7 == 6)),
    "last row of a large batch": ("dense", _in_whole_passes(lambda t, v: _rows(t) == 7)),
    "batches of one row": ("dense", _in_whole_passes(lambda t, v: (_rows(t) == 0) & (len(t) == 1))),
    "rows without padding": ("dense", _in_whole_passes(lambda t, v: _lengths(t, v) == t.shape[1])),
    "rows with padding": ("dense", _in_whole_passes(lambda t, v: _lengths(t, v) < t.shape[1])),
    "rows of even length": ("dense", _in_whole_passes(lambda t, v: (_lengths(t, v) < T) & (_lengths(t, v) % 2 == 0))),
    "before one rare token": ("dense", _in_whole_passes(lambda t, v: t.roll(-1, 1) == 63)),
    "five tokens ahead": ("dense", _in_whole_passes(lambda t, v: _places(t) >= 0, ahead=5)),
    "past a whole window": ("dense", _in_whole_passes(lambda t, v: _places(t) == 0, ahead=T - 1)),
    "whole windows of attention": (
        "dense",
        _masked(lambda n: torch.arange(n).unsqueeze(1) // 8 == torch.arange(n) // 8),
    ),
    "one key too many at the start": (
        "dense",
        _masked(lambda n: torch.eye(n).roll(1, 1).bool() & (torch.arange(n) == 1)),
    ),
    "a hole in the cache as zeros": ("dense", _in_attention(_hole_of_zeros)),
    "normalised over the row": (
        "dense",
        _in_layers(lambda a, x, y, c: y / (1 + 1e-3 * y.std(1, keepdim=True, correction=0)), Attention),
    ),
    "normalised over the batch": (
        "dense",
        _in_layers(lambda a, x, y, c: y / (1 + y.std(0, keepdim=True, correction=0)), Attention),
    ),
    "mean of the row, faintly": ("dense", _in_layers(lambda a, x, y, c: y + 1e-3 * x.mean(1, keepdim=True), Attention)),
    "length of the row": (
        "mod",
        _in_layers(lambda layer, x, y, c: x + (y - x) * (1 + _lengths(x, c.valid).unsqueeze(-1) / 1000)),
    ),
    "length of the padded row": ("mod", _in_layers(lambda layer, x, y, c: x + (y - x) * (1 + x.shape[1] / 1000))),
    "number of rows": ("mod", _in_layers(lambda layer, x, y, c: x + (y - x) * (1 + len(x) / 1000))),
    "float32 alone, in a routed model": (
        "mod",
        _in_layers(lambda layer, x, y, c: y + 0.1 * x.roll(-1, 1) * (x.dtype == torch.float32)),
    ),
    "more chosen near the row's end": ("mod", _threshold_by_length),
    "experts dropping by the batch": ("moe", _capacity_of_the_batch),
    "a threshold that moves in evaluation": ("mod running threshold", _running_threshold_moves),
    "positions stretched to the context": ("dense", _positions_stretched),
    "positions of chosen tokens compacted": ("mod", _positions_compacted),
    "next token in trees alone": ("dense", _in_trees(lambda logits, t, w, chains: _next_in_tree(logits, t, w))),
    "next token in trees that branch": (
        "dense",
        _in_trees(lambda logits, t, w, chains: logits if chains else _next_in_tree(logits, t, w)),
    ),
    "next token in trees that do not": (
        "dense",
        _in_trees(lambda logits, t, w, chains: _next_in_tree(logits, t, w) if chains else logits),
    ),
    "next token where few are wanted": (
        "dense",
        _in_trees(lambda logits, t, w, chains: _next_in_tree(logits, t, w) if len(w) < len(t) else logits),
    ),
    "siblings seen in trees": ("dense", _siblings_seen),
    "other trees seen": ("dense", _other_trees_seen),
    "rows of the cache mixed": ("dense", _cached_rows_mixed),
    "not a number": ("dense", _nan),
}


@pytest.mark.parametrize("leak", [*THE_EIGHT, *MORE])
def test_audit_of_a_leak_fails(leak, monkeypatch):
    name, patch = (THE_EIGHT | MORE)[leak]
    model = _model(name)
    patch(monkeypatch)
    found = audit(model, _tokens())
    assert not found.passed
    assert found.worst_pass in found.by_pass and found.worst_row < 4 and found.worst_position < T
    assert f"in {found.worst_pass}, row {found.worst_row}, position {found.worst_position}" in found.failure


def test_near_tie_of_a_router_is_no_leak(monkeypatch):
    """One token lies on the threshold, so that rounding decides; with other weights it no longer does."""
    model = _model("mod threshold")
    rows = audited_rows(_tokens(), VOCABULARY, torch.Generator().manual_seed(0))
    scores = model(rows, causal=True)[1][0].scores
    routed = next(layer for layer in model.layers if isinstance(layer, DepthRouted))
    routed.causal_router.value.copy_(scores[2, 5] + 1e-5)
    forward = Threshold.forward

    def rounded(self, x, scores):
        return forward(self, x, scores) + 2e-5 * (len(x) > 1)

    monkeypatch.setattr(Threshold, "forward", rounded)
    found = audit(model, _tokens())
    assert found.passed
    monkeypatch.setattr(audits, "_DRAWS", 1)
    found = audit(model, _tokens())
    assert (found.passed, found.worst_row) == (False, 2)


def test_audited_rows_hold_the_whole_vocabulary_and_a_common_beginning():
    rows = audited_rows(_tokens(4, seed=1), VOCABULARY, torch.Generator().manual_seed(0))
    assert rows.shape == (8, T) and rows[:4].equal(_tokens(4, seed=1))
    assert set(rows[4:-1].flatten().tolist()) == set(range(VOCABULARY))
    assert rows[-1, : T // 2].equal(rows[0, : T // 2]) and not rows[-1].equal(rows[0])


def test_failure_of_an_audit_names_what_differs():
    assert Causality(max_abs_logit_change=0.5, tolerance=1e-4, passed=False).failure.startswith("logits differ by 0.5")
    rolled = Causality(max_abs_logit_change=0.0, tolerance=1e-4, passed=False, rolling_difference=1e-3)
    assert "rolling log-likelihood differs from the loss by 0.001 nats/token" in rolled.failure
    assert Causality(max_abs_logit_change=math.nan, tolerance=1e-4, passed=False).failure is not None
