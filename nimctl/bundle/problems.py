"""The errors of this room."""

from collections.abc import Sequence

from nimctl.core.errors import NimctlError

_SHOWN = 20


def invalid(cause: str, where: str = "this folder") -> NimctlError:
    """What lies there is no bundle, or none that can be used."""
    return NimctlError(
        "bundle-invalid",
        f"{where} is no bundle that can be used",
        cause=cause,
        fix="Name the folder that holds bundle.json as `nimctl bundle create` wrote it, or make it anew where there is "
        "a network.",
    )


def damaged(where: str, files: Sequence[str], *, cause: str | None = None) -> NimctlError:
    """`files` are `name: what is wrong with it`."""
    return NimctlError(
        "bundle-damaged",
        f"{len(files)} {'file' if len(files) == 1 else 'files'} of the bundle {where} "
        f"{'is' if len(files) == 1 else 'are'} not as packed",
        cause=cause or files[0],
        fix="Copy the named files again from where the bundle was made, then verify it again.",
        evidence=files[:_SHOWN],
    )


def incomplete(where: str, cause: str, files: Sequence[str] = ()) -> NimctlError:
    """It was never finished, or something was left behind."""
    return NimctlError(
        "bundle-incomplete",
        f"the bundle {where} is not complete",
        cause=cause,
        fix="Carry the missing files over too, then try it again."
        if files
        else "Run the same `nimctl bundle create` again: it goes on where it ended.",
        evidence=files[:_SHOWN],
    )


def stopped(what: str) -> NimctlError:
    """Ctrl-C or SIGTERM."""
    return NimctlError(
        "interrupted",
        f"{what} was stopped",
        cause="somebody asked for it",
        fix="Run it again: it goes on where it stopped.",
    )
