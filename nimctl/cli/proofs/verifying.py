"""The work of `nimctl verify`: images in their registry, weights in the cache or in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nimctl.cli.proofs.proof import Proof, by_rule, refusal, without_rule
from nimctl.core.errors import NimctlError
from nimctl.core.platforms import own_platform

if TYPE_CHECKING:
    from nimctl.cli.config import Config
    from nimctl.core.image_identity import ImageIdentity
    from nimctl.render import Output
    from nimctl.trust.policy import Rule


@dataclass(frozen=True)
class Given:
    """What the command line said: keys to trust in place of the rules, and where signatures are."""

    keys: tuple[Path, ...] = ()
    signed_as: str | None = None
    platform: str | None = None
    signatures: Path | None = None
    signature: Path | None = None


def verify(model: str | None, given: Given, config: Config, out: Output) -> None:
    """Verify what MODEL names and say the verdicts; ends with the exit code of the first that is not good."""
    if model is not None and (_is_folder(model) or "://" in model):
        proofs = [_weights(model, given, config, out)]
        document: dict[str, object] = {
            "image": None,
            "weights": {"source": proofs[0].subject, "signature": _shown(proofs[0])},
        }
    else:
        proofs, document = _model(model, given, config, out)
    for proof in proofs:
        out.text(f"{proof.verdict:<10}{proof.subject}", style="green" if proof.good else "red")
        out.text(f"          {proof.why}" + (f" (rule {proof.rule})" if proof.rule else ""), style="dim")
        if proof.digest:
            out.result(proof.digest)
    bad = next((proof for proof in proofs if not proof.good), None)
    if bad is None:
        out.document({"ok": True, **document})
        return
    out.error(refusal(bad), document)
    raise SystemExit(refusal(bad).exit_code)


def _model(model: str | None, given: Given, config: Config, out: Output) -> tuple[list[Proof], dict[str, object]]:
    """An image reference, or a model by name: its image, and its weights where a rule is about them."""
    from nimctl.cli.proofs.images import rules_of
    from nimctl.cli.proofs.weights import weights_name
    from nimctl.cli.target import device_for, image_for, resolve

    target = resolve(model, config)
    choice = image_for(target, device_for(config, target.recipe), config)
    if choice.how == "build":
        raise NimctlError(
            "signature-missing",
            f"the image of {target.recipe.name} carries no signature",
            cause=f"{choice.reference} is built on this host and lies in no registry ({choice.origin})",
            fix="`nimctl build cpu --push --tag REGISTRY/NAME` and `nimctl sign REGISTRY/NAME --key FILE` make one.",
        )
    proof, identity = _image(choice.reference, given, config, out)
    shown = {"reference": identity.reference, "digest": identity.digest, "manifest": identity.manifest}
    document: dict[str, object] = {"image": {**shown, "signature": _shown(proof)}, "weights": None}
    proofs = [proof]
    uri = target.recipe.weights
    if "://" in uri and not given.keys and rules_of(config).for_weights(weights_name(uri)):
        proofs.append(_weights(uri, given, config, out))
        document["weights"] = {"source": uri, "signature": _shown(proofs[1])}
    return proofs, document


def _image(reference: str, given: Given, config: Config, out: Output) -> tuple[Proof, ImageIdentity]:
    from nimctl.cli.proofs import images as proving
    from nimctl.cli.proofs.kept import keep
    from nimctl.registry.credentials import config_folder, stored_or_key
    from nimctl.registry.reference import parse
    from nimctl.registry.resolving import resolve_image

    wanted, name = parse(reference), proving.image_name(reference)
    rule = _by_keys(given, name, "images") or proving.rules_of(config).for_image(name)
    made = _made(reference, name, "images")
    if given.signatures is not None and rule is not None and (known := _known_here(reference, given.platform)):
        judged = proving.judge_image(known[0], proving.read_folder(given.signatures), rule, known[1])
        return by_rule(made, judged, rule), known[0]
    login, _ = stored_or_key(wanted.registry, config_folder(), os.environ)
    with out.working(f"asking {wanted.registry} for {wanted}"):
        remote = resolve_image(wanted, login, given.platform or own_platform(), name=reference)
        identity = remote.identity
        if rule is None:
            return without_rule(reference, name, "images", "require"), identity
        if given.signatures is not None:
            materials = proving.read_folder(given.signatures)
        else:
            materials = proving.signatures_beside(identity, login)
    documents = [document for document in (remote.index, remote.manifest) if document is not None]
    judged = proving.judge_image(identity, materials, rule, documents)
    if judged.verdict == "good" and given.signatures is None:
        keep(identity, materials, documents)
    return by_rule(made, judged, rule), identity


def _known_here(reference: str, platform: str | None) -> tuple[ImageIdentity, tuple[bytes, ...]] | None:
    """What an image is, without asking its registry: by the digest in its reference, else as the engine has it.

    With the indexes and manifests that were kept of it. None where that names nothing that could be signed.
    """
    from nimctl.cli.proofs.kept import kept
    from nimctl.core.image_identity import ImageIdentity
    from nimctl.launch.docker import Engine
    from nimctl.registry.reference import parse
    from nimctl.trust.judging import proving_digests

    identity = None
    if digest := parse(reference).digest:
        identity = ImageIdentity(reference, digest, None, None, platform or own_platform())
    else:
        with suppress(NimctlError):  # no daemon, no answer from it
            engine = Engine.connect()
            image = engine.inspect_image(reference)
            engine.close()
            identity = image.identity(reference) if image else None
    if identity is None or platform not in (None, identity.platform):
        return None
    known = kept(identity)
    documents = known[1] if known else ()
    return (identity, documents) if proving_digests(identity, documents) else None


def _weights(uri: str, given: Given, config: Config, out: Output) -> Proof:
    from nimctl.cli.proofs.images import rules_of
    from nimctl.cli.proofs.weights import judge_weights, snapshot_of, weights_name

    folder = Path(uri.removeprefix("file://")).expanduser().absolute() if _is_folder(uri) else None
    subject = str(folder) if folder else uri
    name = weights_name(subject)
    rule = _by_keys(given, name, "weights") or rules_of(config).for_weights(name)
    if rule is None:
        return without_rule(subject, name, "weights", "require")
    place = folder or snapshot_of(uri, config)
    if place is None or not place.is_dir():
        raise NimctlError(
            "weights-missing",
            f"the weights {uri} are not here",
            cause=f"{config.cache} holds no complete revision of them" if folder is None else f"{folder} is no folder",
            fix=f"Fetch them: `nimctl pull {uri}`." if folder is None else "Name the folder of a checkpoint.",
        )
    judged = judge_weights(place, rule, out, signature=given.signature)
    return by_rule(_made(subject, name, "weights"), judged, rule)


def _by_keys(given: Given, name: str, kind: str) -> Rule | None:
    from nimctl.trust.policy import Rule

    if not given.keys:
        return None
    keys = tuple(path.expanduser().absolute() for path in given.keys)
    if kind == "images":
        return Rule("--key", images=(name,), keys=keys, signed_as=given.signed_as)
    return Rule("--key", weights=(name,), keys=keys)


def _made(subject: str, name: str, kind: Literal["images", "weights"]) -> Callable[..., Proof]:
    return partial(Proof, subject, name, kind, "require")


def _shown(proof: Proof) -> dict[str, object]:
    return {name: value for name, value in proof.to_json().items() if name != "policy"}


def _is_folder(model: str) -> bool:
    return model.startswith(("/", ".", "~", "file://")) or (":" not in model and Path(model).is_dir())
