"""Whether a run fits into memory, by lower bounds: only what cannot work is refused, before anything is trained."""

from __future__ import annotations

from bench.errors import UserError
from bench.flops.match import Plan
from bench.runs.prepared import PreparedRun

_TRAINING = 16  # bytes a parameter: weight, gradient and two AdamW moments in float32


def check_memory(prepared: PreparedRun, available: float) -> None:
    """Raise UserError, naming the key, if training or decoding takes more than `available` bytes."""
    solved, evaluate = prepared.plan, prepared.config.evaluate
    if _TRAINING * solved.count.params_total > available:
        raise UserError(
            f"{prepared.title} has {solved.count.params_total:,} parameters and needs more than "
            f"{_gibibytes(_TRAINING * solved.count.params_total)} to train; {_gibibytes(available)} of memory is left. "
            "Lower model.d_model or model.n_layers."
        )
    rows = max(evaluate.decode_batch_sizes, default=0) if evaluate.timing_steps else 0
    if decoding_bytes(solved, rows, prepared.vocab_size) > available:
        fits = int(rows * available / decoding_bytes(solved, rows, prepared.vocab_size))
        raise UserError(
            f"evaluate.decode_batch_sizes: {rows} rows need more than "
            f"{_gibibytes(decoding_bytes(solved, rows, prepared.vocab_size))}; {_gibibytes(available)} of memory is "
            f"left, which holds at most {fits:,}. Give fewer rows, or [] to measure no decoding."
        )


def decoding_bytes(solved: Plan, rows: int, vocab_size: int) -> float:
    """Of `rows` rows: their text, keys and values of half a context in float32, and logits."""
    model = solved.model
    cached = 2 * model.n_layers * (model.n_kv_heads or model.n_heads) * (model.d_model // model.n_heads)
    return rows * (8 * model.context + 4 * cached * model.context / 2 + 4 * vocab_size)


def _gibibytes(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"
