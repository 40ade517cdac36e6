"""What every verb does around its work: choose the output, turn errors into exit codes, stop cleanly on Ctrl-C."""

import errno
import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Terminated(BaseException):
    """SIGTERM reached us; unwinds like KeyboardInterrupt, so that what was started is stopped."""


def verb(name: str) -> Callable[[F], F]:
    """Wrap a command: errors are rendered once, in the chosen form, and end the process with their exit code."""

    def wrap(function: F) -> F:
        @functools.wraps(function)
        def command(*args: Any, **options: Any) -> None:
            from nimctl import render

            out = render.Output.choose(
                name,
                as_json=options.get("as_json", False),
                quiet=options.get("quiet", False),
                progress=getattr(options.get("progress"), "value", "auto"),
            )
            signal.signal(signal.SIGTERM, _raise_terminated)
            try:
                function(*args, **options)
            except BaseException as error:
                _end(error, out, debug=options.get("debug", False))

        return command  # type: ignore[return-value]

    return wrap


def _raise_terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def _end(error: BaseException, out: Any, *, debug: bool) -> NoReturn:
    from nimctl.core.errors import NimctlError

    if isinstance(error, SystemExit) or type(error).__module__.startswith(("click.", "typer.")):
        raise error  # typer's own: usage errors and Exit
    if isinstance(error, BrokenPipeError):
        sys.stderr.close()  # the reader has gone; Python would complain about it on exit
        raise SystemExit(0) from None
    if debug:
        out.text(traceback.format_exc())
    failure = error if isinstance(error, NimctlError) else _translate(error)
    try:
        out.error(failure)
    except OSError as problem:  # the document cannot be written: whoever reads the exit code and stderr learns of it
        failure = unwritable(problem)
        out.error_panel(failure)
    raise SystemExit(failure.exit_code) from None


def unwritable(error: OSError) -> Any:
    """What it means that the output cannot be written, as on a full disk."""
    from nimctl.core.errors import NimctlError

    # What could not be written is still in the buffer, and would be tried again, with a traceback, at the very end.
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 (stays open until the end)
    fix = "Let the output go where there is room."
    return NimctlError("disk-full", "the output cannot be written", cause=error.strerror or str(error), fix=fix)


def _translate(error: BaseException) -> Any:
    from nimctl.core.errors import NimctlError

    if isinstance(error, KeyboardInterrupt):
        return NimctlError(
            "interrupted", "stopped by Ctrl-C", cause="the user asked for it", fix="Run the same command to go on."
        )
    if isinstance(error, Terminated):
        return NimctlError(
            "terminated", "stopped by SIGTERM", cause="another process asked for it", fix="Run the command again."
        )
    if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
        return unwritable(error)
    return NimctlError(
        "internal",
        f"{type(error).__name__}: {error}",
        cause="nobody expected this: it is a bug in nimctl",
        fix="Run it again with --debug and report the output together with `nimctl doctor --save-facts`.",
    )
