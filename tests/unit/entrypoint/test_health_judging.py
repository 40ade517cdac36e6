"""The judge of the canary: never sick within what noise explains, always sick on what it cannot."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.health.judging import (
    MOST_FALL,
    MOST_SHIFT,
    TOKENS,
    Baseline,
    Probe,
    Reading,
    compare,
    is_not_a_number,
    judge,
    probes,
    read,
)
from entrypoint.unixhttp import Answer

PROBE = Probe("/v1/completions", {})
LOGPROB = st.floats(-20.0, 0.0)
IDS = st.lists(st.integers(0, 163839), max_size=TOKENS).map(tuple)


def answer(sentence, chosen=(), tokens=(), status=200):
    choice = {
        "text": "x",
        "logprobs": {"token_logprobs": list(chosen)},
        "token_ids": list(tokens),
        "prompt_logprobs": [None, *({"5": {"logprob": value, "rank": 3}} for value in sentence)],
    }
    return Answer(status, json.dumps({"choices": [choice]}).encode())


SOUND = Baseline(PROBE, Reading((-1.0,) * 20, (-0.3,) * TOKENS, tuple(range(TOKENS))))


@given(st.lists(st.tuples(LOGPROB, st.floats(-MOST_SHIFT, MOST_SHIFT)), min_size=1, max_size=40), IDS, IDS)
def test_noise_within_the_bounds_is_never_sick(pairs, before, now):
    """Tokens may be any others after a near tie, as long as they are not one alone where there were many."""
    sentence, shaken = tuple(a for a, _ in pairs), tuple(a + noise for a, noise in pairs)
    verdict = compare(Reading(sentence, sentence, before), Reading(shaken, shaken, now))
    assert verdict.state == "well" or (len(set(now)) == 1 and len(set(before)) >= 8)


@given(st.lists(LOGPROB, min_size=8, max_size=40), st.floats(MOST_FALL + 0.01, 50.0))
def test_a_fall_beyond_the_bounds_is_always_sick(values, fall):
    before, lower = tuple(values), tuple(v - fall for v in values)
    assert compare(Reading(before), Reading(lower)).state == "sick"
    assert compare(Reading(lower), Reading(before)).state == "sick", "certainty out of nowhere is no better"
    assert compare(Reading((), before), Reading((), lower)).state == "sick"


@given(st.lists(LOGPROB, min_size=1, max_size=20), st.sampled_from([math.nan, math.inf, -math.inf, None]), st.data())
def test_what_is_no_number_is_always_sick(values, bad, data):
    values = list(values)
    values[data.draw(st.integers(0, len(values) - 1))] = bad
    assert judge(SOUND, answer(values)).state == "sick"
    assert judge(SOUND, answer([-1.0] * 20, values)).state == "sick"


@given(st.integers(0, 163839))
def test_one_token_for_ever(token):
    assert compare(SOUND.reading, Reading(tokens=(token,) * TOKENS)).state == "sick"
    random_model = Reading((-6.0,) * 20, (-5.5,) * TOKENS, (1, 2, *([3] * 14)))
    assert compare(random_model, Reading(tokens=(token,) * TOKENS)).state == "well", "it tended to repeat in health"
    assert compare(SOUND.reading, Reading(tokens=(token,) * 3)).state == "well", "an end of the text is no repetition"


@given(st.binary(max_size=200), st.sampled_from([200, 400, 404, 429, 500, 502, 503, 504]))
def test_any_answer_is_judged(body, status):
    assert judge(SOUND, Answer(status, body)).state in ("sick", "unknown")


@pytest.mark.parametrize(
    ("status", "state"),
    [(400, "sick"), (500, "sick"), (401, "unknown"), (429, "unknown"), (502, "unknown"), (503, "unknown")],
)
def test_refusals(status, state):
    """It answered this very request before; what was too much for it now, or on its way, is not its health."""
    assert judge(SOUND, Answer(status, b"{}")).state == state


def test_nan_as_vllm_tells_it():
    """Starlette refuses to write NaN with a ValueError, which vLLM 0.32 turns into 400."""
    told = Answer(400, b'{"error":{"message":"Out of range float values are not JSON compliant"}}')
    assert is_not_a_number(told)
    assert not is_not_a_number(Answer(400, b'{"error":{"message":"prompt logprobs are not available"}}'))
    assert "NaN" in judge(SOUND, told).why


def test_minus_infinity_is_clamped_and_may_be_the_models_way():
    masked = [-9999.0, *[-1.0] * 19]
    assert judge(Baseline(PROBE, Reading(tuple(masked))), answer(masked)).state == "well"
    assert judge(SOUND, answer(masked)).state == "sick"


def test_nothing_to_compare_is_well():
    assert judge(Baseline(PROBE, Reading()), answer([-1.0], [-1.0], [4])).state == "well"
    assert judge(SOUND, Answer(200, b'{"choices":[{"message":{"content":null,"reasoning":"hm"}}]}')).state == "well"
    assert judge(SOUND, Answer(200, b'{"choices":[]}')).state == "sick"


def test_reads_what_was_asked():
    reading = read(answer([-1.0, -2.0], [-0.5], [9]))
    assert reading == Reading((-1.0, -2.0), (-0.5,), (9,))
    assert [p.path for p in probes("demo")] == ["/v1/completions", "/v1/completions", "/v1/chat/completions"]
    assert all(p.document["temperature"] == 0 for p in probes("demo"))
