"""What a registry's refusal means, and the way out."""

import json
import re

from nimctl.core.errors import NimctlError
from nimctl.core.secret import redact
from nimctl.registry.login import Login
from nimctl.registry.reference import Reference
from nimctl.registry.transport import Response

NVIDIA = "nvcr.io"
KEYS_PAGE = "https://org.ngc.nvidia.com/setup/api-keys"

_TERMS = re.compile(r"\bterms\b|\beula\b|licen[cs]e agreement|\baccept(ed|ance)?\b", re.IGNORECASE)
# Organisations of NVIDIA's catalogue, which everybody may see; every other first part of a path is a private one.
_CATALOGUE = ("nim", "nvidia")
_SHOWN = 300


def denial(
    registry: str,
    response: Response,
    credentials: Login | None,
    reference: Reference | None = None,
    *,
    key_taken: bool = True,
) -> NimctlError:
    """The error for an answer that is not 200, to a login (no `reference`) or to a request for an image.

    `key_taken`: the registry accepted the key before this answer, so that a 403 is about the image. Token services
    answer 403 to wrong keys too (GitHub's does).
    """
    said = _said(response, credentials)
    evidence = [f"{registry} answered {response.status}{': ' if said else ''}{said}"]
    what = f"{registry} refused the key" if reference is None else f"{registry} refused {reference}"
    if response.status in (401, 402, 403):
        if credentials is None:
            return _key_missing(registry, reference, evidence)
        if reference and (denied := _not_entitled(reference, response, said, key_taken)):
            error_id, cause, fix = denied
            return NimctlError(error_id, what, cause=cause, fix=fix, evidence=evidence)
        cause, fix = _key_refused(registry, response.status)
        return NimctlError("key-refused", what, cause=cause, fix=fix, evidence=evidence)
    if response.status == 404 and reference:
        return NimctlError(
            "image-not-found",
            f"{reference} does not exist",
            cause=f"{registry} knows no such repository or tag, or hides it from this key",
            fix="Check the name and the tag.",
            evidence=evidence,
        )
    if response.status == 429:
        return _rate_limited(registry, response, credentials, evidence)
    return _out_of_order(registry, response.status, evidence)


def terms_page(reference: Reference) -> str:
    """The page on which the terms of an image are accepted, in words where only the registry knows it."""
    if "/" not in reference.repository or not _is_nvidias(reference):
        return f"the page of {reference.repository} on {reference.registry}"
    org, *teams, name = reference.repository.split("/")
    team = f"/teams/{teams[0]}" if teams else ""
    return f"https://catalog.ngc.nvidia.com/orgs/{org}{team}/containers/{name}"


def challenge_error(response: Response) -> str:
    """What the challenge of a 401 says beside how to log in: `invalid_token`, `insufficient_scope`; else empty.

    https://datatracker.ietf.org/doc/html/rfc6750#section-3.1
    """
    for line in response.challenges:
        if found := re.search(r'\berror="?(\w+)', line):
            return found[1]
    return ""


def _is_nvidias(reference: Reference) -> bool:
    """True for NVIDIA's own registry and for its mirrors, which keep the path."""
    return reference.registry == NVIDIA or reference.repository.startswith("nim/")


def _key_missing(registry: str, reference: Reference | None, evidence: list[str]) -> NimctlError:
    nowhere, source = "none is stored for it", ""
    if registry == NVIDIA:
        nowhere = "none is stored for it, and NGC_API_KEY is not set"
        source = f", or export NGC_API_KEY; make a Personal API Key at {KEYS_PAGE}"
    return NimctlError(
        "key-missing",
        f"{reference or registry} cannot be pulled without a key",
        cause=f"{registry} asks for a login, and {nowhere}; the image may also not exist",
        fix=f"Log in: `nimctl login {registry}`{source}.",
        evidence=evidence,
    )


