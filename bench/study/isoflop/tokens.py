"""Why conditional computation works, or does not: what the routers of trained models do with each held-out token.

Depth: is a token processed where the dense twin finds it hard, or only where it stands in the text, how frequent it
is, what kind of byte it is? Experts: which kinds of byte does each take, and which are chosen together? Both: when in
training do the decisions settle? Everything is measured with the causal router.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats

from bench.data import Corpus, Document
from bench.isoflop import Covariate, DepthUse, ExpertUse, Profile, Settling, TokenStudy
from bench.measure.quality import choose, windows
from bench.model import Transformer
from bench.train.checkpoint import load_weights, read_weights
from bench.train.loop import SNAPSHOTS
from bench.trained import load_run

_CLASSES = ("capital", "word start", "inside a word", "digit", "space", "punctuation", "line end", "other")
_PARTS = 10  # equally many tokens each, in a profile
_RESAMPLES = 1000
_COVERAGE = 0.95
_TIES = ("position", "frequency")  # with the kind of token, what difficulty is told apart from


@dataclass
class HeldOut:
    """Held-out windows of full length, and what is known of each of their tokens without a router."""

    inputs: torch.Tensor  # (B, T) int64
    targets: torch.Tensor  # (B, T)
    documents: np.ndarray  # (B * T,) which document each token is from
    kinds: np.ndarray  # (B * T,) index into the classes
    covariates: dict[str, np.ndarray]  # name -> (B * T,)


@dataclass
class Choices:
    """What the routers of one model did. processed: layer -> (B, T) bool; experts: layer -> (B, T, k)."""

    processed: dict[int, np.ndarray]
    experts: dict[int, np.ndarray]


def study_tokens(runs: dict[str, Path], twin: Path, corpus: Corpus, validation_tokens: int, rows: int) -> TokenStudy:
    """runs: method -> the folder of a finished run; twin: the dense run whose loss and entropy say what is hard."""
    dense = load_run(twin).model
    held_out = _held_out(choose(corpus.validation, validation_tokens), corpus, dense, rows)
    depth, experts, settling = {}, {}, {}
    rng = np.random.default_rng(0)
    for name, folder in runs.items():
        trained = load_run(folder)
        choices = _choices(trained.model, held_out.inputs, rows)
        if choices.processed:
            depth[name] = _depth_use(choices.processed, held_out, rng)
        if choices.experts:
            n_experts = 1 + max(int(chosen.max()) for chosen in choices.experts.values())
            experts[name] = _expert_use(choices.experts, held_out.kinds, n_experts)
        if choices.processed or choices.experts:
            settling[name] = _settling(folder, trained.model, choices, held_out.inputs, rows)
    return TokenStudy(
        tokens=held_out.inputs.numel(), documents=len(np.unique(held_out.documents)), twin=twin.name,
        runs={name: folder.name for name, folder in runs.items()}, kinds=list(_CLASSES), depth=depth, experts=experts,
        settling={name: each for name, each in settling.items() if each},
    )  # fmt: skip


@torch.inference_mode()
def _held_out(documents: Sequence[Document], corpus: Corpus, dense: Transformer, rows: int) -> HeldOut:
    """Whole windows only, so that every position is as frequent as the others."""
    whole = [w for w in windows(documents, dense.context, corpus.tokenizer.eot) if len(w.inputs) == dense.context]
    inputs, targets = (torch.from_numpy(np.stack([getattr(w, side) for w in whole])) for side in ("inputs", "targets"))
    next_loss, entropy = [], []
    for start in range(0, len(inputs), rows):
        logs = dense(inputs[start : start + rows], causal=True)[0].float().log_softmax(-1)
        next_loss.append(F.nll_loss(logs.flatten(0, 1), targets[start : start + rows].flatten(), reduction="none"))
        entropy.append(-(logs.exp() * logs).sum(-1).flatten())
    nats = torch.cat(next_loss).view(inputs.shape)
    own = torch.cat([nats[:, :1] * torch.nan, nats[:, :-1]], dim=1)  # of the token read: predicted one step before
    counts = np.bincount(corpus.train[: 1 << 22], minlength=corpus.tokenizer.vocab_size)
    read = inputs.flatten().numpy()
    position = np.broadcast_to(np.arange(dense.context), inputs.shape).flatten()
    return HeldOut(
        inputs=inputs,
        targets=targets,
        documents=np.repeat([window.document for window in whole], dense.context),
        kinds=_kinds(inputs.numpy(), corpus),
        covariates={
            "loss of the next token": nats.flatten().numpy(),
            "entropy of the next token": torch.cat(entropy).numpy(),
            "loss of the token read": own.flatten().numpy(),
            "frequency": np.log1p(counts[read]),
            "position": position.astype(float),
        },
    )


def _kinds(inputs: np.ndarray, corpus: Corpus) -> np.ndarray:
    """By the first character of the piece, and whether the piece before ended inside a word."""
    pieces = {int(token): (corpus.tokenizer.pieces([int(token)])[0] or " ") for token in np.unique(inputs)}
    kinds = np.empty(inputs.shape, dtype=int)
    for row, tokens in enumerate(inputs):
        before = " "
        for place, token in enumerate(tokens):
            piece = pieces[int(token)]
            kinds[row, place] = _CLASSES.index(_kind(piece, before))
            before = piece[-1]
    return kinds.flatten()


def _kind(piece: str, before: str) -> str:
    first = piece.lstrip()[:1] if piece.strip() else piece[0]
    if first in "\n\r":
        return "line end"
    if first.isspace():
        return "space"
    if first.isdigit():
        return "digit"
    if first.isupper():
        return "capital"
    if first.isalpha():
        return "inside a word" if before.isalpha() and piece[0] == first else "word start"
    return "punctuation" if first.isprintable() and first.isascii() else "other"


@torch.inference_mode()
def _choices(model: Transformer, inputs: torch.Tensor, rows: int) -> Choices:
    """Experts behind a depth router see some of the tokens only, and are left out."""
    processed: dict[int, list[np.ndarray]] = {}
    experts: dict[int, list[np.ndarray]] = {}
    for start in range(0, len(inputs), rows):
        batch = inputs[start : start + rows]
        for routing in model(batch, causal=True)[1]:
            if routing.selected is not None:
                processed.setdefault(routing.layer, []).append(routing.selected.numpy())
            if routing.experts is not None and routing.experts.shape[:2] == batch.shape:
                experts.setdefault(routing.layer, []).append(routing.experts.numpy())
    return Choices(
        {layer: np.concatenate(parts) for layer, parts in processed.items()},
        {layer: np.concatenate(parts) for layer, parts in experts.items()},
    )


def _depth_use(processed: dict[int, np.ndarray], held_out: HeldOut, rng: np.random.Generator) -> DepthUse:
    """Rank correlations with every covariate, layer by layer and of all layers together; profiles of the latter."""
    layers = {str(layer): chosen.flatten().astype(float) for layer, chosen in sorted(processed.items())}
    visits = sum(layers.values())
    assert not isinstance(visits, int)
    draws = _document_draws(held_out.documents, rng)
    found = []
    for layer, used in {"all": visits, **layers}.items():
        for name, values in held_out.covariates.items():
            found.append(_correlation(layer, name, "none", used, values, held_out, draws))
            if name not in _TIES:
                found.append(_correlation(layer, name, "position, frequency, kind", used, values, held_out, draws))
    _adjust(found)
    share = visits / len(layers)
    profiles = {
        name: _profile(share, values, held_out.documents, draws) for name, values in held_out.covariates.items()
    }
    by_kind = {
        kind: _shares(share[held_out.kinds == number], held_out.documents[held_out.kinds == number], draws)
        for number, kind in enumerate(_CLASSES)
        if (held_out.kinds == number).sum() >= 100
    }
    return DepthUse(layers=[int(layer) for layer in layers], correlations=found, profiles=profiles, by_kind=by_kind)


def _document_draws(documents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(R, documents) how often each document is in each resample."""
    n = documents.max() + 1
    present = np.unique(documents)
    draws = np.zeros((_RESAMPLES, n))
    for row in draws:
        np.add.at(row, rng.choice(present, len(present)), 1.0)
    return draws


