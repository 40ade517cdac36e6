"""Processes of this host by pid and start time, so that a pid that was given to a stranger is never mistaken."""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Identity:
    """A process for ever: its pid, its start in clock ticks since boot, and which boot (proc_pid_stat(5))."""

    pid: int
    ticks: int
    boot: str


@dataclass(frozen=True)
class _Stat:
    state: str
    parent: int
    session: int
    ticks: int


def boot_id() -> str:
    """The id of this boot of the kernel."""
    return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def identify(pid: int) -> Identity | None:
    """The process that has this pid now; None when there is none."""
    stat = _stat(pid)
    return Identity(pid, stat.ticks, boot_id()) if stat else None


def is_alive(process: Identity) -> bool:
    """Whether exactly this process still runs. One that has ended and waits to be reaped does not."""
    stat = _stat(process.pid)
    return stat is not None and stat.ticks == process.ticks and stat.state not in "ZX" and process.boot == boot_id()


def family(leader: Identity) -> tuple[Identity, ...]:
    """The leader, its descendants and its session, as they are now."""
    stats = {pid: stat for pid in _pids() if (stat := _stat(pid))}
    members = {leader.pid} | {pid for pid, stat in stats.items() if stat.session == leader.pid}
    while grown := {pid for pid, stat in stats.items() if stat.parent in members and pid not in members}:
        members |= grown
    boot = boot_id()
    return tuple(Identity(pid, stats[pid].ticks, boot) for pid in sorted(members) if pid in stats)


def marked(variable: str) -> tuple[Identity, ...]:
    """This user's processes with `NAME=value` in the environment that they were started with."""
    wanted, boot, found = variable.encode(), boot_id(), []
    for pid in _pids():
        with suppress(OSError):
            if wanted in (PROC / str(pid) / "environ").read_bytes().split(b"\0") and (stat := _stat(pid)):
                found.append(Identity(pid, stat.ticks, boot))
    return tuple(found)


def send(process: Identity, number: signal.Signals) -> None:
    """Send a signal to exactly this process; one that has ended is fine."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process.pid)
        try:
            if is_alive(process):  # the descriptor keeps meaning the process that this line has looked at
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def wait_until_dead(processes: Iterable[Identity], seconds: float, poll: float = 0.05) -> bool:
    """Wait for all of them to end, at most `seconds`; whether they did."""
    deadline = time.monotonic() + seconds
    while any(is_alive(p) for p in processes):
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll)
    return True


def _pids() -> list[int]:
    return [int(path.name) for path in PROC.iterdir() if path.name.isdigit()]


def _stat(pid: int) -> _Stat | None:
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the command's name before it may hold anything, also spaces and brackets
    return _Stat(state=fields[0], parent=int(fields[1]), session=int(fields[3]), ticks=int(fields[19]))
