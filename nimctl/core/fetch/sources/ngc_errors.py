"""What NGC's refusals mean. It tells little: without the right to see a model, 401, 403 and 404 all occur."""

from collections.abc import Sequence
from dataclasses import dataclass

from nimctl.core.errors import NimctlError
from nimctl.core.fetch.http import Answer
from nimctl.core.fetch.sources import listing
from nimctl.core.secret import Secret

# https://docs.nvidia.com/ngc/gpu-cloud/ngc-user-guide/index.html#generating-api-key
KEYS = "https://org.ngc.nvidia.com/setup/personal-keys"
_CATALOG = "https://catalog.ngc.nvidia.com/orgs"
_SHOWN = 20


@dataclass(frozen=True)
class Asked:
    """What was asked for: the model as `org/team/name`, its `version`, and `path` of a file or None."""

    endpoint: str
    model: str
    version: str
    key: Secret | None
    path: str | None = None

    @property
    def page(self) -> str:
        """The model's page for people."""
        org, *team, name = self.model.split("/")
        return "/".join((_CATALOG, org, *(["teams", *team] if team else []), "models", name))


def of(answer: Answer, asked: Asked) -> NimctlError:
    """The error that the refusal `answer` is."""
    if clock := listing.clock_problem(answer):
        return clock
    said = listing.words_of(
        answer, ("requestStatus", "statusDescription", "error", "detail", "title"), [asked.key] if asked.key else []
    )
    if not listing.same_origin(answer.url, asked.endpoint):
        return listing.refused(answer.url, f"{asked.endpoint} led there, and {said}")
    if answer.status in (401, 403) and asked.key is None:
        return key_missing(asked, said)
    if answer.status == 401 or (answer.status == 400 and b"org contex" in answer.body.lower()):
        return key_refused(asked.endpoint, said)
    if answer.status == 403:
        return _forbidden(asked, said)
    return _absent(asked, said) if answer.status == 404 else listing.refused(answer.url, said)


def key_missing(asked: Asked, said: str) -> NimctlError:
    """The error where a key is needed and there is none."""
    return NimctlError(
        "key-missing",
        f"{asked.model} is not for guests, and no NGC key was given",
        cause=said,
        fix=f"Make a personal key with the service NGC Catalog on {KEYS} and set NGC_API_KEY to it.",
    )


def key_refused(shown: str, said: str) -> NimctlError:
    """The error where NGC does not take the key."""
    return NimctlError(
        "key-refused",
        f"{shown} refuses the NGC key",
        cause=f"it was revoked, has ended, is not whole or is for another organisation; {said}",
        fix=f"Make a personal key (it begins with nvapi-) with the service NGC Catalog on {KEYS} and set NGC_API_KEY.",
    )


def unknown_version(asked: Asked, said: str, versions: Sequence[str]) -> NimctlError:
    """The error for a version that is not among `versions`, newest first; empty where they are not told."""
    there = ", ".join(versions[:3])
    return NimctlError(
        "weights-revision-unknown",
        f"{asked.model} has no version {asked.version!r} that can be fetched",
        cause=f"there are {there}{' and others' if len(versions) > 3 else ''}" if versions else said,
        fix=f"Choose one of the versions on {asked.page}.",
        evidence=versions[:_SHOWN],
    )


def _forbidden(asked: Asked, said: str) -> NimctlError:
    return NimctlError(
        "terms-not-accepted",
        f"this key may not fetch {asked.model}",
        cause=f"its terms were not accepted, its subscription is missing, or there is no such model: {said}",
        fix=f"Open {asked.page} with the account of the key, check the name and accept the terms there.",
    )


def _absent(asked: Asked, said: str) -> NimctlError:
    what = f"{asked.model}:{asked.version} has no file {asked.path}" if asked.path else f"NGC has no {asked.model}"
    who = "this key may not see it" if asked.key else "it is not public and no key was given"
    return NimctlError(
        "weights-not-found",
        f"{what}, or {who}",
        cause=said,
        fix=f"Check the name on {asked.page}; if it is right, set NGC_API_KEY to a key of an account that may see it.",
    )
