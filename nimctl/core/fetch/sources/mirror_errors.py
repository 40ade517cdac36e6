"""What the refusals of a plain web server mean."""

from nimctl.core.errors import NimctlError
from nimctl.core.fetch.http import Answer
from nimctl.core.fetch.sources import listing


def of(answer: Answer, shown: str, *, with_key: bool) -> NimctlError:
    """The error for the final `answer` of the mirror `shown`; `with_key`: its address holds a user and password."""
    if problem := listing.clock_problem(answer):
        return problem
    if answer.status in (401, 403, 407):
        return _denied(answer, shown, with_key=with_key)
    if answer.status in (404, 410):
        return absent(shown, f"{answer.url} answered {answer.status}")
    if answer.status == 412:
        return changed(answer.url)
    return listing.refused(shown, f"{answer.url} answered {answer.status}")


def _denied(answer: Answer, shown: str, *, with_key: bool) -> NimctlError:
    if with_key:
        return NimctlError(
            "key-refused",
            f"{shown} refuses the user or the password",
            cause=f"{answer.url} answered {answer.status}",
            fix="Correct user:password@ in the address (a token goes where the password is), percent-encoded.",
        )
    return NimctlError(
        "key-missing",
        f"{shown} does not hand out the weights without a key",
        cause=f"{answer.url} answered {answer.status}",
        fix="Put user:password@ in front of the host (a token goes where the password is); they are sent to that host "
        "alone and never shown. If the folder is public, its files have to be readable by the web server.",
    )


def absent(shown: str, cause: str) -> NimctlError:
    """The error for a folder that holds nothing that we could find."""
    return NimctlError(
        "weights-not-found",
        f"{shown} is not a folder with a checkpoint",
        cause=cause,
        fix="Check the address: it names the folder that holds config.json. Where the server shows no listing, put "
        "nimctl.manifest.json, SHA256SUMS or model.safetensors.index.json there.",
    )


def changed(shown: str) -> NimctlError:
    """The error for a file that is replaced while it is fetched."""
    return NimctlError(
        "weights-source-failed",
        f"{shown} changed while it was fetched",
        cause="it is no longer what was found at the start",
        fix="Wait until the copy on the server is finished, then run it again: the folder is looked over afresh.",
    )
