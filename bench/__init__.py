"""Compares conditional-computation transformers at matched FLOPs."""

import os

# Large CPU tensors on huge pages: fresh ones cost a page fault per 2 MiB in place of one per 4 KiB, which is
# several percent of a training step. torch reads this once, at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
