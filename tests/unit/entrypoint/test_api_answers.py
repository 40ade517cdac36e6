"""Errors of the engine in the shape that the client's dialect has."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.api.answers import TEXT, shaped
from entrypoint.api.pictures import look
from tests.lib.pictures import gif_head, jpeg_head, png_head

DETAIL = [{"loc": ["body", "n"], "msg": "Input should be a valid integer", "type": "int_parsing"}]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (422, {"detail": DETAIL}, (400, "body.n: Input should be a valid integer", "BadRequestError")),
        (404, {"detail": "Not Found"}, (404, "Not Found", "NotFoundError")),
        (501, {"error": {"message": "Only", "type": "NotImplementedError"}}, (400, "Only", "BadRequestError")),
        (500, "Internal Server Error", (500, "Internal Server Error", "InternalServerError")),
        (503, {"error": {"message": "busy", "type": "Unavailable", "code": 503}}, (503, "busy", "Unavailable")),
        (400, {"type": "error", "error": {"type": "BadRequestError", "message": "no"}}, (400, "no", "BadRequestError")),
        (400, {"error": "plain"}, (400, "plain", "BadRequestError")),
        (405, "", (405, "The engine answers 405", "BadRequestError")),
        (400, [1, 2], (400, "1; 2", "BadRequestError")),
        (400, {"error": {"x": 1}}, (400, '{"x": 1}', "BadRequestError")),
    ],
)  # fmt: skip
def test_every_shape_becomes_the_dialects(status, body, told):
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    new, text = shaped("openai", status, raw)
    error = json.loads(text)["error"]
    assert (new, error["message"], error["type"]) == told
    assert (set(error), error["code"]) == ({"message", "type", "param", "code"}, new)
    new, text = shaped("anthropic", status, raw)
    document = json.loads(text)
    assert (document["type"], document["error"]["message"]) == ("error", told[1])
    kinds = {404: "not_found_error", 503: "overloaded_error", 500: "api_error"}
    assert document["error"]["type"] == kinds.get(new, "invalid_request_error")


def test_a_constraint_on_which_the_engine_fails_was_the_clients():
    inside = json.dumps({"error": {"message": "Internal server error", "type": "InternalServerError", "code": 500}})
    assert shaped("openai", 500, inside.encode())[0] == 500
    status, text = shaped("openai", 500, inside.encode(), constrained=True)
    assert (status, json.loads(text)["error"]["type"]) == (400, "BadRequestError")
    assert shaped("openai", 500, b"EngineCore encountered an issue", constrained=True)[0] == 500


def test_an_error_is_for_a_person_to_read():
    error = json.loads(shaped("openai", 400, json.dumps({"error": {"message": "x" * 10**6}}).encode())[1])["error"]
    assert len(error["message"]) <= TEXT + 4


@given(st.sampled_from(["openai", "anthropic"]), st.integers(400, 599), st.binary(max_size=80))
def test_no_body_is_too_strange(dialect, status, body):
    new, text = shaped(dialect, status, body)
    assert new in (status, 400)
    assert isinstance(json.loads(text)["error"]["message"], str)


@given(
    st.binary(max_size=200), st.sampled_from([png_head(7, 8), gif_head(7, 8), jpeg_head(7, 8, 100), b"\xff\xd8\xff"])
)
def test_any_bytes_are_a_picture_or_not(noise, head):
    for data in (noise, head + noise, head[: len(noise)] + noise):
        found = look(data)
        assert found is None or found.pixels >= 0


@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 200_000))
def test_sizes_are_read_from_the_head(width, height, before):
    for data in (png_head(width, height), gif_head(width, height), jpeg_head(width, height, before)):
        assert look(data)[1:] == (width, height)
