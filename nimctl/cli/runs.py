"""Finding runs in every runtime at once: Docker where an engine answers, and processes on this host."""

from nimctl.core.errors import NimctlError
from nimctl.launch.runtime import RunHandle, Runtime


def runtimes() -> list[Runtime]:
    """The runtimes that can be asked now. An engine that does not answer has no runs to show."""
    from nimctl.launch.docker import DockerRuntime
    from nimctl.launch.process import ProcessRuntime

    found: list[Runtime] = [ProcessRuntime()]
    try:
        found.insert(0, DockerRuntime.connect())
    except NimctlError:
        return found
    return found


def find(name: str | None) -> tuple[Runtime, RunHandle]:
    """The run of this name, or the only run. Raises `run-unknown` with the names that exist."""
    known = [(runtime, handle) for runtime in runtimes() for handle in runtime.list_runs()]
    matching = [pair for pair in known if name is None or pair[1].name == name]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(sorted(handle.name for _, handle in known)) or "none"
    raise NimctlError(
        "run-unknown",
        f"there is no run {name!r}" if name else "which run is meant?" if known else "nothing is running",
        cause=f"runs: {names}",
        fix="`nimctl ps` lists them; `nimctl run demo` starts one." if not known else "Name one of them.",
    )
