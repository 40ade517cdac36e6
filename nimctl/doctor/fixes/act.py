"""Applying remedies: each command with a limit, each file kept first, and put back when something fails."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nimctl.core import command
from nimctl.core.cache import apply_init
from nimctl.core.errors import NimctlError
from nimctl.core.facts import DockerFacts
from nimctl.core.secret import redact
from nimctl.doctor.fixes import backup
from nimctl.doctor.fixes.docker import still_running
from nimctl.doctor.fixes.model import Remedy
from nimctl.launch.docker import describe_daemon

# Seconds. Docker stops its containers first when it is restarted, and may take long for each.
COMMAND_LIMIT = 120.0
DOCKER_LIMIT = 60.0
_BETWEEN_LOOKS = 0.25
_INIT = ("nimctl", "cache", "init")
_LINES, _LONGEST = 6, 300


@dataclass(frozen=True)
class Tools:
    """What acts. `stamp` (UTC) is in the names of copies; `docker` looks at the daemon, which may be restarting."""

    stamp: str
    run: Callable[[Sequence[str]], command.Result] = lambda argv: command.run(argv, timeout=COMMAND_LIMIT)
    init_cache: Callable[[Path], object] = apply_init
    docker: Callable[[], DockerFacts] = describe_daemon
    docker_limit: float = DOCKER_LIMIT


@dataclass(frozen=True)
class Outcome:
    """What became of a remedy: applied, failed with `error`, or neither: it was refused, or not reached."""

    remedy: Remedy
    applied: bool = False
    error: NimctlError | None = None

    def to_json(self) -> dict[str, Any]:
        """The remedy and what became of it, as a part of a JSON document."""
        error = self.error.to_json() if self.error else None
        return {**self.remedy.to_json(), "applied": self.applied, "error": error}


def apply(
    remedies: Sequence[Remedy], tools: Tools, on_command: Callable[[str], None] = lambda _: None
) -> tuple[Outcome, ...]:
    """Apply the remedies that are not refused, in order, up to the first that fails; later ones may rest on it.

    Ctrl-C puts back the files of the remedy that it meets, and passes on.
    """
    outcomes: list[Outcome] = []
    for remedy in remedies:
        if remedy.refused or any(o.error is not None and o.error.id == "fix-failed" for o in outcomes):
            outcomes.append(Outcome(remedy))
            continue
        try:
            _apply(remedy, tools, on_command)
            outcomes.append(Outcome(remedy, applied=True))
        except NimctlError as error:
            outcomes.append(Outcome(remedy, error=error))
    return tuple(outcomes)


@dataclass
class _Attempt:
    """How far a remedy came."""

    kept: list[backup.Kept] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    docker_asked: bool = False


def _apply(remedy: Remedy, tools: Tools, on_command: Callable[[str], None]) -> None:
    if remedy.docker == "restart" and (reason := still_running(tools.docker().containers)):
        raise NimctlError(
            "fix-refused",
            f"{remedy.id} was not applied",
            cause=reason,
            fix="Stop them (`nimctl stop`, `docker stop`), then run `nimctl doctor --fix` again.",
        )
    attempt = _Attempt()
    try:
        for path in remedy.backs_up:
            attempt.kept.append(_keep(remedy, Path(path), tools))
        for argv in remedy.commands:
            if remedy.docker and argv == remedy.commands[-1]:
                _require_nothing_lost(remedy, attempt)
                attempt.docker_asked = True
            on_command(shlex.join(argv))
            _run(remedy, argv, tools)
            attempt.done.append(shlex.join(argv))
        if remedy.docker:
            _wait_for_docker(remedy, tools)
    except BaseException as error:
        told = _undo(remedy, attempt, tools, on_command)
        if isinstance(error, NimctlError):
            raise NimctlError(
                error.id, error.message, cause=error.cause, fix=error.fix, evidence=(*error.evidence, *told)
            ) from error
        for line in told:
            on_command(f"# {line}")
        raise
    finally:
        for kept in attempt.kept:
            if not _changed(kept):
                backup.forget(kept)


def _keep(remedy: Remedy, path: Path, tools: Tools) -> backup.Kept:
    try:
        return backup.keep(path, tools.stamp)
    except OSError as error:
        raise _failed(
            remedy, f"{path} could not be kept", str(error.strerror), "Nothing was changed; see its folder."
        ) from error


def _run(remedy: Remedy, argv: Sequence[str], tools: Tools) -> None:
    plain = tuple(argv[1:] if argv[0] == "sudo" else argv)
    if plain[:3] == _INIT:
        try:
            tools.init_cache(Path(plain[3]))
        except NimctlError as error:
            raise _failed(remedy, error.message, f"{error.cause} [{error.id}]", error.fix) from error
        return
    result = tools.run(argv)
    if result.ok:
        return
    line = shlex.join(argv)
    if result.missing:
        cause = f"there is no program {argv[0]}"
    elif result.timed_out:
        cause = f"it did not end within {COMMAND_LIMIT:g} s, and was ended"
    else:
        cause = f"it ended with {result.code}"
    said = [redact(text)[:_LONGEST] for text in (result.stderr or result.stdout).splitlines() if text.strip()]
    cause += f": {said[-1].strip()}" if said else ""
    raise _failed(remedy, f"`{line}` failed", cause, f"Type it by hand to see more: {line}", said[-_LINES:])


def _require_nothing_lost(remedy: Remedy, attempt: _Attempt) -> None:
    for kept in attempt.kept:
        if gone := backup.lost(kept):
            raise _failed(
                remedy,
                f"{kept.path} lost a setting: {gone}",
                "nvidia-ctk wrote more than it was asked for, so that Docker was not told to read it",
                f"Add by hand what it was to add to {kept.path}: {remedy.changes}.",
            )


def _wait_for_docker(remedy: Remedy, tools: Tools) -> None:
    """Wait until the daemon answers and knows what it was to learn."""
    until = time.monotonic() + tools.docker_limit
    while True:
        docker = tools.docker()
        if docker.state == "ok" and remedy.runtime in ("", *docker.runtimes):
            return
        if time.monotonic() >= until:
            break
        time.sleep(_BETWEEN_LOOKS)
    if docker.state == "ok":
        cause = f"it answers, and does not know the runtime {remedy.runtime}"
    else:
        cause = docker.detail or f"its state is {docker.state}"
    raise _failed(
        remedy,
        f"Docker did not take over the change within {tools.docker_limit:g} s",
        cause,
        "`sudo journalctl -u docker -n 50` says why; after a reload alone, try `sudo systemctl restart docker` "
        "(running containers stop unless live-restore is on).",
    )


def _undo(remedy: Remedy, attempt: _Attempt, tools: Tools, on_command: Callable[[str], None]) -> list[str]:
    """Put back the files, and have Docker read them again. Says what was changed and what was not; never raises."""
    told = [f"changed: {line}" for line in attempt.done if not attempt.kept]
    for kept in attempt.kept:
        if not _changed(kept):
            told.append(f"not changed: {kept.path}")
            continue
        try:
            backup.put_back(kept)
            told.append(f"put back as it was: {kept.path}")
        except OSError as error:
            told.append(f"changed, and could not be put back ({error.strerror}): {kept.path}, kept as {kept.copy}")
    if attempt.docker_asked and attempt.kept:
        argv = remedy.commands[-1]
        on_command(shlex.join(argv))
        again = tools.run(argv)
        told.append(f"{'done' if again.ok else 'failed'} with the file as it was: {shlex.join(argv)}")
    reached = len(attempt.done) + 1
    told += [f"not run: {shlex.join(argv)}" for argv in remedy.commands[reached:]]
    return told


def _changed(kept: backup.Kept) -> bool:
    try:
        return kept.changed
    except OSError:
        return True  # it cannot be told, so the copy stays


def _failed(remedy: Remedy, message: str, cause: str, fix: str, evidence: Sequence[str] = ()) -> NimctlError:
    return NimctlError(
        "fix-failed", f"{remedy.id}: {message}", cause=cause or "no reason was given", fix=fix, evidence=evidence
    )
