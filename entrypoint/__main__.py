"""`python -m entrypoint`: the container's PID 1, and the process runtime of hosts without Docker.

    settings -> front -> cache -> gpus -> profile -> weights -> engine -> warmup -> ready

`python -m entrypoint download-to-cache` does the weights alone: see `download`. `list-model-profiles` and
`model-manifest` print what `profiles` tells, and `-h` names the actions and the main variables.

The front comes first, because `live` must be true within 0.3 s of the container's start and long before the weights:
what is imported at the top of this file is all that is loaded until nginx runs.
"""

import json
import os
import sys
import time
from typing import NoReturn

from entrypoint.actions import usage
from entrypoint.front import Front, check_port, command, find_nginx, render
from entrypoint.observability.journal import Journal
from entrypoint.observability.report import Report
from entrypoint.processes.supervisor import Died, Event, Finished, Stop, Supervisor
from entrypoint.settings import DOWNLOAD, LIST_PROFILES, MANIFEST, Settings, read, state_dir
from entrypoint.state import State, open_state, write_atomically
from nimctl import __version__
from nimctl.core.errors import NimctlError
from nimctl.core.stages import PROGRESS_SCHEMA

# How long an engine that fails a request may take to die of it: its death tells the cause, the failed request does not.
_SECONDS_TO_DIE = 5.0
# How long a download may take to give up its place in the cache; without that, the next one has to claim it.
_SECONDS_TO_LEAVE = 0.5


class Server:
    """One start, one service, one end."""

    def __init__(self, settings: Settings, state: State, report: Report, journal: Journal) -> None:
        self.settings = settings
        self.state = state
        self.report = report
        self.journal = journal
        self.supervisor = Supervisor()

    def start(self) -> None:
        """The recipe. Runs beside `serve`, so that a signal never waits for it."""
        stage = self.report.stage
        with stage("front"):
            front = self._raise_front()
        from entrypoint import steps  # noqa: PLC0415 (nothing of it is needed for `live`)

        run = steps.Run(self.settings, os.environ, self.state, self.report, self.journal, self.supervisor)
        with stage("cache"):
            writable = steps.probe_cache(run)
        with stage("gpus"):
            hardware = steps.find_gpus(run)
        with stage("profile"):
            profile = steps.choose_profile(run, hardware)
        with stage("weights"):
            snapshots = steps.fetch_weights(run, profile)
        with stage("engine"):
            served_name = steps.start_engine(run, hardware, profile, snapshots, cache_writable=writable)
        with stage("warmup"):
            steps.warm_up(run, front, profile, served_name)
        self.report.ready()
        seconds = ", ".join(f"{s.name} {s.seconds:.1f}" for s in self.report.current.stages if s.seconds is not None)
        self.journal.info("ready", f"{served_name} after {self.report.elapsed:.1f} s: {seconds}")

    def _raise_front(self) -> Front:
        front = Front(self.settings.host, self.settings.port, os.urandom(32).hex())
        check_port(front)
        text = render(front, self.state, cpus=os.cpu_count() or 1, log_level=self.settings.log_level)
        write_atomically(self.state.nginx_config, text, mode=0o600)
        argv = command(find_nginx(os.environ.get("PATH")), self.state)
        environ = {name: os.environ[name] for name in ("PATH", "TZ") if name in os.environ}
        child = self.supervisor.spawn("front", argv, env=environ, cwd=self.state.root, on_line=self.journal.line)
        from entrypoint import steps  # noqa: PLC0415 (while nginx starts)
        from entrypoint.front import documents  # noqa: PLC0415 (while nginx starts)

        steps.await_front(front, child)
        self.journal.info("front", f"listening on {front.host} port {front.port}")
        document = documents.version(__version__, steps.installed_vllm())
        write_atomically(self.state.public / "version.json", json.dumps(document))
        return front

    def serve(self) -> int:
        """Start, then wait for the end. The exit code of the process."""
        self.supervisor.run_start(self.start)
        try:
            return self._watch()
        finally:
            self.supervisor.kill_all()  # nothing is left behind, whatever happened above

    def _watch(self) -> int:
        while True:
            event = self.supervisor.next_event(1.0)
            if event is None:
                self.report.touch()
            elif isinstance(event, Stop):
                return self._stop(event)
            elif isinstance(event, Died):
                return self._died(event)
            elif event.error is not None:
                return self._start_failed(event)

    def _stop(self, event: Stop) -> int:
        from entrypoint.processes import ending  # noqa: PLC0415

        self.journal.info("stop", f"signal {event.signal}: stopping")
        ending.drain_and_stop(self.supervisor, self.state, self.report, self.journal, self.settings.drain_seconds)
        self._leave_in_order()
        self.journal.info("stop", "stopped")
        return 128 + event.signal

    def _start_failed(self, event: Finished) -> int:
        """A request that fails because the engine is dying is told as what it is: the engine's death."""
        error = event.error
        if isinstance(error, NimctlError) and error.id in ("warmup-failed", "front-died"):
            following = self._death_within(_SECONDS_TO_DIE)
            if isinstance(following, Died):
                return self._died(following)
            if isinstance(following, Stop):
                return self._stop(following)
        if not isinstance(error, NimctlError):
            error = bug(error)
        return self._fail(error, None)

    def _leave_in_order(self) -> None:
        """Let a download, which knows that we stop, give up its place in the cache."""
        stage = self.report.current.current
        if stage is not None and stage.name in ("profile", "weights"):
            self.supervisor.await_start(_SECONDS_TO_LEAVE)

    def _death_within(self, seconds: float) -> Event | None:
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            event = self.supervisor.next_event(remaining)
            if isinstance(event, (Died, Stop)):
                return event
        return None

    def _died(self, event: Died) -> int:
        from entrypoint.processes.classify import Death, classify  # noqa: PLC0415
        from entrypoint.processes.oom import oom_kills  # noqa: PLC0415

        child = event.child
        assert child.exit is not None
        serving = self.report.current.state == "ready"
        self.report.withdraw()
        child.finish_output(0.5)
        kills = max(0, oom_kills() - self.supervisor.oom_kills_before)
        error = classify(Death(child.name, child.exit, tuple(child.lines), kills, serving))
        return self._fail(error, event)

    def _fail(self, error: NimctlError, death: Died | None) -> int:
        from entrypoint.processes import ending  # noqa: PLC0415

        stage = self.report.current.current
        record = ending.crash_record(error, death.child if death else None, stage.name if stage else None, self.journal)
        self.report.failed(record["error"])
        ending.stop_after_failure(self.supervisor)
        self._leave_in_order()
        ending.write_crash(self.state, record)
        tell(error, self.journal)
        return error.exit_code


