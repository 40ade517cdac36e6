"""The tokenizer files: a complete byte-level BPE in which words of the list are one token each."""

import json
import re
from itertools import pairwise

import pytest

from nimctl.core.demo.phrase import ANSWER, STRING_WORD, THOUGHT, phrase_tokens
from nimctl.core.demo.tokenizer import special_ids, token_id, tokenizer_config, tokenizer_json, vocab_size, vocabulary

DOCUMENT = json.loads(json.dumps(tokenizer_json()))
VOCABULARY: dict[str, int] = DOCUMENT["model"]["vocab"]
RANKS = {tuple(pair): rank for rank, pair in enumerate(DOCUMENT["model"]["merges"])}
# The pre-tokenizer's pattern, for ASCII.
WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")


def encode(text: str) -> list[str]:
    """Reference BPE for ASCII text: in each word, join the adjacent pair of lowest rank until none is left."""
    tokens: list[str] = []
    for word in WORDS.findall(text):
        parts = list(word.replace(" ", "Ġ").replace("\n", "Ċ"))
        while ranked := [(RANKS[pair], at) for at, pair in enumerate(pairwise(parts)) if pair in RANKS]:
            _, at = min(ranked)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        tokens += parts
    return tokens


def test_ids_are_dense_and_unique() -> None:
    ids = [*VOCABULARY.values(), *(token["id"] for token in DOCUMENT["added_tokens"])]
    assert sorted(ids) == list(range(vocab_size()))


def test_every_byte_is_a_token() -> None:
    assert len([token for token in VOCABULARY if len(token) == 1]) == 256


def test_every_merge_joins_two_tokens_into_a_third() -> None:
    assert [pair for pair in RANKS if not {*pair, "".join(pair)} <= VOCABULARY.keys()] == []


@pytest.mark.parametrize(
    "text", ["Hello", " the", " image", "user", "assistant", "Describe", " your request", "What is this"]
)
def test_listed_words_are_one_token_each(text: str) -> None:
    assert encode(text) == [word.replace(" ", "Ġ") for word in WORDS.findall(text)]


def test_any_text_can_be_encoded() -> None:
    text = "Unlisted words & 12 numbers:\n {x}"
    tokens = encode(text)
    assert set(tokens) <= VOCABULARY.keys()
    assert "".join(tokens).replace("Ġ", " ").replace("Ċ", "\n") == text


def test_each_token_of_the_phrases_decodes_to_its_word() -> None:
    words = [*phrase_tokens(THOUGHT), *phrase_tokens(ANSWER), STRING_WORD]
    assert [token for token in words if token.replace(" ", "Ġ") not in vocabulary()] == []
    assert len({token_id(word) for word in words}) == len(words), "a word occurs twice: its successor is ambiguous"


def test_the_word_for_strings_is_no_encoding_of_a_text() -> None:
    assert encode(STRING_WORD) != [STRING_WORD.replace(" ", "Ġ")]


def test_an_unknown_token_is_an_error() -> None:
    with pytest.raises(KeyError):
        token_id("no single token")


def test_marks_that_parsers_read_are_decoded() -> None:
    special = {token["content"]: token["special"] for token in DOCUMENT["added_tokens"]}
    assert special["<|im_end|>"]
    assert special["<|media_pad|>"]
    assert not any(
        special[token] for token in ("<think>", "</think>", "<|tool_calls_section_begin|>", "<|tool_call_end|>")
    )


def test_the_configuration_names_tokens_that_exist() -> None:
    config = tokenizer_config()
    assert {config[role] for role in ("bos_token", "eos_token", "unk_token", "pad_token")} <= special_ids().keys()
    assert config["eos_token"] == "<|im_end|>"
    assert {int(index): token["content"] for index, token in config["added_tokens_decoder"].items()} == {
        index: token for token, index in special_ids().items()
    }
