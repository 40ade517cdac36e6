"""Is what starts what somebody trusted has signed? Called between resolving and pulling, and for what is here already.

The bytes of good signatures are kept, never the verdict: a start checks them again, offline, in a moment. See
docs/images/trust.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.cli.proofs.kept import Kept, keep, kept
from nimctl.cli.proofs.proof import Proof, by_rule, settled, without_rule
from nimctl.core.errors import NimctlError
from nimctl.core.signatures import Material, read_materials

if (
    TYPE_CHECKING
):  # the libraries that check signatures cost start-up time; they are imported where a rule asks for them
    from nimctl.cli.config import Config
    from nimctl.core.image_identity import ImageIdentity
    from nimctl.registry.login import Login
    from nimctl.render import Output
    from nimctl.trust.judging import Judgement
    from nimctl.trust.policy import Policy, Rule, Rules


def prove_image(
    identity: ImageIdentity,
    login: Login | Callable[[], Login | None] | None,
    config: Config,
    out: Output,
    *,
    documents: Sequence[bytes] = (),
    built: bool = False,
    fresh: bool = True,
    carried: Sequence[Material] | None = None,
) -> Proof:
    """The proof for an image, as `verify` of the configuration asks for it.

    `documents` are the bytes of its index, where there is one, and of its manifest. `built`: this host built it.
    `fresh`: it is being brought here now; for one that is here already, the signatures that were kept then are looked
    at, and the registry is asked only where none of them is good (only then is `login` called). `carried` are the
    signatures that a bundle carries; then no registry is asked.
    Raises `signature-missing` and `signature-invalid` where a good signature is required, `trust-invalid` for rules and
    key files that cannot be used, and without a rule where one is required.
    """
    from nimctl.trust.policy import read_policy

    policy = read_policy(config.settings["verify"].value, config.origin("verify"))
    name = image_name(identity.reference)
    made = partial(Proof, identity.reference, name, "images", policy)
    settle = partial(settled, out=out, loud=fresh)
    if policy == "off":
        return made("off", "nothing was checked, as verify is off")
    rules = rules_of(config)
    rule = rules.for_image(name)
    if rule is None and built:
        return made("built-here", "it was built on this host, and no rule asks for more")
    if rule is None:
        return settle(without_rule(identity.reference, name, "images", policy, rules.without_voice("images", name)))
    try:
        if carried is not None:
            return settle(by_rule(made, judge_image(identity, carried, rule, documents), rule))
        judged, seen = _judged(identity, login, rule, documents, policy, fresh=fresh)
    except NimctlError as error:
        if policy == "require" or error.id == "trust-invalid":
            raise
        why = f"its signatures could not be looked for: {error.message} ({error.cause})"
        return settle(made("unknown", why, rule=rule.where))
    if judged.verdict in ("good", "none"):
        keep(identity, *seen)
    return settle(by_rule(made, judged, rule))


def judge_image(
    identity: ImageIdentity, materials: Sequence[Material], rule: Rule, documents: Sequence[bytes] = ()
) -> Judgement:
    """The verdict of a rule about these signatures; nothing is fetched. Raises `trust-invalid` for its key files."""
    from nimctl.trust.judging import Expected, Judgement, judge, proving_digests
    from nimctl.trust.keys import read_public

    expected = Expected(proving_digests(identity, documents), rule.expected(image_name(identity.reference)))
    keys = [read_public(path) for path in rule.keys]
    checks = []
    if not expected.digests and not materials:
        return Judgement("none", "the Docker Engine knows no digest under which a registry has it")
    if rule.keyless:
        from nimctl.trust.keyless import open_bundle

        checks = [
            partial(open_bundle, identity=who.identity, issuer=who.issuer, trusted_root=who.trusted_root)
            for who in rule.keyless
        ]
    return judge(materials, expected, keys, checks)


def rules_of(config: Config) -> Rules:
    """The rules of all configuration files, the user's own first, as far as each may say whom to trust.

    Raises `trust-invalid`.
    """
    from nimctl.core.yamlfile import line_of
    from nimctl.trust.policy import joined, read_rules

    def place_in(path: Path) -> Callable[[Sequence[str | int]], int]:
        return lambda place: line_of(path, ("trust", *place))

    return joined(
        (read_rules(data, path, place_in(path)), config.lets_trust(path))
        for path, data in config.trust
        if data is not None
    )


def image_name(reference: str) -> str:
    """`registry/repository` of an image reference, as rules name images."""
    from nimctl.registry.reference import parse
    from nimctl.trust.policy import plain_name

    parsed = parse(reference)
    return plain_name(f"{parsed.registry}/{parsed.repository}")


def signatures_beside(identity: ImageIdentity, login: Login | None) -> tuple[Material, ...]:
    """All signatures of an image in its registry. Raises what a registry's refusal means, and `image-pull-failed`."""
    from nimctl.registry.artifacts import signatures_of
    from nimctl.registry.reference import parse

    digests = [digest for digest in (identity.digest, identity.manifest) if digest]
    return signatures_of(parse(identity.reference), digests, login) if digests else ()


def read_folder(folder: Path) -> tuple[Material, ...]:
    """The signatures in a folder, as a bundle carries them. Raises `signature-missing` where it holds none."""
    try:
        return read_materials(folder)
    except (OSError, ValueError) as error:
        raise NimctlError(
            "signature-missing",
            f"{folder} holds no signatures",
            cause=str(getattr(error, "strerror", None) or error),
            fix="Name the folder of signatures of a bundle.",
        ) from None


def _judged(
    identity: ImageIdentity,
    login: Login | Callable[[], Login | None] | None,
    rule: Rule,
    documents: Sequence[bytes],
    policy: Policy,
    *,
    fresh: bool,
) -> tuple[Judgement, Kept]:
    """The verdict, and what it was judged by: what is kept where that is enough, else what the registry has by now."""
    known = None if fresh else kept(identity)
    judged = judge_image(identity, known[0], rule, known[1]) if known else None
    if known and judged and (judged.verdict == "good" or (judged.verdict == "none" and policy != "require")):
        return judged, known
    try:
        if not fresh:
            _require_network(identity)
        beside = _beside(identity, login, documents)
    except NimctlError as error:
        if known is None or judged is None or not known[0]:
            raise
        why = f"{judged.why}, by the signatures kept on this host; the registry was not asked for others"
        fix = f"`nimctl pull {identity.reference}` does"
        return replace(judged, why=f"{why} ({error.message}), {fix}"), known
    return judge_image(identity, beside[0], rule, beside[1]), beside


def _beside(
    identity: ImageIdentity, login: Login | Callable[[], Login | None] | None, documents: Sequence[bytes]
) -> Kept:
    key = login() if callable(login) else login
    materials = signatures_beside(identity, key)
    if materials and not documents and identity.digest and identity.manifest not in (None, identity.digest):
        from nimctl.registry.artifacts import index_of
        from nimctl.registry.reference import parse

        index = index_of(parse(identity.reference), identity.digest, key)  # what lists the manifest, to judge by
        documents = [index] if index else []
    return materials, tuple(documents)


def _require_network(identity: ImageIdentity) -> None:
    """Where downloads are switched off, the registry is not asked either. Raises `signature-missing`."""
    from nimctl.doctor.observe.reach import is_offline

    if is_offline(os.environ):
        raise NimctlError(
            "signature-missing",
            f"no signature of {identity.reference} is kept on this host",
            cause="HF_HUB_OFFLINE keeps this host from the network, so its registry was not asked for one",
            fix=f"Once without HF_HUB_OFFLINE: `nimctl pull {identity.reference}`, which keeps what it finds.",
        )
