"""The settings of one start: variables and command line read once, each value with the place it came from."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from entrypoint.settings import commandline, keys, telemetry
from entrypoint.settings.own import OWN_MODELS
from entrypoint.settings.values import Settings, Source
from entrypoint.settings.variables import ACCESS, ACCESS_FAMILIES, NAMES, VARIABLES
from nimctl.core.engine_variables import ENGINE_VARIABLES, values_of
from nimctl.core.errors import NimctlError

_LOOKED_AT = ("NIM_", "VLLM_", "DYN_HTTP", "SGLANG_", "MODELSCOPE_")


def read(environ: Mapping[str, str], arguments: Sequence[str] = ()) -> Settings:
    """The settings in `environ` and on the command line (without the program's name).

    An empty variable counts as not set. In an image, which says what its engine was built for, its own model is served
    where none was named. Raises `config-invalid` naming the variable, `usage` for the command line.
    """
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for variable in VARIABLES:
        name = variable.set_as(environ)
        sources[variable.name] = "environment" if name else "default"
        text = environ[name] if name else variable.default
        values[variable.field] = None if text is None else variable.value(text, name)
    line = commandline.split(arguments)
    if line.model:
        values["model_path"], sources["NIM_MODEL_PATH"] = line.model, "command line"
    if not values["recipe"] and not values["model_path"] and (own := OWN_MODELS.get(values["engine_device"])):
        values["recipe"], sources["NIM_RECIPE"] = own, "image"
    if not values["recipe"] and not values["model_path"]:
        raise NimctlError(
            "config-invalid",
            "nothing to serve was named",
            cause="neither NIM_RECIPE nor NIM_MODEL_PATH is set",
            fix="Set NIM_RECIPE=demo, or NIM_MODEL_PATH to a folder that holds a checkpoint.",
        )
    if values["ssl_mode"] == "DISABLED":
        values["ssl_mode"] = None
    if values["otel"] and (address := telemetry.endpoint(values["otel_endpoint"], environ)):
        values["otel_endpoint"], sources["NIM_OTEL_EXPORTER_OTLP_ENDPOINT"] = address, "environment"
    engine_values = values_of(environ)
    sources |= {v.name: "environment" if v.name in engine_values else "default" for v in ENGINE_VARIABLES}
    access = sorted({*ACCESS, *(name for name in environ if name.startswith(tuple(ACCESS_FAMILIES)))})
    return Settings(
        **values,
        engine_values=engine_values,
        command_line_args=line.engine_args,
        dry_run=line.dry_run,
        secrets=keys.collect(environ, (*values["passthrough_args"], *line.engine_args)),
        sources=sources,
        access={name: bool(environ.get(name)) for name in access},
        unknown=_without_effect(environ),
    )


def _without_effect(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The sentences of `strange`, which is only imported where something is to be said or looked up."""
    known = NAMES | set(ACCESS)
    if not any(name not in known and name.startswith(_LOOKED_AT) for name in environ):
        return ()
    said: tuple[str, ...] = import_module("entrypoint.settings.strange").sentences(environ)
    return said


def state_dir(environ: Mapping[str, str]) -> Path:
    """`NIMCTL_STATE_DIR` alone: needed first, so that every later problem can be reported there."""
    return Path(_from(environ, "state_dir"))


def wants_json_lines(environ: Mapping[str, str]) -> bool:
    """`NIM_JSONL_LOGGING` alone: what is wrong with the other settings is told in the form that was asked for."""
    return bool(_from(environ, "jsonl"))


def _from(environ: Mapping[str, str], field: str) -> Any:
    variable = next(v for v in VARIABLES if v.field == field)
    return variable.value(environ.get(variable.name) or str(variable.default))


def explain(settings: Settings) -> dict[str, dict[str, Any]]:
    """Each variable with its value and source, ready for JSON: what `--dry-run` shows. Holds no secret."""
    by_field = {f.name: getattr(settings, f.name) for f in fields(settings)}
    known = {v.name: {"value": _plain(by_field[v.field]), "source": settings.sources[v.name]} for v in VARIABLES}
    known |= {
        v.name: {"value": settings.engine_values.get(v.name), "source": settings.sources[v.name]}
        for v in ENGINE_VARIABLES
    }
    return known | {
        name: {"value": "set" if is_set else None, "source": "environment" if is_set else "default"}
        for name, is_set in settings.access.items()
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
