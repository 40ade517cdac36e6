"""Finding runs in every runtime at once: Docker where an engine answers, and processes on this host."""

from contextlib import suppress

from nimctl.core.errors import NimctlError
from nimctl.launch.runtime import RunHandle, Runtime


def runtimes() -> list[Runtime]:
    """The runtimes that can be asked now; those of Docker come first. See `docker_silence` for why it is missing."""
    from nimctl.launch.docker import DockerRuntime
    from nimctl.launch.process import ProcessRuntime

    found: list[Runtime] = [ProcessRuntime()]
    with suppress(NimctlError):
        found.insert(0, DockerRuntime.connect())
    return found


def docker_silence() -> str | None:
    """Why Docker's runs cannot be listed, as one sentence; None when they can."""
    from nimctl.launch.docker import Engine

    try:
        Engine.connect()
    except NimctlError as error:
        return f"{error.message} ({error.cause}), so only processes are listed"
    return None


def find(name: str | None) -> tuple[Runtime, RunHandle]:
    """The run of this name, or the only run. Raises `run-unknown` with the names that exist."""
    known = [(runtime, handle) for runtime in runtimes() for handle in runtime.list_runs()]
    matching = [pair for pair in known if name is None or pair[1].name == name]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(sorted(handle.name for _, handle in known)) or "none"
    silence = docker_silence()
    raise NimctlError(
        "run-unknown",
        f"there is no run {name!r}" if name else "which run is meant?" if known else "nothing is running",
        cause=f"runs: {names}" + (f"; {silence}" if silence else ""),
        fix="`nimctl ps` lists them; `nimctl run demo` starts one." if not known else "Name one of them.",
    )
