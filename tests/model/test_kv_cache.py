"""Reading in pieces with a cache against reading whole rows without one, for every method."""

import pytest
import torch

from bench.config.schema import DepthConfig, ExpertsConfig, MethodConfig, ModelConfig
from bench.methods import build_model
from bench.methods.depth import DepthRouted, calibrate, causal_router_names, using_causal_router
from bench.model import Attention
from bench.model import cache as cache_module
from bench.model.cache import KVCache
from bench.model.layer_cache import PackedCache, PaddedCache
from bench.model.prefix_tree import grow

torch.set_num_threads(1)
T, VOCABULARY = 24, 50
SHAPE = ModelConfig(n_layers=4, d_model=32, n_heads=4, context=T, d_ff=48)
LENGTHS = [24, 17, 5, 1]

METHODS = {
    "dense": MethodConfig("dense"),
    "shallow": MethodConfig("shallow", layers=0.5),
    "moe": MethodConfig("moe", experts=ExpertsConfig(n_experts=4)),
    "shared expert": MethodConfig("moe", experts=ExpertsConfig(n_experts=4, n_shared=1)),
    "expert_choice": MethodConfig("expert_choice", experts=ExpertsConfig(n_experts=4, routing="expert_choice")),
    "integrated": MethodConfig("mode", experts=ExpertsConfig(n_experts=4, n_noop=4)),
    "mod": MethodConfig("mod", depth=DepthConfig(0.25)),
    "mod bce": MethodConfig("mod", depth=DepthConfig(0.25, causal="bce")),
    "mod everywhere": MethodConfig("mod", depth=DepthConfig(0.25, every=1)),
    "mod_random": MethodConfig("mod_random", depth=DepthConfig(0.25, router="gaussian")),
    "attention": MethodConfig("mod", depth=DepthConfig(0.25, scope="attention")),
    "feed_forward": MethodConfig("mod", depth=DepthConfig(0.25, scope="feed_forward")),
    "staged": MethodConfig("mode", depth=DepthConfig(0.25), experts=ExpertsConfig(n_experts=4)),
}
EVERY = pytest.mark.parametrize("name", METHODS)


def _model(name, **shape):
    model = build_model(ModelConfig(**(vars(SHAPE) | shape)), METHODS[name], VOCABULARY)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.25, generator=generator)
    model.train()
    model(_tokens())  # sets running thresholds
    model.eval()
    if "threshold" in causal_router_names(model):
        calibrate(model, _tokens())
    return model


def _tokens(rows=4, seed=5):
    return torch.randint(VOCABULARY, (rows, T), generator=torch.Generator().manual_seed(seed))


def _whole(model, tokens, lengths):
    logits = model.causal_logits(tokens, torch.tensor(lengths))
    return [logits[row, :length] for row, length in enumerate(lengths)]


def _in_pieces(model, tokens, lengths, piece, masked=False):
    """Read every row `piece(row, read)` tokens at a time; the logits of each row, all positions."""
    cache = KVCache(len(lengths), masked)
    heard = [[] for _ in lengths]
    while any(read < length for read, length in zip(cache.read, lengths, strict=True)):
        before = list(cache.read)
        counts = [min(piece(row, before[row]), length - before[row]) for row, length in enumerate(lengths)]
        new = torch.cat([tokens[row, r : r + n] for row, (r, n) in enumerate(zip(before, counts, strict=True))])
        logits = model.extend(new, counts, cache, torch.arange(len(new)))
        for row, part in enumerate(logits.split(counts)):
            heard[row].append(part)
    return [torch.cat(parts) for parts in heard], cache


def _assert_equal(got, wanted):
    for own, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=0)


PIECES = {
    "at once": lambda row, read: T,
    "prompt, then steps": lambda row, read: 4 + 3 * row if read == 0 else 1,
    "steps alone": lambda row, read: 1,
    "unequal pieces": lambda row, read: (1, 5, 2, 3)[(read + row) % 4],
}


