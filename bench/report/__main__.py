"""`python -m bench.report [RESULTS] [--reports DIR]` rebuilds every report from its records, and the site around them.

`--serve` then shows the site in a browser, until Ctrl-C. `--site-url` and `--repository` give the pages absolute
addresses for sharing, and links to commits; the front page remembers them.
`--export FILE` writes all runs below RESULTS to one JSON file, which `bench.load` reads.
`--pack STUDY` packs the runs of a study's folder into a few files for version control; `--unpack STUDY` gives each run
its `record.json`, `steps.csv` and so on again, byte for byte.
Exit status: 0 all built, 1 built without a damaged file (each is named on stderr), 2 a mistake or nothing to read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name

from bench.errors import UserError, reports_errors
from bench.records.convert import pack, unpack
from bench.records.exported import export
from bench.records.isoflop import FILE as ISOFLOP
from bench.records.targets import FILE as TARGETS
from bench.records.tuning import FILE as TUNING
from bench.report.comparison import write_report
from bench.report.load import read_results, runs_of_comparisons
from bench.report.ranking import write_ranking
from bench.web.serve import serve
from bench.web.site import Address, remembered, repository, write_site

# The file of a study -> the function, "module:name", that writes its page from that file's path; loaded when needed.
_PAGES = {
    TARGETS: "bench.report.targets:write_study",
    ISOFLOP: "bench.isoflop.pages:write_page",
    TUNING: "bench.report.tuning:write_study",
}


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Build the reports, print where they are, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="Rebuild reports from records.")
    parser.add_argument("results", nargs="?", type=Path, default=Path("results"), help="folder of records (results)")
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="folder to write to (reports)")
    parser.add_argument("--serve", action="store_true", help="then serve the reports on this machine, until Ctrl-C")
    parser.add_argument("--site-url", metavar="URL", help="where the reports are published, for links and pictures")
    parser.add_argument(
        "--repository", metavar="URL", help="of the code, for links to commits and records (in GitHub Actions, its own)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--pack", type=Path, metavar="STUDY", help="pack the runs in the folder STUDY into a few files")
    form.add_argument("--export", type=Path, metavar="FILE", help="write all runs to one JSON file; builds no report")
    form.add_argument("--unpack", type=Path, metavar="STUDY", help="unpack them again, byte for byte")
    options = parser.parse_args(arguments)
    damaged = False
    if options.pack or options.unpack:
        if (options.results, options.reports) != (parser.get_default("results"), parser.get_default("reports")):
            raise UserError("--pack and --unpack take one folder and build no report: leave out the rest.")
        print(pack(options.pack) if options.pack else unpack(options.unpack))
        return 0
    if options.export:
        runs, problems = export(options.results, options.export)
        for problem in problems:
            print(f"warning: {problem}", file=sys.stderr)
        print(f"{options.export}: {runs} runs")
        return 1 if problems else 0
    studies = [path for name in _PAGES for path in sorted(options.results.rglob(name))]
    for path in studies:
        try:
            print(resolve_name(_PAGES[path.name])(path, options.reports))
        except UserError as error:
            damaged = True
            print(f"warning: {error}", file=sys.stderr)
    if not studies or runs_of_comparisons(options.results):
        comparisons, problems = read_results(options.results)
        damaged = damaged or bool(problems)
        for comparison in comparisons:
            print(write_report(comparison, options.reports))
        if page := write_ranking(comparisons, options.reports):
            print(page)
    address = remembered(options.reports)
    url = f"{options.site_url.rstrip('/')}/" if options.site_url else address.url
    code = (options.repository or repository() or address.repository).rstrip("/")
    print(write_site(options.reports, Address(url, code)))
    if options.serve:
        serve(options.reports)
    return 1 if damaged else 0


if __name__ == "__main__":
    sys.exit(main())
