"""What the image's labels ask of driver and GPUs."""

from dataclasses import replace

import pytest

from nimctl.core.facts import HostFacts, ImageFacts
from nimctl.doctor.model import Finding, Needs
from tests.unit.doctor.gpu_hosts import hopper
from tests.unit.doctor.hosts import DEMO, judge

OURS = ImageFacts(
    "registry.example/nimctl/cuda:1", True, "sha256:ab", "amd64",
    min_driver="580", min_compute_capability="7.5", engine="vllm 0.32.0",
)  # fmt: skip


def said(image: ImageFacts | None, needs: Needs | None = None, **gpus: str) -> Finding:
    facts: HostFacts = replace(hopper(), image=image)
    if gpus:
        cards = tuple(
            replace(card, compute_capability=gpus.get("capability", card.compute_capability))
            for card in facts.gpus.gpus
        )
        facts = replace(facts, gpus=replace(facts.gpus, driver=gpus.get("driver", facts.gpus.driver), gpus=cards))
    (finding,) = judge("image-needs", facts, needs) if needs else judge("image-needs", facts)
    return finding


def test_a_host_that_has_what_the_image_asks_for() -> None:
    assert said(OURS).verdict == "pass"
    assert said(OURS).title == "the image needs driver 580 and compute capability 7.5, and has it"


def test_an_image_of_a_later_day_asks_for_more() -> None:
    later = replace(OURS, min_driver="610", min_compute_capability="10.0")
    facts = replace(hopper(), image=later)
    found = judge("image-needs", facts)
    assert found[0].fix.startswith("Install driver 610 or later")
    assert [(finding.verdict, finding.id) for finding in found] == [
        ("fail", "driver-too-old"),
        ("fail", "gpu-unsupported"),
    ]
    assert "610" in found[0].title and "580.95.05" in found[0].title
    assert "10.0" in found[1].title and "0-7" in found[1].title


@pytest.mark.parametrize("change", [{"driver": "a beta"}, {"capability": ""}])
def test_what_cannot_be_compared_is_no_failure(change: dict[str, str]) -> None:
    assert said(OURS, None, **change).verdict == "unknown"


def test_a_label_that_is_no_number_is_no_failure() -> None:
    assert said(replace(OURS, min_driver="the newest", min_compute_capability=None)).verdict == "unknown"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (None, "not on this host"),
        (ImageFacts("nvcr.io/nim/x:1", present=False), "not on this host"),
        (ImageFacts("nvcr.io/nim/x:1", True, "sha256:ab", "amd64"), "does not say"),
    ],
)
def test_an_image_without_labels_or_without_bytes_is_not_judged(image: ImageFacts | None, reason: str) -> None:
    finding = said(image)
    assert finding.verdict == "skip" and reason in finding.title


def test_a_daemon_that_cannot_be_asked_leaves_it_open() -> None:
    assert said(ImageFacts("nvcr.io/nim/x:1")).verdict == "unknown"


def test_without_gpus_or_without_docker_nothing_is_asked() -> None:
    assert said(OURS, Needs(recipe=DEMO, gpus="none")).verdict == "skip"
    assert said(OURS, Needs(recipe=DEMO, runtime="process")).verdict == "skip"