@EVERY
@pytest.mark.parametrize("pieces", PIECES)
@torch.no_grad()
def test_cached_equals_uncached(name, pieces):
    model, tokens = _model(name), _tokens()
    got, _ = _in_pieces(model, tokens, LENGTHS, PIECES[pieces])
    _assert_equal(got, _whole(model, tokens, LENGTHS))


@pytest.mark.parametrize("name", ["mod", "mod bce"])
@torch.no_grad()
def test_cached_equals_uncached_with_every_causal_router(name):
    model, tokens = _model(name), _tokens()
    assert len(causal_router_names(model)) == 3
    for router in causal_router_names(model):
        with using_causal_router(model, router):
            got, cache = _in_pieces(model, tokens, LENGTHS, PIECES["prompt, then steps"])
            _assert_equal(got, _whole(model, tokens, LENGTHS))
        routed = [layer for layer in model.layers if isinstance(layer, DepthRouted)]
        held = sum(int(cache.layers[layer.branch.attention].lengths.sum()) for layer in routed)
        assert 0 < held < 0.9 * len(routed) * sum(LENGTHS)  # some were skipped, or the test shows little


@EVERY
@torch.no_grad()
def test_masked_steps_equal_gathered_steps(name):
    model, tokens = _model(name), _tokens()
    got, cache = _in_pieces(model, tokens, LENGTHS, PIECES["prompt, then steps"], masked=True)
    _assert_equal(got, _whole(model, tokens, LENGTHS))
    _, gathered = _in_pieces(model, tokens, LENGTHS, PIECES["prompt, then steps"])
    assert cache.held_bytes == gathered.held_bytes


@torch.no_grad()
def test_cached_with_grouped_queries_equals_uncached():
    model, tokens = _model("mod", n_kv_heads=2), _tokens()
    got, _ = _in_pieces(model, tokens, LENGTHS, PIECES["prompt, then steps"])
    _assert_equal(got, _whole(model, tokens, LENGTHS))


@EVERY
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padded_prompts_equal_rows_alone(name, side):
    """Padding is left behind on packing: a row is what it is alone."""
    model, tokens = _model(name), _tokens()
    valid = torch.arange(T) < torch.tensor(LENGTHS).unsqueeze(1)
    valid = valid.flip(1) if side == "left" else valid
    logits = model.extend(tokens[valid], valid.sum(1).tolist(), KVCache(len(LENGTHS)))
    for row, own in enumerate(valid):
        alone = model.causal_logits(tokens[row, own][None], own.sum()[None])[0, -1]
        torch.testing.assert_close(logits[row], alone, atol=1e-4, rtol=0)


@torch.no_grad()
def test_skipped_token_has_no_key_or_value():
    model, tokens = _model("mod"), _tokens()
    _, routings = model(tokens, causal=True)
    _, cache = _in_pieces(model, tokens, [T] * 4, PIECES["prompt, then steps"])
    attentions = [m for m in model.modules() if isinstance(m, Attention)]
    selected = {routing.layer: routing.selected.sum(1).tolist() for routing in routings}
    held = 0
    for number, attention in enumerate(attentions):
        lengths = cache.layers[attention].lengths.tolist()
        assert lengths == selected.get(number, [T] * 4)
        held += sum(lengths)
    assert cache.held_bytes == held * 2 * SHAPE.d_model * 4
    assert cache.held_bytes <= cache.allocated_bytes


@torch.no_grad()
def test_packed_cache_allocates_about_what_it_holds():
    """Room for growth and the table of places aside, it is as large as what it holds."""
    model, tokens = _model("mod"), _tokens()
    _, cache = _in_pieces(model, tokens, LENGTHS, PIECES["prompt, then steps"])
    token = 2 * SHAPE.d_model * 4
    for layer in model.layers:
        if isinstance(layer, DepthRouted):
            own = cache.layers[layer.branch.attention]
            padded = len(LENGTHS) * int(own.lengths.max()) * token
            table = len(LENGTHS) * T * 8
            assert own.held_bytes == int(own.lengths.sum()) * token < padded / 1.5
            assert own.held_bytes <= own.allocated_bytes <= own.held_bytes * 9 / 8 + 8 * token + table
    kept = cache.select([0, 1])
    for layer in model.layers:
        if isinstance(layer, DepthRouted):
            own = kept.layers[layer.branch.attention]
            assert own.held_bytes < own.allocated_bytes <= own.held_bytes + 8 * token + 2 * T * 8


