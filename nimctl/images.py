"""Build our two images through BuildKit: `docker buildx bake`, nothing else.

What differs between hosts (base image, local wheels, CA bundle, package index, proxies) is read from the machine's own
configuration by `detect` and handed to BuildKit as named contexts, secrets and predefined build arguments, so that no
host's settings ever end up in a layer. The recipe itself is in `images/` of the checkout, and is installed with the
package as `nimctl/images/`; the container's share of our own code is taken from the packages that are running now.
"""

import ast
import json
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nimctl import __version__
from nimctl.core.command import run
from nimctl.core.errors import NimctlError

ENGINE_VERSION = "0.32.0"  # of vLLM, as locked in images/*/requirements.in
TARGETS = ("cpu", "cuda")
STALL_S = 1800.0  # the longest silence: one wheel of 1 GB at 0.6 MB/s
KEPT_LINES = 200

# Options of pip that mean the same inside a build; paths and credentials files of the host do not.
_PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "timeout", "default-timeout", "retries", "proxy")


@dataclass(frozen=True)
class Inputs:
    """What this machine offers a build: a folder of wheels, a CA bundle and pip's options (names without dashes)."""

    wheels: Path | None = None
    ca: Path | None = None
    pip: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Source:
    """Where a build reads from: the folder that holds both packages, and the folder of the images' recipe."""

    root: Path
    images: Path


@dataclass(frozen=True)
class Step:
    """One line of BuildKit's plain progress: `state` is started, log, cached, done or error.

    `number` identifies the step, `text` is its name (started, error) or a line of its output (log), `seconds` is how
    long it took (done) or how far into the step the line was written (log).
    """

    number: int
    state: str
    text: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Build:
    """A finished build: the image's name and digest (None where the builder reports none), and how it went.

    `cached` and `rebuilt` are the names of the recipe's steps that came from the build cache and that had to run.
    """

    target: str
    tag: str
    digest: str | None
    seconds: float
    cached: tuple[str, ...]
    rebuilt: tuple[str, ...]


def local_tag(target: str) -> str:
    """The name under which `build` leaves an image on this host, for example `nimctl/cpu:0.1.0-vllm0.32.0`."""
    return f"nimctl/{_known(target)}:{__version__}-vllm{ENGINE_VERSION}"


def find_source() -> Source:
    """The running packages and the recipe; raises `image-build-failed` where the recipe was not installed.

    In a checkout `nimctl/images` is a link to `images/`; a wheel carries its files in that place.
    """
    package = Path(__file__).resolve().parent
    images = (package / "images").resolve()
    if (images / "docker-bake.hcl").is_file() and (package.parent / "entrypoint").is_dir():
        return Source(package.parent, images)
    raise NimctlError(
        "image-build-failed",
        "the files that describe the images were not found",
        cause=f"this installation of nimctl has no {images / 'docker-bake.hcl'}, or no entrypoint package beside it",
        fix="install nimctl from its wheel or with `pip install .` in a checkout, or name an image with --image",
    )


