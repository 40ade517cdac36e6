"""The hosts that the model needs, and what it means when one does not answer."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from nimctl.core.facts import HostFacts, HostReach
from nimctl.doctor.checks.image_needed import image_here, image_missing
from nimctl.doctor.checks.scope import look_failed, no_docker_wanted
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned

# Seconds from which on a clock explains a certificate that is not valid: one that is renewed daily may be a day old.
_SKEW_EXPLAINS = 300
# What a run asks itself, without which it ends. Other purposes are of hosts that others ask, or that may not be asked.
_REQUIRED = ("image", "weights")
# What the fetching code ends with in each state; "failed" depends on the words, as it does there.
_WEIGHTS_IDS = {
    "dns": "weights-source-unreachable",
    "refused": "weights-source-unreachable",
    "timeout": "weights-source-unreachable",
    "tls": "tls-untrusted",
    "clock": "clock-wrong",
    "proxy": "proxy-refused",
}
_SAYS = {
    "dns": "no address for",
    "refused": "refused by",
    "timeout": "no answer from",
    "tls": "no trust in",
    "clock": "certificate out of date:",
    "proxy": "the proxy bars",
    "failed": "no HTTP from",
}
_FIXES = {
    "dns": "Check the name service (`resolvectl query {host}`); where only a proxy leads out, set HTTPS_PROXY.",
    "refused": "Check the address, and the firewall between; where only a proxy leads out, set HTTPS_PROXY.",
    "timeout": "Allow {host} in the firewall; where only a proxy leads out, set HTTPS_PROXY.",
    "tls": "Behind a proxy that inspects TLS or a private CA, set SSL_CERT_FILE to a file with that CA.",
    "clock": "The clock here agrees with the host's, so its certificate has to be renewed by whoever runs it.",
    "proxy": "Check HTTPS_PROXY and NO_PROXY (`curl -vI {url}`), and that the proxy allows {host}.",
    "failed": "See what answers there (`curl -vI {url}`): a firewall or a proxy on the way may cut the connection.",
}
_WHAT = "hosts that the model needs"


def judge_hosts(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Every host that the model needs answers from here, through the proxy where there is one: files lie on other hosts
    than the pages that name them, so one allowed host is not enough
    (https://huggingface.co/docs/hub/models-downloading#downloading-behind-a-proxy-or-firewall,
    https://docs.nvidia.com/nim/large-language-models/latest/deploy-behind-proxy.html).
    """
    if facts.network.offline:
        return _offline(facts, needs)
    if facts.network.reached is None:
        if problem := look_failed(facts, "destinations"):
            return [unknown("hosts", f"{_WHAT}: not told", cause=problem)]
        return [skipped("hosts", _WHAT, "none has to be asked")]
    asked = [host for host in facts.network.reached if _is_needed(host, facts, needs)]
    if not asked:
        return [skipped("hosts", _WHAT, "image and weights are here already")]
    return _findings(asked, facts, needs)


def _findings(asked: Sequence[HostReach], facts: HostFacts, needs: Needs) -> list[Finding]:
    silent = [host for host in asked if host.state != "ok"]
    if not silent:
        return [passed("hosts", f"{_named(asked)} answer{'s' if len(asked) == 1 else ''}{_through(asked)}")]
    left = [host for host in silent if not _explained(host, facts)]
    if not left:
        return [skipped("hosts", _WHAT, "the checks `ca` and `clock` say what keeps them away")]
    groups = dict.fromkeys((host.state, host.via) for host in left)
    return [_finding([host for host in left if (host.state, host.via) == group], facts, needs) for group in groups]


