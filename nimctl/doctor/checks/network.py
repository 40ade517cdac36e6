"""The port to publish on, proxies, certificates and the clock."""

import shlex
from collections.abc import Sequence

from nimctl.core.docker_state import config_path, restart
from nimctl.core.facts import HostFacts
from nimctl.doctor import proxies
from nimctl.doctor.checks import hosts
from nimctl.doctor.checks.hosts import clock_is_wrong, skew_of
from nimctl.doctor.checks.image_needed import image_here, image_reference
from nimctl.doctor.checks.scope import docker_silent, look_failed, no_docker_wanted
from nimctl.doctor.model import Check, Finding, Needs, Severity, failed, passed, skipped, unknown, warned

# Seconds that a clock may differ: our own choice for a warning, and what S3 refuses signatures beyond
# (https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html#RESTAuthenticationTimeStamp).
SKEW_TOLERATED = 300
SKEW_OF_S3 = 900
_MOST_NAMED = 4
_SET_CLOCK = "Set the clock: `sudo timedatectl set-ntp true`, and look at it with `timedatectl timesync-status`."


def judge_port(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Nothing listens where the server is to be published: Docker refuses to start a container whose port is taken
    (https://docs.docker.com/engine/network/port-publishing/), and would say so only after the image was pulled.
    """
    port = facts.port
    where = f"{port.host}:{port.port}"
    endpoint = facts.docker.endpoint or "unix:"
    if needs.runtime == "docker" and not endpoint.startswith(("unix:", "/")):
        return [unknown("port", f"port {where}", cause=f"Docker publishes on another host ({endpoint})")]
    if port.free is None:
        return [unknown("port", f"port {where}", cause=port.detail or "it could not be tried")]
    if port.free:
        return [passed("port", f"port {where} is free")]
    return [_taken(facts, where)]


def _taken(facts: HostFacts, where: str) -> Finding:
    """Who listens is not known; where a server of ours runs, it is the likeliest, and nothing is wrong with it."""
    port, title = facts.port, f"port {where} is taken"
    listeners = f"`sudo ss -ltnp 'sport = :{port.port}'` names who listens"
    if ours := [c.name for c in facts.docker.containers or () if c.ours and c.name]:
        first, names = shlex.quote(ours[0]), ", ".join(ours[:_MOST_NAMED])
        return failed(
            "port",
            "port-in-use",
            title,
            cause=f"a server that nimctl started runs on this host ({names}), and may be the one that listens there",
            fix=f"See `nimctl status {first}`: it may be what you want; else `nimctl stop {first}`, or choose another "
            f"with --port; {listeners}.",
        )
    return failed(
        "port",
        "port-in-use",
        title,
        cause=port.detail or "another program listens there",
        fix=f"Choose another with --port; {listeners}, `nimctl ps` lists our own.",
    )


def judge_proxy(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The proxies can be used, and Docker has one too: its daemon pulls images by its own setting and knows nothing of
    the variables of a shell (https://docs.docker.com/engine/daemon/proxy/).
    """
    named = facts.network.proxies
    # the later one counts: ALL_PROXY stands in for what has no variable of its own
    used = {
        scheme: name for scheme in ("HTTPS", "HTTP") for name in ("ALL_PROXY", f"{scheme}_PROXY") if named.get(name)
    }
    if not used:
        return [skipped("proxy", "proxies", "none is set")]
    findings = [wrong for name in sorted(set(used.values())) for wrong in _malformed(name, named[name])]
    if "HTTPS" in used:
        findings += _daemon_without_proxy(facts, needs, used["HTTPS"])
    if findings:
        return findings
    values = list(dict.fromkeys(named[name] for name in used.values()))
    return [passed("proxy", f"through {' and '.join(values)}")]


def _malformed(name: str, value: str) -> list[Finding]:
    try:
        proxies.parse(value)
    except ValueError as error:
        fix = f"Set {name} to an address such as http://proxy.example.com:3128."
        return [warned("proxy", "proxy-malformed", f"{name} cannot be used", cause=str(error), fix=fix)]
    return []


def _daemon_without_proxy(facts: HostFacts, needs: Needs, name: str) -> list[Finding]:
    if no_docker_wanted(needs) or docker_silent(facts) or facts.docker.http_proxy is not False:
        return []
    registry = (image_reference(facts, needs) or "").partition("/")[0]
    remote = "." in registry and not registry.startswith(
        "127."
    )  # `nimctl/cuda:1` is built here, and pulled from nowhere
    host, _, port = registry.partition(":")
    known = int(port) if port.isdecimal() else None
    if not remote or image_here(facts) or proxies.bypassed(host, known, facts.network.proxies.get("NO_PROXY", "")):
        return []
    return [
        warned(
            "proxy",
            "docker-without-proxy",
            f"{name} is set, but the Docker daemon pulls without a proxy",
            cause=f"the daemon would ask {registry} directly, as it does not read the variables of a shell",
            fix=f'Set "proxies" in {config_path(facts.docker)} (https://docs.docker.com/engine/daemon/proxy/), then '
            f"{restart(facts.docker)}.",
        )
    ]


def judge_ca(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Bundles of authorities that the environment names are there: with one that is missing every download fails, or
    falls back to the machine's own authorities, which do not know a private CA
    (https://requests.readthedocs.io/en/latest/user/advanced/#ssl-cert-verification).
    """
    named = facts.network.authorities
    if not named:
        return [skipped("ca", "CA bundles", "the environment names none")]
    wrong = [bundle for bundle in named if bundle.problem]
    if not wrong:
        return [passed("ca", f"the CA bundle of {named[0].variable} can be read")]
    first = wrong[0]
    title = f"{first.variable} names no usable CA bundle"
    cause = f"{first.path}: {first.problem}"
    fix = f"Correct or unset {first.variable}; a bundle is a PEM file with BEGIN CERTIFICATE lines."
    evidence = tuple(f"{bundle.variable}={bundle.path}: {bundle.problem}" for bundle in wrong)
    reached = facts.network.reached or ()
    if any(host.state == "tls" for host in reached):
        return [failed("ca", "tls-untrusted", title, cause=cause, fix=fix, evidence=evidence)]
    harmless = bool(reached) and all(host.state == "ok" for host in reached)
    severity: Severity = "info" if harmless else "warning"
    return [warned("ca", "ca-bundle-missing", title, cause=cause, fix=fix, evidence=evidence, severity=severity)]


def judge_clock(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The clock agrees with those of other hosts: certificates, tokens and signatures are refused at a wrong time, by
    S3 from 15 minutes on (https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html).
    """
    skew = skew_of(facts)
    if skew is None:
        return [_clock_untold(facts)]
    off = f"{duration(abs(skew))} {'ahead' if skew > 0 else 'behind'}"
    told = tuple(f"{h.url}: {h.skew:+.0f} s" for h in facts.network.reached or () if h.skew is not None)
    signed = bool(needs.recipe and needs.recipe.weights.startswith("s3://")) and abs(skew) > SKEW_OF_S3
    if clock_is_wrong(facts) or signed:
        cause = "S3 refuses signatures of another time" if signed else "certificates are refused because of it"
        return [failed("clock", "clock-wrong", f"the clock is {off}", cause=cause, fix=_SET_CLOCK, evidence=told)]
    if abs(skew) > SKEW_TOLERATED:
        cause = "by the Date of the hosts that answered; tokens and signatures may be refused"
        return [warned("clock", "clock-skew", f"the clock is {off}", cause=cause, fix=_SET_CLOCK, evidence=told)]
    return [passed("clock", f"the clock agrees with that of {_counted(told)}")]


def _clock_untold(facts: HostFacts) -> Finding:
    """Why no other clock is known."""
    if facts.network.reached is None:
        if problem := look_failed(facts, "destinations"):
            return unknown("clock", "clock not compared", cause=problem)
        return skipped("clock", "clock", "no host was asked for the time")
    if any(host.state in ("ok", "clock") for host in facts.network.reached):
        return unknown("clock", "clock not compared", cause="no host that was asked told its time")
    return skipped("clock", "clock", "no host answered that could tell the time")


def duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = round(seconds)
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    first = next((i for i, (size, _) in enumerate(units) if whole >= size), len(units) - 1)
    words = []
    for size, word in units[first : first + 2]:
        words.append(f"{whole // size} {word}")
        whole %= size
    return " ".join(words[:1] + [word for word in words[1:] if not word.startswith("0 ")])


def _counted(told: Sequence[str]) -> str:
    return "1 host" if len(told) == 1 else f"{len(told)} hosts"


CHECKS = (
    Check("port", "network", "the port is free", judge_port, ("port-in-use",)),
    Check(
        "proxy",
        "network",
        "proxies can be used, by the Docker daemon too",
        judge_proxy,
        ("docker-without-proxy", "proxy-malformed"),
    ),
    Check(
        "ca",
        "network",
        "CA bundles that the environment names are there",
        judge_ca,
        ("ca-bundle-missing", "tls-untrusted"),
    ),
    Check("clock", "network", "the clock agrees with other hosts", judge_clock, ("clock-skew", "clock-wrong")),
    *hosts.CHECKS,
)
