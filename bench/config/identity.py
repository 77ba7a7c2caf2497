"""What identifies a run: the hash of its configuration, its folder, its name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.config.options import scale_shape
from bench.config.plugins import source_digest
from bench.config.schema import MethodConfig, RunConfig

_POINTS = {(True, False): "mod", (False, True): "moe", (True, True): "mode/staged"}  # a depth router, experts
_ACRONYMS = {"moe": "MoE", "mod": "MoD", "mode": "MoDE", "mor": "MoR"}


@dataclass(frozen=True, order=True)
class MethodId:
    """A method and, if it has several, its variant. Every spelling of it is made here.

    `str()` is for the command line and records (`mode/staged`), `title` for people (`MoDE (staged)`), `slug` for paths
    (`mode-staged`).
    """

    name: str
    variant: str | None = None

    @classmethod
    def parse(cls, text: str) -> MethodId:
        """From the command line's spelling, NAME or NAME/VARIANT."""
        name, _, variant = text.partition("/")
        return cls(name, variant or None)

    @classmethod
    def at(cls, depth: bool, experts: bool) -> MethodId:
        """Of a method that the command line has moved along the axes: with a depth router, with experts."""
        return cls.parse(_POINTS[depth, experts])

    @classmethod
    def of(cls, method: MethodConfig) -> MethodId:
        """Of a configured method."""
        return cls(method.name, method.variant)

    def __str__(self) -> str:
        return f"{self.name}/{self.variant}" if self.variant else self.name

    @property
    def title(self) -> str:
        first, *rest = (_ACRONYMS.get(word, word) for word in self.name.split("_"))
        words = " ".join([first[:1].upper() + first[1:], *rest])
        return f"{words} ({self.variant.replace('_', ' ')})" if self.variant else words

    @property
    def words(self) -> list[str]:
        """What the command line chooses it by: `+method=mode method.variant=staged`."""
        return [f"+method={self.name}", *([f"method.variant={self.variant}"] if self.variant else [])]

    @property
    def slug(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name


# Where a run is written, and what requested it, does not change its result.
_NOT_HASHED = {"name", "results_dir", "reports_dir", "dry_run", "study", "seeds", "tuned", "baseline"}


def shared_settings(config: RunConfig) -> dict[str, Any]:
    """What a method and its baseline share: the baseline's whole config except method and seed."""
    settings = asdict(config)
    if config.baseline is not None:
        settings |= asdict(config.baseline)
    for key in _NOT_HASHED | {"method", "seed"}:
        settings.pop(key)
    for key in ("checkpoint_every_seconds", "log_every", "snapshots"):  # how often a run is logged
        settings["train"].pop(key)
    settings["data"].pop("cache_dir")
    for key in ("include_path", "speed_shape"):  # as before they were keys
        if settings["evaluate"][key] is None:
            settings["evaluate"].pop(key)
    return settings


def digest(value: Any, length: int = 8) -> str:
    """A short, stable fingerprint of plain values (SHA-256 over canonical JSON)."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


def comparison_hash(config: RunConfig) -> str:
    """Equal for two runs that may be compared in one table."""
    return digest(shared_settings(config), 6)


def config_hash(config: RunConfig) -> str:
    """Equal for two runs that would do the same work; other code of a method with a module of its own is other work."""
    work = {"shared": shared_settings(config), "method": asdict(config.method), "seed": config.seed}
    if config.baseline is not None:
        work["tuned"] = shared_settings(replace(config, baseline=None))
    if code := source_digest(config.method.name):
        work["code"] = code
    return digest(work)


def run_folder(config: RunConfig) -> Path:
    """`results/<comparison>/<method>[-<variant>]-seed<seed>-<config hash>`: other settings give another folder."""
    run_id = f"{MethodId.of(config.method).slug}-seed{config.seed}-{config_hash(config)[:6]}"
    return Path(config.results_dir) / comparison_name(config) / run_id


def comparison_name(config: RunConfig) -> str:
    """The comparison's folder: as named, or made from everything that a method and its baseline share."""
    return config.name or f"{_scale(config)}-{config.data.name}-{config.contract.name}-{comparison_hash(config)}"


def _scale(config: RunConfig) -> str:
    """The name of its scale, or LAYERSxWIDTH if `model.*` was given another shape: that of the baseline."""
    model = config.baseline.model if config.baseline else config.model
    shape = asdict(model)
    own = any(shape.get(key) != value for key, value in scale_shape(config.scale).items())
    return f"{model.n_layers}x{model.d_model}" if own else config.scale


def run_title(config: RunConfig) -> str:
    """The run in a few words, for people."""
    return f"{MethodId.of(config.method).title} (seed {config.seed})"
