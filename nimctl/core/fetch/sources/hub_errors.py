"""What the Hugging Face Hub's refusals mean.

The Hub names the reason in `X-Error-Code`; without a token it answers 401 for what is private and for what does not
exist alike. https://github.com/huggingface/huggingface_hub/blob/main/src/huggingface_hub/utils/_http.py
"""

from dataclasses import dataclass

from nimctl.core.errors import NimctlError
from nimctl.core.fetch.http import Answer
from nimctl.core.fetch.sources import listing
from nimctl.core.secret import Secret

TOKENS = "https://huggingface.co/settings/tokens"


@dataclass(frozen=True)
class Asked:
    """What was asked for: `revision` as the user named it, `path` of a file or None for the repository itself."""

    endpoint: str
    repo: str
    revision: str
    token: Secret | None
    path: str | None = None

    @property
    def page(self) -> str:
        """The repository's page for people."""
        return f"{self.endpoint}/{self.repo}"


def of(answer: Answer, asked: Asked) -> NimctlError:
    """The error that the refusal `answer` is."""
    if clock := listing.clock_problem(answer):
        return clock
    code = answer.headers.get("x-error-code", "")
    said = listing.words_of(answer, ("error", "message", "error_description"), [asked.token] if asked.token else [])
    if not code and not listing.same_origin(answer.url, asked.endpoint):
        return listing.refused(answer.url, f"{asked.endpoint} led there, and {said}")
    if code == "GatedRepo":
        return _gated(asked, said)
    if answer.status in (401, 403):
        return _not_let_in(asked, said, code) if answer.status == 401 else _forbidden(asked, said)
    return _absent(asked, said, code, answer) if answer.status == 404 else listing.refused(answer.url, said)


def _gated(asked: Asked, said: str) -> NimctlError:
    if asked.token is None:
        return NimctlError(
            "key-missing",
            f"{asked.repo} asks for its terms to be accepted, and no token was given",
            cause=f"it is gated: {said}",
            fix=f"Accept the terms on {asked.page}, then set HF_TOKEN to a token from {TOKENS}.",
        )
    return NimctlError(
        "terms-not-accepted",
        f"the account of this token may not fetch {asked.repo} yet",
        cause=f"it is gated, and its terms were not accepted or the request was not granted: {said}",
        fix=f"Open {asked.page} with the account that the token belongs to and accept the terms; some authors "
        "look at each request themselves. A fine-grained token needs read access to gated repositories too.",
    )


def _not_let_in(asked: Asked, said: str, code: str) -> NimctlError:
    if asked.token is None:
        return NimctlError(
            "key-missing",
            f"{asked.repo} does not exist, or it is private or gated and no token was given",
            cause=f"{asked.endpoint} does not tell these apart without a token; {said}",
            fix=f"Check the name on {asked.page}; if it is right, set HF_TOKEN to a token from {TOKENS} that may read "
            "it.",
        )
    if code == "RepoNotFound":
        return _no_repo(asked, said)
    return NimctlError(
        "key-refused",
        f"{asked.endpoint} refuses the token",
        cause=f"it was revoked, has ended or is not whole; {said}",
        fix=f"Set HF_TOKEN to a valid token from {TOKENS}, or unset it if {asked.repo} is public.",
    )


def _forbidden(asked: Asked, said: str) -> NimctlError:
    if "disabled" in said:
        return NimctlError(
            "weights-not-found",
            f"{asked.repo} is disabled",
            cause=said,
            fix=f"See {asked.page}; use another copy of the model.",
        )
    if asked.token is None:
        return listing.refused(asked.page, said)
    return NimctlError(
        "key-refused",
        f"this token may not read {asked.repo}",
        cause=f"a fine-grained token reads only what it was made for, and accepted terms may be missing; {said}",
        fix=f"Give the token read access to the repository and to gated repositories on {TOKENS}, or accept the terms "
        f"on {asked.page}.",
    )


def _absent(asked: Asked, said: str, code: str, answer: Answer) -> NimctlError:
    if code == "RevisionNotFound" or (not code and b"nvalid rev" in answer.body):
        return NimctlError(
            "weights-revision-unknown",
            f"{asked.repo} has no revision {asked.revision!r}",
            cause=said,
            fix=f"Choose a branch, tag or commit from {asked.page}/commits/main, or leave it out for main.",
        )
    if asked.path is not None and code != "RepoNotFound":
        return NimctlError(
            "weights-not-found",
            f"{asked.repo} has no file {asked.path} at {asked.revision}",
            cause=said,
            fix=f"See {asked.page}/tree/{asked.revision}; a mirror may not hold the file although it lists it.",
        )
    return _no_repo(asked, said)


def _no_repo(asked: Asked, said: str) -> NimctlError:
    who = "this token may not see it" if asked.token else "it is private and no token was given"
    return NimctlError(
        "weights-not-found",
        f"there is no {asked.repo} on {asked.endpoint}, or {who}",
        cause=said,
        fix=f"Check the name on {asked.page}; for a private model set HF_TOKEN to a token of an account that may read "
        "it.",
    )
