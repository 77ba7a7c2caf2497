"""How a block spends its compute."""

from bench.methods.registry import build_model

__all__ = ["build_model"]
