"""Every known hole: found in the last version that has it, not in the first one without it; builds of others never."""

import pytest

from nimctl.doctor import advisories
from nimctl.doctor.advisories import order

COMPONENTS = ("driver", "container-toolkit", "docker-engine", "runc", "vllm")
EVERY_RANGE = [
    pytest.param(component, advisory, span, id=f"{component}-{advisory.id}-{span.introduced}")
    for component in COMPONENTS
    for advisory in advisories.known(component)
    for span in advisory.ranges
]


def just_below(version: str) -> str:
    """The last thinkable release before a version: 1.2.7.9999 before 1.2.8, 1.4.0-rc.2 before 1.4.0-rc.3."""
    if "-rc" in version:
        head, turn = version.rsplit("rc", 1)
        return f"{head}rc.{int(turn.strip('.')) - 1}"
    numbers = [int(part) for part in version.split(".")]
    while numbers[-1] == 0:
        numbers.pop()
    return ".".join(str(n) for n in [*numbers[:-1], numbers[-1] - 1, 9999])


@pytest.mark.parametrize(("component", "advisory", "span"), EVERY_RANGE)
def test_the_last_version_with_a_hole_has_it_and_the_first_one_without_it_has_it_not(component, advisory, span):
    with_it = [span.last or just_below(span.before)] + ([span.introduced] if span.introduced != "0" else [])
    for version in with_it:
        seen = advisories.assess(component, version)
        assert advisory in (seen.advisories if span.certain else seen.uncertain), version
        assert seen.state == "affected" or not span.certain
    if span.fixed is not None:
        seen = advisories.assess(component, span.fixed)
        assert advisory not in (*seen.advisories, *seen.uncertain)


def test_every_advisory_says_where_it_is_from_and_how_bad_it_is():
    for component in COMPONENTS:
        for advisory in advisories.known(component):
            assert advisory.link.startswith("https://")
            assert 0 < advisory.score <= 10
            assert advisory.published <= advisory.read <= advisories.read_on()
            assert advisory.ranges
            assert all(m.text and m.link.startswith("https://") for m in advisory.mitigations)


