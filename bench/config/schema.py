"""The schema of a run. `conf/` holds values; these dataclasses say which keys and values exist.

Choices are `Literal`s and bounds are `Field`s, which bench/config/validate.py has pydantic check. This module imports
neither torch nor Hydra. Lengths are in tokens and sizes in elements, unless the name ends in a unit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

MISSING: Any = "???"  # OmegaConf's marker for a required value

AtLeastOne = Annotated[int, Field(ge=1)]
WholeNumber = Annotated[int, Field(ge=1, strict=True)]  # 1.0 is none: it could mean all
Width = Annotated[int, Field(ge=1, le=1 << 22)]  # far beyond any use: larger values would exhaust the machine
Rows = Annotated[int, Field(ge=1, le=1 << 24)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(gt=0, lt=1)]


@dataclass
class ModelConfig:
    """The decoder that every method shares (Llama style: RMSNorm, RoPE, SwiGLU, grouped queries)."""

    n_layers: Annotated[int, Field(ge=1, le=10_000)] = MISSING
    d_model: Annotated[int, Field(ge=1, le=1 << 20)] = MISSING
    n_heads: AtLeastOne = MISSING
    n_kv_heads: AtLeastOne | None = None  # None: as many as n_heads
    d_ff: Width | None = None  # None: 8/3 of d_model, rounded up to a multiple of 32
    context: Annotated[int, Field(ge=2, le=1 << 24)] = MISSING  # sequence length T, in training and evaluation
    rope_theta: Positive = 10_000.0
    norm_eps: Positive = 1e-5
    tie_embeddings: bool = True


@dataclass
class DepthConfig:
    """A depth router (Raposo et al. 2024, arXiv 2404.02258): which tokens a block processes."""

    capacity: Annotated[float, Field(gt=0, le=1)] = 0.125  # share of a sequence's tokens that a routed block processes
    every: AtLeastOne = 2  # blocks every, 2*every, ... are routed; 1 routes all of them
    router: Literal["learned", "gaussian"] = "learned"  # gaussian: the paper's random router
    scope: Literal["block", "attention", "feed_forward"] = "block"  # what the router wraps
    causal: Literal["predictor", "bce", "threshold", "expert_threshold"] = "predictor"  # see bench/methods/routers.py
    predictor_hidden: AtLeastOne | None = None  # width of the predictor's one hidden layer; None: half of d_model
    causal_loss: NotNegative = 0.01  # weight of the BCE on the router's logits; the predictor's is always 1


@dataclass
class ExpertsConfig:
    """Experts in place of the one feed-forward: which weights process a token."""

    n_experts: Annotated[int, Field(ge=1, le=1 << 16)] = 8
    top_k: AtLeastOne = 2
    n_shared: Count = 0  # experts that process every token, in addition to the routed ones
    n_noop: Annotated[int, Field(ge=0, le=1 << 16)] = 0  # null experts: choosing one skips the token (integrated MoDE)
    hidden: Width | None = None  # None: (top_k + n_shared) * hidden = d_ff, so active FLOPs stay equal
    routing: Literal["token_choice", "expert_choice"] = "token_choice"
    balance: Literal["loss", "bias", "none"] = "loss"  # loss: Switch Transformer; bias: loss-free, DeepSeek-V3
    balance_loss: NotNegative = 0.01
    balance_bias_step: float = 0.001
    z_loss: NotNegative = 0.001


@dataclass
class MethodConfig:
    """A point on the two axes: a depth router or none, experts or one feed-forward."""

    name: str = MISSING
    variant: str | None = None  # one of `variants`, where a method has several (mode: staged | integrated)
    layers: Annotated[float, Field(gt=0, le=1_000)] = 1.0  # depth as a share of the dense baseline's, in whole layers
    depth: DepthConfig | None = None
    experts: ExpertsConfig | None = None
    options: dict[str, Any] = field(default_factory=dict)  # values of a method with a module of its own
    variants: dict[str, Any] = field(default_factory=dict)  # variant -> values that replace these


@dataclass
class TokenizerConfig:
    """How text becomes tokens."""

    kind: Literal["bytes", "bpe", "pretrained"] = "bytes"  # bpe: trained on the training text
    vocab_size: AtLeastOne = 16_384  # bpe only
    name: str | None = None  # pretrained only: a Hugging Face name or a path to a tokenizer.json


@dataclass
class DataConfig:
    """Where text comes from and how it becomes tokens."""

    name: str = MISSING
    source: Literal["kjv", "sotu", "kjv_sotu", "text", "hub"] = "kjv"
    train: list[str] = field(default_factory=list)  # text: files (see bench/data/files.py), folders, globs
    validation: list[str] = field(default_factory=list)  # text: if empty, a share of train is held out
    text_key: str = "text"  # column or JSON key that holds the text
    dataset: str | None = None  # hub: data set name
    subset: str | None = None  # hub: configuration name
    split: str = "train"  # hub: training split
    validation_split: str | None = None  # hub: None means the first documents of `split`
    max_documents: AtLeastOne | None = None  # read at most this many training documents
    validation_documents: AtLeastOne = 200  # number kept for validation if no validation set is given
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    cache_dir: str = ".cache/bench"


@dataclass
class ContractConfig:
    """What is held equal between a method and its dense baseline."""

    name: Literal["train_flops", "forward_flops", "tokens", "active_params", "total_params", "wall_clock"] = (
        "train_flops"
    )
    tolerance: Positive = 0.005  # largest relative mismatch of a solved shape


@dataclass
class TrainConfig:
    """The budget, the optimiser and the device of a training run."""

    budget_flops: Positive = MISSING  # training FLOPs of the dense baseline (forward + backward)
    batch_size: Rows = 16  # sequences per step
    micro_batch_size: AtLeastOne | None = None  # None: the whole batch at once
    lr: Positive | None = None  # None: the rule lr_at_128 * sqrt(128 / d_model), for every method
    lr_at_128: Positive = 2e-3
    lr_final: Annotated[float, Field(ge=0, le=1)] = 0.1  # the cosine ends at this share of the peak
    warmup: Share = 0.05  # share of the budget spent warming up
    weight_decay: NotNegative = 0.1
    beta1: Share = 0.9
    beta2: Share = 0.95
    grad_clip: Positive = 1.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on CUDA, float32 on a CPU
    compile: bool | None = None  # None: on CUDA only
    threads: AtLeastOne | None = None  # None: torch's default
    checkpoint_every_seconds: Positive = 60.0
    log_every: AtLeastOne = 1  # steps between rows of steps.csv
    snapshots: Count = 0  # copies of the weights kept during training, at equal parts of the budget


@dataclass
class BatchShape:
    """The shape of a model and of its batch."""

    n_layers: Annotated[int, Field(ge=1, le=10_000)] = MISSING
    d_model: Annotated[int, Field(ge=1, le=1 << 20)] = MISSING
    n_heads: AtLeastOne = MISSING
    batch_size: Rows = MISSING


@dataclass
class EvaluateConfig:
    """What is measured on a trained model."""

    validation_tokens: AtLeastOne = 65_536  # used for the validation loss, in whole documents
    batch_size: AtLeastOne = 16
    tasks: list[str] = field(default_factory=list)  # lm-eval task names: bench's own, or any when on a network
    include_path: str | None = None  # a folder of lm-eval task files of your own
    limit: WholeNumber | Part | None = None  # documents per task: at most so many, or this share of them
    timing_steps: Count = 8  # interleaved training steps of method and baseline; 0: no speed is measured
    speed_shape: BatchShape | None = None  # where matrix products dominate: steps of fresh models are timed here too
    decode_batch_sizes: list[AtLeastOne] = field(default_factory=lambda: [1, 8])  # rows decoded together; empty: none


@dataclass
class PlannedDevice:
    """The device a study is planned for, if not this machine; give all keys or none."""

    name: str | None = None
    matmul_flops: Positive | None = None  # FLOP/s of matrix products in the training dtype, by its data sheet
    utilisation: Annotated[float, Field(gt=0, le=1)] | None = None  # share of that which training is assumed to reach
    memory_bytes: Positive | None = None


@dataclass
class GridConfig:
    """An isoFLOP study: budgets x methods x sizes, more seeds at each optimum, and ablations (`controls`)."""

    budgets: list[Positive] = field(default_factory=list)  # training FLOPs of a run
    methods: list[str] = field(default_factory=list)  # NAME or NAME/VARIANT; the others are compared with dense
    shapes: list[list[int]] = field(default_factory=list)  # the ladder, smallest first: [n_layers, d_model, n_heads]
    sizes: Annotated[int, Field(ge=3)] = 5  # neighbouring rungs of the ladder that are run for a budget and method
    tokens_per_param: Positive = 20.0  # expected optimum, in tokens over active parameters: the middle of those rungs
    seeds: AtLeastOne = 3  # runs at each optimum, including the grid's own
    rates: list[Positive] = field(default_factory=list)  # multiples of the learning-rate rule tried first; empty: none
    controls: list[list[str]] = field(default_factory=list)  # [one of `methods`, another with its values, at its shape]
    control_budget: Positive | None = None  # one of `budgets`; None: the smallest
    snapshots: Count = 7  # of the seeds' weights during training, at the largest budget: how routing settles
    timing_rounds: AtLeastOne = 8
    workers: AtLeastOne | None = None  # runs trained at once; None: the number measured to be fastest
    minutes: Positive | None = None  # stop after this long, to be resumed
    planned_for: PlannedDevice = field(default_factory=PlannedDevice)  # whose time and memory the plan gives


@dataclass
class TuningConfig:
    """A search over four ladders at one budget, with equal effort for every method (bench/studies/tuning.py)."""

    depths: Annotated[list[AtLeastOne], Field(min_length=3)] = field(default_factory=list)  # values of model.n_layers
    widths: Annotated[list[list[int]], Field(min_length=3)] = field(default_factory=list)  # [d_model, n_heads]
    batch_sizes: Annotated[list[Rows], Field(min_length=3)] = field(default_factory=list)
    rates: Annotated[list[Positive], Field(min_length=3)] = field(default_factory=list)  # values of train.lr_at_128
    start: list[Count] = field(default_factory=list)  # places on the four ladders, counted from 0
    candidates: AtLeastOne = 3  # settings that more seeds choose among
    selection_seeds: AtLeastOne = 3
    fresh_seeds: Annotated[int, Field(ge=2)] = 8  # that measure what was chosen
    workers: AtLeastOne | None = None  # runs trained at once; None: one a thread


@dataclass
class StudyConfig:
    """A fixed set of measurements with a report page of its own."""

    name: str = MISSING
    rounds: AtLeastOne = 12  # interleaved samples of each
    processes: AtLeastOne = 8  # ci: fresh processes that time steps, one sample each
    methods: list[str] = field(default_factory=list)  # decode, ci: NAME or NAME/VARIANT
    points: list[list[int]] = field(default_factory=list)  # decode: [rows decoded together, context]
    grid: GridConfig | None = None  # an isoFLOP study
    tuning: TuningConfig | None = None


@dataclass
class TunedConfig(BatchShape):
    """What `+study=tuning` found best for a method at a scale's budget; dense's are the scale's own values."""

    lr_at_128: Positive = MISSING


@dataclass
class BaselineConfig:
    """Settings of the dense baseline, where the method is tuned apart from it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass
class RunConfig:
    """The complete configuration of a run. Everything that changes its result is in here and in its config hash."""

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)  # of this and every part

    method: MethodConfig = field(default_factory=MethodConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    contract: ContractConfig = field(default_factory=ContractConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    seeds: Annotated[int, Field(ge=1, le=1_000)] = 1  # a comparison trains seed, seed + 1, ...
    tuned: dict[str, TunedConfig] = field(default_factory=dict)  # of a scale: NAME or NAME/VARIANT -> its own best
    baseline: BaselineConfig | None = None  # None: the dense baseline has this run's own model and train values
    name: str | None = None  # the comparison's folder; None: from scale, data, contract and settings
    scale: str = "custom"
    study: StudyConfig | None = None
    results_dir: str = "results"
    reports_dir: str = "reports"
    dry_run: bool = False