def bug(error: BaseException | None) -> NimctlError:
    """An exception that nobody translated, as an error of the catalogue; its traceback goes to stderr."""
    import traceback  # noqa: PLC0415

    traceback.print_exception(error)
    return NimctlError(
        "internal",
        f"an unexpected {type(error).__name__}",
        cause=str(error) or "it says nothing more",
        fix="This is a bug in nimctl: please report it with the traceback above.",
    )


def tell(error: NimctlError, journal: Journal) -> None:
    """One block for people on stderr, one JSON line for machines as the last line on stdout."""
    evidence = "".join(f"\n    {line}" for line in error.evidence)
    block = f"error[{error.id}] {error.message}\n  cause: {error.cause}\n  fix: {error.fix}{evidence}"
    sys.stderr.write(journal.clean(block) + "\n")
    sys.stderr.flush()
    schema = {"schema": PROGRESS_SCHEMA} if sys.argv[1:2] == [DOWNLOAD] else {}  # as its other lines have it
    journal.line(json.dumps({**schema, "event": "failed", "error": error.to_json()}))


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
        if sys.argv[1:2] == [DOWNLOAD]:
            from entrypoint.actions import download  # noqa: PLC0415 (it needs no front, and serving no download)

            return download.main(os.environ, sys.argv[2:], journal)
        if sys.argv[1:2] in ([LIST_PROFILES], [MANIFEST]):
            from entrypoint.actions import profiles  # noqa: PLC0415

            act = profiles.list_profiles if sys.argv[1] == LIST_PROFILES else profiles.print_manifest
            return act(os.environ, sys.argv[2:], journal)
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
            settings = read(os.environ, sys.argv[1:])
            journal.configure(level=settings.log_level, secrets=settings.secrets)
        for name in settings.unknown:
            journal.warning("settings", f"{name} means nothing here and is ignored")
        return Server(settings, state, report, journal).serve()
    except Exception as error:  # the last one who can say what went wrong
        if not isinstance(error, NimctlError):
            error = bug(error)
        if report is not None:
            report.failed(error.to_json())
        tell(error, journal)
        return error.exit_code


def run() -> NoReturn:
    """Leave at once with `main`'s code: a thread that hangs on a dead network mount must not keep us alive."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