NVIDIA = "https://github.com/NVIDIA/product-security/blob/main/"
RUNC = "https://github.com/opencontainers/runc/security/advisories/"
MOBY = "https://github.com/moby/moby/security/advisories/"
VLLM = "https://github.com/vllm-project/vllm/security/advisories/"
# Written by hand from the bulletins, not from the data: component, a released version with the hole, the first without.
PAIRS = [
    ("driver", "580.126.09", "580.159.03", "CVE-2026-24187", NVIDIA + "2026/5821/5821.md"),
    ("driver", "595.58.03", "595.71.05", "CVE-2026-24187", NVIDIA + "2026/5821/5821.md"),
    ("driver", "535.288.01", "535.309.01", "CVE-2026-24193", NVIDIA + "2026/5821/5821.md"),
    ("driver", "580.126.09", "580.159.03", "CVE-2026-24198", NVIDIA + "2026/5821/5821.md"),
    ("driver", "580.105.08", "580.126.09", "CVE-2025-33219", NVIDIA + "2026/5747/5747.md"),
    ("driver", "570.195.03", "570.211.01", "CVE-2025-33219", NVIDIA + "2026/5747/5747.md"),
    ("driver", "590.44.01", "590.48.01", "CVE-2025-33220", NVIDIA + "2026/5747/5747.md"),
    ("driver", "580.82.07", "580.95.05", "CVE-2025-23280", NVIDIA + "2025/5703/5703.md"),
    ("driver", "535.261.03", "535.274.02", "CVE-2025-23282", NVIDIA + "2025/5703/5703.md"),
    ("driver", "570.158.01", "570.172.08", "CVE-2025-23279", NVIDIA + "2025/5670/5670.md"),
    ("driver", "535.247.01", "535.261.03", "CVE-2025-23286", NVIDIA + "2025/5670/5670.md"),
    ("driver", "550.144.03", "550.163.01", "CVE-2025-23244", NVIDIA + "2025/5630/5630.md"),
    ("driver", "570.124.06", "570.133.07", "CVE-2025-23244", NVIDIA + "2025/5630/5630.md"),
    ("driver", "550.127.05", "550.144.03", "CVE-2024-0150", NVIDIA + "2025/5614/5614.md"),
    ("driver", "535.183.06", "535.216.01", "CVE-2024-0126", NVIDIA + "2024/5586/5586.md"),
    ("container-toolkit", "1.16.1", "1.16.2", "CVE-2024-0132", NVIDIA + "2024/5582/5582.md"),
    ("container-toolkit", "1.16.2", "1.17.0", "CVE-2024-0134", NVIDIA + "2024/5585/5585.md"),
    ("container-toolkit", "1.17.0", "1.17.1", "CVE-2024-0135", NVIDIA + "2025/5599/5599.md"),
    ("container-toolkit", "1.17.3", "1.17.4", "CVE-2025-23359", NVIDIA + "2025/5616/5616.md"),
    ("container-toolkit", "1.17.7", "1.17.8", "CVE-2025-23266", NVIDIA + "2025/5659/5659.md"),
    ("container-toolkit", "1.19.0", "1.19.1", "CVE-2026-24260", NVIDIA + "2026/5850/5850.md"),
    ("runc", "1.1.11", "1.1.12", "CVE-2024-21626", RUNC + "GHSA-xr7r-f8xq-vfvv"),
    ("runc", "1.2.7", "1.2.8", "CVE-2025-31133", RUNC + "GHSA-9493-h29p-rfm2"),
    ("runc", "1.3.2", "1.3.3", "CVE-2025-52565", RUNC + "GHSA-qw9x-cqr3-wc7r"),
    ("runc", "1.4.0-rc.2", "1.4.0-rc.3", "CVE-2025-52881", RUNC + "GHSA-cgrx-mc8f-2prm"),
    ("runc", "1.3.5", "1.3.6", "CVE-2026-41579", RUNC + "GHSA-xjvp-4fhw-gc47"),
    ("runc", "1.1.13", "1.1.14", "CVE-2024-45310", RUNC + "GHSA-jfvp-7x6p-h2pv"),
    ("docker-engine", "24.0.8", "24.0.9", "CVE-2024-24557", MOBY + "GHSA-xw73-rw38-6vjc"),
    ("docker-engine", "25.0.4", "25.0.5", "CVE-2024-29018", MOBY + "GHSA-mq39-4gv4-mvpx"),
    ("docker-engine", "27.1.0", "27.1.1", "CVE-2024-41110", MOBY + "GHSA-v23v-6jw2-98fq"),
    ("docker-engine", "26.0.1", "26.0.2", "CVE-2024-32473", MOBY + "GHSA-x84c-p2g9-rqv9"),
    ("docker-engine", "28.3.2", "28.3.3", "CVE-2025-54388", MOBY + "GHSA-x4rx-4gw3-53p4"),
    ("docker-engine", "25.0.12", "25.0.13", "CVE-2025-54410", MOBY + "GHSA-4vq8-7jfc-9cvp"),
    ("docker-engine", "29.3.0", "29.3.1", "CVE-2026-34040", MOBY + "GHSA-x744-4wpc-v9h2"),
    ("docker-engine", "29.5.0", "29.5.1", "CVE-2026-42306", MOBY + "GHSA-rg2x-37c3-w2rh"),
    ("vllm", "0.8.4", "0.8.5", "CVE-2025-32444", VLLM + "GHSA-hj4w-hm2g-p6w5"),
    ("vllm", "0.10.1", "0.10.1.1", "CVE-2025-48956", VLLM + "GHSA-rxc4-3w6r-4v47"),
    ("vllm", "0.14.0", "0.14.1", "CVE-2026-24779", VLLM + "GHSA-qh4c-xf7m-gxfc"),
    ("vllm", "0.16.0", "0.17.0", "CVE-2026-25960", VLLM + "GHSA-v359-jj2v-j536"),
    ("vllm", "0.17.1", "0.18.0", "CVE-2026-27893", VLLM + "GHSA-7972-pg2x-xr59"),
    ("vllm", "0.21.0", "0.22.0", "CVE-2026-47155", VLLM + "GHSA-3ww4-5jv9-j5gm"),
    ("vllm", "0.27.1", "0.28.0", "CVE-2026-90553", VLLM + "GHSA-3c86-2m5g-59q7"),
]


