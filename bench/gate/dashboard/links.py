"""Addresses: of charts within the site, and of commits and comparisons where a run's link names its repository."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

# The part of a CI run's address that names the repository: GitHub's /actions/runs/1 and GitLab's /-/jobs/1.
_REPOSITORY = re.compile(
    r"(https://[\w.-]+(?::\d+)?/[\w./-]+?)(?:/actions/runs/\d+|(/-)/(?:jobs|pipelines)/\d+)(?:[/?#].*)?"
)
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


def safe_link(link: str | None) -> str | None:
    """The link if it is safe to follow: http or https."""
    try:
        return link if link and urlsplit(link).scheme in ("http", "https") else None
    except ValueError:
        return None


def charts_link(**chosen: str) -> str:
    """The address of the charts with these filters."""
    return "charts.html#" + "&".join(f"{key}={quote(value, safe='')}" for key, value in chosen.items())


def repository(link: str | None) -> str | None:
    """What addresses of commits (`/commit/SHA`) and comparisons (`/compare/A...B`) begin with; None if unknown."""
    found = _REPOSITORY.fullmatch(link or "")
    return f"{found[1]}{found[2] or ''}" if found else None


def compare_link(link: str | None, before: str | None, after: str | None) -> str | None:
    """The address of what changed between two commits, for a run's link; None if any of them is unknown."""
    base = repository(link)
    known = before and after and before != after and _COMMIT.fullmatch(before) and _COMMIT.fullmatch(after)
    return f"{base}/compare/{before}...{after}" if base and known else None