def _finding(group: Sequence[HostReach], facts: HostFacts, needs: Needs) -> Finding:
    """One finding for the hosts that one cause keeps away."""
    required = [host for host in group if host.purpose in _REQUIRED]
    proven = [host for host in required if host.purpose != "image" or image_missing(facts)]
    first = (proven or required or list(group))[0]
    title = f"{_SAYS[first.state]} {_named([first, *(host for host in group if host is not first)])}"
    fix = _FIXES[first.state].format(host=_name(first), url=first.url)
    if first.state == "clock" and first.skew is None:
        fix = "Look at the clock (`timedatectl`); if it is right, the host's certificate has to be renewed."
    evidence = tuple(f"{host.url} ({host.purpose}): {host.detail or host.state}" for host in group)
    cause = f"{first.detail or 'it did not answer'}{f', through the proxy {first.via}' if first.via else ''}"
    if proven:
        return failed("hosts", _error_id(first), title, cause=cause, fix=fix, evidence=evidence)
    cause = f"{cause}; it may be needed: {first.purpose}"
    return warned("hosts", "host-unreachable", title, cause=cause, fix=fix, evidence=evidence)


def _error_id(host: HostReach) -> str:
    if host.purpose == "image":
        return "image-pull-failed"
    unreachable = "unreachable" in (host.detail or "").lower()
    return _WEIGHTS_IDS.get(host.state) or ("weights-source-unreachable" if unreachable else "weights-source-failed")


def _offline(facts: HostFacts, needs: Needs) -> list[Finding]:
    held, weights = facts.cache.held, needs.recipe.weights if needs.recipe else ""
    if held is not None and not held.size and "://" in weights and not weights.startswith(("builtin:", "file:")):
        cause = "HF_HUB_OFFLINE is set, and nothing of the weights is in the cache"
        fix = "Unset it, or bring the weights into the cache where there is a network: `nimctl pull --weights`."
        return [warned("hosts", "weights-offline", "weights cannot be fetched offline", cause=cause, fix=fix)]
    return [skipped("hosts", _WHAT, "HF_HUB_OFFLINE is set, so none was asked")]


def _is_needed(host: HostReach, facts: HostFacts, needs: Needs) -> bool:
    if host.purpose.startswith("image"):
        return not no_docker_wanted(needs) and not image_here(facts)
    if host.purpose == "weights of the container" and needs.recipe and needs.recipe.weights_bytes:
        # What its own downloader has brought is told by the room that it takes; a tenth may be of other files.
        return (facts.cache.entries_bytes or 0) < 0.9 * needs.recipe.weights_bytes
    if host.purpose.startswith("weights"):
        return not (facts.cache.held and facts.cache.held.complete)
    return True


def _explained(host: HostReach, facts: HostFacts) -> bool:
    """Whether another check fails for the reason why this host is not reached."""
    if host.state == "tls":
        return any(bundle.problem for bundle in facts.network.authorities)
    return host.state == "clock" and clock_is_wrong(facts)


def skew_of(facts: HostFacts) -> float | None:
    """Seconds that the clock here is ahead: the middle of what the hosts tell, so that no single one decides."""
    told = sorted(host.skew for host in facts.network.reached or () if host.skew is not None)
    return told[len(told) // 2] if told else None


def clock_is_wrong(facts: HostFacts) -> bool:
    """Whether certificates are refused, and other clocks prove that this one is the reason."""
    skew = skew_of(facts)
    refused = any(host.state == "clock" for host in facts.network.reached or ())
    return refused and skew is not None and abs(skew) > _SKEW_EXPLAINS


def _named(group: Sequence[HostReach]) -> str:
    names = list(dict.fromkeys(_name(host) for host in group))
    if len(names) <= 2:
        return " and ".join(names)
    return f"{names[0]} and {len(names) - 1} more"


def _name(host: HostReach) -> str:
    try:
        return urlsplit(host.url).netloc or host.url
    except ValueError:
        return host.url


def _through(group: Sequence[HostReach]) -> str:
    proxies = sorted({host.via for host in group if host.via})
    return f" through {' and '.join(proxies)}" if proxies else ""


CHECKS = (
    Check(
        "hosts",
        "network",
        "the hosts that the model needs answer",
        judge_hosts,
        (
            "clock-wrong",
            "host-unreachable",
            "image-pull-failed",
            "proxy-refused",
            "tls-untrusted",
            "weights-offline",
            "weights-source-failed",
            "weights-source-unreachable",
        ),
    ),
)
