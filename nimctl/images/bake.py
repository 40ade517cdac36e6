"""What `docker buildx bake` is asked, and what it reports: command line, variables, digest."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nimctl import __version__
from nimctl.core.errors import NimctlError
from nimctl.core.image_names import known
from nimctl.images.source import Source, commit_time, origin, revision

# The date of an image whose source has none: that of every file in it (images/settle.py).
FILE_TIME = 946684800
_SECONDS = re.compile(r"\d{1,12}")


def bake_command(
    target: str, *, source: Source, metadata: Path, push: bool = False, compression: str | None = None
) -> list[str]:
    """The `docker buildx bake` command line; everything that may be private travels in the environment instead."""
    argv = _bake(source)
    if compression:
        output = f"type=image,push={str(push).lower()},oci-mediatypes=true,compression={compression}"
        how = ["--set", f"{known(target)}.output={output},force-compression=true"]
    else:
        how = ["--push" if push else "--load"]
    return [*argv, "--metadata-file", str(metadata), *how, known(target)]


def sbom_command(target: str, *, source: Source, folder: Path) -> list[str]:
    """The command line that brings the list of parts out of an image that was just built, into `folder`."""
    argv = [*_bake(source), "--set", f"{known(target)}.target=sbom", "--set", f"{target}.tags="]
    return [*argv, "--set", f"{target}.output=type=local,dest={folder}", target]


def _bake(source: Source) -> list[str]:
    return ["docker", "buildx", "bake", "--file", str(source.recipe / "docker-bake.hcl"), "--progress", "plain"]


def bake_variables(
    *,
    source: Source,
    tag: str,
    env: Mapping[str, str],
    platforms: Sequence[str] = (),
    base: str | None = None,
    snapshot: str | None = None,
    wheels: Path | None = None,
    ca: Path | None = None,
    pip: Path | None = None,
    proxy: Path | None = None,
) -> dict[str, str]:
    """The variables of images/docker-bake.hcl; a default of that file is kept by leaving its variable out.

    SOURCE_DATE_EPOCH of `env` wins over the date of the commit: https://reproducible-builds.org/specs/source-date-epoch/
    Raises `usage` for one that is no number of seconds.
    """
    given = {
        "BASE": base,
        "IMAGES": str(source.recipe),
        "WHEELS": str(wheels.resolve()) if wheels else "",
        "CA": str(ca.resolve()) if ca else "",
        "PIP": str(pip) if pip else "",
        "PROXY": str(proxy) if proxy else "",
        "PLATFORMS": ",".join(platforms),
        "SNAPSHOT": snapshot,
        "SOURCE": None if env.get("NIMCTL_BUILD_SOURCE") else origin(source.root),
        "TAG": tag,
        "VERSION": __version__,
        "REVISION": revision(source.root),
    }
    date = env.get("SOURCE_DATE_EPOCH") or str(commit_time(source.root) or FILE_TIME)
    if not _SECONDS.fullmatch(date):
        raise NimctlError(
            "usage",
            f"SOURCE_DATE_EPOCH is {date!r:.60}",
            cause="it is not a number of seconds since 1970",
            fix="Set it to one, such as `git log -1 --format=%ct` prints, or leave it out.",
        )
    named = {f"NIMCTL_BUILD_{key}": value for key, value in given.items() if value is not None}
    return {**named, "SOURCE_DATE_EPOCH": date}


def digest_of(target: str, metadata: Path, *, config: bool = False) -> str | None:
    """The digest that buildx reports for the target in its metadata file; None where it reports none.

    With `config` that of the configuration, which an image has before it is in any registry.
    """
    if not metadata.is_file():
        return None
    report = json.loads(metadata.read_text()).get(target, {})
    names = ["containerimage.digest", "containerimage.config.digest"]
    digest = next((report[name] for name in (names[1:] if config else names) if report.get(name)), None)
    return str(digest) if digest else None
