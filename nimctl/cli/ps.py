"""`nimctl ps`: what runs."""

from nimctl.cli.options import Debug, Json, Quiet
from nimctl.cli.verb import verb


@verb("ps")
def ps(as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:  # read by @verb
    """List the runs that nimctl started, running or dead.

    Example:  nimctl ps --json
    """
    from nimctl.cli.runs import docker_silence, runtimes
    from nimctl.launch import progress
    from nimctl.render import Output

    out = Output.choose("ps", as_json=as_json, quiet=quiet)
    rows = []
    for runtime in runtimes():
        for handle in runtime.list_runs():
            state = runtime.state(handle)
            rows.append({**handle.to_json(), "status": progress.describe(handle, state)})
    out.document({"runs": rows})
    if out.mode == "quiet":
        for row in rows:
            out.result(str(row["name"]))
    elif out.mode == "human":
        if silence := docker_silence():
            out.text(silence, style="dim")
        out.table(
            ("NAME", "RUNTIME", "STATUS", "URL", "IMAGE"),
            [[str(row[key] or "-") for key in ("name", "runtime", "status", "url", "image")] for row in rows],
        )
