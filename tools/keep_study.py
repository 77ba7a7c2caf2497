"""Keep what an isoFLOP study found when its runs make room for a newer study of the same question.

    python -m tools.keep_study OLD_FOLDER results/isoflop_cpu --commit 1a817ce

OLD_FOLDER holds the old study (`git archive 1a817ce results/isoflop_cpu | tar x -C DIR`). Its differences from dense
are added to `earlier_studies.json` of the newer one, whose report then pools them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.isoflop.analysis.results import read_study
from bench.isoflop.analysis.studies import summarise
from bench.records.isoflop import EARLIER, EarlierStudies, load_earlier


def keep(old: Path, new: Path, commit: str) -> None:
    """Add the study in `old` to those earlier than that in `new`; one of the same commit is replaced."""
    path = new / EARLIER
    others = [study for study in load_earlier(path) if study.source_commit != commit]
    studies = sorted([*others, summarise(read_study(old), commit)], key=lambda study: study.created)
    EarlierStudies(studies=studies).save(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--commit", required=True, help="that holds the old study's runs")
    given = parser.parse_args()
    keep(given.old, given.new, given.commit)
