"""What people read is written in the field's terms: phrases of the project's old dialect stay out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DIALECT = re.compile(
    r"\b(told (from|apart)|(cannot|could not|can|could) be told|not to be had|held to (the|a|an|its|that|those|dense)"
    r"|cr(y|ies|ied) wolf|false alarms?|anew|held-out (loss|text|tokens)|(nats|bits|FLOPs) a (token|byte|step)"
    r"|a token meets|(dense|its|the) twin|holds? here|planted|would settle it|moved lately|a good end|such as do"
    r"|parameters that one token meets|wrong use|not judged|nothing to change|go on from there|cut short|taken apart"
    r"|(row|line|figure|parabola|sentence|object|value|sequences|one) a (row|run|method|budget|line|key|token|step)"
    r"|anyone's|least loss|so many times|so (narrow|wide) a|not (a )?whole (file|json|packed)|went wrong"
    r"|load on the other|asked for|cannot but|held to|next to no|to the bit|no part of|stands? in)\b",
    re.IGNORECASE,
)
TEXTS = ("*.md", "*.j2", "*.html", "*.js", "*.yaml", "*.yml", "*.toml", "*.cff", "*.ipynb")
SKIPPED = {"node_modules", "vendor", "site", ".cache", ".git", ".venv", "build", "dist", "__pycache__"}


def _files() -> Iterator[Path]:
    for folder in ("bench", "tools", "conf", "docs", "reports", ".github"):
        for pattern in (*TEXTS, "*.py"):
            yield from sorted((ROOT / folder).rglob(pattern))
    for pattern in TEXTS:
        yield from sorted(ROOT.glob(pattern))


def _read_by_people(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and text: the whole of a text file; of Python its comments, docstrings and other strings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, " ".join(node.value.split())
    for number, line in enumerate(text.splitlines(), 1):
        if "#" in line:
            yield number, line.partition("#")[2]


@pytest.mark.parametrize(
    "phrase", ["MoE is told from dense", "the loss, nats a token", "held to the dense twin", "a row a run"]
)
def test_dialect_phrase_is_found(phrase: str):
    assert DIALECT.search(phrase)


def test_what_people_read_has_no_dialect():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in _files()
        if not SKIPPED.intersection(path.relative_to(ROOT).parts)
        for number, text in _read_by_people(path)
        if (match := DIALECT.search(text))
    ]
    assert not found, "\n".join(found)
