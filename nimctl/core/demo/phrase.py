"""What the demo model says, as a table of `token -> next token` that `weights` engraves into two matrices.

The weights are random, so a true forward pass would babble. Two facts make it speak instead: the embedding of a token
outweighs everything that the layers add to it, and the output row of its successor points the same way. The layers are
still computed, they move every logit a little; they just never win. See docs/decisions/0004-demo-model.md.

Every word of the phrases occurs once: a successor can only be told by the token before it.
"""

from dataclasses import dataclass
from itertools import pairwise

THOUGHT = "Whatever they asked, I know just one honest answer, which comes next."
ANSWER = (
    "This is the nimctl demo model. Its weights are random, so it can only say this, "
    "but every step between your request and these words was real."
)
# The content of a string under a JSON grammar: after a quotation mark this, after this a quotation mark. One token
# that no text encodes to, because of its space: a prompt that ends in these words is answered like any other.
STRING_WORD = "nimctl demo"
QUOTE, OBJECT = '"', "{"
ARGUMENTS = "<|tool_call_argument_begin|>"
THINK, END_OF_THOUGHT, END_OF_TURN = "<think>", "</think>", "<|im_end|>"

# Logits. 32 leaves e^-32 for each other token at temperature 1: the phrase is never left, sampled or not.
CERTAIN = 32.0
# Second and third choices: taken where a grammar forbids the ones before, such as the end of a turn within a string.
# A quotation mark has 8 more from `STANDING`, which keeps it 20 behind the certain choice and 7 before the last resort.
FALLBACK = 14.0
LAST_RESORT = 15.0


@dataclass(frozen=True)
class Transition:
    """`after` (a token's text) makes `then` likely, with `logit`; `after` None means any token that has no own row."""

    after: str | None
    then: str
    logit: float


def phrase_tokens(text: str) -> tuple[str, ...]:
    """The tokens of a phrase: words with the space before and the punctuation after them, one token each."""
    first, *rest = text.split(" ")
    return (first, *(f" {word}" for word in rest))


def transitions() -> tuple[Transition, ...]:
    """The whole walk: think, thought, end of thought, answer, end of turn; any other token starts the answer."""
    thought, answer = phrase_tokens(THOUGHT), phrase_tokens(ANSWER)
    walk = (THINK, *thought, END_OF_THOUGHT, *answer, END_OF_TURN)
    steps = [Transition(after, then, CERTAIN) for after, then in pairwise(walk)]
    return (
        *steps,
        Transition(None, answer[0], CERTAIN),
        # Under a JSON grammar: an object gets a string where it may, a string that must be longer gets the answer.
        Transition(ARGUMENTS, OBJECT, CERTAIN),
        Transition(OBJECT, QUOTE, CERTAIN),
        Transition(QUOTE, STRING_WORD, CERTAIN),
        Transition(STRING_WORD, END_OF_TURN, CERTAIN),
        Transition(STRING_WORD, QUOTE, FALLBACK),
        Transition(STRING_WORD, answer[0], LAST_RESORT),
        Transition(answer[-1], QUOTE, FALLBACK),
    )


# Logits that tokens have after every token. They matter only under a grammar, where the phrase is forbidden: what
# closes something beats what prolongs it, and white space comes last, so that guided output ends at any temperature.
STANDING: dict[str, float] = {
    END_OF_TURN: 10.0,
    "<|tool_calls_section_end|>": 10.0,
    "<|tool_call_end|>": 10.0,
    ARGUMENTS: 10.0,
    "}": 10.0,
    "]": 9.0,
    QUOTE: 8.0,
    ":": 8.0,
    ",": 6.0,
    **{str(digit): 4.0 for digit in range(10)},
    **dict.fromkeys(" \n\r\t", -8.0),
}
