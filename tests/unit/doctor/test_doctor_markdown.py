"""The report as Markdown: complete, without secrets, and nothing in it can become markup."""

import re
from dataclasses import replace

import pytest

from nimctl.doctor.markdown import to_markdown
from nimctl.doctor.model import Needs, failed, passed, unknown
from nimctl.doctor.runner import Report, run_checks
from tests.unit.doctor.hosts import HEALTHY, KIMI, host, without_gpus

CANARY = "nvapi-CANARYcanaryCANARY"


def test_what_is_not_well_comes_first_with_cause_fix_and_proof():
    facts = host(gpus=without_gpus("mismatch"), port={"free": False})
    text = to_markdown(run_checks(facts, Needs(KIMI, gpus="all")), "kimi-k2.5")
    failing, passing = text.split("<details>")
    assert failing.index("### Failed") < failing.index("driver-mismatch") < failing.index("port-in-use")
    for words in ("; sudo modprobe nvidia`", "NVML says no", "another program listens there", "Ubuntu 24.04.3 LTS"):
        assert words in failing
    assert "`docker-version`" in passing
    assert "driver-mismatch" not in passing


def test_a_healthy_host_has_no_section_of_failures():
    text = to_markdown(run_checks(HEALTHY, Needs(KIMI, gpus="all")), "kimi-k2.5")
    assert "###" not in text
    assert "8 x NVIDIA H200" in text


@pytest.mark.parametrize("words", ["`; rm -rf", "```\n# heading", "</details><script>", "a|b", "* x", "` ``` ``"])
def test_words_of_the_host_stay_words(words):
    finding = failed("c", "some-id", words, cause=words, fix=words, evidence=(words, words))
    text = to_markdown(Report((finding, passed("d", words), unknown("e", words, cause=words)), HEALTHY), words)
    left = re.sub(
        r"(?s)(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", text
    )  # without code spans and blocks, as CommonMark reads
    flat = " ".join(words.split())
    assert flat not in left
    assert "<script>" not in left
    assert not re.search(r"^# heading", left, re.MULTILINE)


def test_keys_that_other_programs_printed_are_masked():
    facts = replace(HEALTHY, problems=(f"docker: {CANARY}",))
    finding = failed("c", "some-id", CANARY, cause=CANARY, fix=CANARY, evidence=(CANARY,))
    assert "CANARY" not in to_markdown(Report((finding,), facts), "kimi-k2.5")
