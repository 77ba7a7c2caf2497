"""The spellings of a method."""

import pytest

from bench.config.identity import MethodId


@pytest.mark.parametrize(
    ("text", "title", "slug"),
    [
        ("dense", "Dense", "dense"),
        ("moe", "MoE", "moe"),
        ("mod_random", "MoD random", "mod_random"),
        ("mode/staged", "MoDE (staged)", "mode-staged"),
        ("mode/integrated", "MoDE (integrated)", "mode-integrated"),
        ("expert_choice", "Expert choice", "expert_choice"),
    ],
)
def test_method_id_has_every_spelling(text: str, title: str, slug: str):
    method = MethodId.parse(text)
    assert (str(method), method.title, method.slug) == (text, title, slug)
