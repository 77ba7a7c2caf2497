"""`python -m bench.export RUN --format hf`: a trained run as files that other libraries load.

hf: a folder that `transformers` loads as LlamaForCausalLM, or as MixtralForCausalLM for experts, with equal
logits and token ids. RUN is a run's folder or its id below results/. `transformers` itself is not needed.
Exit status: 0 done, 2 a mistake, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bench.errors import UserError, reports_errors

if TYPE_CHECKING:
    from torch import Tensor

    from bench.data import Tokenizer
    from bench.methods.experts import TokenChoice
    from bench.model import Attention, FeedForward
    from bench.runs.load import TrainedRun

    Block = tuple[Attention, FeedForward | TokenChoice]

_END_OF_TEXT = "<|endoftext|>"  # its name if tokens are bytes


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Write a run's model and tokenizer in another library's format; returns the exit status."""
    options = _parser().parse_args(arguments)
    from bench.runs.load import find_run, load_run

    folder = find_run(options.run, options.results)
    out = options.out or Path("exports") / folder.resolve().name
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"--out {out} exists and is not an empty folder. Delete it or choose another.")
    architecture = export_hf(load_run(folder), out)
    print(
        f"Wrote {architecture} to {out}. Load it with transformers: AutoModelForCausalLM.from_pretrained({str(out)!r})"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.export", description="A trained run for other libraries.")
    parser.add_argument("run", help="a run's folder, or its id below the results folder")
    parser.add_argument("--format", choices=["hf"], default="hf", help="hf: a folder that transformers loads (hf)")
    parser.add_argument("--out", type=Path, help="folder to write, new or empty (exports/RUN)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of runs (results)")
    return parser


def export_hf(run: TrainedRun, out: Path) -> str:
    """Write config.json, model.safetensors and the tokenizer to `out`; returns the architecture's name.

    Weights are float32. Raises UserError for a method that neither Llama nor Mixtral can express, and if `out` cannot
    be written.
    """
    from bench.records.files import beside
    from bench.train.checkpoint import save_tensors

    blocks = _blocks(run)
    config = _config(run, *blocks[0])
    tensors = {"model.embed_tokens.weight": run.model.embedding.weight, "model.norm.weight": run.model.norm.weight}
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = run.model.head.weight
    for number, block in enumerate(blocks):
        tensors |= {f"model.layers.{number}.{name}": value for name, value in _block_weights(*block).items()}
    ends = {"bos_token_id": run.tokenizer.eot, "eos_token_id": run.tokenizer.eot}
    tokenizer = _tokenizer(run.tokenizer)
    files = {
        "config.json": config | ends,
        "generation_config.json": ends,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": _tokenizer_config(run, tokenizer),
    }
    try:
        with beside(out) as folder:
            for name, content in files.items():
                text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
                (folder / name).write_text(text, encoding="utf-8")
            weights = folder / "model.safetensors"
            save_tensors({name: tensor.detach() for name, tensor in tensors.items()}, weights)
            weights.chmod(0o644)  # safetensors makes it readable by its owner alone
    except OSError as error:
        raise UserError(f"cannot write --out {out}: {error.strerror or error}. Choose another folder.") from error
    return config["architectures"][0]


def _blocks(run: TrainedRun) -> list[Block]:
    """The two branches of every layer. Raises UserError if Llama and Mixtral have no such layer."""
    from bench.config.identity import MethodId
    from bench.methods.experts import TokenChoice
    from bench.model import Attention, FeedForward, Residual
    from bench.model import Block as TwoBranches

    method = run.record.config["method"]
    title = MethodId(method["name"], method["variant"]).title

    def refuse(reason: str) -> UserError:
        return UserError(f"{title} cannot be exported to transformers: {reason}.")

    blocks: list[Block] = []
    for layer in run.model.layers:
        if type(layer) is not Residual or type(layer.branch) is not TwoBranches:
            raise refuse("Llama and Mixtral run every block on every token, but here some tokens skip")
        attention, experts = layer.branch.attention, layer.branch.feed_forward
        if type(attention) is not Attention or type(experts) not in (FeedForward, TokenChoice):
            raise refuse(f"Llama and Mixtral have no {type(experts).__name__}; each token must choose its experts")
        if isinstance(experts, TokenChoice):
            if experts.config.n_noop:
                raise refuse("Mixtral has no null experts")
            if experts.shared is not None:
                raise refuse("Mixtral has no shared experts")
            if experts.config.top_k == 1 and experts.config.n_experts > 1:
                raise refuse("with top_k=1 its gate is the expert's probability, and Mixtral's is 1")
            if experts.bias.any():
                raise refuse("its router has a balancing bias, and Mixtral's has none")
        blocks.append((attention, cast("FeedForward | TokenChoice", experts)))
    if len({type(feed_forward) for _, feed_forward in blocks}) > 1:
        raise refuse("some layers have experts and some do not")
    return blocks


def _config(run: TrainedRun, attention: Attention, feed_forward: FeedForward | TokenChoice) -> dict[str, Any]:
    """config.json; the rotary base is given twice, for transformers 4 and for 5."""
    from bench.model import FeedForward

    model, settings = run.model, run.record.config["model"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.vocab_size,
        "hidden_size": model.embedding.embedding_dim,
        "num_hidden_layers": len(model.layers),
        "num_attention_heads": attention.n_heads,
        "num_key_value_heads": attention.n_kv_heads,
        "head_dim": attention.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": model.context,
        "rms_norm_eps": model.norm.eps,
        "rope_theta": settings["rope_theta"],
        "rope_parameters": {"rope_type": "default", "rope_theta": settings["rope_theta"]},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": model.head.weight is model.embedding.weight,
        "torch_dtype": "float32",
    }
    if isinstance(feed_forward, FeedForward):
        return config | {"intermediate_size": feed_forward.down.in_features}
    return config | {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "intermediate_size": feed_forward.experts.down.shape[-1],
        "num_local_experts": feed_forward.config.n_experts,
        "num_experts_per_tok": feed_forward.config.top_k,
        "router_aux_loss_coef": feed_forward.config.balance_loss,
        "sliding_window": None,
    }


def _block_weights(attention: Attention, feed_forward: FeedForward | TokenChoice) -> dict[str, Tensor]:
    """A layer's weights under the names of Llama and Mixtral."""
    from bench.model import FeedForward

    queries, keys, values = attention.qkv.weight.split(
        [heads * attention.head_dim for heads in (attention.n_heads, attention.n_kv_heads, attention.n_kv_heads)]
    )
    weights = {
        "input_layernorm.weight": attention.norm.weight,
        "self_attn.q_proj.weight": _halves(queries, attention),
        "self_attn.k_proj.weight": _halves(keys, attention),
        "self_attn.v_proj.weight": values,
        "self_attn.o_proj.weight": attention.out.weight,
        "post_attention_layernorm.weight": feed_forward.norm.weight,
    }
    if isinstance(feed_forward, FeedForward):
        gate, up = feed_forward.gate_up.weight.chunk(2)
        return weights | {
            "mlp.gate_proj.weight": gate,
            "mlp.up_proj.weight": up,
            "mlp.down_proj.weight": feed_forward.down.weight,
        }
    weights["block_sparse_moe.gate.weight"] = feed_forward.router.weight
    for number in range(feed_forward.config.n_experts):
        gate, up = feed_forward.experts.gate_up[number].chunk(2)
        down = feed_forward.experts.down[number]
        for name, weight in (("w1", gate), ("w2", down), ("w3", up)):
            weights[f"block_sparse_moe.experts.{number}.{name}.weight"] = weight
    return weights


def _halves(weight: Tensor, attention: Attention) -> Tensor:
    """Rows of each head reordered: RoPE turns pairs (2i, 2i + 1) here, and (i, i + head_dim / 2) in transformers.

    weight (heads * head_dim, D). Queries and keys are reordered alike, so their products stay the same.
    """
    return weight.unflatten(0, (-1, attention.head_dim // 2, 2)).transpose(1, 2).reshape(weight.shape)


def _tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """tokenizer.json. Its post-processor, which would add special tokens to a text, is dropped."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Implementation

    from bench.data.tokenizer import SubwordTokenizer

    if isinstance(tokenizer, SubwordTokenizer):
        return json.loads(tokenizer.to_json()) | {"post_processor": None}
    # The byte-level alphabet of GPT-2: a visible byte is its own character, the others follow from 256 on.
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in visible]
    alphabet = {chr(byte) if byte in visible else chr(256 + others.index(byte)): byte for byte in range(255)}
    implementation = Implementation(models.BPE(alphabet | {_END_OF_TEXT: tokenizer.eot}, []))  # 0xFF is in no text
    implementation.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    implementation.decoder = decoders.ByteLevel()
    implementation.add_special_tokens([AddedToken(_END_OF_TEXT, special=True, normalized=False)])
    return json.loads(implementation.to_str())


def _tokenizer_config(run: TrainedRun, tokenizer: dict[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json; special tokens written in a text are split like other text, as in training."""
    end = next(token["content"] for token in tokenizer["added_tokens"] if token["id"] == run.tokenizer.eot)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "model_max_length": run.model.context,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }


if __name__ == "__main__":
    sys.exit(main())