def detect(env: Mapping[str, str]) -> Inputs:
    """Wheels, CA bundle and index options as this machine's pip and TLS settings have them; nothing is required.

    `env` is the process environment. pip's own precedence is kept: environment, then its files.
    """
    options = _pip_options(env)
    named = [
        options.get("cert"),
        *(env.get(name) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")),
    ]
    ca = next((Path(path) for path in named if path and Path(path).is_file()), None)
    folders = [Path(word.removeprefix("file://")) for word in options.get("find-links", "").split()]
    wheels = next((folder for folder in folders if folder.is_dir() and any(folder.glob("*.whl"))), None)
    pip = {name: _reachable(options[name]) for name in _PIP_OPTIONS if _reachable(options.get(name, ""))}
    return Inputs(wheels, ca, pip or None)


def build(
    target: str,
    *,
    env: Mapping[str, str],
    tag: str | None = None,
    platforms: Sequence[str] = (),
    push: bool = False,
    base: str | None = None,
    wheels: Path | None = None,
    ca: Path | None = None,
    extra: Sequence[str] = (),
    on_line: Callable[[str], None] = lambda line: None,
) -> Build:
    """Build `cpu` or `cuda` and leave it in the engine's image store (or push it) as `tag`, by default `local_tag`.

    `platforms` such as `linux/arm64` default to the builder's own; `base` is any Debian 12 image; `wheels` and `ca`
    default to what `detect` finds. `extra` goes to `docker buildx bake` as it is. `on_line` gets every line of
    BuildKit's plain progress; `parse_line` makes a `Step` of it.

    Raises `usage`, `docker-missing`, `docker-unreachable`, `docker-permission`, `disk-full` or `image-build-failed`.
    """
    found, source, name = detect(env), find_source(), tag or local_tag(target)
    _require_buildx(env)
    started = time.monotonic()
    tail: deque[str] = deque(maxlen=KEPT_LINES)
    steps: list[Step] = []
    with tempfile.TemporaryDirectory(prefix="nimctl-build-") as folder:
        metadata = Path(folder) / "metadata.json"
        pip = _write_pip_config(Path(folder), found.pip)
        argv = bake_command(target, source=source, metadata=metadata, push=push, extra=extra)
        variables = bake_variables(
            source=source,
            tag=name,
            platforms=platforms,
            base=base,
            wheels=wheels or found.wheels,
            ca=ca or found.ca,
            pip=pip,
        )
        with _started(argv, {**_proxies(env), **env, **variables}, source.root) as process:
            for line in _lines(process):
                tail.append(line)
                on_line(line)
                if (step := parse_line(line)) and step.state != "log":
                    steps.append(step)
        if process.returncode:
            raise _failure(target, process.returncode, tail)
        digest = _digest(metadata, target)
    return Build(target, name, digest, time.monotonic() - started, *_summary(steps))


def bake_command(
    target: str, *, source: Source, metadata: Path, push: bool = False, extra: Sequence[str] = ()
) -> list[str]:
    """The `docker buildx bake` command line; everything that may be private travels in the environment instead."""
    argv = ["docker", "buildx", "bake", "--file", str(source.images / "docker-bake.hcl"), "--progress", "plain"]
    argv += ["--metadata-file", str(metadata), "--push" if push else "--load", *extra]
    return [*argv, _known(target)]


def bake_variables(
    *,
    source: Source,
    tag: str,
    platforms: Sequence[str] = (),
    base: str | None = None,
    wheels: Path | None = None,
    ca: Path | None = None,
    pip: Path | None = None,
) -> dict[str, str]:
    """The variables of images/docker-bake.hcl; a default of that file is kept by leaving its variable out."""
    given = {
        "BASE": base,
        "IMAGES": str(source.images),
        "WHEELS": str(wheels.resolve()) if wheels else "",
        "CA": str(ca.resolve()) if ca else "",
        "PIP": str(pip) if pip else "",
        "PLATFORMS": ",".join(platforms),
        "TAG": tag,
        "VERSION": __version__,
        "REVISION": _revision(source.root),
    }
    return {f"NIMCTL_BUILD_{key}": value for key, value in given.items() if value is not None}


_STEP = re.compile(r"#(?P<number>\d+) (?P<rest>.*)")
_LOG = re.compile(r"(?P<seconds>\d+\.\d+) (?P<text>.*)")


def parse_line(line: str) -> Step | None:
    """A line of BuildKit's plain progress as a `Step`; None for lines that belong to no step."""
    match = _STEP.fullmatch(line.rstrip())
    if not match:
        return None
    number, rest = int(match["number"]), match["rest"]
    if rest == "CACHED":
        return Step(number, "cached")
    if rest.startswith("DONE "):
        return Step(number, "done", seconds=float(rest.removeprefix("DONE ").removesuffix("s")))
    if rest.startswith("ERROR: "):
        return Step(number, "error", rest.removeprefix("ERROR: "))
    if log := _LOG.fullmatch(rest):
        return Step(number, "log", log["text"], float(log["seconds"]))
    return Step(number, "started" if rest.startswith("[") else "log", rest)


def _summary(steps: Sequence[Step]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The recipe's steps (not BuildKit's own) that were cached and that ran, by name."""
    names = {step.number: step.text for step in steps if step.state == "started" and "[internal]" not in step.text}
    cached = {step.number for step in steps if step.state == "cached"}
    ran = {step.number for step in steps if step.state == "done"} - cached
    return (
        tuple(name for number, name in names.items() if number in cached),
        tuple(name for number, name in names.items() if number in ran),
    )


def _known(target: str) -> str:
    if target in TARGETS:
        return target
    raise NimctlError(
        "usage",
        f"no image is called {target!r}",
        cause=f"nimctl builds {' and '.join(TARGETS)}",
        fix="nimctl build cpu|cuda",
    )


def _pip_options(env: Mapping[str, str]) -> dict[str, str]:
    """pip's effective options for `pip install`, as pip itself reports them; of the environment alone without a pip."""
    found: dict[str, tuple[int, str]] = {}
    listed = run([sys.executable, "-m", "pip", "config", "list"], timeout=20.0, env=env)
    for line in listed.stdout.splitlines():
        section, _, rest = line.partition(".")
        name, _, value = rest.partition("=")
        rank = {"global": 1, "install": 2}.get(section, 0)
        if rank >= found.get(name, (1, ""))[0]:
            found[name] = (rank, str(ast.literal_eval(value)))
    named = {
        key.removeprefix("PIP_").lower().replace("_", "-"): value
        for key, value in env.items()
        if key.startswith("PIP_")
    }
    return {name: value for name, (_, value) in found.items()} | {name: value for name, value in named.items() if value}


def _reachable(value: str) -> str:
    """The words of an option that mean something inside a build: no address on this machine's own disk."""
    return " ".join(word for word in value.split() if not word.startswith("file:"))


def _write_pip_config(folder: Path, options: Mapping[str, str] | None) -> Path | None:
    """A pip configuration file for the build's `pip` secret; index addresses may hold a password, hence the mode."""
    if not options:
        return None
    path = folder / "pip.conf"
    path.touch(mode=0o600)
    path.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()))
    return path


