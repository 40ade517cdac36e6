"""`/openapi.json`: the engine's own description cut down to what is reachable, with the routes of ours beside it.

https://spec.openapis.org/oas/v3.1.0
"""

from collections.abc import Iterable, Mapping
from typing import Any

from entrypoint.front.routes import Route
from nimctl import __version__

_REF = "#/components/"
_VERBS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_KEYED: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}]
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "integer"},
            },
        }
    },
}


def ours(routes: Iterable[Route], *, keys: bool) -> dict[str, Any]:
    """The description while there is no engine: the routes that need none."""
    paths = {r.path: {"get": _operation(r)} for r in routes if r.by != "engine" and r.summary}
    return _document(paths, {"schemas": {"FrontError": _ERROR}}, routes, keys=keys)


def merged(engine: Mapping[str, Any], routes: Iterable[Route], *, keys: bool) -> dict[str, Any]:
    """The description of everything that is reachable, from the engine's own document.

    Of the engine's paths only those of `routes` stay, of these only the methods, and of its components only what they
    refer to. Raises ValueError for a document that is none.
    """
    routes = tuple(routes)
    theirs, parts = engine.get("paths"), engine.get("components") or {}
    if not isinstance(theirs, Mapping) or not isinstance(parts, Mapping):
        raise ValueError("the engine's description has no paths")
    paths: dict[str, Any] = {}
    for route in routes:
        if route.by != "engine":
            continue
        known = theirs.get(route.upstream or route.path)
        allowed = [m.lower() for m in route.methods]
        operations = {k: v for k, v in (known or {}).items() if k in allowed or k not in _VERBS}
        if any(verb in operations for verb in _VERBS):
            paths[route.path] = operations if route.upstream is None else _renamed(operations, route)
    components = _needed(paths, parts)
    components["schemas"] = {**components.get("schemas", {}), "FrontError": _ERROR}
    paths |= {r.path: {"get": _operation(r)} for r in routes if r.by != "engine" and r.summary}
    return _document(paths, components, routes, keys=keys)


def _document(
    paths: dict[str, Any], components: dict[str, Any], routes: Iterable[Route], *, keys: bool
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "nimctl", "version": __version__, "description": "The API of this server."},
        "paths": paths,
        "components": components,
    }
    if keys:
        components["securitySchemes"] = _SCHEMES
        document["security"] = _KEYED
        for route in routes:
            if route.open and route.path in paths:
                paths[route.path]["get"]["security"] = []
    return document


def _operation(route: Route) -> dict[str, Any]:
    kind = "application/json"
    if route.by in ("metrics", "page"):
        kind = "text/plain" if route.by == "metrics" else "text/html"
    refused = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/FrontError"}}}}
    answers: dict[str, Any] = {"200": {"description": "The answer", "content": {kind: {"schema": _schema(kind)}}}}
    if route.by == "file" and not route.open:
        answers["503"] = {"description": "Not known yet: the server is starting", **refused}
    elif route.by == "health" and not route.path.endswith(("/live", "/startup")):
        answers["503"] = {"description": "Not ready", "content": {"application/json": {"schema": {"type": "object"}}}}
    name = route.path.strip("/").replace("/", "_").replace(".", "_")
    return {"tags": ["server"], "operationId": f"front_{name}", "summary": route.summary, "responses": answers}


def _schema(kind: str) -> dict[str, Any]:
    return {"type": "object"} if kind == "application/json" else {"type": "string"}


def _renamed(operations: dict[str, Any], route: Route) -> dict[str, Any]:
    """The operations of the same route under another path, with ids of their own, as ids must be unique."""
    name = route.path.strip("/").replace("/", "_")
    return {
        k: {**v, "operationId": f"{name}_{k}"} if k in _VERBS and isinstance(v, dict) else v
        for k, v in operations.items()
    }


def _needed(paths: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """The components that `paths` refer to, and those that these refer to."""
    waiting: list[Any] = [paths]
    seen: dict[str, dict[str, Any]] = {}
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            waiting.extend(node.values())
            reference = node.get("$ref")
            if isinstance(reference, str) and reference.startswith(_REF):
                group, _, name = reference.removeprefix(_REF).partition("/")
                found = parts.get(group, {}).get(name) if isinstance(parts.get(group), Mapping) else None
                if found is not None and name not in seen.setdefault(group, {}):
                    seen[group][name] = found
                    waiting.append(found)
        elif isinstance(node, list):
            waiting.extend(node)
    return {group: dict(sorted(names.items())) for group, names in sorted(seen.items())}
