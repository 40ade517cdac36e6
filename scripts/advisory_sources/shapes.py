"""The phrases in which bulletins give versions. What is not understood is refused, never dropped."""

import re
from dataclasses import dataclass

from advisory_sources import SourceError
from nimctl.doctor.advisories import order

_VERSION = r"v?(?P<version>\d+(?:\.\d+)+(?:-?(?:rc|beta)[.\d]*)?)"
# "All [driver] versions prior to 580.159.03", "Versions before 1.2"; NVIDIA also writes "All driver version".
_BEFORE = re.compile(rf"(?:all )?(?:driver |software )?versions? (?:prior to|before|earlier than) {_VERSION}", re.I)
# "All versions up to and including v1.16.1", "Up to and including 1.2", "1.16.1 and earlier".
_UP_TO = (
    re.compile(rf"(?:all (?:driver |software )?versions? )?(?:up to|prior to) and including {_VERSION}", re.I),
    re.compile(rf"{_VERSION} (?:and|or) (?:earlier|prior|older)(?: versions)?", re.I),
)
# CSAF's own category product_version_range: "<1.2.3", "<=1.2.3", "vers:generic/<1.2.3".
_COMPARED = re.compile(rf"(?:vers:[\w-]+/)?(?P<sign><=?) ?{_VERSION}", re.I)
# "595.58.03(All versions prior to and including vGPU 20.0)": the driver's number of that release of another product.
_RELEASE_OF = re.compile(rf"{_VERSION} ?\(all versions (?:prior to|up to) and including [^()]+\)", re.I)
# "1.17.8", "v1.17", "595.71.05(vGPU 20.1)".
_EXACT = re.compile(rf"{_VERSION}(?: ?\([\w .]+\))?", re.I)
# Preconditions that stand behind a version. The catalogue's own mitigations say them again, so that a version in such
# a phrase has to be one of these; a new one wants a mitigation first.
_PRECONDITIONS = (re.compile(r" \(CDI mode only for versions prior to [\d.]+\)$"),)


@dataclass(frozen=True)
class Bound:
    """Where affected versions end: before this version, or with it."""

    version: str
    inclusive: bool


def bound(phrase: str) -> Bound:
    """The end of the affected versions that a phrase means. Raises SourceError for a phrase that is not known."""
    text = " ".join(phrase.split())
    for precondition in _PRECONDITIONS:
        text = precondition.sub("", text)
    text = text.rstrip(".")
    if found := _BEFORE.fullmatch(text):
        return Bound(release(found["version"]), inclusive=False)
    for pattern in (*_UP_TO, _RELEASE_OF):
        if found := pattern.fullmatch(text):
            return Bound(release(found["version"]), inclusive=True)
    if found := _COMPARED.fullmatch(text):
        return Bound(release(found["version"]), inclusive=found["sign"] == "<=")
    raise SourceError(f"affected versions are given in an unknown form: {phrase!r}")


def exact(phrase: str) -> str:
    """The one version that a phrase names. Raises SourceError for anything else."""
    found = _EXACT.fullmatch(" ".join(phrase.split()))
    if found is None:
        raise SourceError(f"a fixed version is given in an unknown form: {phrase!r}")
    return release(found["version"])


def release(version: str) -> str:
    """A version without `v` and Go's "+incompatible". Raises SourceError when it has no place in the order."""
    plain = version.removeprefix("v").removesuffix("+incompatible")
    if order.key(plain) is None:
        raise SourceError(f"{version!r} has no place in the order of versions")
    return plain
