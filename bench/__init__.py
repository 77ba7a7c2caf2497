"""Compares conditional-computation transformers at matched FLOPs."""
