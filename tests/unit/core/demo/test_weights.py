"""The tensors: shapes that every layout can cut, and matrices in which the phrase outweighs all noise."""

import struct
from functools import cache

import pytest

from nimctl.core.demo.config import TEXT, VISION
from nimctl.core.demo.phrase import ANSWER, END_OF_THOUGHT, END_OF_TURN, QUOTE, THINK, THOUGHT, phrase_tokens
from nimctl.core.demo.tokenizer import special_ids, token_id, vocab_size
from nimctl.core.demo.weights import tensors

TENSORS = {tensor.name: tensor for tensor in tensors()}


@cache
def matrix(name: str) -> list[tuple[float, ...]]:
    """A bfloat16 matrix as rows of floats."""
    tensor = TENSORS[name]
    raw = bytes(tensor.content())
    single = bytearray(2 * len(raw))
    single[2::4], single[3::4] = raw[0::2], raw[1::2]
    return list(struct.iter_unpack(f"<{tensor.shape[-1]}f", single))


def logits(token: str | int) -> list[float]:
    """What the model says after a token if its layers add nothing: embedding, normalised, times the output matrix."""
    row = matrix("language_model.model.embed_tokens.weight")[token if isinstance(token, int) else token_id(token)]
    size = (sum(value * value for value in row) / len(row)) ** 0.5
    return [
        sum(a * b for a, b in zip(row, output, strict=True)) / size
        for output in matrix("language_model.lm_head.weight")
    ]


def ranking(token: str | int) -> list[int]:
    scores = logits(token)
    return sorted(range(len(scores)), key=scores.__getitem__, reverse=True)


WALK = (THINK, *phrase_tokens(THOUGHT), END_OF_THOUGHT, *phrase_tokens(ANSWER), END_OF_TURN)


@pytest.mark.parametrize("step", range(len(WALK) - 1), ids=lambda step: WALK[step].strip())
def test_each_token_of_the_phrase_leads_to_the_next_beyond_doubt(step: int) -> None:
    scores = logits(WALK[step])
    successor = scores.pop(token_id(WALK[step + 1]))
    # A lead of 15 leaves at most 677 * e^-15 = 2e-4 at temperature 1 if all others tied; they lie far below.
    assert successor - max(scores) > 15


@pytest.mark.parametrize("token", ["a", ".", " image", "assistant", "[BOS]", "<|im_end|>", "<|media_pad|>", 0, 255])
def test_any_other_token_leads_to_the_answer(token: str | int) -> None:
    assert ranking(token)[0] == token_id(phrase_tokens(ANSWER)[0])


def test_a_grammar_can_always_close_what_it_opened() -> None:
    assert ranking("<|tool_call_argument_begin|>")[0] == token_id("{")
    assert ranking(phrase_tokens(ANSWER)[-1])[:2] == [token_id(END_OF_TURN), token_id(QUOTE)]
    inside = ranking("nimctl demo")
    assert inside[:2] == [token_id(END_OF_TURN), token_id(QUOTE)]
    closers = [inside.index(token_id(token)) for token in ("}", "]", ":", ",", "0")]
    assert closers == sorted(closers), "closing is likelier than going on"
    assert min(inside.index(token_id(blank)) for blank in " \n\r\t") >= vocab_size() - 4


def test_everything_that_tensor_parallelism_cuts_divides_by_eight() -> None:
    cut = {
        "heads": TEXT.heads,
        "dense": TEXT.dense_intermediate,
        "experts": TEXT.experts,
        "shared expert": TEXT.shared_experts * TEXT.moe_intermediate,
        "vision heads": VISION.heads,
        "vision width": VISION.intermediate,
    }
    assert {name: size % 8 for name, size in cut.items()} == dict.fromkeys(cut, 0)
    assert TEXT.moe_intermediate % (8 * 32) == 0, "a quantisation group of 32 must fit in an eighth"
    assert TEXT.hidden % 128 == 0


def test_head_sizes_are_those_that_kernels_are_written_for() -> None:
    assert (TEXT.heads, TEXT.kv_lora, TEXT.rope, TEXT.nope, TEXT.value) == (64, 512, 64, 128, 128)
    assert VISION.hidden // VISION.heads == 64


def test_both_pipeline_stages_hold_experts() -> None:
    # vLLM gives the first of two stages the odd layer.
    first_stage = -(-TEXT.layers // 2)
    assert TEXT.dense_layers < first_stage < TEXT.layers


def test_the_tensors_are_those_of_the_published_architecture() -> None:
    prefix = "language_model.model.layers"
    assert TENSORS[f"{prefix}.0.self_attn.kv_b_proj.weight"].shape == (64 * (128 + 128), 512)
    assert TENSORS[f"{prefix}.0.self_attn.kv_a_proj_with_mqa.weight"].shape == (512 + 64, 256)
    assert TENSORS[f"{prefix}.0.mlp.gate_proj.weight"].shape == (512, 256)
    assert TENSORS[f"{prefix}.1.mlp.gate.e_score_correction_bias"].dtype == "F32"
    assert TENSORS[f"{prefix}.2.mlp.experts.7.down_proj.weight"].shape == (256, 512)
    assert TENSORS["vision_tower.encoder.blocks.1.wqkv.weight"].shape == (3 * 512, 512)
    assert TENSORS["mm_projector.proj.2.weight"].shape == (256, 4 * 512)
    assert f"{prefix}.0.mlp.experts.0.up_proj.weight" not in TENSORS


@pytest.mark.parametrize("name", ["mm_projector.proj.2.weight", "vision_tower.encoder.blocks.0.wo.weight"])
def test_random_tensors_are_centred_and_scaled_to_their_inputs(name: str) -> None:
    values = [value for row in matrix(name) for value in row]
    inputs = TENSORS[name].shape[-1]
    assert abs(sum(values) / len(values)) < 0.01 / inputs**0.5
    assert sum(value * value for value in values) / len(values) * inputs == pytest.approx(1, abs=0.02)


def test_norms_start_at_one_and_the_router_bias_is_small() -> None:
    assert bytes(TENSORS["language_model.model.norm.weight"].content()) == b"\x80\x3f" * TEXT.hidden
    bias = struct.unpack("<8f", TENSORS["language_model.model.layers.1.mlp.gate.e_score_correction_bias"].content())
    assert any(bias)
    assert max(map(abs, bias)) <= 0.125


def test_every_content_has_the_announced_size() -> None:
    small = [tensor for tensor in TENSORS.values() if tensor.nbytes < 2_000_000]
    assert [tensor.name for tensor in small if len(tensor.content()) != tensor.nbytes] == []


def test_the_vocabulary_fills_the_matrices() -> None:
    assert TENSORS["language_model.lm_head.weight"].shape == (vocab_size(), TEXT.hidden)
    assert max(special_ids().values()) == vocab_size() - 1
