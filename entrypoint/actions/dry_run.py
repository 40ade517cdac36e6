"""`nim-serve --dry-run`: what a start would do and why, as one JSON document on stdout and in words on stderr.

It looks at the GPUs and at what the cache holds; it starts nothing and fetches nothing. The sections for people are
those of NIM: https://docs.nvidia.com/nim/large-language-models/2.1.4/reference/advanced-configuration.html
"""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from entrypoint.engine import adapters, invocation
from entrypoint.engine.model import decide_layout, peeked, with_draft
from entrypoint.engine.nodes import placed, role_of
from entrypoint.front import documents, front_of, render, tls
from entrypoint.observability import otel
from entrypoint.observability.journal import Journal
from entrypoint.settings import Settings, explain
from entrypoint.stages.hardware import hardware_of
from entrypoint.stages.profile import model_for
from entrypoint.state import State
from entrypoint.weights.checkpoint import peek
from nimctl.core.engine_options import Resolved, object_of
from nimctl.core.fetch import from_environment


def dry_run(settings: Settings, environ: Mapping[str, str], journal: Journal) -> None:
    """Print the document and its words. Raises what a start would raise before it fetches anything."""
    role, state = role_of(settings, environ), State(settings.state_dir)
    check_front(settings, state, api=role.leads)
    otel.variables(settings, environ)
    hardware, asked = hardware_of(settings, role), invocation.request(settings)
    model = model_for(settings, hardware, asked)
    access = from_environment(environ)
    model = peeked(settings, model, access)
    draft = invocation.draft_of(settings, model, hardware.device)
    if draft is not None and not draft.is_part_of(model.weights):
        model = with_draft(model, draft, peek(draft.address, settings.cache_path, access).weights_bytes)
    layout = decide_layout(model, hardware.cluster, invocation.request(settings, model.runtime)).layout
    command = invocation.build_command(
        settings,
        model,
        hardware.device,
        layout,
        snapshot=model.weights,
        state=state,
        draft=draft.source if draft else None,
        adapters=adapters.options_for(settings.peft_source),
    )
    served = documents.profile_served(model, layout)
    document = {
        "schema": "nimctl.entrypoint/1",
        "settings": explain(settings),
        "device": hardware.device,
        "profile": {"id": served.id, "name": served.name},
        "layout": {"name": layout.name, "because": layout.because, "unused": list(layout.unused)},
        "draft": None if draft is None else {"name": draft.shown, "source": draft.source},
        "engine_options": {_name(one): told(one) for one in command.options},
        "engine": list(placed(command.argv, role.arguments(role.leader or "ADDRESS_OF_NODE_0"))),
        "warnings": list(settings.unknown),
    }
    journal.line(json.dumps(document, indent=2))
    sys.stderr.write(journal.clean(in_words(f"{served.id} ({served.name})", command.options, command.argv)) + "\n")
    sys.stderr.flush()


def check_front(settings: Settings, state: State, *, api: bool) -> None:
    """Read all that the front of a start would, and write nothing. Raises `config-invalid` as that start does."""
    front = front_of(settings, state, "", api=api)
    if front.tls is not None:
        tls.check(front.tls)
    render(front, state, cpus=1, log_level=settings.log_level)


def _name(one: Resolved) -> str:
    return one.option.name.removeprefix("no-")


def told(one: Resolved) -> dict[str, Any]:
    """An option's value, the layer that it comes from, and for an object of several layers that of each key."""
    option = one.option
    value: Any = object_of(option)
    if value is None:
        values = option.values
        value = (values[0] if len(values) == 1 else list(values)) if values else not option.name.startswith("no-")
    return {"value": value, "source": one.source} | ({"sources": dict(one.parts)} if one.parts else {})


def in_words(profile: str, options: Sequence[Resolved], argv: Sequence[str]) -> str:
    """What was resolved, for people: the profile, each option with its source, and the command line by line."""
    rows = [(_name(one), _shown(told(one)["value"]), _from(one)) for one in options]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    lines = [f"Selected profile: {profile}", "", "Resolved Configuration"]
    lines += [f"  {name:{widths[0]}}  {value:{min(widths[1], 40)}}  {source}" for name, value, source in rows]
    start = argv.index("serve") + 2
    groups: list[list[str]] = []
    for word in argv[start:]:
        if word.startswith("--") or not groups:
            groups.append([])
        groups[-1].append(word)
    parts = [shlex.join(argv[:start]), *(f"  {shlex.join(group)}" for group in groups)]
    return "\n".join((*lines, "", "Backend Arguments", " \\\n".join(parts)))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _from(one: Resolved) -> str:
    return ", ".join(f"{key}: {source}" for key, source in one.parts.items()) if one.parts else one.source
