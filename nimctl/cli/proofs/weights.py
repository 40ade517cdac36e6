"""Are the weights of a model what somebody trusted has signed? Hashed once, and again only after a change."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nimctl.cli.proofs.images import rules_of
from nimctl.cli.proofs.kept import state_folder
from nimctl.cli.proofs.proof import Proof, by_rule, settled, without_rule
from nimctl.core.errors import NimctlError
from nimctl.trust.policy import read_policy

if TYPE_CHECKING:  # the libraries that check signatures cost start-up time
    from nimctl.cli.config import Config
    from nimctl.render import Output
    from nimctl.trust.judging import Judgement
    from nimctl.trust.policy import Policy, Rule


def prove_weights(
    uri: str, folder: Path, config: Config, out: Output, *, signature: Path | None = None, rule: Rule | None = None
) -> Proof:
    """The proof for the weights of `uri` that lie in `folder`, hashed once and again only after a change.

    `signature` and `rule` outweigh what the configuration says. Weights that no rule is about are not refused, as
    hardly any are signed, unless a rule is about others of their kind. Raises as `prove_image` does, and `interrupted`.
    """
    policy = read_policy(config.settings["verify"].value, config.origin("verify"))
    name = weights_name(uri)
    made = partial(Proof, uri, name, "weights", policy)
    if policy == "off":
        return made("off", "nothing was checked, as verify is off")
    rule = rule or rules_of(config).for_weights(name)
    if rule is None:
        return _unnamed(uri, policy, config, out)
    judged = judge_weights(folder, rule, out, signature=signature)
    return settled(by_rule(made, judged, rule), out=out, loud=True)


def _unnamed(uri: str, policy: Policy, config: Config, out: Output) -> Proof:
    """The proof of weights that no rule is about. Raises `trust-invalid` where others of their kind must be signed."""
    rules, name = rules_of(config), weights_name(uri)
    proof = without_rule(uri, name, "weights", policy, rules.without_voice("weights", name))
    if policy == "require" and rules.knows_kind_of(name):
        return settled(proof, out=out, loud=True)
    out.text(f"{uri}: not verified, as {proof.why}", style="dim")
    return proof


def prove_before_start(source: str, config: Config, out: Output) -> Proof | None:
    """The proof of the weights that a run serves (an address, or a folder); None where nobody asks for one.

    Weights that no rule is about are said where a good signature is required, and refused as `prove_weights` does it.
    Those that are not on this host yet are the container's to fetch, and nobody has seen them: where a good signature
    is required they have to be pulled first. Raises as `prove_weights` does.
    """
    policy = read_policy(config.settings["verify"].value, config.origin("verify"))
    rule = rule_for(source, config)
    if rule is None:
        return _unnamed(source, policy, config, out) if policy == "require" else None
    folder = Path(source) if source.startswith("/") else snapshot_of(source, config)
    if folder is not None:
        return prove_weights(source, folder, config, out, rule=rule)
    why = f"they are not on this host yet; `nimctl pull {source}` fetches and verifies them"
    proof = Proof(source, weights_name(source), "weights", policy, "unknown", why, rule=rule.where)
    return settled(proof, out=out, loud=True)


def rule_for(source: str, config: Config) -> Rule | None:
    """The rule about weights, where one is asked for. Raises `trust-invalid`."""
    if config.text("verify") == "off" or not any(data for _, data in config.trust):
        return None
    return rules_of(config).for_weights(weights_name(source))


def weights_name(uri: str) -> str:
    """The address of weights without its revision, as rules name them."""
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme not in ("hf", "ngc"):
        return uri
    return f"{scheme}://{rest.partition('?')[0].partition('@')[0].partition(':')[0]}"


def judged_address(uri: str, config: Config) -> str:
    """The address to start from: `uri` at the revision that `prove_before_start` judges, where a rule is about it.

    What a branch stands for may change after it was judged, also while the container runs, and at its next start it
    would serve that. Stays as it is where nothing is judged, and where its source takes no revision. Nobody is asked.
    """
    from nimctl.core.fetch import from_environment
    from nimctl.core.fetch.sources import hub, ngc

    if not uri.startswith((hub.SCHEME, ngc.SCHEME)) or rule_for(uri, config) is None:
        return uri
    if from_environment(os.environ).override:
        return uri  # the mirror in its place knows no such revisions
    folder = snapshot_of(uri, config)
    if folder is None:
        return uri
    address, mark, query = uri.partition("?")
    scheme, _, name = address.partition("://")
    return f"{scheme}://{re.split('[:@]', name, maxsplit=1)[0]}:{folder.name}{mark}{query}"


def snapshot_of(uri: str, config: Config) -> Path | None:
    """The folder of the weights at `uri` as the cache, or the folder itself, holds them whole; None where it does not.

    It is the revision that a container with this cache would serve: both ask `resolve` of the source. Nobody is asked.
    """
    from nimctl.core.cache import CachePaths
    from nimctl.core.fetch import from_environment, open_source, snapshots

    access = replace(from_environment(os.environ), offline=True)
    source = open_source(uri, config.cache, access=access)
    if source.in_place is not None:
        return source.in_place
    repo = CachePaths(config.cache).repo(source.repo, source.part)
    try:
        revision = source.resolve().revision
    except NimctlError:  # the cache does not hold them, or not whole
        return None
    return repo.snapshot(revision) if snapshots.complete(repo, revision) else None


def judge_weights(folder: Path, rule: Rule, out: Output, *, signature: Path | None = None) -> Judgement:
    """The verdict of a rule about a snapshot. Raises `trust-invalid` for its key files, and `interrupted`."""
    from nimctl.cli.stopping import stoppable
    from nimctl.trust import weights
    from nimctl.trust.judging import Judgement, RefusedError

    path = signature or folder / (rule.signature or weights.SIGNATURE)
    if not path.is_file():
        return Judgement("none", f"there is no signature {path}")
    try:
        promise = weights.read_promise(path, rule)
        before = weights.state_of(folder, path)
        memory = _Memory.of(folder, path, rule, before)
        if memory.holds():
            known = weights.judgement(weights.survey(folder, path, promise), promise.by)
            return replace(known, why=f"{known.why}; unchanged since its files were hashed")
        total = sum(size for _, _, size, _, _ in before)
        done: dict[str, int] = {}
        with stoppable() as (stop, going), out.transfer(f"verifying the signature of {folder}") as view:

            def on_bytes(count: int, file: Any) -> None:
                going()
                done[file.path] = count
                view.update(sum(done.values()), total, file.path)

            found = weights.compare(folder, path, promise, on_bytes=on_bytes, stop=stop)
        judged = weights.judgement(found, promise.by)
        if judged.verdict == "good" and weights.state_of(folder, path) == before:
            memory.remember()
    except RefusedError as error:
        return Judgement(error.verdict, str(error), seen=1)
    except OSError as error:
        return Judgement("unknown", f"{error.filename or folder} cannot be read: {error.strerror}", seen=1)
    return judged


@dataclass(frozen=True)
class _Memory:
    """That a snapshot was found good: bound to every file's state, the signature's bytes and whom the rule trusts."""

    path: Path
    content: str

    @staticmethod
    def of(folder: Path, signature: Path, rule: Rule, state: Sequence[tuple[Any, ...]]) -> _Memory:
        trusted = {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in (*rule.keys, *rule.certs)}
        who = [(each.identity, each.issuer, str(each.trusted_root)) for each in rule.keyless]
        content = {
            "folder": str(folder.resolve()),
            "signature": hashlib.sha256(signature.read_bytes()).hexdigest(),
            "trusted": trusted,
            "keyless": who,
            "files": [list(each) for each in state],
        }
        text = json.dumps(content, sort_keys=True)
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
        return _Memory(state_folder() / "signatures" / "weights" / name, hashlib.sha256(text.encode()).hexdigest())

    def holds(self) -> bool:
        try:
            return self.path.read_text(encoding="ascii") == self.content
        except (OSError, ValueError):
            return False

    def remember(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = self.path.with_suffix(".new")
            new.write_text(self.content, encoding="ascii")
            new.rename(self.path)
        except OSError:
            return  # it is hashed again next time
