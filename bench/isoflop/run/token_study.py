"""What the routers of trained models do with each token of the validation text.

Depth: is a token processed because the dense baseline finds it hard, or because of its position, frequency and kind?
Experts: which kinds of token does each process, and which are chosen together? Both: when in training do the decisions
settle? Everything is measured with the causal router.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from bench.config.schema import EvaluateConfig
from bench.data import Corpus
from bench.isoflop.run.router_use import CLASSES, STATISTIC, HeldOut, depth_use, expert_use
from bench.isoflop.run.session import Session
from bench.measure.quality import choose, windows
from bench.model import Transformer
from bench.records.isoflop import Settling, TokenStudy
from bench.runs.load import WEIGHTS, load_run
from bench.stats.interval import Interval
from bench.stats.jackknife import over_documents
from bench.train.checkpoint import load_weights, read_weights
from bench.train.loop import SNAPSHOTS

_ENOUGH_TOKENS = 1 << 18


@dataclass
class Choices:
    """Decisions of one model's routers. processed: layer -> (B, T) bool; experts: layer -> (B, T, k)."""

    processed: dict[int, np.ndarray]
    experts: dict[int, np.ndarray]


def study_tokens(
    session: Session, runs: dict[str, Path], others: dict[str, list[Path]], baseline: Path, corpus: Corpus,
    evaluate: EvaluateConfig,
) -> None:  # fmt: skip
    """Add to the study's tokens those of `runs` that are missing: method -> the folder of a finished run.

    others: method -> the folders of its other seeds, of which only the rank correlations of depth are added, if they
    have weights. baseline: the dense run whose loss and entropy measure difficulty. Saves after each run. Raises
    Interrupted past the deadline; the next session continues from there.
    """
    found = session.study.tokens
    if found is None or (found.twin, found.statistic) != (baseline.name, STATISTIC):
        found = TokenStudy(
            tokens=0, documents=0, statistic=STATISTIC,
            twin=baseline.name, runs={}, kinds=list(CLASSES), depth={}, experts={}, settling={},
        )  # fmt: skip
    missing = {name: folder for name, folder in runs.items() if found.runs.get(name) != folder.name}
    seeds = [
        (name, folder) for name, folders in others.items() if name in found.depth or name in missing
        for folder in folders if folder.name not in found.seeds.get(name, {}) and (folder / WEIGHTS).exists()
    ]  # fmt: skip
    if not missing and not seeds:
        return
    session.check()
    gone = [str(folder) for folder in (baseline, *missing.values()) if not (folder / WEIGHTS).exists()]
    if gone:
        have = "has" if len(gone) == 1 else "have"
        print(f"{', '.join(gone)} {have} no weights any more, so the token statistics stay as they were.")
        return
    dense = load_run(baseline).model
    held_out = _held_out(corpus, dense, evaluate.batch_size)
    found.tokens, found.documents = held_out.inputs.numel(), len(np.unique(held_out.documents))
    for name, folder in missing.items():
        session.check()
        _add(found, name, folder, held_out, evaluate.batch_size)
        session.study.tokens = found
        session.save()
    for name, folder in ((name, folder) for name, folder in seeds if name in found.depth):
        session.check()
        use = depth_use(_choices(load_run(folder).model, held_out.inputs, evaluate.batch_size).processed, held_out)
        found.seeds.setdefault(name, {})[folder.name] = [each for each in use.correlations if each.layer == "all"]
        session.save()


def _add(found: TokenStudy, name: str, folder: Path, held_out: HeldOut, rows: int) -> None:
    """Add the statistics of one run to `found`."""
    trained = load_run(folder)
    choices = _choices(trained.model, held_out.inputs, rows)
    for part in (found.depth, found.experts, found.settling):
        part.pop(name, None)
    if choices.processed:
        found.depth[name] = depth_use(choices.processed, held_out)
    if choices.experts:
        found.experts[name] = expert_use(choices.experts, held_out.kinds, len(CLASSES), held_out.documents)
    if choices.processed or choices.experts:
        settling = _settling(folder, trained.model, choices, held_out, rows)
        found.settling |= {name: settling} if settling else {}
    found.runs[name] = folder.name


