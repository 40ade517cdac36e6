"""Port, proxies, CA bundles, clock, and the hosts that the model needs."""

from dataclasses import replace

import pytest

from nimctl.core import recipes
from nimctl.core.facts import CaFacts, ContainerFacts, HeldWeights, HostReach, ImageFacts, NetworkFacts
from nimctl.doctor import checks
from nimctl.doctor.checks.network import duration
from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import HEALTHY, KIMI, NIM, host, judge, verdicts

HUB = HostReach("https://huggingface.co", "weights", "ok", skew=0.4)
FILES = HostReach("https://us.aws.cdn.hf.co", "weights files", "ok", skew=0.6)
REGISTRY = HostReach("https://nvcr.io/v2/", "image", "ok", skew=0.5)
LAYERS = HostReach("https://layers.nvcr.io", "image layers", "ok")
CONTAINER = HostReach("https://api.ngc.nvidia.com", "weights of the container", "ok")
PULLED = Needs(NIM)
S3 = replace(recipes.load("kimi-k2.5"), weights="s3://bucket/kimi")


def network(*reached, **changes):
    return host(network=NetworkFacts(reached=reached or None, **changes))


def down(reach, state, detail="why", **changes):
    return replace(reach, state=state, detail=detail, **{"skew": None, **changes})


# port


@pytest.mark.parametrize(
    ("port", "needs", "expected"),
    [
        ({"free": True}, Needs(KIMI), ("pass", "port")),
        ({"free": False, "detail": "another program listens there"}, Needs(KIMI), ("fail", "port-in-use")),
        ({"free": None, "detail": "Permission denied"}, Needs(KIMI), ("unknown", "port")),
    ],
)
def test_port(port, needs, expected):
    assert verdicts(judge("port", host(port=port), needs)) == [expected]


def test_the_port_of_a_remote_docker_cannot_be_told():
    facts = host(docker={"endpoint": "ssh://gpu-host"}, port={"free": False})
    assert verdicts(judge("port", facts)) == [("unknown", "port")]
    assert verdicts(judge("port", facts, Needs(KIMI, runtime="process"))) == [("fail", "port-in-use")]


def test_a_server_of_ours_is_the_likeliest_to_listen_there():
    other = ContainerFacts("1" * 12, "web")
    ours = ContainerFacts("2" * 12, "kimi", gpus=True, ours=True)
    facts = host(port={"free": False}, docker={"containers": (other, ours)})
    (finding,) = judge("port", facts)
    assert (finding.verdict, finding.id) == ("fail", "port-in-use")
    assert "(kimi)" in finding.cause
    for way in ("`nimctl status kimi`", "`nimctl stop kimi`", "--port"):
        assert way in finding.fix
    (finding,) = judge("port", host(facts, docker={"containers": (other,)}))
    assert "nimctl stop" not in finding.fix and "nimctl ps" in finding.fix


# proxies

GOOD = {"HTTPS_PROXY": "http://proxy.corp:3128", "NO_PROXY": "localhost,.corp"}
MISSING = ImageFacts(str(NIM.image), present=False)


def behind(proxies, *, daemon=True, image=MISSING):
    return host(network=NetworkFacts(proxies=proxies), docker={"http_proxy": daemon}, image=image)


def test_no_proxy_and_a_good_one_are_nothing_to_look_at():
    assert verdicts(judge("proxy", HEALTHY)) == [("skip", "proxy")]
    assert verdicts(judge("proxy", behind({"NO_PROXY": "localhost"}), PULLED)) == [("skip", "proxy")]
    (finding,) = judge("proxy", behind(GOOD), PULLED)
    assert finding.verdict == "pass" and "proxy.corp:3128" in finding.title


