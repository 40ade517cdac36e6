"""`nimctl pull`: bring the image of a model to this host, and its weights into the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nimctl.cli.options import Cache, Debug, Gpus, Image, Json, Model, Progress, ProgressForm, Quiet, Verify
from nimctl.cli.verb import verb

if TYPE_CHECKING:
    from nimctl.cli.acquire import Held
    from nimctl.cli.config import Config
    from nimctl.cli.target import Target
    from nimctl.render import Output

# Daemons that are not there at all: then the weights alone are what can be had.
_NO_DAEMON = ("docker-missing", "docker-unreachable")


@verb("pull")
def pull(
    model: Model = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="Also bring the weights into the cache, as the container would.")
    ] = False,
    gpus: Gpus = None,
    image: Image = None,
    cache: Cache = None,
    verify: Verify = None,
    progress: Progress = ProgressForm.auto,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # read by @verb
) -> None:
    """Pull or build the image that serves MODEL.

    Pulled by digest; built where no registry holds it. An address (hf://org/name) names weights: those alone are
    fetched. Ctrl-C keeps what was fetched, and the same command goes on. A tag that has moved is taken and told.

    Example:  nimctl pull kimi-k2.5-turbo
    """
    from nimctl.cli import config as configuration
    from nimctl.cli.target import resolve
    from nimctl.render import Output

    out = Output.choose("pull", as_json=as_json, quiet=quiet, progress=progress.value)
    config = configuration.load({"gpus": gpus, "cache": cache, "verify": verify})
    if model is not None and "://" in model and not model.startswith("file://"):
        out.document(
            {"ok": True, "model": None, "image": None, "digest": None, "weights": _weights(model, config, out)}
        )
        return
    target = resolve(model, config, image)
    if weights and not target.recipe.weights:
        _with_own_weights(model, image, config, out)
        return
    out.text(f"model {target.recipe.name} (from {target.origin}): {target.recipe.title}", style="bold")
    done: dict[str, Any] = {"ok": True, "model": target.recipe.name}
    brought = _weights(str(target.folder or target.recipe.weights), config, out) if weights else None
    done |= _image(target, config, out, may_lack_docker=weights)
    out.document({**done, **({"weights": brought} if weights else {})})


def _with_own_weights(model: str | None, image: str | None, config: Config, out: Output) -> None:
    """NVIDIA's images have a downloader of their own, and which weights is theirs to say."""
    from nimctl.cli import bringing, nim_weights
    from nimctl.cli.target import resolve

    held, brought = nim_weights.bring(model, image, config, out)
    findings = bringing.check_shared(config, None, out)
    weights = {**brought, "warnings": [finding.id for finding in findings]}
    name = resolve(model, config, image).recipe.name
    out.document({"ok": True, "model": name, **_described(held.identity.reference, held), "weights": weights})


def _described(reference: str, held: Held) -> dict[str, Any]:
    """The image as part of the document; `was` is the `manifest` that its tag stood for before."""
    signature = held.proof.to_json() if held.proof else None
    changed = {"was": held.was} if held.was else {}
    manifest = {"manifest": held.identity.manifest} if held.identity.manifest else {}
    return {"image": reference, "digest": held.digest, **manifest, **changed, "signature": signature}


def _weights(uri: str, config: Config, out: Output) -> dict[str, object]:
    from nimctl.cli import bringing, launching
    from nimctl.cli.proofs.weights import prove_weights
    from nimctl.render import size

    launching.make_cache(config.cache, out)
    brought = bringing.bring(uri, config, out)
    proof = prove_weights(uri, brought.folder, config, out)
    findings = bringing.check_shared(config, None, out)
    out.text(f"weights {brought.source} at {brought.revision}: {brought.files} files, {size(brought.bytes)}, verified")
    out.result(str(brought.folder))
    return {**brought.to_json(), "signature": proof.to_json(), "warnings": [finding.id for finding in findings]}


def _image(target: Target, config: Config, out: Output, *, may_lack_docker: bool) -> dict[str, Any]:
    """Pull or build the image. `may_lack_docker`: on a host without Docker the weights were what was wanted."""
    from nimctl.cli import acquire
    from nimctl.cli.target import device_for, image_for
    from nimctl.core.errors import NimctlError
    from nimctl.launch.docker import Engine

    device = device_for(config, target.recipe)
    choice = image_for(target, device, config)
    try:
        engine = Engine.connect()
    except NimctlError as error:
        if not may_lack_docker or error.id not in _NO_DAEMON:
            raise
        out.text(f"no image was pulled: {error.message} ({error.cause})", style="yellow")
        return {"image": choice.reference, "digest": None, "skipped": error.id}
    if choice.how == "pull" and not acquire.is_only_here(choice.reference, engine):
        held = acquire.pull_image(choice.reference, engine, out, config)
    else:
        held = acquire.ensure_image(choice, device, engine, out, config)
    return _described(choice.reference, held)