@torch.inference_mode()
def _held_out(corpus: Corpus, dense: Transformer, rows: int) -> HeldOut:
    """As many documents as `_ENOUGH_TOKENS` take, since documents are the units of the intervals.

    Whole windows only, so that all positions are equally frequent.
    """
    documents = choose(corpus.validation, _ENOUGH_TOKENS)
    whole = [w for w in windows(documents, dense.context, corpus.tokenizer.eot) if len(w.inputs) == dense.context]
    inputs, targets = (torch.from_numpy(np.stack([getattr(w, side) for w in whole])) for side in ("inputs", "targets"))
    next_loss, entropy = [], []
    for start in range(0, len(inputs), rows):
        logs = dense(inputs[start : start + rows], causal=True)[0].float().log_softmax(-1)
        next_loss.append(F.nll_loss(logs.flatten(0, 1), targets[start : start + rows].flatten(), reduction="none"))
        entropy.append(-(logs.exp() * logs).sum(-1).flatten())
    nats = torch.cat(next_loss).view(inputs.shape)
    own = torch.cat([nats[:, :1] * torch.nan, nats[:, :-1]], dim=1)  # of the input token, as predicted one step earlier
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
    """Classes of tokens, by the first character of the piece and the last of the piece before."""
    pieces = {int(token): (corpus.tokenizer.pieces([int(token)])[0] or " ") for token in np.unique(inputs)}
    kinds = np.empty(inputs.shape, dtype=int)
    for row, tokens in enumerate(inputs):
        before = " "
        for place, token in enumerate(tokens):
            piece = pieces[int(token)]
            kinds[row, place] = CLASSES.index(_kind(piece, before))
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
    """Experts behind a depth router, which see only some of the tokens, are excluded."""
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


def _settling(folder: Path, model: Transformer, final: Choices, held_out: HeldOut, rows: int) -> list[Settling]:
    """Agreement of the snapshots' decisions with the final ones; changes `model`."""
    found = []
    for path in sorted((folder / SNAPSHOTS).glob("*.safetensors"), key=lambda p: int(p.name.split("-")[0])):
        part, parts = (int(word) for word in path.stem.split("-of-"))
        load_weights(model, read_weights(path), path)
        then = _choices(model, held_out.inputs, rows)
        depth, experts = _same_tokens(then, final, held_out.documents), _same_experts(then, final, held_out.documents)
        settling = Settling(share=part / parts)
        if depth is not None:
            settling.depth, settling.depth_low, settling.depth_high = depth.value, depth.low, depth.high
        if experts is not None:
            settling.experts, settling.experts_low, settling.experts_high = experts.value, experts.low, experts.high
        found.append(settling)
    return found


def _same_tokens(then: Choices, final: Choices, documents: np.ndarray) -> Interval | None:
    """Share of the finally processed tokens that were processed already, mean over layers."""
    return _mean_share(
        [(then.processed[layer] & chosen, chosen) for layer, chosen in final.processed.items() if chosen.any()],
        documents,
    )


def _same_experts(then: Choices, final: Choices, documents: np.ndarray) -> Interval | None:
    """Share of the finally chosen experts that were chosen already (router saturation, OLMoE, arXiv 2409.02060)."""
    same = {
        layer: (then.experts[layer][..., :, None] == chosen[..., None, :]).any(-2)
        for layer, chosen in final.experts.items()
    }
    return _mean_share([(each.sum(-1), np.full(each.shape[:-1], each.shape[-1])) for each in same.values()], documents)


def _mean_share(layers: list[tuple[np.ndarray, np.ndarray]], documents: np.ndarray) -> Interval | None:
    """Mean over layers of hits over chances, each (B, T): those of a token; None without layers."""
    if not layers:
        return None
    counted = [[np.bincount(documents, each.flatten()) for each in layer] for layer in layers]

    def share(counts: np.ndarray) -> float:
        return float(np.mean([counts @ hits / (counts @ chances) for hits, chances in counted if counts @ chances]))

    return over_documents(share, documents, 0, 1)
