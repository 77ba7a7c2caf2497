"""lm-eval: the trained model as one of its models, and a suite of tasks that needs no network."""

from bench.evaluate.rolling import rolling_difference
from bench.evaluate.suite import check_tasks, evaluate, excluded_tasks, load_tasks, offline_documents

__all__ = ["check_tasks", "evaluate", "excluded_tasks", "load_tasks", "offline_documents", "rolling_difference"]
