"""`python -m bench.generate RUN "prompt"`: text from a trained run, printed as it is generated.

RUN is a run's folder or its id below results/. The text goes to stdout, counts and times to stderr.
Exit status: 0 done, 2 a mistake, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UserError, reports_errors

if TYPE_CHECKING:
    from bench.runs.load import TrainedRun


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the text with which a run continues a prompt; returns the exit status."""
    options = _parser().parse_args(arguments)
    _check(options)
    from bench.runs.load import find_run, load_run

    run = load_run(find_run(options.run, options.results))
    _print_text(run, options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.generate", description="Text from a trained run.")
    parser.add_argument("run", help="a run's folder, or its id below the results folder")
    parser.add_argument("prompt", help="the beginning of the text; empty: the start of a document")
    parser.add_argument("--max-tokens", type=int, default=256, help="stop after this many tokens (256)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: always the most likely token (0.8)")
    parser.add_argument(
        "--top-p", type=float, default=0.95, help="sample from the most likely tokens that hold this probability (0.95)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling (0)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of runs (results)")
    return parser


def _check(options: argparse.Namespace) -> None:
    if options.max_tokens < 1:
        raise UserError(f"--max-tokens {options.max_tokens} is not allowed: it must be at least 1.")
    if not 0 <= options.temperature < float("inf"):
        raise UserError(f"--temperature {options.temperature} is not allowed: it must be 0 or more.")
    if not 0 < options.top_p <= 1:
        raise UserError(f"--top-p {options.top_p} is not allowed: it must be more than 0 and at most 1.")
    if not 0 <= options.seed < 2**63:
        raise UserError(f"--seed {options.seed} is not allowed: it must be 0 or more, and less than 2**63.")
    try:
        options.prompt.encode()
    except UnicodeEncodeError:
        raise UserError("the prompt holds bytes that are not UTF-8; give it as UTF-8 text.") from None


def _print_text(run: TrainedRun, options: argparse.Namespace) -> None:
    prompt = run.tokenizer.encode(options.prompt) or [run.tokenizer.eot]
    if len(prompt) > run.model.context:
        print(
            f"note: the prompt has {len(prompt):,} tokens; the model reads the last {run.model.context:,}.",
            file=sys.stderr,
        )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character shows a mark
    started, made, shown = time.perf_counter(), 0, 0
    for text in stream(run, prompt, options):
        print(text[shown:], end="", flush=True)
        made, shown = made + 1, len(text)
    print(flush=True)
    seconds = time.perf_counter() - started
    tokens = "1 token" if made == 1 else f"{made:,} tokens"
    print(f"{tokens} in {seconds:.1f} s, {made / seconds:,.0f} tokens/s", file=sys.stderr)


def stream(run: TrainedRun, prompt: list[int], options: argparse.Namespace) -> Iterator[str]:
    """The text so far after each new token; a character is shown once its last byte is there."""
    import torch

    from bench.model.sampling import Continuations, choose

    if run.model.device.type == "cpu":
        run.model.lay_out_for_decoding()
    generator = torch.Generator().manual_seed(options.seed)
    with torch.inference_mode():
        text = Continuations(run.model, [prompt])
        made: list[int] = []
        for number in range(options.max_tokens):
            if not text.logits.isfinite().all():
                raise UserError("the model's output is not finite: its weights are damaged. Train the run again.")
            token = choose(text.logits[0], options.temperature, options.top_p, generator)
            if token == run.tokenizer.eot:
                break
            made.append(token)
            last = number == options.max_tokens - 1
            yield run.tokenizer.decode(made) if last else whole_characters(run.tokenizer.decode(made))
            if not last:
                text.go_on([token])


def whole_characters(text: str) -> str:
    """`text` without an incomplete last character."""
    return text.removesuffix("\ufffd")


if __name__ == "__main__":
    sys.exit(main())
