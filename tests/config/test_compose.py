"""From words to a configuration: what composes, and what one line refuses."""

import pytest

from bench.config.compose import configure, configure_method, expand
from bench.config.identity import MethodId, config_hash
from bench.errors import UserError


def test_experts_can_be_added_to_a_depth_routed_method():
    method = configure(["+method=mod", "+method.experts={n_experts: 4, top_k: 2}"]).method
    assert (method.experts.n_experts, method.experts.top_k, method.experts.balance) == (4, 2, "loss")
    assert method.depth.capacity == 0.125
    assert MethodId.of(method).title == "MoDE (staged)"  # what it is, not what it began as
    later = configure(["+method=mod", "method.experts={n_experts: 4}", "method.experts.top_k=1"]).method
    assert (later.experts.n_experts, later.experts.top_k) == (4, 1)


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (["+method=moe", "+method.depth={capacity: 0.125}"], ["+method=mode", "method.variant=staged"]),
        (["+method=mod", "+method.experts={}"], ["+method=mode", "method.variant=staged"]),
        (["+method=mod", "method.variant=bce", "+method.experts={}"], ["+method=mode", "method.depth.causal=bce"]),
        (["+method=shallow", "+method.depth={}"], ["+method=mod", "method.layers=0.5625"]),
    ],
)
def test_method_moved_along_an_axis_is_the_method_that_is_there(words, same):
    moved, there = configure(words), configure(same)
    assert MethodId.of(moved.method) == MethodId.of(there.method)
    assert config_hash(moved) == config_hash(there)


def test_command_line_values_win_over_those_of_the_variant():
    assert configure(["+method=mode"]).method.experts.n_noop == 0
    assert configure(["+method=mode", "method.experts.n_noop=4"]).method.experts.n_noop == 4
    chosen = configure(["+method=mod", "method.variant=bce", "method.depth.causal=threshold"])
    assert chosen.method.depth.causal == "threshold"


def test_method_of_a_study_is_read_with_variant_and_values():
    method = configure_method("mode/integrated method.experts.n_noop=2")
    assert (method.variant, method.depth, method.experts.n_noop) == ("integrated", None, 2)


def test_value_may_refer_to_another_key():
    assert configure(["+method=mod", "model.d_model=48", "model.d_ff=${model.d_model}"]).model.d_ff == 48


