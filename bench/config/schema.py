"""The schema of a run. `conf/` holds values; these dataclasses say which values exist.

This module imports neither torch nor Hydra, so that a mistake is reported in well under a second.
Lengths are in tokens, sizes in elements, unless the name ends in a unit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MISSING: Any = "???"  # OmegaConf's marker of a value that must be given


@dataclass
class ModelConfig:
    """The decoder that every method shares (Llama style: RMSNorm, RoPE, SwiGLU, grouped queries)."""

    n_layers: int = MISSING
    d_model: int = MISSING
    n_heads: int = MISSING
    n_kv_heads: int | None = None  # None: as many as n_heads
    d_ff: int | None = None  # None: 8/3 of d_model, rounded up to a multiple of 32
    context: int = MISSING  # sequence length T, in training and evaluation
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tie_embeddings: bool = True


@dataclass
class DepthConfig:
    """A depth router (Raposo et al. 2024, arXiv 2404.02258): which tokens a block processes."""

    capacity: float = 0.125  # share of each sequence's tokens that a routed block processes
    every: int = 2  # blocks every, 2*every, ... are routed; 1 routes all of them
    router: str = "learned"  # learned | gaussian (the paper's control)
    scope: str = "block"  # block | attention | feed_forward: what the router wraps
    causal: str = "predictor"  # predictor | bce | threshold | expert_threshold (see bench/methods/causal.py)
    predictor_hidden: int = 64  # width of the predictor's one hidden layer
    causal_loss: float = 0.01  # weight of the BCE on the router's logits; the predictor's is always 1


@dataclass
class ExpertsConfig:
    """Experts in place of the one feed-forward: which weights a token meets."""

    n_experts: int = 8
    top_k: int = 2
    n_shared: int = 0  # experts that every token visits, beside the routed ones
    n_noop: int = 0  # experts that do nothing: choosing one is skipping (integrated MoDE)
    hidden: int | None = None  # None: (top_k + n_shared) * hidden = d_ff, so active FLOPs stay equal
    routing: str = "token_choice"  # token_choice | expert_choice
    balance: str = "loss"  # loss (Switch Transformer) | bias (loss-free, DeepSeek-V3) | none
    balance_loss: float = 0.01
    balance_bias_step: float = 0.001
    z_loss: float = 0.001


@dataclass
class MethodConfig:
    """A point on the two axes: a depth router or none, experts or one feed-forward."""

    name: str = MISSING
    variant: str | None = None  # one of `variants`, where a method has several (mode: staged | integrated)
    layers: float = 1.0  # depth as a share of the dense twin's, rounded to whole layers (shallow: less than 1)
    depth: DepthConfig | None = None
    experts: ExpertsConfig | None = None
    options: dict[str, Any] = field(default_factory=dict)  # values of a method with a module of its own
    variants: dict[str, Any] = field(default_factory=dict)  # variant -> values it puts over these


@dataclass
class TokenizerConfig:
    kind: str = "bytes"  # bytes | bpe (trained on the training text) | pretrained
    vocab_size: int = 16_384  # bpe only
    name: str | None = None  # pretrained only: a Hugging Face name or a path to a tokenizer.json


@dataclass
class DataConfig:
    """Where text comes from and how it becomes tokens."""

    name: str = MISSING
    source: str = "kjv"  # kjv | text | hub
    train: list[str] = field(default_factory=list)  # text: files (.txt .jsonl .jsonl.zst .parquet), globs
    validation: list[str] = field(default_factory=list)  # text: empty means a held-out share of train
    text_key: str = "text"  # column or JSON key that holds the text
    dataset: str | None = None  # hub: data set name
    subset: str | None = None  # hub: configuration name
    split: str = "train"  # hub: training split
    validation_split: str | None = None  # hub: None means the first documents of `split`
    max_documents: int | None = None  # read at most so many training documents
    validation_documents: int = 200  # hold out so many documents where no validation set is given
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    cache_dir: str = ".cache/bench"


@dataclass
class ContractConfig:
    """What is held equal between a method and its dense twin."""

    name: str = "train_flops"
    tolerance: float = 0.005  # largest relative mismatch of a solved shape


@dataclass
class TrainConfig:
    budget_flops: float = MISSING  # training FLOPs of the dense twin (forward + backward)
    batch_size: int = 16  # sequences a step
    micro_batch_size: int | None = None  # None: the whole batch at once
    lr: float | None = None  # None: the rule lr_at_128 * sqrt(128 / d_model), for every method
    lr_at_128: float = 2e-3
    lr_final: float = 0.1  # the cosine ends at this share of the peak
    warmup: float = 0.05  # share of the budget spent warming up
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    grad_clip: float = 1.0
    device: str = "auto"  # auto | cpu | cuda
    dtype: str = "auto"  # auto | float32 | bfloat16; auto: bfloat16 on CUDA, float32 on a CPU
    compile: bool | None = None  # None: on CUDA only
    threads: int | None = None  # None: what torch finds
    checkpoint_every_seconds: float = 60.0
    log_every: int = 1  # steps a row of steps.csv
    snapshots: int = 0  # weights kept on the way, at equal parts of the budget


@dataclass
class EvaluateConfig:
    validation_tokens: int = 65_536  # held-out tokens for the quality figures, in whole documents
    batch_size: int = 16
    tasks: list[str] = field(default_factory=list)  # lm-eval task names: ours, or any when on a network
    limit: int | None = None  # at most so many documents a task
    timing_steps: int = 8  # interleaved training steps of method and twin; 0: no speed is measured
    decode_batch_sizes: list[int] = field(default_factory=lambda: [1, 8])  # rows decoded together; empty: none


@dataclass
class PlannedDevice:
    """What a study is planned for, where that is not the machine that plans it; all of it is given or none."""

    name: str | None = None
    matmul_flops: float | None = None  # FLOP/s of matrix products in the training dtype, by its data sheet
    utilisation: float | None = None  # share of that which training is taken to reach
    memory_bytes: float | None = None


@dataclass
class GridConfig:
    """An isoFLOP study: budgets x methods x sizes, more seeds at each optimum, and controls."""

    budgets: list[float] = field(default_factory=list)  # training FLOPs of a run
    methods: list[str] = field(default_factory=list)  # NAME or NAME/VARIANT; dense is what the others are held to
    shapes: list[list[int]] = field(default_factory=list)  # the ladder, smallest first: [n_layers, d_model, n_heads]
    sizes: int = 5  # neighbouring rungs of the ladder that are run for a budget and method
    tokens_per_param: float = 20.0  # expected optimum, in tokens over active parameters: the middle of those rungs
    seeds: int = 3  # runs at each optimum, the grid's own among them
    rates: list[float] = field(default_factory=list)  # multiples of the learning-rate rule tried first; empty: none
    controls: list[list[str]] = field(default_factory=list)  # [one of `methods`, another with its values, at its shape]
    control_budget: float | None = None  # one of `budgets`; None: the smallest
    snapshots: int = 7  # of the seeds' weights on the way, at the largest budget: how routing settles
    timing_rounds: int = 8
    workers: int | None = None  # runs trained at once; None: as many as measure best
    minutes: float | None = None  # stop, to be resumed, after so long
    planned_for: PlannedDevice = field(default_factory=PlannedDevice)  # whose time and memory the plan is in


@dataclass
class StudyConfig:
    """A fixed set of measurements with a report page of its own."""

    name: str = MISSING
    rounds: int = 12  # interleaved samples of each
    processes: int = 8  # ci: fresh processes that time steps, a sample each
    reruns: int = 100  # gate_proof: unchanged studies that the gate must find nothing in
    methods: list[str] = field(default_factory=list)  # decode, ci: NAME or NAME/VARIANT
    points: list[list[int]] = field(default_factory=list)  # decode: [rows decoded together, context]
    grid: GridConfig | None = None  # an isoFLOP study


@dataclass
class RunConfig:
    """One run, whole. Everything that changes its result is in here and in its config hash."""

    method: MethodConfig = field(default_factory=MethodConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    contract: ContractConfig = field(default_factory=ContractConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    seed: int = 0
    name: str | None = None  # the comparison's folder; None: from scale, data, contract and settings
    scale: str = "custom"
    study: StudyConfig | None = None
    results_dir: str = "results"
    reports_dir: str = "reports"
    dry_run: bool = False
