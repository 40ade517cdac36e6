"""`python -m entrypoint`: the container's PID 1, and the process runtime of hosts without Docker.

    settings -> front -> cache -> gpus -> profile -> weights -> engine -> warmup -> ready

`python -m entrypoint ACTION` does one of the other actions in `actions.table`, and `-h` names them and the main
variables.

The front comes first, because `live` must be true within 0.3 s of the container's start and long before the weights:
what is imported at the top of this file is all that is loaded until nginx runs.
"""

import json
import os
import sys
import time
from typing import NoReturn

from entrypoint.actions import table, usage
from entrypoint.observability.failure import bug, tell
from entrypoint.observability.journal import Journal
from entrypoint.observability.report import Report
from entrypoint.server import Server
from entrypoint.settings import Settings, read, state_dir, wants_json_lines
from entrypoint.state import State, open_state
from nimctl import __version__
from nimctl.core.errors import NimctlError
from nimctl.core.stages import PROGRESS_SCHEMA


def dry_run(settings: Settings, journal: Journal) -> None:
    """Print what a start would do, as JSON; look at the GPUs, start nothing, fetch nothing."""
    from entrypoint import steps  # noqa: PLC0415
    from entrypoint.engine import invocation  # noqa: PLC0415
    from entrypoint.engine.model import decide_layout, peeked, with_draft  # noqa: PLC0415
    from entrypoint.settings import explain  # noqa: PLC0415
    from entrypoint.weights.checkpoint import peek  # noqa: PLC0415
    from nimctl.core.fetch import from_environment  # noqa: PLC0415

    hardware, asked = steps.hardware_of(settings), invocation.request(settings)
    device = hardware.device
    model = steps.model_for(settings, hardware, asked)
    access = from_environment(os.environ)
    model, draft = peeked(settings, model, access), invocation.draft_of(settings, model, device)
    if draft is not None and not draft.is_part_of(model.weights):
        model = with_draft(model, draft, peek(draft.address, settings.cache_path, access).weights_bytes)
    layout = decide_layout(model, hardware.cluster, asked).layout
    state = State(settings.state_dir)
    command = invocation.build_command(
        settings, model, device, layout, snapshot=model.weights, state=state, draft=draft.source if draft else None
    )
    document = {
        "schema": "nimctl.entrypoint/1",
        "settings": explain(settings),
        "device": device,
        "layout": {"name": layout.name, "because": layout.because, "unused": list(layout.unused)},
        "draft": None if draft is None else {"name": draft.shown, "source": draft.source},
        "engine": list(command.argv),
    }
    journal.line(json.dumps(document, indent=2))


def main() -> int:
    """Read the settings, then serve or explain. The exit code."""
    began = time.monotonic()
    os.umask(0o002)  # the cache is shared with other users through its group
    journal = Journal()
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
            dry_run(settings, journal)
            return 0
        state = open_state(state_dir(os.environ))
        report = Report(state, __version__)
        with report.stage("settings", began=began):
            journal.configure(level="INFO", secrets=(), as_json=wants_json_lines(os.environ))
            settings = read(os.environ, sys.argv[1:])
            journal.configure(
                level=settings.log_level,
                secrets=settings.secrets,
                as_json=settings.jsonl,
                content=settings.log_requests,
            )
        journal.start_writing()
        report.listen(journal.stage)
        for name in settings.unknown:
            journal.warning("settings", f"{name} means nothing here and is ignored")
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
    finally:
        journal.close()


def run() -> NoReturn:
    """Leave at once with `main`'s code: a thread that hangs on a dead network mount must not keep us alive."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
