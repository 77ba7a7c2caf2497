"""How a command reports the errors that a user can mend."""

import errno

import pytest

from bench.errors import UserError, reports_errors


def test_reports_errors_passes_arguments_and_the_exit_status_on():
    assert reports_errors(lambda words: len(words or []))(["one", "two"]) == 2
    assert reports_errors(lambda words: 0 if words is None else 1)() == 0


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("seed=x is not allowed."), 2, "error: seed=x is not allowed.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a.csv"), 2, "error: a.csv: No space left on device.\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_reports_errors_prints_one_line_without_a_traceback(error, status, line, capsys):
    @reports_errors
    def main(arguments):
        raise error

    assert main() == status
    assert capsys.readouterr() == ("", line)


def test_reports_errors_lets_faults_of_the_program_through():
    with pytest.raises(ZeroDivisionError):
        reports_errors(lambda words: 1 // 0)()