def _proxies(env: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables under the names that the recipe reads; most hosts set the lower-case ones."""
    return {name: env[name.lower()] for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY") if name.lower() in env}


def _revision(root: Path) -> str:
    """The commit of a checkout, marked where files differ from it; `unknown` for an installed package."""
    found = run(["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"])
    return found.stdout.strip() if found.ok and (root / ".git").exists() else "unknown"


def _require_buildx(env: Mapping[str, str]) -> None:
    if not shutil.which("docker", path=env.get("PATH")):
        raise NimctlError(
            "docker-missing",
            "images are built by Docker, and there is no docker command",
            cause="no executable named docker is on PATH",
            fix="install Docker Engine 24 or newer with its buildx plugin",
        )
    answer = run(["docker", "buildx", "version"], timeout=20.0, env=env)
    if not answer.ok:
        raise NimctlError(
            "image-build-failed",
            "docker has no buildx plugin",
            cause="images are built by `docker buildx bake`, and `docker buildx version` failed",
            fix="install the package docker-buildx-plugin (Docker's own) or docker-buildx (Debian's)",
            evidence=answer.stderr.splitlines()[:3],
        )


@contextmanager
def _started(argv: Sequence[str], env: Mapping[str, str], folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """The running client with both outputs in one pipe; whatever happens, it has ended when the block ends."""
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(env),
        cwd=folder,
        text=True,
        errors="replace",
    )
    try:
        yield process
        process.wait(timeout=60)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _lines(process: "subprocess.Popen[str]") -> Iterator[str]:
    """The client's output line by line until it closes it; raises `image-build-failed` after STALL_S of silence."""
    output = process.stdout
    if output is None:
        raise ValueError("the process has no output pipe")
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        with output:
            for line in output:
                lines.put(line.rstrip("\n"))
        lines.put(None)

    threading.Thread(target=read, name="build-output", daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=STALL_S)
        except queue.Empty:
            raise NimctlError(
                "image-build-failed",
                f"the build wrote nothing for {STALL_S / 60:.0f} minutes and was stopped",
                cause="a download hangs, or the builder does",
                fix="run it again: finished steps are kept; check the network and `docker buildx ls`",
            ) from None
        if line is None:
            return
        yield line


def _digest(metadata: Path, target: str) -> str | None:
    """The digest that buildx reports for the target."""
    if not metadata.is_file():
        return None
    report = json.loads(metadata.read_text()).get(target, {})
    digest = report.get("containerimage.digest") or report.get("containerimage.config.digest")
    return str(digest) if digest else None


@dataclass(frozen=True)
class _Known:
    """A failure that is recognised by what the client or a step wrote."""

    pattern: str
    id: str
    cause: str
    fix: str


# The first that matches wins; the patterns are the words of dockerd, BuildKit, apt and pip.
_FAILURES = (
    _Known(
        r"no space left on device",
        "disk-full",
        "the filesystem of Docker's image store, or of its build cache, is full",
        "free some room: `docker builder prune`, `docker image prune`; the cpu image needs 8 GB, the cuda image 40 GB",
    ),
    _Known(
        r"permission denied while trying to connect|dial unix .*: permission denied",
        "docker-permission",
        "this user may not open Docker's socket",
        "join the docker group (`sudo usermod -aG docker $USER`, then log in again)",
    ),
    _Known(
        r"Cannot connect to the Docker daemon|failed to connect to the docker API|Is the docker daemon running",
        "docker-unreachable",
        "no Docker daemon answers at the configured address",
        "start it (`sudo systemctl start docker`) or correct DOCKER_HOST",
    ),
    _Known(
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|certificate signed by unknown authority",
        "image-build-failed",
        "a download was refused because its TLS certificate is not trusted, as behind an inspecting proxy",
        "name the proxy's CA bundle with --ca, or set SSL_CERT_FILE",
    ),
    _Known(
        r"DO NOT MATCH THE HASHES",
        "image-build-failed",
        "the package index served a file that differs from the locked one",
        "use another index, and do not install that file: it is damaged or was replaced",
    ),
    _Known(
        r"failed to resolve source metadata|pull access denied|manifest unknown",
        "image-build-failed",
        "the base image cannot be fetched",
        "check the network and the registry, or name a Debian 12 image that is here with --base",
    ),
    _Known(
        r"Temporary failure (resolving|in name resolution)|Name or service not known|Network is unreachable",
        "image-build-failed",
        "the build cannot reach a package index or a Debian mirror",
        "check the network, DNS and proxy of Docker's builds; HTTPS_PROXY and pip's configuration are passed on",
    ),
    _Known(
        r"No matching distribution found",
        "image-build-failed",
        "the package index does not have a locked package for this platform",
        "point pip at a complete index, or give a folder of wheels with --wheels",
    ),
)


def _failure(target: str, code: int, tail: Sequence[str]) -> NimctlError:
    """The error for a client that ended with `code`, with the failing step and its last lines as evidence."""
    text = "\n".join(tail)
    steps = [step for step in map(parse_line, tail) if step]
    failed = next((step for step in steps if step.state == "error"), None)
    name = next((s.text for s in steps if failed and s.number == failed.number and s.state == "started"), "")
    if failed:
        wrote = [step.text for step in steps if step.number == failed.number and step.state == "log"]
        evidence = [line for line in (name, *wrote[-8:], failed.text) if line]
    else:
        evidence = [line for line in tail if line.strip()][-8:]
    known = next((known for known in _FAILURES if re.search(known.pattern, text)), None)
    return NimctlError(
        known.id if known else "image-build-failed",
        f"building the {target} image failed" + (f" in step {name}" if name else ""),
        cause=known.cause if known else f"docker buildx bake ended with exit code {code}; its last lines are below",
        fix=known.fix if known else "correct what the last lines say and build again: finished steps are kept",
        evidence=evidence,
    )
