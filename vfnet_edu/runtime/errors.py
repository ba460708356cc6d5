"""Errors a user can act on: one line that names file, record and remedy, and an exit code that says what kind."""

import enum
import os
import sys
from collections.abc import Callable


class Exit(enum.IntEnum):
    """Exit codes of every command (0 is success, 130 Ctrl-C, 143 SIGTERM)."""

    USAGE = 2  # the command line or the recipe
    DATA = 3  # the data set was rejected
    CHECKPOINT = 4  # no usable checkpoint
    DIVERGED = 5  # a loss or a score is not finite
    STORAGE = 6  # disk full, or no permission to write
    BUSY = 7  # the run folder belongs to another run
    WORKER = 8  # a data-loading process died


class UserError(Exception):
    """Something is wrong that the user can put right.

    Args:
        what: what happened, naming the file and the record.
        remedy: what to do about it, as an instruction.
        code: the exit status of the command.
        records: everything concerned, one line each, where `what` names only the first of many.
    """

    def __init__(self, what: str, remedy: str = "", *, code: int = Exit.USAGE, records: tuple[str, ...] = ()):
        super().__init__(f"{what} ({remedy})" if remedy else what)
        self.what, self.remedy, self.code, self.records = what, remedy, code, records


def cli(main: Callable[[list[str]], None], args: list[str] | None = None) -> None:
    """Run a command: a :class:`UserError` becomes one line on stderr and its exit code, never a traceback.

    Set ``VFNET_EDU_DEBUG=1`` to see the traceback all the same.
    """
    try:
        main(sys.argv[1:] if args is None else args)
    except UserError as error:
        if os.environ.get("VFNET_EDU_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(int(error.code))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `... | head` closed our stdout: not our error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell reports a program that SIGPIPE ended