@torch.no_grad()
def test_cache_select_continues_rows_independently():
    model, tokens = _model("mod"), _tokens()
    wanted = _whole(model, tokens, [T] * 4)
    cache = KVCache(4)
    model.extend(tokens[:, :9].flatten(), [9] * 4, cache)
    copy = cache.select([2, 0, 2])
    got = model.extend(tokens[[2, 0, 2], 9:].flatten(), [T - 9] * 3, copy, torch.arange(3 * (T - 9)))
    _assert_equal(got.split(T - 9), [wanted[row][9:] for row in (2, 0, 2)])
    assert cache.read == [9] * 4
    got = model.extend(tokens[:, 9], [1] * 4, cache)  # what was copied from is as it was
    _assert_equal(got, [row[9] for row in wanted])


@torch.no_grad()
def test_rows_of_common_prefix_are_packed_after_copying():
    model, tokens = _model("mod"), _tokens()
    tokens[:, :12] = tokens[:1, :12]
    wanted = _whole(model, tokens, [T] * 4)
    one = KVCache(1)
    model.extend(tokens[0, :12], [12], one)
    cache = one.select([0] * 4)
    got = model.extend(tokens[:, 12:].flatten(), [T - 12] * 4, cache, torch.arange(4 * (T - 12)))
    _assert_equal(got.split(T - 12), [row[12:] for row in wanted])
    for attention in (layer.branch.attention for layer in model.layers if isinstance(layer, DepthRouted)):
        assert isinstance(one.layers[attention], PaddedCache) and isinstance(cache.layers[attention], PackedCache)
        assert isinstance(cache.select([3]).layers[attention], PaddedCache)
    back = cache.select([3])
    assert back.held_bytes == sum(int(layer.lengths[3]) for layer in cache.layers.values()) * 2 * SHAPE.d_model * 4


@torch.no_grad()
def test_extend_past_the_context_raises():
    model, cache = _model("dense"), KVCache(1)
    model.extend(_tokens(1)[0], [T], cache)
    with pytest.raises(ValueError, match="25 tokens .* context of 24"):
        model.extend(torch.tensor([1]), [1], cache)


TEXTS = [(1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 9, 9), (7,), (1, 2, 3), (8, 8, 8, 8, 8, 8), tuple(range(T))]


@EVERY
@pytest.mark.parametrize("queries", [3, 32])  # in a block: several blocks a tree, or one
@torch.no_grad()
def test_prefix_trees_equal_their_texts(name, queries, monkeypatch):
    monkeypatch.setattr("bench.model.prefix_tree._QUERIES", queries)
    model, trees = _model(name), list(grow(TEXTS))
    size = sum(len(tree.tokens) for tree in trees)
    assert size == 5 + 2 + 1 + 6 + T and len(trees) == 4
    logits, start = model.tree_logits(trees, torch.arange(size)), 0
    for tree in trees:
        for text, path in tree.paths.items():
            alone = model.causal_logits(torch.tensor([text]), torch.tensor([len(text)]))[0]
            torch.testing.assert_close(logits[start + torch.tensor(path)], alone, atol=1e-4, rtol=0)
        start += len(tree.tokens)


def test_prefix_trees_of_long_texts_stay_under_twice_their_length(monkeypatch):
    monkeypatch.setattr("bench.model.prefix_tree._TOKENS", 4)
    texts = [(1, 2, 3, 4, 5, last, last) for last in range(6)]
    trees = list(grow(texts))
    assert [len(tree.tokens) for tree in trees] == [13, 9] or max(len(tree.tokens) for tree in trees) <= 14
    assert sorted(text for tree in trees for text in tree.paths) == texts


