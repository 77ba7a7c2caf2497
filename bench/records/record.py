"""The result of a run: `record.json`, read back by one typed loader.

A metric that was not measured is absent, never 0. Units are in the names. Losses are natural-log
cross-entropies (nats/token). A multiply-add is 2 FLOPs. The same folder holds:

| file | holds |
| --- | --- |
| `steps.csv` | a row per `train.log_every` steps: step, tokens, train_flops, seconds, loss, lr, grad_norm, ... |
| `documents.csv` | a row per validation document: document, cluster, tokens, bytes, nats, nats_noncausal |
| `routing.json` | `RoutingDetail`: heat map passage, router weights, expert load; routed methods only |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from bench.records.files import LOADING, SCHEMA_VERSION, StrictModel, load
from bench.stats.interval import Interval


def _in_files(holds: Callable[[Any], bool], message: str) -> AfterValidator:
    """A check of files alone, because anybody may have written them: a run keeps whatever it measured."""

    def check(value: Any, info: ValidationInfo) -> Any:
        if info.context is LOADING and not holds(value):
            raise ValueError(message)
        return value

    return AfterValidator(check)


def _accuracies_are_shares(scores: dict[str, float]) -> bool:
    return all(0 <= scores[name] <= 1 for name in ("acc", "acc_norm", "chance") if name in scores)


Loss = Annotated[float, _in_files(lambda loss: loss > 0, "a loss must be above 0")]
Share = Annotated[float, _in_files(lambda share: 0 <= share <= 1, "a share must be from 0 to 1")]
Ratio = Annotated[float, _in_files(lambda ratio: ratio > 0, "a ratio of times must be above 0")]
Bytes = Annotated[int, _in_files(lambda size: size > 0, "a size must be above 0 bytes")]
Scores = Annotated[dict[str, float], _in_files(_accuracies_are_shares, "an accuracy must be from 0 to 1")]


class Timing(StrictModel):
    """Seconds, or a ratio of seconds, over repeated samples taken in one process."""

    median: float
    low: float = Field(description="lower end of the 95 % interval of the median")
    high: float = Field(description="upper end of the 95 % interval of the median")
    samples: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Timing:
        """Median with its distribution-free 95 % interval, from order statistics by their binomial coverage.

        With fewer than 6 samples no such interval exists, and the range is given instead.
        """
        middle = Interval.of_median(samples)
        assert middle.low is not None and middle.high is not None
        return cls(median=middle.value, low=middle.low, high=middle.high, samples=len(samples))


class Run(StrictModel):
    id: str = Field(description="name of the run's folder")
    name: str = Field(description="name of the comparison or study it belongs to")
    created: str = Field(description="ISO 8601, UTC")
    git_commit: str | None = None
    config_hash: str
    comparison_hash: str = Field(description="equal for runs that are comparable, if their text is equal too")
    corpus_fingerprint: str | None = Field(
        None, description="equal for equal training and validation tokens; absent from older records"
    )
    seed: int
    status: str = Field(description="finished | diverged (the loss became NaN or exploded) | audit_failed (causality)")
    message: str | None = Field(None, description="what happened, if status is not finished")


class Environment(StrictModel):
    python: str
    torch: str
    device: str = Field(description="cpu | cuda")
    device_name: str
    platform: str
    threads: int
    packages: dict[str, str] = Field(description="versions of the packages the figures depend on")
    processor: str | None = Field(None, description="CPU family, model, stepping and the vector instructions in use")


class Model(StrictModel):
    params_total: int
    params_active: int = Field(description="active parameters: those that one token uses, in expectation")
    n_layers: int
    d_model: int
    n_heads: int
    d_ff: int
    context: int
    vocab_size: int


class Flops(StrictModel):
    forward_per_token: float = Field(description="planned, analytic, at the training context length")
    backward_per_token: float | None = Field(
        None, description="planned, analytic; absent from older records, which took it as twice forward_per_token"
    )
    train_per_token: float = Field(description="forward and backward, planned")
    train_total: float = Field(description="over the whole run, as routing decided")
    forward_analytic: float = Field(description="one forward pass of the counted rows, analytic")
    forward_fvcore: float = Field(description="the same pass, counted by fvcore")
    forward_torch: float = Field(description="the same pass, counted by torch's FlopCounterMode")
    train_analytic: float | None = Field(None, description="forward and backward of the same rows in training")
    train_torch: float | None = Field(None, description="the same passes, counted by torch's FlopCounterMode")
    budget: float
    forward_per_token_causal: float = Field(description="with causal-halved attention scores")
    six_n_per_token: float = Field(description="6 x active parameters, the usual training estimate")
    moved_bytes_per_token: float = Field(description="of sort, top-k, gather, scatter in a forward pass, in float32")
    parts: dict[str, float] = Field(description="forward FLOPs/token, by part of the model")


class Text(StrictModel):
    """What was read. Copies have the same words; case, spaces, line ends and punctuation do not count."""

    train_tokens: int
    validation_documents: int = Field(description="available; quality.documents_evaluated of them were used")
    validation_copies: int = Field(description="validation documents left out as copies of another one")
    training_copies: int = Field(description="training documents left out as copies of a validation document")
    tokenizer_loses: str | None = Field(None, description="the first text that the tokenizer does not keep, in words")


class Training(StrictModel):
    tokens: int
    passes: float | None = Field(None, description="tokens over corpus.train_tokens; absent from older records")
    steps: int
    seconds: float = Field(description="in training steps, without checkpoints and compilation")
    final_loss: Loss | None = Field(None, description="mean training loss over the last 20 steps, nats")
    lr: float
    lr_rule: str
    dtype: str


class Quality(StrictModel):
    """On validation documents. Everything but `*_noncausal` is measured with the causal router."""

    val_loss_nats: Loss
    val_loss_nats_stderr: float | None = Field(None, description="over documents; absent if there is only one")
    val_loss_nats_noncausal: Loss | None = Field(None, description="with the top-k router, which sees the future")
    val_bpb: Loss | None = Field(
        None, description="bits per UTF-8 byte; absent where corpus.tokenizer_loses is present"
    )
    val_bpb_stderr: float | None = None
    val_bpb_noncausal: Loss | None = None
    tokens_evaluated: int
    documents_evaluated: int


SAME_LOSS = 1e-6  # nats/token: two sums over the same windows of text differ by less


class Causality(StrictModel):
    """Every way in which the model is read, against token by token, which cannot see ahead.

    Older records have the first three fields only: logits up to a few positions, when later tokens are changed.
    """

    max_abs_logit_change: float = Field(description="largest difference of a logit, over all passes and positions")
    tolerance: float
    passed: bool
    by_pass: dict[str, float] | None = Field(None, description="the largest difference in each kind of pass")
    positions: int | None = Field(None, description="audited tokens, each in every kind of pass")
    worst_pass: str | None = Field(None, description="where the largest difference was")
    worst_row: int | None = None
    worst_position: int | None = None
    rolling_difference: float | None = Field(
        None, description="of a document's loss here and in lm-eval's rolling log-likelihood, largest, nats/token"
    )

    @property
    def failure(self) -> str | None:
        """What a failed audit found."""
        if not self.max_abs_logit_change <= self.tolerance:
            where = (
                f" in {self.worst_pass}, row {self.worst_row}, position {self.worst_position}"
                if self.worst_pass
                else ""
            )
            return f"logits differ by {self.max_abs_logit_change:.2g} from those of reading token by token{where}"
        if self.rolling_difference is not None and not self.rolling_difference <= SAME_LOSS:
            return f"lm-eval's rolling log-likelihood differs from the loss by {self.rolling_difference:.2g} nats/token"
        return None

    @model_validator(mode="after")
    def _passed_as_measured(self, info: ValidationInfo) -> Causality:
        if info.context is not LOADING or not self.passed:
            return self
        if not 0 <= self.max_abs_logit_change <= self.tolerance:
            raise ValueError("the audit is said to have passed, but its change of logits is beyond its tolerance")
        if self.rolling_difference is not None and not 0 <= self.rolling_difference <= SAME_LOSS:
            raise ValueError("the audit is said to have passed, but lm-eval's rolling log-likelihood differs")
        return self


class CausalRouterStatistics(StrictModel):
    """One of the model's causal routers, on the same validation documents."""

    accuracy: Share = Field(description="agreement with top-k, mean over routed blocks")
    fraction_processed: Share = Field(description="of tokens, mean over routed blocks")
    fraction_by_position: list[float] = Field(description="the same in equal parts of the context, first to last")
    val_loss_nats: Loss
    loss_over_topk: float = Field(description="val_loss_nats over the top-k loss, minus 1")


