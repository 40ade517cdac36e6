"""`python -m entrypoint`: the container's PID 1, and the process runtime of hosts without Docker.

    settings -> front -> cache -> gpus -> profile -> weights -> engine -> warmup -> ready

`python -m entrypoint ACTION` does one of the other actions in `actions.table`, and `-h` names them and the main
variables.

The front comes first, because `live` must be true within 0.3 s of the container's start and long before the weights:
what is imported at the top of this file is all that is loaded until nginx runs.
"""

import os
import sys
import time
from contextlib import suppress
from typing import NoReturn

from entrypoint.actions import table, usage
from entrypoint.observability.failure import bug, tell
from entrypoint.observability.journal import Journal
from entrypoint.observability.report import Report
from entrypoint.server import Server
from entrypoint.settings import read, state_dir, wants_json_lines
from entrypoint.state import open_state
from nimctl import __version__
from nimctl.core.errors import NimctlError
from nimctl.core.stages import PROGRESS_SCHEMA


def main(journal: Journal) -> int:
    """Read the settings, then serve or explain. The exit code."""
    began = time.monotonic()
    os.umask(0o002)  # the cache is shared with other users through its group
    report: Report | None = None
    try:
        if action := table.asked(sys.argv[1:]):
            return action.load()(os.environ, sys.argv[2:], journal)
        if usage.is_wanted(sys.argv[1:]):
            journal.line(usage.text())
            return 0
        if "--dry-run" in sys.argv[1:]:
            settings = read(os.environ, sys.argv[1:])
            journal.configure(level=settings.log_level, secrets=settings.secrets)
            from entrypoint.actions.dry_run import dry_run  # noqa: PLC0415 (a start needs nothing of it)

            dry_run(settings, os.environ, journal)
            return 0
        state = open_state(state_dir(os.environ))
        report = Report(state, __version__, clean=journal.clean_document)
        with report.stage("settings", began=began):
            journal.configure(level="INFO", secrets=(), as_json=wants_json_lines(os.environ))
            settings = read(os.environ, sys.argv[1:])
            journal.configure(
                level=settings.log_level,
                secrets=settings.secrets,
                as_json=settings.jsonl,
                content=settings.log_requests,
            )
            if settings.otel:
                from entrypoint.observability import otel  # noqa: PLC0415

                otel.variables(settings, os.environ)  # what is wrong with it is said now, not after the download
        journal.start_writing()
        report.listen(journal.stage)
        for sentence in settings.unknown:
            journal.warning("settings", sentence)
        if settings.sources["NIM_RECIPE"] == "image":
            journal.info("settings", f"no model was named: {settings.recipe}, this image's own, is served")
        return Server(settings, state, report, journal).serve()
    except Exception as error:  # the last one who can say what went wrong
        if not isinstance(error, NimctlError):
            error = bug(error)
        if report is not None:
            report.failed(error.to_json())
        action = table.asked(sys.argv[1:])
        schema = {"schema": PROGRESS_SCHEMA} if action and action.speaks_json else {}  # as its other lines have it
        tell(error, journal, schema)
        return error.exit_code


def run() -> NoReturn:
    """Leave at once with `main`'s code.

    Neither a thread that hangs on a dead network mount nor one that writes to a pipe which nobody reads keeps us alive.
    """
    journal = Journal()
    try:
        code = main(journal)
    finally:
        written = journal.close()
    if written:
        with suppress(OSError):  # nobody is there to read it
            sys.stdout.flush()
            sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