@pytest.mark.parametrize(("component", "unfixed", "fixed", "cve", "link"), PAIRS)
def test_pairs_by_hand(component, unfixed, fixed, cve, link):
    (found,) = [a for a in advisories.advisories_for(component, unfixed) if a.id == cve]
    assert found.link == link
    assert cve not in {a.id for a in advisories.advisories_for(component, fixed)}


def test_recall_is_complete_and_nobody_is_accused_wrongly():
    pairs = [(p[0], p[1], p[2], p[3]) for p in PAIRS]
    for component in COMPONENTS:
        for advisory in advisories.known(component):
            for span in advisory.ranges:
                if span.certain and span.fixed:
                    pairs.append((component, span.last or just_below(span.before), span.fixed, advisory.id))
    found = sum(any(a.id == cve for a in advisories.advisories_for(c, old)) for c, old, _, cve in pairs)
    wrong = sum(any(a.id == cve for a in advisories.advisories_for(c, new)) for c, _, new, cve in pairs)
    assert (found, wrong) == (len(pairs), 0)
    assert len(pairs) > 200


@pytest.mark.parametrize(
    ("component", "version", "safe", "next_safe"),
    [
        ("driver", "580.95.05", "580.159.03", "580.159.03"),
        ("driver", "595.45.04", "595.71.05", "595.71.05"),
        ("driver", "535.247.01", "535.309.01", "535.309.01"),
        ("driver", "570.211.01", None, "580.159.03"),  # R570 reached its end: bulletin 5821 lists it no more
        ("driver", "590.48.01", None, "595.71.05"),
        ("driver", "470.256.02", None, "535.309.01"),
        ("driver", "601.00.01", "601.00.01", None),  # newer than all bulletins
        ("container-toolkit", "1.14.0", "1.19.1", "1.19.1"),
        ("docker-engine", "28.5.2", None, "29.5.1"),
        ("docker-engine", "29.1.0", "29.5.1", "29.5.1"),
        ("runc", "1.1.12", None, "1.3.6"),
        ("runc", "1.3.3", "1.3.6", "1.3.6"),
        ("runc", "1.4.0", "1.4.3", "1.4.3"),
        ("vllm", "0.8.5.post1", "0.30.0", "0.30.0"),
        ("vllm", "nonsense", None, None),
    ],
)
def test_safe_versions(component, version, safe, next_safe):
    assert advisories.safe_version(component, version) == safe
    assert advisories.maintained_version(component, version) == next_safe


def test_safe_versions_are_safe_and_releases():
    for component in COMPONENTS:
        for advisory in advisories.known(component):
            for span in advisory.ranges:
                goal = advisories.assess(component, span.last or just_below(span.before)).safe
                assert goal is not None
                assert advisories.assess(component, goal).state == "unaffected"
                assert "rc" not in goal or "rc" in (span.before or "")


def test_an_ended_driver_branch_is_affected_and_is_told_where_to_go():
    seen = advisories.assess("driver", "570.211.01")
    assert (seen.state, seen.safe) == ("affected", "580.159.03")
    assert all(r.fixed is None for a in seen.advisories for r in a.ranges if r.holds(order.key("570.211.01")))


def test_a_branch_of_which_a_bulletin_says_nothing_is_not_judged_by_it():
    # CVE-2026-24198 is in R580 and R595 but not in R535, and 5821 does not list what lies between them.
    seen = advisories.assess("driver", "550.163.01")
    assert "CVE-2026-24198" in {a.id for a in seen.uncertain}
    assert "CVE-2026-24198" not in {a.id for a in seen.advisories}