def _correlation(
    layer: str, name: str, given: str, used: np.ndarray, values: np.ndarray, held_out: HeldOut, draws: np.ndarray
) -> Covariate:
    """Spearman's rho of `used` and `values`, with its interval over resampled documents; ranks are those of all tokens.

    Given others: of what is left of both ranks after a least-squares fit to the ranks of position and frequency and
    to the kinds of token.
    """
    there = np.isfinite(values)
    x, y = stats.rankdata(used[there]), stats.rankdata(values[there])
    if given != "none":
        others = [stats.rankdata(held_out.covariates[each][there]) for each in _TIES]
        kinds = np.eye(len(_CLASSES))[held_out.kinds[there]]
        design = np.column_stack([*((o - o.mean()) / o.std() for o in others), kinds])
        x, y = (z - design @ np.linalg.lstsq(design, z, rcond=None)[0] for z in (x, y))
    x, y = x - x.mean(), y - y.mean()
    n = draws.shape[1]
    documents = held_out.documents[there]

    def sums(each: np.ndarray) -> np.ndarray:
        return np.bincount(documents, each, n)

    moments = [sums(each) for each in (np.ones_like(x), x, y, x * x, y * y, x * y)]

    def rho(weights: np.ndarray) -> np.ndarray:
        count, sx, sy, sxx, syy, sxy = (weights @ each for each in moments)
        spread = np.sqrt((sxx - sx * sx / count) * (syy - sy * sy / count))
        return (sxy - sx * sy / count) / spread

    value = float(rho(np.ones(n)))
    drawn = rho(draws)
    low, high = np.percentile(drawn, [100 * (1 - _COVERAGE) / 2, 100 * (1 + _COVERAGE) / 2])
    p = float(2 * stats.norm.sf(abs(value) / drawn.std(ddof=1)))
    return Covariate(layer=layer, covariate=name, given=given, rho=value, low=float(low), high=float(high), p=p)


