"""A verdict about an image or weights, and what it means under the policy that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nimctl.core.errors import NimctlError

if TYPE_CHECKING:
    from nimctl.render import Output
    from nimctl.trust.judging import Judgement, Verdict
    from nimctl.trust.policy import Policy, Rule

_GOOD = ("good", "built-here", "off")


@dataclass(frozen=True)
class Proof:
    """The verdict about an image or weights, the policy it was met with and the rule (file:line) that it rests on.

    `subject` is what was asked for, `name` what a rule calls it under `kind`.
    """

    subject: str
    name: str
    kind: Literal["images", "weights"]
    policy: Policy
    verdict: Verdict
    why: str
    digest: str | None = None
    by: str | None = None
    rule: str | None = None
    seen: int = 0

    @property
    def good(self) -> bool:
        """Whether somebody trusted has signed it."""
        return self.verdict == "good"

    @property
    def note(self) -> str:
        """The proof in a line, for the notes of a plan."""
        return f"signature {self.verdict}: {self.why}"

    def to_json(self) -> dict[str, object]:
        """The proof as part of a JSON document."""
        return {
            "policy": self.policy,
            "verdict": self.verdict,
            "why": self.why,
            "digest": self.digest,
            "by": self.by,
            "rule": self.rule,
            "signatures": self.seen,
        }


def without_rule(
    subject: str, name: str, kind: Literal["images", "weights"], policy: Policy, unheard: Rule | None = None
) -> Proof:
    """The proof of what no rule is about; `unheard` is one of the project, which does not count here."""
    why = "no rule says whose signature to trust for it"
    if unheard:
        why += f" ({unheard.where} is the project's, and counts for nothing where you require signatures)"
    return Proof(subject, name, kind, policy, "no-rule", why)


def by_rule(made: Callable[..., Proof], judged: Judgement, rule: Rule) -> Proof:
    """The proof that the judgement of a rule is; `made` is Proof with all that comes before the verdict."""
    return made(judged.verdict, judged.why, judged.digest, judged.by, rule.where, judged.seen)


def settled(proof: Proof, *, out: Output, loud: bool) -> Proof:
    """`proof`, told to people as its policy asks for; raises where a good one is required."""
    if proof.verdict in _GOOD:
        if loud:
            out.text(f"{proof.subject}: {proof.why}")
        return proof
    if proof.policy == "require":
        raise refusal(proof)
    if proof.verdict != "no-rule":
        out.text(f"[signature-{'missing' if proof.verdict == 'none' else 'invalid'}] {proof.subject}: {proof.why}",
                 style="yellow")  # fmt: skip
    elif loud:
        out.text(f"{proof.subject}: not verified, as {proof.why}", style="dim")
    return proof


def refusal(proof: Proof) -> NimctlError:
    """The error of a proof that is not good where a good one is required."""
    if proof.verdict == "no-rule":
        return NimctlError(
            "trust-invalid",
            f"{proof.subject} must be signed, and nobody is trusted to sign it",
            cause=f"{proof.why}, and verify is {proof.policy}",
            fix="Write into ~/.config/nimctl/config.yaml: "
            f"`trust: [{{{proof.kind}: {proof.name}, keys: /path/to/key.pub}}]`; docs/images/trust.md shows more.",
        )
    if proof.verdict == "none":
        return NimctlError(
            "signature-missing",
            f"{proof.subject} is not signed",
            cause=f"{proof.why}, and the rule {proof.rule} wants one",
            fix="Ask its publisher for a signed one; `--verify warn` starts it as it is.",
        )
    return NimctlError(
        "signature-invalid",
        f"{proof.subject} has no signature that can be trusted ({proof.verdict})",
        cause=f"{proof.why} (rule {proof.rule})",
        fix=_FIXES.get(f"{proof.kind}-{proof.verdict}")
        or _FIXES.get(proof.verdict, "Do not start it; pull it again from its publisher, and ask there if it stays."),
    )


_FIXES: Mapping[str, str] = {
    "wrong-key": "Check that the rule names the publisher's present key; else do not start it.",
    "wrong-identity": "Check `identity` and `issuer` of the rule; else do not start it.",
    "other-repository": "If this registry is a mirror, say so in the rule with `signed_as`; else do not start it.",
    "unsupported": "Ask its publisher for a signature by key, or as a sigstore bundle (cosign 3).",
    "weights-unknown": "Fetch them first: `nimctl pull --weights`.",
    "weights-other-digest": "Do not serve them; `nimctl cache verify --repair` fetches what is damaged again.",
    "unknown": "Try again with the network, or give the signatures with --signatures.",
}