class RoutingStatistics(StrictModel):
    predictor_accuracy: Share | None = Field(
        None, description="agreement of the causal router with top-k, in validation"
    )
    predictor_accuracy_by_layer: dict[str, Share] | None = None
    fraction_processed: Share | None = Field(None, description="of tokens, mean over routed blocks, causal router")
    fraction_processed_by_layer: dict[str, Share] | None = None
    expert_load_cv: float | None = Field(None, description="standard deviation over mean of tokens per expert")
    noop_fraction: Share | None = Field(None, description="share of expert choices that were null experts")
    causal_routers: dict[str, CausalRouterStatistics] | None = Field(
        None, description="every causal router that the model has, the one behind its quality first"
    )
    not_reported: list[str] | None = Field(
        None, description="what a method with a module of its own does not report, so that no figure shows it"
    )


class DecodePoint(StrictModel):
    """Decoding with a KV cache at one batch size and context; steps of the method and its baseline alternate."""

    batch_size: int
    context: int = Field(description="tokens a row has read when the first timed step begins")
    steps: int
    tokens_per_second: float
    step_seconds: Timing
    step_seconds_p95: float
    first_token_seconds: float = Field(description="reading the contexts, up to the first logits")
    form: str = Field(description="gathered: routed rows alone are computed | masked: all rows, routed ones count")
    fraction_processed: float | None = Field(None, description="of tokens, mean over routed blocks, in these steps")
    bytes_per_token: float = Field(description="of weights, keys and values that a step reads, planned, over its rows")
    flops_per_token: float = Field(description="planned")
    kv_cache_bytes: int = Field(description="allocated at the end")
    kv_cache_held_bytes: int = Field(description="of the keys and values held")
    speedup_realised: Timing | None = Field(
        None, description="dense seconds over the method's, over groups of 8 steps; absent below 8 steps"
    )
    speedup_ideal: float | None = Field(None, description="by the roofline of both, at the share processed")
    roofline_share: float | None = Field(None, description="roofline's seconds of a step over the measured ones")
    kv_cache_ratio: float | None = Field(None, description="kv_cache_bytes over the dense baseline's")