@pytest.mark.parametrize(
    ("version", "conditions", "there", "gone"),
    [
        (
            "1.16.1",
            {"cdi-mode"},
            {"CVE-2024-0134", "CVE-2025-23266"},
            {"CVE-2024-0132", "CVE-2024-0133", "CVE-2025-23359"},
        ),
        ("1.16.1", {"legacy-mode"}, {"CVE-2024-0132", "CVE-2025-23359"}, {"CVE-2025-23266", "CVE-2025-23267"}),
        ("1.17.4", {"legacy-mode"}, {"CVE-2026-24260"}, {"CVE-2025-23266", "CVE-2025-23267"}),
        ("1.17.5", {"legacy-mode"}, {"CVE-2025-23266", "CVE-2025-23267"}, set()),
        ("1.17.7", {"compat-hook-disabled"}, {"CVE-2025-23267"}, {"CVE-2025-23266"}),
        ("1.17.7", {"crun"}, {"CVE-2025-23267"}, {"CVE-2025-23266"}),
        ("1.17.7", set(), {"CVE-2025-23266", "CVE-2025-23267", "CVE-2026-24260"}, set()),
        ("1.19.0", {"cdi-mode", "crun", "compat-hook-disabled"}, {"CVE-2026-24260"}, set()),
    ],
)
def test_what_the_configuration_removes(version, conditions, there, gone):
    found = {a.id for a in advisories.advisories_for("container-toolkit", version, conditions=conditions)}
    assert there <= found
    assert not gone & found


@pytest.mark.parametrize(
    ("component", "version"),
    [
        ("runc", "1.1.5+ds1"),
        ("runc", "1.1.5+ds1-1+deb12u1"),
        ("docker-engine", "20.10.24+dfsg1"),
        ("docker-engine", "24.0.7-0ubuntu4.1"),
        ("docker-engine", "25.0.8-amzn"),
        ("docker-engine", "library-import"),
        ("docker-engine", "0.0.0-dev"),
        ("container-toolkit", "1.18.1-0ubuntu1.2"),
        ("vllm", "0.22.1rc2.dev12+g0123abcd"),
        ("vllm", "dev"),
        ("driver", ""),
        ("driver", "9" * 5000),
        ("driver", None),
    ],
)
def test_what_is_no_release_is_not_judged(component, version):
    seen = advisories.assess(component, version)
    assert (seen.state, seen.advisories) == ("unknown", ())
    assert seen.reason


@pytest.mark.parametrize("origin", ["distribution", None])
def test_a_number_alone_never_accuses_what_a_distribution_or_nobody_known_built(origin):
    for component in COMPONENTS:
        for advisory in advisories.known(component):
            for span in advisory.ranges:
                seen = advisories.assess(component, span.last or just_below(span.before), origin=origin)
                assert (seen.state, seen.advisories) == ("unknown", ())


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("580.95.05", "580.126.09"),
        ("1.17", "1.17.1"),
        ("1.0.0-rc3", "1.0.0-rc93"),
        ("1.4.0-rc.2", "1.4.0-rc.3"),
        ("1.4.0-rc.3", "1.4.0"),
        ("2.2.0-beta.0", "2.2.0-rc.1"),
        ("0.11.0rc2", "0.11.0"),
        ("0.8.5", "0.8.5.post1"),
        ("0.8.5.post1", "0.9.0"),
        ("0.9.0", "0.9.0.1"),
        ("1.19.1-1", "1.20.0~rc.1-1"),
        ("v1.16.1", "v1.16.2"),
    ],
)
def test_the_order_of_versions(earlier, later):
    one, other = order.key(earlier), order.key(later)
    assert one is not None
    assert other is not None
    assert order.is_before(one, other)
    assert not order.is_before(other, one)


def test_a_build_or_a_package_revision_is_the_same_release():
    assert order.key("1.17") == order.key("1.17.0") == order.key("v1.17.0-1")
    assert order.key("0.30.0") == order.key("0.30.0+cu129") == order.key("0.30.0+cpu")
