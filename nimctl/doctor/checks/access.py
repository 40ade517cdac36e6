"""The port to publish on, and the keys to get the model with."""

from nimctl.core import keys
from nimctl.core.facts import HostFacts
from nimctl.doctor.model import Check, Finding, Needs, failed, passed, skipped, unknown, warned

NVIDIA_REGISTRY = "nvcr.io"
_GET_KEY = {
    keys.NGC: "Make a personal key at https://org.ngc.nvidia.com/setup/api-keys (service NGC Catalog), then "
    "`export NGC_API_KEY=...`.",
    keys.HUGGING_FACE: "Make a token at https://huggingface.co/settings/tokens, then `export HF_TOKEN=...`.",
}


def judge_port(facts: HostFacts, needs: Needs) -> list[Finding]:
    """Nothing listens where the server is to be published."""
    port = facts.port
    where = f"{port.host}:{port.port}"
    endpoint = facts.docker.endpoint or "unix:"
    if needs.runtime == "docker" and not endpoint.startswith(("unix:", "/")):
        return [unknown("port", f"port {where}", cause=f"Docker publishes on another host ({endpoint})")]
    if port.free is None:
        return [unknown("port", f"port {where}", cause=port.detail or "it could not be tried")]
    if port.free:
        return [passed("port", f"port {where} is free")]
    return [
        failed(
            "port",
            "port-in-use",
            f"port {where} is taken",
            cause=port.detail or "another program listens there",
            fix=f"Choose another with --port, or find who listens: `sudo ss -ltnp 'sport = :{port.port}'`; "
            "`nimctl ps` lists our own.",
        )
    ]


def judge_key(facts: HostFacts, needs: Needs) -> list[Finding]:
    """The key that image or weights need is there; its value is never looked at."""
    name, recipe = needs.key_name, needs.recipe
    if name is None:
        return [skipped("key", "API key", "this model needs none" if recipe else "no model was named")]
    present = facts.credentials.keys.get(name)
    if present is None:
        return [unknown("key", f"API key {name}", cause="it was not looked for")]
    if present:
        return [passed("key", f"{name} is set")]
    fix = _GET_KEY.get(name, f"Set {name} in the environment.")
    fix += f" {name}_FILE may name a readable file that holds it."
    if name == keys.NGC and recipe is not None and recipe.runs == "nim":
        cause = f"the container of {recipe.name} downloads its weights with this key, when it starts"
        title = f"no key for the image and its weights: {name} is not set"
        if NVIDIA_REGISTRY in facts.credentials.logins:
            title = f"the image can be pulled, but the container has no key: {name} is not set"
            cause = f"Docker's login for {NVIDIA_REGISTRY} stays on the host; {cause}"
        return [failed("key", "key-missing", title, cause=cause, fix=fix)]
    cause = "public weights can be had without it, at a lower rate; gated ones cannot"
    return [warned("key", "key-absent", f"{name} is not set", cause=cause, fix=fix, severity="info")]


CHECKS = (
    Check("port", "access", "the port is free", judge_port),
    Check("key", "access", "the API key is present", judge_key),
)
