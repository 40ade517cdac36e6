"""Whether an answer is what a sound engine answers: pure comparison of one reading with the one taken at the start.

An engine whose weights, cache or kernels were damaged goes on answering 200: with one token for ever (NaN logits make
`argmax` take token 0, `!` in many vocabularies) or with words at random. The text alone does not tell: a model with
random weights says such things in health. So the same sentence is read with the engine's own log-probabilities (in
nats), and compared with what this very engine gave when it had just been started.

The bounds lie between noise and damage. Noise, mean distance per token: 0 between any two of 25 readings of the demo
under load; at most 0.05 between batches of one engine (https://github.com/vllm-project/vllm/issues/51187); between two
engines 0.005 for a dense model and 0.14 to 0.34 for one with experts, whose choice flips
(https://shamanez.github.io/streams-rollout-market/dense_dashboard.html). Damage: an ordinary sentence falls towards the
-11 or -12 of a guess among all tokens, by many nats.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from entrypoint.unixhttp import Answer

# Counting leaves a language model in no doubt of how to go on, and what follows repeats no token.
SENTENCE = "The quick brown fox jumps over the lazy dog. One, two, three, four, five, six, seven,"
TOKENS = 16

# Mean distance of the log-probabilities of the sentence's tokens: four times what two different engines show.
MOST_SHIFT = 1.5
# How far the mean log-probability of the greedily chosen tokens may fall: they may be others, after a near tie.
MOST_FALL = 3.0
# A repetition is a sign only where the engine did not tend to it in health.
_LEAST_VARIETY = TOKENS // 2
# Its word for minus infinity, which JSON has not: clamp_prompt_logprobs in vllm/entrypoints/generate/base/serving.py.
_MINUS_INFINITY = -9999.0
# Starlette refuses NaN and infinity with a ValueError, which the engine answers with 400.
_NOT_A_NUMBER = "not JSON compliant"

# The same request was answered with 200 before: these say that it can no longer be, others that it was not its turn.
_REFUSALS = (400, 500)


@dataclass(frozen=True)
class Probe:
    """A request that is asked again and again."""

    path: str
    document: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Reading:
    """What an answer tells: log-probabilities of the sentence and of the tokens chosen, and these; empty: unknown."""

    sentence: tuple[float, ...] = ()
    chosen: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Baseline:
    """What the engine answered when it had just been started, and to what."""

    probe: Probe
    reading: Reading


@dataclass(frozen=True)
class Verdict:
    """`well`, `sick`, or `unknown` where the answer tells nothing; `why` is a sentence for the latter two."""

    state: Literal["well", "sick", "unknown"]
    why: str = ""


def probes(model: str) -> tuple[Probe, ...]:
    """What may be asked, the most telling first: an engine option or a kind of model may rule out the first ones."""
    common = {"model": model, "max_tokens": TOKENS, "temperature": 0, "return_token_ids": True}
    completion = {**common, "prompt": SENTENCE, "logprobs": 0}
    chat = {**common, "messages": [{"role": "user", "content": "Say hello."}]}
    return (
        Probe("/v1/completions", {**completion, "prompt_logprobs": 0}),
        Probe("/v1/completions", completion),
        Probe("/v1/chat/completions", chat),
    )


def read(answer: Answer) -> Reading | None:
    """What a completion or chat completion tells, or None for anything else. NaN stands for what is no number."""
    document = answer.json()
    choices = document.get("choices") if isinstance(document, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if answer.status != 200 or not isinstance(choice, dict):
        return None
    told = choice.get("prompt_logprobs") or document.get("prompt_logprobs")
    sentence = told[1:] if isinstance(told, list) else []  # nothing is known of the first token
    chosen = choice.get("logprobs")
    values = chosen.get("token_logprobs") if isinstance(chosen, dict) else None
    ids = choice.get("token_ids")
    return Reading(
        tuple(_of_position(position) for position in sentence),
        tuple(_number(value) for value in values) if isinstance(values, list) else (),
        tuple(i for i in ids if isinstance(i, int)) if isinstance(ids, list) else (),
    )


def _of_position(position: Any) -> float:
    """With `prompt_logprobs: 0` a position holds the sentence's own token alone."""
    value = next(iter(position.values()), None) if isinstance(position, dict) else None
    return _number(value.get("logprob") if isinstance(value, dict) else None)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def is_not_a_number(answer: Answer) -> bool:
    """True where the engine computed NaN or infinity, whether it could send them or not."""
    reading = read(answer)
    if reading is None:
        return answer.status in _REFUSALS and _NOT_A_NUMBER.encode() in answer.body
    return not all(map(math.isfinite, (*reading.sentence, *reading.chosen)))


def judge(baseline: Baseline, answer: Answer) -> Verdict:
    """What the answer to the baseline's request says about the engine."""
    if is_not_a_number(answer):
        return Verdict("sick", "it computes NaN or infinity for the probability of a token")
    reading = read(answer)
    if reading is not None:
        return compare(baseline.reading, reading)
    if answer.status == 200:
        return Verdict("sick", "its answer is no completion")
    if answer.status in _REFUSALS:
        return Verdict("sick", f"it answers {answer.status} to a request that it answered before")
    return Verdict("unknown", f"the request was answered with {answer.status}")


def compare(before: Reading, now: Reading) -> Verdict:
    """Whether two readings of the same request may come from the same sound engine."""
    if before.sentence and len(before.sentence) == len(now.sentence):
        shift = _mean([abs(a - b) for a, b in zip(before.sentence, now.sentence, strict=True)])
        if shift > MOST_SHIFT:
            return Verdict("sick", f"log-probabilities of a fixed sentence moved by {shift:.1f} per token")
    if min(len(before.chosen), len(now.chosen)) >= _LEAST_VARIETY:
        fall = _mean(before.chosen) - _mean(now.chosen)
        if fall > MOST_FALL:
            return Verdict("sick", f"log-probabilities of its own choices fell by {fall:.1f} per token")
    if len(set(before.tokens)) >= _LEAST_VARIETY and len(now.tokens) >= TOKENS and len(set(now.tokens)) == 1:
        return Verdict("sick", f"it repeats one token (number {now.tokens[0]}) where it used {len(set(before.tokens))}")
    return Verdict("well")


def _mean(values: "tuple[float, ...] | list[float]") -> float:
    return sum(max(value, _MINUS_INFINITY) for value in values) / len(values)