REFUSED = {
    "odd width": (
        ["model.d_model=33", "model.n_heads=4"],
        "model.d_model=33 is odd.*; 32 or 40 would work with model.n_heads=4",
    ),
    "odd heads": (
        ["model.d_model=36", "model.n_heads=4"],
        "heads of width 9.*one of model.n_heads=1, 2, 3, 6, 9, 18 would work",
    ),
    "no study": (["study.name=x"], "study.name=x has no effect: no study is chosen. Add .study=NAME"),
    "a word for a list": (["data.train=nope.txt"], "it must be a list, such as data.train=.nope.txt."),
    "a number for a part": (["model=3"], "it must be set key by key: model.n_layers"),
    "a list for a number": (["seed=[1]"], "seed=.1. is not allowed: it must be a whole number"),
    "null": (["seed=null"], "seed=null is not allowed"),
    "a key of a number": (["seed.x=3"], "unknown key seed.x; seed has no keys of its own"),
    "no key": (["=3"], "cannot read =3: write KEY=VALUE"),
    "a package": (["@x=1"], "cannot read @x=1: write KEY=VALUE"),
    "a group in a package": (["scale@model=base"], "cannot read scale@model=base"),
    "a group of values": (["method={name: moe}"], "choose method from"),
    "another name": (["method.name=moe"], "method.name=moe is not allowed: choose the method itself"),
    "without its router": (
        ["method.depth=null"],
        "method.depth=null is not allowed: it would turn this method into another",
    ),
    "an item of a list": (["evaluate.decode_batch_sizes=[nan]"], "decode_batch_sizes=.nan. is not allowed: .*a whole"),
    "variants": (["+method.variants.x={}"], "choose a variant by method.variant=NAME"),
    "an axis that is not there": (["method.experts.top_k=1"], "this method has no method.experts"),
    "a misspelt value of a method": (["method.depth.capcity=1"], "did you mean method.depth.capacity"),
    "an option of a method": (
        ["method.options.x=1"],
        "it must be left out, because mod has no options",
    ),
    "a study and a method": (["+study=ci"], "give .study=NAME or .method=NAME, not both"),
    "a missing reference": (["model.d_ff=${nope}"], "Interpolation key 'nope' not found"),
    "another source": (
        ["data.source=foo"],
        "data.source=foo is not allowed: it must be one of kjv, sotu, kjv_sotu, text, hub",
    ),
    "rows of none": (["evaluate.decode_batch_sizes=[4,0]"], "decode_batch_sizes: 0 is not allowed.*at least 1"),
    "a limit of both kinds": (["evaluate.limit=1.5"], "limit=1.5 is not allowed: .* a whole number .*, or a share"),
    "a list for a part": (["method.depth=[1]"], "method.depth=.1. is not allowed: it must be set key by key"),
    "a number for keys": (["tuned=3"], "tuned=3 is not allowed: it must be keys with values in braces"),
    "a value of the baseline": (["baseline.train.lr=1"], "has no effect: set train.lr=1, which the baseline shares"),
    "no folder": (["results_dir="], "results_dir='' is not allowed: it must name a folder"),
    "heads of the larger shape": (["evaluate.speed_shape.n_heads=3"], "speed_shape.n_heads=3 does not divide eval"),
    "a limit of one or all": (["evaluate.limit=1.0"], "limit=1.0 is not allowed: .* a whole number .*, or a share"),
    "no number for a limit": (["evaluate.limit=x"], "evaluate.limit=x is not allowed: it must be a number"),
    "a folder in a scale": (["data.name='a\\b'"], "data.name=.* must be a plain folder name"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_mistake_is_explained_in_one_line(words, message):
    with pytest.raises(UserError, match=message) as caught:
        (run,) = expand(["+method=mod", *words], multirun=False)
        configure(run)
    assert "\n" not in str(caught.value)


def test_limit_is_a_number_of_documents_or_a_share_of_them():
    limits = [configure(["+method=mod", f"evaluate.limit={value}"]).evaluate.limit for value in ("8", "0.5", "null")]
    assert limits == [8, 0.5, None] and isinstance(limits[0], int)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+method=moe", "method.experts.n_noop=8"], r"into MoDE \(integrated\); choose .method=mode method.var"),
        (["+method=mode", "method.variant=integrated", "method.experts.n_noop=0"], "into MoE; choose .method=moe.$"),
    ],
)
def test_null_experts_that_make_another_method_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        configure(words)


def test_method_of_several_variants_is_one_of_them():
    with pytest.raises(UserError, match="method.variant=null is not allowed: this method is one of staged, integrated"):
        configure(["+method=mode", "method.variant=null"])
    assert configure(["+method=mod", "method.variant=null"]).method.variant is None


def test_dense_takes_no_values_of_a_method():
    for words in (["method.layers=0.5"], ["+method.depth={capacity: 0.5}"], ["+method.experts={}"]):
        with pytest.raises(UserError, match="method=dense is the baseline, so it takes no method"):
            configure(["+method=dense", *words])


def test_long_sweep_is_refused_with_its_length_without_listing_it():
    for values, runs in (("range(0,100000)", "100,000"), ("range(0,1e12,0.5)", "2,000,000,000,000")):
        with pytest.raises(UserError, match=f"this sweep has {runs} runs; at most 10,000 are allowed"):
            expand(["+method=mod", f"seed={values}"], multirun=True)


@pytest.mark.parametrize("values", ["range(0,3,0)", "glob(*)", "interval(1,2)"])
def test_sweep_that_lists_no_values_is_refused(values):
    with pytest.raises(UserError, match="cannot be swept; list the values"):
        expand(["+method=mod", f"seed={values}"], multirun=True)


def test_sweep_of_a_range_is_expanded():
    assert [run[1] for run in expand(["method=mod", "seed=range(1,6,2)"], True)] == ["seed=1", "seed=3", "seed=5"]