@EVERY
@torch.no_grad()
def test_extend_with_unwanted_logits_leaves_others_equal(name):
    model, tokens = _model(name), _tokens()
    cache = KVCache(4)
    assert model.extend(tokens[:, :9].flatten(), [9] * 4, cache, torch.tensor([], dtype=torch.int64)).shape[0] == 0
    got = model.extend(tokens[:, 9:].flatten(), [T - 9] * 4, cache, torch.arange(4 * (T - 9)))
    _assert_equal(got.split(T - 9), [row[9:] for row in _whole(model, tokens, [T] * 4)])


@torch.no_grad()
def test_extend_with_masks_in_parts_is_equal(monkeypatch):
    model, tokens = _model("mod"), _tokens()
    monkeypatch.setattr(cache_module, "_MASK_ELEMENTS", 1)
    got, _ = _in_pieces(model, tokens, LENGTHS, PIECES["unequal pieces"])
    _assert_equal(got, _whole(model, tokens, LENGTHS))
    attended = []
    attention = cache_module.attention
    monkeypatch.setattr(
        cache_module, "attention", lambda q, *rest, **o: attended.append(len(q)) or attention(q, *rest, **o)
    )
    monkeypatch.setattr(cache_module, "_MASK_ELEMENTS", 2 * 2 * T)
    cache = KVCache(4)
    model.extend(tokens[:, : T - 2].flatten(), [T - 2] * 4, cache)
    attended.clear()
    model.extend(tokens[:, T - 2 :].flatten(), [2] * 4, cache)
    assert attended[:2] == [2, 2]  # two rows of two tokens, each with T keys


@torch.no_grad()
def test_extend_with_no_tokens_changes_nothing():
    model, cache = _model("mod"), KVCache(3)
    for counts in ([0, 0, 0], [2, 0, 1], [0, 0, 0]):
        before = list(cache.read)
        logits = model.extend(_tokens(1)[0, : sum(counts)], counts, cache)
        assert logits.shape == (sum(count > 0 for count in counts), VOCABULARY)
        assert cache.read == [a + b for a, b in zip(before, counts, strict=True)]


@torch.no_grad()
def test_extend_that_fails_leaves_the_cache_unchanged(monkeypatch):
    model, tokens = _model("mod"), _tokens()
    wanted = _whole(model, tokens, [T] * 4)
    cache = KVCache(4)

    def fail(*arguments):
        raise MemoryError

    for start, length in ((0, 9), (9, T - 9)):
        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(model.layers[2], "forward", fail)  # two layers have their keys by then
            model.extend(tokens[:, start : start + length].flatten(), [length] * 4, cache)
        assert cache.read == [start] * 4
        got = model.extend(tokens[:, start : start + length].flatten(), [length] * 4, cache, torch.arange(4 * length))
        _assert_equal(got.split(length), [row[start : start + length] for row in wanted])


@torch.no_grad()
def test_gathered_step_computes_only_chosen_rows(monkeypatch):
    model, tokens = _model("mod"), _tokens()[:2]
    for layer in model.layers:
        if isinstance(layer, DepthRouted):  # so that some steps choose no row
            layer.causal_routers["predictor"].score.bias.sub_(1.0)
    _, routings = model(tokens, causal=True)
    for routing in routings:
        layer, seen = model.layers[routing.layer], []
        branch = layer.branch.forward
        monkeypatch.setattr(
            layer.branch,
            "forward",
            lambda x, context, seen=seen, branch=branch: seen.append(x.shape[1]) or branch(x, context),
        )
        routing.metrics["seen"] = seen
    _in_pieces(model, tokens, [T] * 2, PIECES["steps alone"])
    for routing in routings:
        chosen = routing.selected.sum(dim=0).tolist()
        assert 0 in chosen and routing.metrics["seen"] == [count for count in chosen if count]
