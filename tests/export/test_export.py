"""`python -m bench.export`: what transformers loads gives the logits and token ids of the run."""

import dataclasses
import json
import os
from types import SimpleNamespace

import pytest
import torch

from bench.config.schema import DepthConfig, ExpertsConfig, MethodConfig, ModelConfig, TokenizerConfig
from bench.data.embedded import king_james
from bench.data.tokenizer import ByteTokenizer, make_tokenizer
from bench.errors import UserError
from bench.export import export_hf, main
from bench.methods import build_model
from bench.runs.load import TrainedRun

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)
SHAPE = ModelConfig(n_layers=3, d_model=32, n_heads=4, n_kv_heads=2, context=48, rope_theta=500.0, norm_eps=1e-3)
TEXT = "Grüße, κόσμε! 東京 😀\r\n\ttwo  spaces <|endoftext|> end"


@pytest.fixture(scope="module")
def bpe():
    return make_tokenizer(TokenizerConfig("bpe", 600), list(king_james().values())[:60])


def _run(experts=None, depth=None, tokenizer=None, name="moe", **shape):
    tokenizer = tokenizer or ByteTokenizer()
    model, method = dataclasses.replace(SHAPE, **shape), MethodConfig(name, experts=experts, depth=depth)
    built = build_model(model, method, tokenizer.vocab_size, seed=1)
    with torch.no_grad():  # sharper than at initialisation, norms that are not 1
        for parameter in built.parameters():
            parameter.mul_(0.25 * model.d_model**0.5) if parameter.dim() > 1 else parameter.uniform_(0.5, 1.5)
    config = {"model": dataclasses.asdict(model), "method": dataclasses.asdict(method)}
    return TrainedRun(SimpleNamespace(config=config), built.eval(), tokenizer)


RUNS = {
    "dense": {"name": "dense"},
    "dense, untied, all heads": {"name": "dense", "tie_embeddings": False, "n_kv_heads": None},
    "moe": {"experts": ExpertsConfig(n_experts=4, top_k=2)},
    "moe, one expert": {"experts": ExpertsConfig(n_experts=1, top_k=1)},
    "moe, untied, three of five": {"experts": ExpertsConfig(n_experts=5, top_k=3, hidden=16), "tie_embeddings": False},
}


@pytest.mark.parametrize("name", RUNS)
@torch.no_grad()
def test_logits_of_transformers_equal_those_of_the_run(name, tmp_path):
    from transformers import AutoModelForCausalLM

    run = _run(**RUNS[name])
    architecture = export_hf(run, tmp_path / "out")
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(loaded).__name__ == architecture == f"{'Mixtral' if 'moe' in name else 'Llama'}ForCausalLM"
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = torch.randint(0, 256, (3, 48), generator=torch.Generator().manual_seed(0))
    expected, _ = run.model(tokens, causal=True)
    assert expected.std() > 0.5
    difference = (loaded(tokens).logits - expected).abs().max()
    print(f"{name}: logits of deviation {expected.std():.2f} differ by {difference:.1e} at most")
    assert difference <= 1e-4


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_tokenizer_of_transformers_gives_the_ids_of_the_run(kind, bpe, tmp_path):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = bpe if kind == "bpe" else ByteTokenizer()
    export_hf(_run(name="dense", tokenizer=tokenizer), tmp_path / "out")
    every_character = "".join(map(chr, [*range(0x800), *range(0xE000, 0xE100), *range(0x1F600, 0x1F650)]))
    for kept in (
        AutoTokenizer.from_pretrained(tmp_path / "out"),
        PreTrainedTokenizerFast.from_pretrained(tmp_path / "out"),
    ):
        for text in (TEXT, every_character, "", " ", "ÿ", "a  b\n\n"):
            assert kept(text)["input_ids"] == tokenizer.encode(text)
            assert kept.decode(tokenizer.encode(text)) == text
        assert kept.eos_token_id == kept.bos_token_id == tokenizer.eot
        assert len(kept) == tokenizer.vocab_size
        assert kept.decode([tokenizer.eot], skip_special_tokens=True) == ""


def test_generate_of_transformers_continues_as_the_run_does(tmp_path):
    from transformers import AutoModelForCausalLM

    run = _run(name="dense")
    export_hf(run, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokens = torch.tensor([ByteTokenizer().encode("In the")])
    made = loaded.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=8, do_sample=False)[
        0
    ].tolist()
    expected = tokens
    while expected.shape[1] < len(made):
        expected = torch.cat([expected, run.model(expected, causal=True)[0][:, -1:].argmax(-1)], dim=1)
    assert made == expected[0].tolist()


REFUSED = {
    "MoD": (dict(name="mod", depth=DepthConfig()), "some tokens skip"),
    "MoD of attention": (dict(name="mod", depth=DepthConfig(scope="attention")), "MoD cannot .* some tokens skip"),
    "MoDE": (dict(name="mode", experts=ExpertsConfig(n_noop=8)), "MoDE cannot be exported .* no null experts"),
    "shared": (dict(experts=ExpertsConfig(n_shared=1)), "MoE cannot be exported .* no shared experts"),
    "top 1": (dict(experts=ExpertsConfig(top_k=1)), "top_k=1 its gate is the expert's probability"),
    "choice": (dict(experts=ExpertsConfig(routing="expert_choice"), name="expert_choice"), "no ExpertChoice"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_method_that_transformers_cannot_express_is_refused(name, tmp_path):
    values, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as error:
        export_hf(_run(**values), tmp_path / "out")
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_moe_balanced_by_a_bias_is_refused_once_the_bias_moved(tmp_path):
    run = _run(experts=ExpertsConfig(balance="bias"))
    export_hf(run, tmp_path / "before")
    run.model.layers[0].branch.feed_forward.adjust_bias(torch.arange(8))
    with pytest.raises(UserError, match="its router has a balancing bias"):
        export_hf(run, tmp_path / "after")


def test_command_writes_a_folder_and_refuses_one_with_files(tmp_path, capsys, monkeypatch):
    import bench.runs.load as load

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load, "find_run", lambda name, results: tmp_path / "results" / name)
    monkeypatch.setattr(load, "load_run", lambda folder: _run(name="dense"))
    assert main(["dense-seed0", "--format", "hf"]) == 0
    assert "Wrote LlamaForCausalLM to exports/dense-seed0. Load it" in capsys.readouterr().out
    files = {path.name for path in (tmp_path / "exports" / "dense-seed0").iterdir()}
    assert files == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "exports/dense-seed0/config.json").read_text())["model_type"] == "llama"
    assert main(["dense-seed0"]) == 2
    said = capsys.readouterr().err
    assert said == "error: --out exports/dense-seed0 exists and is not an empty folder. Delete it or choose another.\n"
