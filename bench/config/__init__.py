"""The configuration of a run: its schema, how Hydra composes it, how it is checked, and what identifies it."""
