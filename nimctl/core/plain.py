"""Frozen dataclasses to JSON-ready data and back.

The contracts of this project (host facts, recipes, plans, stage reports) are frozen dataclasses whose fields are
plain values, tuples, string-keyed mappings, `None`-able values or other such dataclasses. That small world needs no
schema library: writing is `dataclasses.asdict`, reading follows the type hints and refuses what does not fit.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin

T = TypeVar("T")

_BEYOND = 2**63  # no count of bytes or of anything else here comes near; floats of such numbers may overflow


def to_plain(value: Any) -> Any:
    """A dataclass (or a nest of them) as dicts, lists and plain values, ready for `json.dumps`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    return value


def from_plain(kind: type[T], data: Any, where: str = "") -> T:
    """`data` (as `json.loads` or a YAML reader gives it) as an instance of the dataclass `kind`.

    Missing fields take their default; unknown fields are refused, so that a misspelt key is found at once.
    Raises ValueError with the path of the first value that does not fit.
    """
    return cast(T, _read(kind, data, where))


def _read(hint: Any, data: Any, where: str) -> Any:  # noqa: PLR0911 (one return for each kind of hint)
    origin = get_origin(hint)
    if hint is Any:
        return data
    if origin in (Union, types.UnionType):
        if data is None and type(None) in get_args(hint):
            return None
        return _read_union(hint, data, where)
    if origin is typing.Literal:
        if data not in get_args(hint):
            raise ValueError(f"{where}: {data!r} is not one of {', '.join(map(str, get_args(hint)))}")
        return data
    if origin is tuple:
        if not isinstance(data, (list, tuple)):
            raise ValueError(f"{where or 'document'}: a list is expected, not {_name(data)}")
        item = get_args(hint)[0]
        return tuple(_read(item, v, f"{where}[{i}]") for i, v in enumerate(data))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, Mapping):
            raise ValueError(f"{where or 'document'}: a mapping is expected, not {_name(data)}")
        return {str(k): _read(get_args(hint)[1], v, f"{where}.{k}") for k, v in data.items()}
    if dataclasses.is_dataclass(hint):
        return _read_dataclass(hint, data, where)
    if hint in (int, float) and isinstance(data, (int, float)) and not isinstance(data, bool):
        return _read_number(hint, data, where)
    if hint is not int and isinstance(hint, type) and isinstance(data, hint):
        return data
    raise ValueError(f"{where or 'document'}: {getattr(hint, '__name__', hint)} is expected, not {_name(data)}")


def _read_number(hint: Any, data: int | float, where: str) -> int | float:
    if isinstance(data, int) and abs(data) >= _BEYOND:
        raise ValueError(f"{where or 'document'}: the number is too large")
    if hint is int and not isinstance(data, int):
        raise ValueError(f"{where or 'document'}: int is expected, not float")
    return float(data) if hint is float else data


def _read_union(hint: Any, data: Any, where: str) -> Any:
    problem = ValueError(f"{where}: no value fits")
    for option in get_args(hint):
        if option is type(None):
            continue
        try:
            return _read(option, data, where)
        except ValueError as error:
            problem = error
    raise problem


@cache  # evaluating the hints of one class costs as much as reading ten of its instances
def _shape(kind: Any) -> tuple[dict[str, Any], dict[str, dataclasses.Field[Any]]]:
    return typing.get_type_hints(kind), {f.name: f for f in dataclasses.fields(kind)}


def _read_dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where or 'document'}: a mapping is expected, not {_name(data)}")
    hints, fields = _shape(kind)
    if unknown := sorted(set(map(str, data)) - set(fields)):
        raise ValueError(f"{where or 'document'}: unknown key {unknown[0]!r}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _read(hints[name], data[name], f"{where}.{name}" if where else name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where or 'document'}: {name!r} is missing")
    return kind(**values)


def _name(data: Any) -> str:
    return "null" if data is None else type(data).__name__