@pytest.mark.parametrize(
    ("proxies", "wrong"),
    [
        ({"HTTPS_PROXY": "socks5://proxy.corp:1080"}, "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "http://proxy.corp:port"}, "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "http://"}, "HTTPS_PROXY"),
        ({"ALL_PROXY": "socks5h://proxy.corp:1080"}, "ALL_PROXY"),
        ({"HTTP_PROXY": "ht tp://x"}, "HTTP_PROXY"),
    ],
)
def test_a_proxy_that_cannot_be_used(proxies, wrong):
    (finding,) = judge("proxy", behind(proxies), PULLED)
    assert (finding.verdict, finding.id) == ("warn", "proxy-malformed")
    assert wrong in finding.title and finding.fix


def test_a_socks_proxy_that_others_outweigh_is_not_looked_at():
    facts = behind({"ALL_PROXY": "socks5://p:1", "HTTPS_PROXY": "http://p:2", "HTTP_PROXY": "http://p:2"})
    assert verdicts(judge("proxy", facts, PULLED)) == [("pass", "proxy")]


@pytest.mark.parametrize(
    ("facts", "needs", "id_"),
    [
        (behind(GOOD, daemon=False), PULLED, "docker-without-proxy"),
        (behind(GOOD, daemon=None), PULLED, "proxy"),  # the daemon did not say
        (behind({**GOOD, "NO_PROXY": "nvcr.io"}, daemon=False), PULLED, "proxy"),
        (behind(GOOD, daemon=False, image=replace(MISSING, present=True)), PULLED, "proxy"),
        (behind(GOOD, daemon=False, image=ImageFacts("nimctl/cuda:1", present=False)), Needs(KIMI), "proxy"),
        (behind(GOOD, daemon=False), replace(PULLED, runtime="process"), "proxy"),
        (behind({"HTTP_PROXY": "http://p:1"}, daemon=False), PULLED, "proxy"),
    ],
)
def test_a_daemon_that_pulls_without_the_proxy(facts, needs, id_):
    (finding,) = judge("proxy", facts, needs)
    assert finding.id == id_
    assert finding.verdict == ("warn" if id_ == "docker-without-proxy" else "pass")


def test_a_proxy_for_the_daemon_comes_with_a_restart_that_says_what_it_ends():
    running = {"containers": (ContainerFacts("1", "chat"), ContainerFacts("2", "db"))}
    (finding,) = judge("proxy", host(behind(GOOD, daemon=False), docker=running), PULLED)
    assert "restart docker`; it stops 2 running containers, because live-restore is off" in finding.fix
    rootless = {"live_restore": True, "rootless": True, "config": None}
    (finding,) = judge("proxy", host(behind(GOOD, daemon=False), docker=rootless), PULLED)
    assert "~/.config/docker/daemon.json" in finding.fix
    assert "`systemctl --user restart docker`; running containers go on" in finding.fix


# CA bundles


def test_ca_bundles():
    fine = CaFacts("SSL_CERT_FILE", "/etc/ca.pem")
    gone = CaFacts("REQUESTS_CA_BUNDLE", "/gone.pem", "there is no such file or folder")
    assert verdicts(judge("ca", HEALTHY)) == [("skip", "ca")]
    assert verdicts(judge("ca", network(authorities=(fine,)))) == [("pass", "ca")]
    (finding,) = judge("ca", network(authorities=(fine, gone)))
    assert (finding.verdict, finding.severity, finding.id) == ("warn", "warning", "ca-bundle-missing")
    assert "/gone.pem" in finding.cause and "REQUESTS_CA_BUNDLE" in finding.title
    # all hosts answer in spite of it
    assert judge("ca", network(HUB, authorities=(gone,)))[0].severity == "info"


def test_a_missing_bundle_that_keeps_hosts_away_fails_once():
    gone = CaFacts("REQUESTS_CA_BUNDLE", "/gone.pem", "there is no such file or folder")
    facts = network(down(HUB, "tls"), authorities=(gone,))
    assert verdicts(judge("ca", facts)) == [("fail", "tls-untrusted")]
    assert verdicts(judge("hosts", facts)) == [("skip", "hosts")]


# clock


@pytest.mark.parametrize(
    ("reached", "needs", "expected"),
    [
        ((HUB, FILES), Needs(KIMI), ("pass", "clock")),
        ((replace(HUB, skew=-301.0),), Needs(KIMI), ("warn", "clock-skew")),
        ((replace(HUB, skew=86400.0), FILES, REGISTRY), Needs(KIMI), ("pass", "clock")),  # one host's clock is wrong
        ((LAYERS,), Needs(KIMI), ("unknown", "clock")),
        ((replace(HUB, skew=800.0),), Needs(S3), ("warn", "clock-skew")),
        ((replace(HUB, skew=901.0),), Needs(S3), ("fail", "clock-wrong")),
        ((down(HUB, "clock", skew=-9e5),), Needs(KIMI), ("fail", "clock-wrong")),
        ((down(HUB, "clock", skew=2.0),), Needs(KIMI), ("pass", "clock")),  # the host's certificate is old
        ((down(HUB, "clock"),), Needs(KIMI), ("unknown", "clock")),
    ],
)
def test_clock(reached, needs, expected):
    assert verdicts(judge("clock", network(*reached), needs)) == [expected]


def test_the_clock_when_nobody_was_asked():
    assert verdicts(judge("clock", HEALTHY)) == [("skip", "clock")]
    assert verdicts(judge("clock", host(problems=("destinations: no answer in time",)))) == [("unknown", "clock")]


def test_how_long_is_said_in_two_units():
    assert [duration(s) for s in (0, 59, 60, 301, 7200, 90061, 864000)] == [
        "0 s", "59 s", "1 min", "5 min 1 s", "2 h", "1 d 1 h", "10 d"
    ]  # fmt: skip
    (finding,) = judge("clock", network(replace(HUB, skew=-301.0)))
    assert finding.title == "the clock is 5 min 1 s behind" and "timedatectl" in finding.fix


# hosts


def test_hosts_that_answer_are_named_with_their_proxy():
    assert judge("hosts", network(HUB, FILES))[0].title == "huggingface.co and us.aws.cdn.hf.co answer"
    (finding,) = judge("hosts", network(replace(HUB, via="proxy.corp:3128")))
    assert (finding.verdict, finding.title) == ("pass", "huggingface.co answers through proxy.corp:3128")


@pytest.mark.parametrize(
    ("state", "detail", "id_"),
    [
        ("dns", "the name was not resolved", "weights-source-unreachable"),
        ("refused", "refused", "weights-source-unreachable"),
        ("timeout", "no answer", "weights-source-unreachable"),
        ("tls", "self-signed certificate", "tls-untrusted"),
        ("clock", "its certificate has expired", "clock-wrong"),
        ("proxy", "the proxy answered 403", "proxy-refused"),
        ("failed", "Network is unreachable", "weights-source-unreachable"),
        ("failed", "its answer is not HTTP", "weights-source-failed"),
    ],
)
def test_a_source_that_does_not_answer_ends_the_run_with_the_same_id(state, detail, id_):
    (finding,) = judge("hosts", network(down(HUB, state, detail)))
    assert (finding.verdict, finding.id) == ("fail", id_)
    assert detail in finding.cause and "huggingface.co" in finding.title and finding.fix
    assert len(finding.title) <= 70
    # what the cache holds whole needs no source
    held = host(network(down(HUB, state, detail)), cache={"held": HeldWeights(KIMI.weights, 1, complete=True)})
    assert verdicts(judge("hosts", held)) == [("skip", "hosts")]


def test_one_cause_is_one_finding():
    silent = [down(h, "dns", f"the name of {h.url} was not resolved") for h in (HUB, FILES)]
    (finding,) = judge("hosts", network(*silent))
    assert finding.id == "weights-source-unreachable" and len(finding.evidence) == 2
    found = judge("hosts", network(silent[0], down(FILES, "proxy")))
    assert verdicts(found) == [("fail", "weights-source-unreachable"), ("warn", "host-unreachable")]


@pytest.mark.parametrize("state", ["dns", "tls", "proxy", "clock"])
def test_a_registry_that_does_not_answer_matters_where_the_image_is_missing(state):
    facts = network(down(REGISTRY, state), LAYERS)
    missing, here = replace(facts, image=MISSING), replace(facts, image=replace(MISSING, present=True))
    assert verdicts(judge("hosts", missing, PULLED)) == [("fail", "image-pull-failed")]
    assert verdicts(judge("hosts", here, PULLED)) == [("skip", "hosts")]
    assert verdicts(judge("hosts", facts, PULLED)) == [("warn", "host-unreachable")]  # nobody knows
    assert verdicts(judge("hosts", missing, replace(PULLED, runtime="process"))) == [("skip", "hosts")]


@pytest.mark.parametrize("reach", [FILES, LAYERS, CONTAINER])
def test_hosts_that_others_ask_or_that_may_not_be_asked_are_a_warning(reach):
    facts = replace(network(REGISTRY, down(reach, "timeout")), image=MISSING)
    assert verdicts(judge("hosts", facts, PULLED)) == [("warn", "host-unreachable")]


def test_a_container_whose_weights_lie_in_the_cache_is_not_warned_of():
    facts = replace(network(down(CONTAINER, "dns")), image=replace(MISSING, present=True))
    brought = host(facts, cache={"entries_bytes": NIM.weights_bytes})
    assert verdicts(judge("hosts", brought, PULLED)) == [("skip", "hosts")]
    assert verdicts(judge("hosts", facts, PULLED)) == [("warn", "host-unreachable")]


def test_a_wrong_clock_fails_once():
    facts = network(down(HUB, "clock", skew=-9e5))
    assert verdicts(judge("hosts", facts)) == [("skip", "hosts")]
    (finding,) = judge("hosts", network(down(HUB, "clock", "its certificate has expired", skew=1.0)))
    assert finding.id == "clock-wrong" and "renewed" in finding.fix
    (finding,) = judge("hosts", network(down(HUB, "clock", "its certificate has expired")))
    assert finding.id == "clock-wrong" and "timedatectl" in finding.fix


def test_hosts_when_nobody_was_asked():
    assert verdicts(judge("hosts", HEALTHY)) == [("skip", "hosts")]
    assert verdicts(judge("hosts", host(problems=("destinations: no answer in time",)))) == [("unknown", "hosts")]


def test_offline_is_said_and_is_a_risk_only_where_nothing_is_held():
    (finding,) = judge("hosts", network(offline=True))
    assert finding.verdict == "skip" and "HF_HUB_OFFLINE" in finding.title
    for size, expected in ((0, ("warn", "weights-offline")), (1, ("skip", "hosts"))):
        facts = host(network(offline=True), cache={"held": HeldWeights(KIMI.weights, size)})
        assert verdicts(judge("hosts", facts)) == [expected]
    facts = host(network(offline=True), cache={"held": HeldWeights("builtin://demo")})
    assert verdicts(judge("hosts", facts, Needs(recipes.load("demo")))) == [("skip", "hosts")]


# hosts that are well


def judge_all(facts, needs):
    mine = [check for check in checks.ALL if check.group in ("network", "credentials")]
    return {finding.verdict for check in mine for finding in check.judge(facts, needs)}


def test_healthy_hosts_are_silent():
    quiet = {"pass", "skip"}
    proxied = host(
        network=NetworkFacts(GOOD, reached=tuple(replace(h, via="proxy.corp:3128") for h in (REGISTRY, LAYERS))),
        docker={"http_proxy": True},
        image=MISSING,
        credentials={"kinds": {"NGC_API_KEY": "personal"}},
    )
    known = host(credentials={"kinds": {"NGC_API_KEY": "personal", "HF_TOKEN": "hugging-face"}})
    here = replace(MISSING, present=True)
    air_gapped = host(
        known,
        network=NetworkFacts(reached=(down(REGISTRY, "dns"), down(LAYERS, "dns"))),
        image=here,
        cache={"held": HeldWeights(KIMI.weights, KIMI.weights_bytes or 0, complete=True)},
    )
    assert judge_all(known, Needs(KIMI)) <= quiet
    assert judge_all(proxied, PULLED) <= quiet
    assert judge_all(air_gapped, PULLED) <= quiet
    assert judge_all(replace(air_gapped, network=NetworkFacts(offline=True)), Needs(KIMI)) <= quiet
