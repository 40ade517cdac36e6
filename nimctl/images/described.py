"""What a finished build tells of itself: the parts of its images, and all that went into it."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nimctl import __version__
from nimctl.core.command import run
from nimctl.images.progress import Step
from nimctl.images.provenance import Inputs
from nimctl.images.source import Source, revision

_BASE = re.compile(r"\[[^\]]+\] FROM (?P<name>\S+?)(?:@(?P<digest>sha256:[0-9a-f]{64}))?")


def read_sboms(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The lists of parts that BuildKit wrote: one, or one a platform in a folder such as `linux_arm64`."""
    files = sorted(folder.rglob("sbom.cdx.json"))
    return {
        "" if file.parent == folder else file.parent.name.replace("_", "/"): json.loads(file.read_text("utf-8"))
        for file in files
    }


def inputs_of(target: str, env: Mapping[str, str], source: Source, steps: Sequence[Step]) -> Inputs:
    """What went into the build, as BuildKit and the tools tell it; `env` is what the client was started with."""
    base, digest = _base(env, steps)
    files = sorted(path for path in source.recipe.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    other = "cuda" if target == "cpu" else "cpu"
    mine = [path for path in files if path.relative_to(source.recipe).parts[0] != other]
    asked = {"buildx": ["docker", "buildx", "version"], "docker": ["docker", "version", "-f", "{{.Server.Version}}"]}
    said = {name: run(argv, timeout=20.0, env=env).stdout.strip() for name, argv in asked.items()}
    return Inputs(
        target=target,
        platforms=tuple(word for word in env["NIMCTL_BUILD_PLATFORMS"].split(",") if word),
        base=base,
        base_digest=digest,
        snapshot=env.get("NIMCTL_BUILD_SNAPSHOT"),
        source=env.get("NIMCTL_BUILD_SOURCE"),
        revision=revision(source.root),
        date=int(env["SOURCE_DATE_EPOCH"]),
        files={
            path.relative_to(source.recipe).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in mine
        },
        versions={"nimctl": __version__, **{name: text for name, text in said.items() if text}},
    )


def _base(env: Mapping[str, str], steps: Sequence[Step]) -> tuple[str, str | None]:
    """The base image and its digest, as BuildKit resolved it; one that is only here has its id."""
    for step in steps:
        if step.state == "started" and (found := _BASE.fullmatch(step.text)) and found["name"] != "scratch":
            if found["digest"]:
                return found["name"], found["digest"]
            local = run(["docker", "image", "inspect", "-f", "{{.Id}}", found["name"]], timeout=20.0, env=env)
            return found["name"], local.stdout.strip() or None if local.ok else None
    return env.get("NIMCTL_BUILD_BASE", "unknown"), None
