"""Mistakes of the user: one line on stderr and exit code 2, never a traceback."""

import os
import select
import sys
from collections.abc import Callable, Sequence

STDOUT = 1
EXIT_INTERRUPTED = 75
"""Exit code after SIGTERM or SIGINT: the step was finished and saved, and the same command continues the run
(EX_TEMPFAIL)."""


class UserError(Exception):
    """A mistake that the user can correct. The message is one line: what is wrong, where, and what would do."""


class RunFailed(Exception):
    """A run cannot continue, and this is not the user's mistake. The message is one line."""


class Diverged(RunFailed):
    """The loss or the gradient of a run was not finite, step after step."""


def is_main_process() -> bool:
    """Whether this is the main process of the run; launchers number the processes in RANK."""
    return int(os.environ.get("RANK", "0")) == 0


def run_command(main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 if it failed, 2 after a mistake of the user, 130 after
    Ctrl-C, 141 if its output is no longer read (as in `command | head`)."""
    try:
        try:
            main(sys.argv[1:] if argv is None else argv)
        finally:
            print(end="", flush=True)
    except (UserError, RunFailed) as error:
        _say(f"error: {error}")
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        _say("interrupted; the same command continues, or begins again")
        return 130
    except BrokenPipeError:
        if _stdout_is_read():
            raise
        _close_stdout()
        return 141
    except OSError as error:
        if not _stdout_fails():
            raise
        _close_stdout()
        _say(f"error: the output cannot be written ({error.strerror})")
        return 1
    return 0


def _say(line: str) -> None:
    if is_main_process():
        print(line, file=sys.stderr, flush=True)


def _stdout_is_read() -> bool:
    poll = select.poll()
    poll.register(STDOUT, 0)  # poll always reports errors
    return not poll.poll(0)


def _stdout_fails() -> bool:
    """Whether what was printed cannot be written: it is still there, so another attempt fails too."""
    try:
        print(end="", flush=True)
    except OSError:
        return True
    return False


def _close_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)  # python flushes again when it ends