def _not_entitled(reference: Reference, response: Response, said: str, key_taken: bool) -> tuple[str, str, str] | None:
    """Id, cause and fix where the key is good and gives no right to the image; None where the key itself is refused.

    NVIDIA's registry says no more than "Access Denied" (https://github.com/NVlabs/alpasim/issues/44), so that the path
    decides which of both causes is named first. Docker Hub and others give a token without rights, and then refuse it.
    """
    again = f"log in with a key of an organisation that may: `nimctl login {reference.registry}`."
    if response.status == 402:
        return (
            "payment-required",
            "the organisation of the key has no entitlement to this image (payment required)",
            "Join the NVIDIA Developer Program or get an NVIDIA AI Enterprise licence, or log in with a key of an "
            f"organisation that has one: `nimctl login {reference.registry}`.",
        )
    organisation = reference.repository.partition("/")[0]
    listed = _is_nvidias(reference) and organisation in _CATALOGUE
    if response.status == 403 and (listed or _TERMS.search(said)):
        return (
            "terms-not-accepted",
            "the terms of this image have not been accepted, or the key belongs to another organisation or lacks the "
            "service NGC Catalog",
            f"Open {terms_page(reference)} and accept the terms in the organisation of the key; else log in with "
            f"another key: `nimctl login {reference.registry}`.",
        )
    hidden = challenge_error(response) == "insufficient_scope"
    if hidden or (response.status == 403 and (key_taken or _is_nvidias(reference))):
        return (
            "organisation-wrong",
            f"the key is good, and gives no access to the images of {organisation}: it was made in another "
            "organisation or team, or without the right to pull" + ("; or there is no such image" if hidden else ""),
            f"Have a member of {organisation} invite you, then make the key there; or {again}",
        )
    return None


def _key_refused(registry: str, status: int) -> tuple[str, str]:
    if status == 403:
        return "the key is wrong, or gives no access here", f"Use a key that may: `nimctl login {registry}`."
    again = f"then log in again: `nimctl login {registry}`."
    if registry == NVIDIA:
        again = f"or make a new Personal API Key with the service NGC Catalog at {KEYS_PAGE}, {again}"
    return "the key is wrong, expired or revoked", f"Check the key, {again}"


def _rate_limited(registry: str, response: Response, credentials: Login | None, evidence: list[str]) -> NimctlError:
    wait = _retry_after(response)
    higher = "" if credentials else f" Who logs in has a limit of his own: `nimctl login {registry}`."
    return NimctlError(
        "image-rate-limited",
        f"{registry} refuses further requests for now",
        cause=f"too many requests were made {'with this login' if credentials else 'from this address'}"
        + (f"; it asks to wait {wait}" if wait else ", and it does not say for how long"),
        fix=f"Wait {wait or 'some minutes (Docker Hub counts over six hours)'}, then try again.{higher}",
        evidence=evidence,
    )


def _retry_after(response: Response) -> str:
    """Retry-After in words, empty without one: seconds, or a date, https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3."""
    told = response.headers.get("retry-after", "").strip()
    if told.isascii() and told.isdecimal():
        return f"{int(told[:9])} s"
    return f"until {told}" if re.fullmatch(r"[A-Z][a-z]{2}, [0-9A-Za-z: ]{16,24} GMT", told) else ""


def _out_of_order(registry: str, status: int, evidence: list[str]) -> NimctlError:
    if status >= 500:
        cause, fix = f"the registry is out of order (status {status})", "Try again later; its status page may say more."
    else:
        cause, fix = (
            f"status {status} is no answer of a container registry",
            "Check the registry's name and any proxy on the way.",
        )
    return NimctlError("image-pull-failed", f"{registry} could not be asked", cause=cause, fix=fix, evidence=evidence)


def _said(response: Response, credentials: Login | None) -> str:
    """The registry's own words in one short line, free of secrets."""
    text = response.body.decode("utf-8", errors="replace")
    try:
        errors = json.loads(text)["errors"]
        text = "; ".join(f"{e.get('code', '')} {e.get('message', '')} {e.get('detail') or ''}".strip() for e in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        text = re.sub(r"<[^>]*>", " ", text)
    printable = "".join(c if c.isprintable() else " " for c in text)
    secrets = [credentials.password, credentials.encoded] if credentials else []
    return redact(" ".join(printable.split()), secrets)[:_SHOWN]