class LargerSpeed(StrictModel):
    """Training steps of fresh models of a larger shape, of method and dense alternately."""

    n_layers: int
    d_model: int
    batch_size: int
    train_speedup_ideal: float = Field(description="dense training FLOPs/token over the method's")
    train_speedup_realised: Timing = Field(description="dense step seconds over the method's, pairs")


class Speed(StrictModel):
    """Method and dense baseline timed alternately in one process.

    Comparisons are absent for the baseline itself, and if its weights were unavailable.
    """

    train_step_seconds: Timing
    train_tokens_per_second: float
    executed_flops_per_token: float | None = Field(
        None,
        description="of a training step, counted by torch: skipped blocks of attention excluded, padding included",
    )
    flop_utilisation: float | None = Field(
        None, description="executed FLOP/s (in older records: planned) over a measured matrix product's rate"
    )
    matmul_flops_per_second: float | None = Field(None, description="the measured rate, same dtype and threads")
    forward_speedup_ideal: float | None = Field(None, description="dense forward FLOPs over the method's")
    train_speedup_ideal: float | None = Field(None, description="dense training FLOPs/step over the method's")
    train_speedup_realised: Timing | None = Field(None, description="dense step seconds over the method's, pairs")
    larger: LargerSpeed | None = None
    decode: list[DecodePoint] | None = None


class Memory(StrictModel):
    peak_bytes: Bytes = Field(
        description="of tensors, in a training step: by the device's allocator; on a CPU, by torch's profiler"
    )


class Energy(StrictModel):
    joules_per_token: float


class Record(StrictModel):
    schema_version: int = SCHEMA_VERSION
    run: Run
    environment: Environment
    method: str
    variant: str | None = None
    contract: str
    config: dict[str, Any] = Field(description="complete and resolved")
    command: str = Field(description="reproduces this record")
    model: Model
    flops: Flops
    corpus: Text | None = Field(None, description="absent from older records")
    training: Training
    quality: Quality | None = None
    causality: Causality | None = None
    routing: RoutingStatistics | None = None
    speed: Speed | None = None
    memory: Memory | None = None
    energy: Energy | None = None
    lm_eval: dict[str, Scores] | None = Field(
        None, description="task -> metric (and metric_stderr) -> value; `chance` is present if it is known"
    )

    @property
    def comparable(self) -> bool:
        """Whether reports and gates may use its quality: finished, and the causality audit passed."""
        return self.run.status == "finished" and self.causality is not None and self.causality.passed


class Passage(StrictModel):
    """A passage of validation text and what each routed block did with each of its tokens."""

    tokens: list[str] = Field(description="readable pieces, one per position")
    layers: list[int]
    processed: list[list[bool]] = Field(description="by layer, then position: causal router")
    weights: list[list[float]] | None = Field(
        None, description="by layer, then position: router weight r; of a Gaussian router the noise it ranks by"
    )
    nats: list[float | None] | None = Field(
        None, description="by position: loss of the token, causal router; null for the first, which nothing predicts"
    )


class RoutingDetail(StrictModel):
    passage: Passage | None = Field(None, description="depth-routed methods only")
    weight_edges: list[float] | None = Field(None, description="bin edges of the same over validation text")
    weight_counts: dict[str, list[int]] | None = Field(
        None, description="`selected` and `skipped` -> counts, by top-k as in training, not by the causal router"
    )
    expert_load: dict[str, list[float]] | None = Field(
        None, description="layer -> share of choices per expert, real ones first, then null experts"
    )
    n_noop: int = 0


def load_record(path: Path) -> Record:
    """Read one `record.json`.

    Raises UserError if it is missing, truncated, from a newer schema, or not a record.
    """
    return load(path, Record, "a valid record", "Delete it and run again.")
