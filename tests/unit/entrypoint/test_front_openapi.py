"""The description: what is reachable of the engine's, nothing else, and ours beside it."""

import json

import pytest

from entrypoint.front.describing import publish
from entrypoint.front.openapi import merged, ours
from entrypoint.front.routes import OURS, table
from tests.unit.entrypoint.front_lab import lab
from tests.unit.entrypoint.service import needs_nginx

ENGINE = {
    "openapi": "3.1.0",
    "info": {"title": "the engine", "version": "1"},
    "paths": {
        "/v1/chat/completions": {
            "post": {
                "operationId": "chat",
                "requestBody": {
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatRequest"}}}
                },
                "responses": {"200": {"description": "ok"}},
            },
            "get": {"operationId": "no", "responses": {}},
        },
        "/v1/responses/{response_id}": {"get": {"operationId": "retrieve", "responses": {}}},
        "/collective_rpc": {
            "post": {"requestBody": {"content": {"x": {"schema": {"$ref": "#/components/schemas/Rpc"}}}}}
        },
        "/ping": {"get": {"responses": {}}},
    },
    "components": {
        "schemas": {
            "ChatRequest": {"properties": {"messages": {"items": {"$ref": "#/components/schemas/Message"}}}},
            "Message": {"anyOf": [{"$ref": "#/components/schemas/Message"}, {"type": "string"}]},
            "Rpc": {"type": "object"},
        }
    },
}


def test_only_what_is_reachable_stays():
    before = json.dumps(ENGINE)
    document = merged(ENGINE, table(), keys=False)
    assert json.dumps(ENGINE) == before
    theirs = set(document["paths"]) - {r.path for r in OURS}
    assert theirs == {"/v1/chat/completions", "/v1/responses/{response_id}"}
    assert set(document["paths"]["/v1/chat/completions"]) == {"post"}
    assert set(document["components"]["schemas"]) == {"ChatRequest", "Message", "FrontError"}
    assert {"/v1/health/ready", "/v1/metrics", "/v1/metadata", "/openapi.json", "/docs"} <= set(document["paths"])
    assert "security" not in document


def test_sagemakers_route_is_described_as_what_it_is():
    document = merged(ENGINE, table(sagemaker=True), keys=True)
    invocation = document["paths"]["/invocations"]["post"]
    assert invocation["requestBody"] == ENGINE["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    ids = [told["operationId"] for verbs in document["paths"].values() for told in verbs.values()]
    assert len(ids) == len(set(ids))
    assert document["paths"]["/ping"]["get"]["security"] == []
    assert "security" not in document["paths"]["/v1/version"]["get"]


@pytest.mark.parametrize("engine", [{}, {"paths": []}, {"paths": {}, "components": [1]}, {"paths": None}])
def test_what_is_no_description_is_refused(engine):
    with pytest.raises(ValueError, match="no paths"):
        merged(engine, table(), keys=False)


def test_every_reference_leads_somewhere():
    for document in (ours(table(sagemaker=True), keys=True), merged(ENGINE, table(sagemaker=True), keys=True)):
        text = json.dumps(document)
        for name in [part.split('"')[0] for part in text.split("#/components/schemas/")[1:]]:
            assert name in document["components"]["schemas"], name


@needs_nginx
def test_it_is_ours_alone_until_the_engine_tells():
    with lab(sagemaker=False) as one:
        assert one.engine is not None
        assert set(one.get("/openapi.json").json["paths"]) == {r.path for r in OURS if r.summary}
        one.engine.answers["/openapi.json"] = (200, "application/json", json.dumps(ENGINE))
        assert publish(one.front, one.state) is None
        assert "/v1/chat/completions" in one.get("/openapi.json").json["paths"]
        for broken in ((500, "text/plain", "no"), (200, "text/plain", "no"), (200, "application/json", '{"paths":1}')):
            one.engine.answers["/openapi.json"] = broken
            assert publish(one.front, one.state) is not None
        one.lose_engine()
        assert publish(one.front, one.state) is not None
        assert "/v1/chat/completions" in one.get("/openapi.json").json["paths"], "what was known stays"
