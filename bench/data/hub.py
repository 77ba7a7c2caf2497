"""What comes from the Hugging Face hub: data sets, streamed into local files, and tokenizers.

The hub is asked once, with a short time limit, whether it has the data. The libraries would retry for half a minute
before they report a missing network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bench.config.identity import digest
from bench.config.schema import DataConfig
from bench.data.cache import cached_folder
from bench.data.files import content_hash
from bench.errors import UserError

_TIMEOUT_SECONDS = 5.0


def download(config: DataConfig) -> tuple[Path, Path]:
    """Training and validation documents as two .jsonl files with the key `text`, downloaded once.

    Validation is the first `validation_documents` of `validation_split`, or of `split` where none is
    given; training is the first (or next) `max_documents` of `split`. `dataset` may also be a local folder in
    the hub's layout, which is read again if a file in it changes. Raises UserError for a data set that is unknown or
    cannot be reached.
    """
    folder = download_folder(config)
    cached_folder(folder, lambda temporary: _download(config, config.dataset, temporary))
    return folder / "train.jsonl", folder / "validation.jsonl"


def download_folder(config: DataConfig) -> Path:
    """Where `download` leaves its files. Raises UserError if no data set is named."""
    if config.dataset is None:
        raise UserError("data.source=hub needs data.dataset, for example data.dataset=roneneldan/TinyStories.")
    keys = ("dataset", "subset", "split", "validation_split", "text_key", "max_documents", "validation_documents")
    chosen = {key: getattr(config, key) for key in keys}
    local = Path(config.dataset)
    if local.is_dir():
        chosen["files"] = [
            (str(path.relative_to(local)), content_hash(path)) for path in sorted(local.rglob("*")) if path.is_file()
        ]
    return Path(config.cache_dir) / f"hub-{digest(chosen)}"


def _download(config: DataConfig, dataset: str | None, folder: Path) -> None:
    if not Path(str(dataset)).is_dir():
        _ask_hub("dataset", str(dataset), "data.dataset", "data=kjv or data=text")
    training = _stream(config, config.split)
    validation_stream = _stream(config, config.validation_split) if config.validation_split else training
    validation = list(islice(validation_stream, config.validation_documents))
    _write(folder / "validation.jsonl", validation)
    _write(folder / "train.jsonl", islice(training, config.max_documents))


def _stream(config: DataConfig, split: str) -> Iterator[str | None]:
    """The texts of a split; None for a null, which is skipped and counted when the file is read."""
    from datasets import load_dataset

    try:
        for row in load_dataset(config.dataset, config.subset, split=split, streaming=True):
            if config.text_key not in row or not isinstance(row[config.text_key], str | None):
                found = ", ".join(map(repr, row))
                raise UserError(
                    f"data.text_key={config.text_key!r} is no text column of {config.dataset} (found {found})."
                )
            yield row[config.text_key]
    except UserError:
        raise
    except Exception as error:  # the hub's libraries raise dozens of kinds
        values = f"data.dataset={config.dataset} data.subset={config.subset} split {split!r}"
        raise UserError(f"cannot stream {values}: {_first_line(error)}. Check these keys and the network.") from error


def _write(path: Path, texts: Iterable[str | None]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}) + "\n")


def download_tokenizer(name: str) -> Path:
    """The tokenizer.json of a model on the hub, from the local hub cache if it is there.

    Raises UserError if the model is unknown, cannot be reached, or has no tokenizer.json.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, "tokenizer.json", local_files_only=True))
    except LocalEntryNotFoundError:
        alternative = "data.tokenizer.kind=bytes or bpe, or the path of a tokenizer.json"
        _ask_hub("model", name, "data.tokenizer.name", alternative)
    except ValueError as error:
        raise UserError(f"data.tokenizer.name={name!r} is neither a file nor a hub name, such as gpt2.") from error
    try:
        return Path(hf_hub_download(name, "tokenizer.json"))
    except Exception as error:
        raise UserError(
            f"data.tokenizer.name={name!r}: its tokenizer.json is unavailable: {_first_line(error)}."
        ) from error


def _ask_hub(kind: str, name: str, key: str, alternative: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        HfApi().repo_info(name, repo_type=kind, timeout=_TIMEOUT_SECONDS)
    except (GatedRepoError, HFValidationError, RepositoryNotFoundError) as error:
        raise UserError(f"{key}={name}: the hub has no such {kind}, or denies access. Try {alternative}.") from error
    except Exception as error:  # any other error of the HTTP library: no answer from the hub
        raise UserError(
            f"{key}={name}: the Hugging Face hub cannot be reached ({_first_line(error)}). "
            f"Connect to a network, or use {alternative}, which needs none."
        ) from error


def _first_line(error: Any) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