def _adjust(found: list[Covariate]) -> None:
    """Holm's correction over all tests of a model (Holm 1979), in place."""
    ordered = sorted(found, key=lambda each: each.p)
    running = 0.0
    for place, each in enumerate(ordered):
        running = max(running, min(1.0, each.p * (len(ordered) - place)))
        each.p = running


def _profile(share: np.ndarray, values: np.ndarray, documents: np.ndarray, draws: np.ndarray) -> list[Profile]:
    """Mean share of routed layers that process a token, over equally large parts of the tokens by `values`."""
    there = np.isfinite(values)
    share, values, documents = share[there], values[there], documents[there]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _PARTS + 1)))
    part = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    found = []
    for number in range(len(edges) - 1):
        own = part == number
        if own.any():
            found.append(_shares(share[own], documents[own], draws, float(values[own].mean())))
    return found


def _shares(share: np.ndarray, documents: np.ndarray, draws: np.ndarray, at: float | None = None) -> Profile:
    n = draws.shape[1]
    total, count = np.bincount(documents, share, n), np.bincount(documents, minlength=n)
    drawn = (draws @ total) / np.maximum(draws @ count, 1)
    low, high = np.percentile(drawn, [100 * (1 - _COVERAGE) / 2, 100 * (1 + _COVERAGE) / 2])
    return Profile(at=at, share=float(share.mean()), low=float(low), high=float(high), tokens=len(share))


def _expert_use(experts: dict[int, np.ndarray], kinds: np.ndarray, n_experts: int) -> list[ExpertUse]:
    """Layer by layer: the kinds of token each expert takes, and which experts are chosen together."""
    found = []
    for layer, chosen in sorted(experts.items()):
        flat = chosen.reshape(-1, chosen.shape[-1])
        table = np.zeros((n_experts, len(_CLASSES)))
        np.add.at(table, (flat.flatten(), np.repeat(kinds, flat.shape[1])), 1.0)
        together = np.zeros((n_experts, n_experts))
        for first in range(flat.shape[1]):
            for second in range(flat.shape[1]):
                if first != second:
                    np.add.at(together, (flat[:, first], flat[:, second]), 1.0)
        found.append(
            ExpertUse(
                layer=layer,
                share_by_kind=(table / table.sum(axis=0).clip(1)).T.tolist(),
                information=_information(table),
                together=(together / together.sum(axis=1, keepdims=True).clip(1)).tolist(),
            )
        )
    return found


def _information(table: np.ndarray) -> float:
    """Mutual information of expert and kind over the entropy of kinds: 0 blind, 1 the expert tells the kind."""
    joint = table / table.sum()
    expert, kind = joint.sum(axis=1, keepdims=True), joint.sum(axis=0, keepdims=True)
    there = joint > 0
    mutual = (joint[there] * np.log((joint / (expert * kind + 1e-300))[there])).sum()
    own = kind[kind > 0]
    return float(mutual / -(own * np.log(own)).sum())


def _settling(folder: Path, model: Transformer, final: Choices, inputs: torch.Tensor, rows: int) -> list[Settling]:
    """Agreement of the snapshots' decisions with the final ones, and what chance would give; changes `model`."""
    found = []
    for path in sorted((folder / SNAPSHOTS).glob("*.safetensors"), key=lambda p: int(p.name.split("-")[0])):
        part, parts = (int(word) for word in path.stem.split("-of-"))
        load_weights(model, read_weights(path), path)
        then = _choices(model, inputs, rows)
        found.append(Settling(share=part / parts, depth=_same_tokens(then, final), experts=_same_experts(then, final)))
    return found


def _same_tokens(then: Choices, final: Choices) -> float | None:
    """Share of the finally processed tokens that were processed already, mean over layers."""
    shares = [
        float((then.processed[layer] & chosen).sum() / chosen.sum())
        for layer, chosen in final.processed.items()
        if chosen.any()
    ]
    return float(np.mean(shares)) if shares else None


def _same_experts(then: Choices, final: Choices) -> float | None:
    """Share of the finally chosen experts that were chosen already (router saturation, OLMoE, arXiv 2409.02060)."""
    shares = [
        float((then.experts[layer][..., :, None] == chosen[..., None, :]).any(-2).mean())
        for layer, chosen in final.experts.items()
    ]
    return float(np.mean(shares)) if shares else None
