"""Text to tokens to batches. Imports nothing heavier than numpy until it has work to do."""

from bench.data.batches import Batches
from bench.data.corpus import Corpus, Document, prepare
from bench.data.tokenizer import Tokenizer

__all__ = ["Batches", "Corpus", "Document", "Tokenizer", "prepare"]
