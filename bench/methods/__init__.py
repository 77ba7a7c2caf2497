"""How a block spends its compute."""

from bench.methods.registry import build_model
from bench.methods.routed import RoutedLayer, Selection

__all__ = ["RoutedLayer", "Selection", "build_model"]
