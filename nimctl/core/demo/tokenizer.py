"""The demo model's tokenizer: byte-level BPE with Kimi-K2.5's special tokens, built from a word list.

The file format is that of the `tokenizers` library (https://huggingface.co/docs/tokenizers). Any text can be encoded,
since all 256 bytes are tokens. Merges are prefix chains: for " the" they are `" t"`, `" th"`, `" the"`. Chains of words
with a leading space come first, so no chain can start inside another word of the list and break it.
"""

from functools import cache
from itertools import pairwise
from typing import Any

from nimctl.core.demo.chat_template import CHAT_TEMPLATE
from nimctl.core.demo.phrase import ANSWER, STRING_WORD, THOUGHT, phrase_tokens

# Names as in the published tokenizer; as there, those marked False are decoded like text, so that parsers see them.
SPECIAL_TOKENS: dict[str, bool] = {
    "[BOS]": True,
    "[EOS]": True,
    "<|im_end|>": True,
    "<|im_user|>": True,
    "<|im_assistant|>": True,
    "<|im_system|>": True,
    "<|im_middle|>": True,
    "<|media_begin|>": True,
    "<|media_content|>": True,
    "<|media_end|>": True,
    "<|media_pad|>": True,
    "<|kimi_k25_video_placeholder|>": True,
    "<|tool_calls_section_begin|>": False,
    "<|tool_calls_section_end|>": False,
    "<|tool_call_begin|>": False,
    "<|tool_call_argument_begin|>": False,
    "<|tool_call_end|>": False,
    "<think>": False,
    "</think>": False,
    "[UNK]": True,
    "[PAD]": True,
}

# Frequent words keep prompts short. Order is part of the checkpoint: append, and renew the manifest.
_SPACED_WORDS = (
    "the of and to in is that it for was on are as with be at this have from or by not but what all were when we there "
    "can an your which do how if will up about out then them she many some so these would her make like him into time "
    "has look two more write go see number no way could people my than first water been who now find long down day did "
    "get come made may part image picture photo model describe describing tool call weather today please say hello "
    "thanks answer question"
)
# Capitalised words first: their chains cannot start inside a word either.
_BARE_WORDS = "Hello What Describe Please user assistant system image tool declare functions name city type string"


@cache
def _byte_alphabet() -> tuple[str, ...]:
    """The printable stand-in of each byte, in byte order: the alphabet that byte-level BPE has used since GPT-2."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    spare = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printable else next(spare)) for byte in range(256))


def _stand_in(text: str) -> str:
    return "".join(_byte_alphabet()[byte] for byte in text.encode())


def _chained_words() -> tuple[str, ...]:
    """Words that encode to one token each, in merge order: with a space, capitalised, bare."""
    phrase = [token.rstrip(".,") for token in (*phrase_tokens(THOUGHT), *phrase_tokens(ANSWER))]
    spaced = [f" {word}" for word in _SPACED_WORDS.split()] + [word for word in phrase if word.startswith(" ")]
    capitalised = [word for word in phrase if not word.startswith(" ")]
    return tuple(dict.fromkeys((*spaced, *capitalised, *_BARE_WORDS.split())))


@cache
def merges() -> tuple[tuple[str, str], ...]:
    """The BPE merges in rank order, in stand-in characters."""
    ranked: dict[tuple[str, str], None] = {}
    for word in map(_stand_in, _chained_words()):
        prefixes = [word[:end] for end in range(1, len(word) + 1)]
        ranked.update({(prefix, longer[-1]): None for prefix, longer in pairwise(prefixes)})
    return tuple(ranked)


@cache
def vocabulary() -> dict[str, int]:
    """Token to id in stand-in characters, without special tokens: bytes, merges, then the phrases' punctuated words.

    The punctuated words can be generated but are never the encoding of a text: no merge leads to them.
    """
    phrase = map(_stand_in, (*phrase_tokens(THOUGHT), *phrase_tokens(ANSWER), STRING_WORD))
    tokens = dict.fromkeys((*_byte_alphabet(), *(left + right for left, right in merges()), *phrase))
    return {token: index for index, token in enumerate(tokens)}


@cache
def special_ids() -> dict[str, int]:
    """Special token to id; they follow the vocabulary, as in the published tokenizer."""
    first = len(vocabulary())
    return {token: first + index for index, token in enumerate(SPECIAL_TOKENS)}


def vocab_size() -> int:
    """Number of tokens with the special ones; vLLM pads it for tensor parallelism by itself."""
    return len(vocabulary()) + len(SPECIAL_TOKENS)


def token_id(text: str) -> int:
    """The id of the token that decodes to `text`. Raises KeyError where no single token does."""
    special = special_ids().get(text)
    return vocabulary()[_stand_in(text)] if special is None else special


def _added_token(content: str, special: bool) -> dict[str, Any]:
    return {
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def tokenizer_json() -> dict[str, Any]:
    """The document `tokenizer.json`."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": special_ids()[token], **_added_token(token, special)} for token, special in SPECIAL_TOKENS.items()
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary(),
            "merges": [list(pair) for pair in merges()],
        },
    }


def tokenizer_config() -> dict[str, Any]:
    """The document `tokenizer_config.json`: the end of a turn ends a generation, also for grammars."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(special_ids()[token]): _added_token(token, special) for token, special in SPECIAL_TOKENS.items()
        },
        "additional_special_tokens": [token for token, special in SPECIAL_TOKENS.items() if special],
        "bos_token": "[BOS]",
        "eos_token": "<|im_end|>",
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 32768,
        "chat_template": CHAT_TEMPLATE,
    }
