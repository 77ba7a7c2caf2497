"""The verdict in the formats of other tools, a module each."""

from bench.gate.export.bencher import bencher
from bench.gate.export.github_action_benchmark import github_action_benchmark
from bench.gate.export.json_text import json_text
from bench.gate.export.junit import junit
from bench.gate.export.markdown import markdown

__all__ = ["bencher", "github_action_benchmark", "json_text", "junit", "markdown"]
