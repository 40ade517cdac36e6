"""Which request meets which fault: patterns, counts and sequences, in the spirit of containerd's failpoints.

A pattern with a leading "/" is matched against the request's path, whatever the request is. Any other is matched
against the file's path in its repository, or its last part, on the exchange that carries the file's bytes; `on` names
another exchange ("resolve": the answer that redirects to them; "*": any).

The text form (compare https://github.com/containerd/containerd/blob/main/pkg/failpoint/fail.go) is terms joined with
"->". A term is a fault, or several joined with "+", and may have a count in front:

    2*cut(1000)->off->status(503, retry_after=1)      two cuts, one good answer, then 503 for ever
    3*off->slow(1000)+reset(500)                      three good answers first

A term without a count lasts for ever if it is the last one, else once.
"""

import ast
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from tests.lib.fault_hub import faults, header_faults
from tests.lib.fault_hub.fault import Fault
from tests.lib.fault_hub.messages import Reply, Request

_KINDS: dict[str, Callable[..., Fault]] = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower(): kind
    for kind in (
        faults.Cut,
        faults.Stall,
        faults.Truncate,
        faults.ShortRange,
        faults.IgnoreRange,
        faults.WrongContentRange,
        faults.FlipBit,
        faults.WrongBytes,
        faults.Slow,
        faults.Gzip,
        faults.Extra,
        faults.EmptyBody,
        header_faults.Reset,
        header_faults.WrongTotal,
        header_faults.ChangedEtag,
        header_faults.WrongEtag,
        header_faults.Status,
        header_faults.EndlessRedirect,
        header_faults.Redirect,
        header_faults.Garbage,
    )
}


@dataclass(frozen=True)
class Term:
    """`faults` together (none: a good answer) for `times` requests; None: for all that follow."""

    faults: tuple[Fault, ...]
    times: int | None = None


def parse(text: str) -> tuple[Term, ...]:
    """The terms of a text. Raises ValueError where it is none."""
    parts = [ast.parse(part.strip(), mode="eval").body for part in text.split("->")]
    terms = []
    for number, node in enumerate(parts):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            terms.append(Term(tuple(_faults(node.right)), int(ast.literal_eval(node.left))))
        else:
            terms.append(Term(tuple(_faults(node)), None if number == len(parts) - 1 else 1))
    return tuple(terms)


def _faults(node: ast.expr) -> list[Fault]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _faults(node.left) + _faults(node.right)
    name = node.func if isinstance(node, ast.Call) else node
    if not isinstance(name, ast.Name):
        raise ValueError(f"{ast.unparse(node)} is no fault")
    if name.id == "off":
        return []
    if name.id not in _KINDS:
        raise ValueError(f"{name.id} is no fault; there are {', '.join(sorted(_KINDS))}")
    if not isinstance(node, ast.Call):
        return [_KINDS[name.id]()]
    named = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg}
    return [_KINDS[name.id](*[ast.literal_eval(value) for value in node.args], **named)]


@dataclass
class Rule:
    """One `hub.fail(...)`; `hits` counts the requests that were spoiled."""

    pattern: str
    terms: tuple[Term, ...]
    listener: str | None = None
    method: str | None = None
    on: str | None = None
    when: Callable[[Request], bool] | None = None
    hits: int = 0
    _seen: int = field(default=0, repr=False)

    def take(self, request: Request, reply: Reply) -> tuple[Fault, ...] | None:
        """The faults for this exchange; None: the rule has nothing to say about it."""
        term = self._current()
        if term is None or not self._matches(request, reply):
            return None
        if not all(self._fits(fault, request, reply) for fault in term.faults):
            return None
        self._seen += 1
        self.hits += bool(term.faults)
        return term.faults

    def _current(self) -> Term | None:
        before = 0
        for term in self.terms:
            if term.times is None or self._seen < before + term.times:
                return term
            before += term.times
        return None

    def _fits(self, fault: Fault, request: Request, reply: Reply) -> bool:
        default = request.method == "GET" or fault.any_method
        return (default or self.method is not None) and fault.concerns(request, reply)

    def _matches(self, request: Request, reply: Reply) -> bool:
        if self.listener not in (None, request.listener) or self.method not in (None, "*", request.method):
            return False
        if self.when is not None and not self.when(request):
            return False
        by_url = self.pattern.startswith("/")
        on = self.on or ("*" if by_url else "content")
        return on in ("*", reply.role) and path_matches(
            self.pattern, request.path, reply.file.path if reply.file else None
        )


def path_matches(pattern: str, url_path: str, file_path: str | None) -> bool:
    """The one meaning of a pattern, for faults and for questions to the ledger."""
    if pattern.startswith("/"):
        return fnmatchcase(url_path, pattern)
    if file_path is None:
        return pattern == "*"
    return fnmatchcase(file_path, pattern) or fnmatchcase(file_path.rpartition("/")[2], pattern)


@dataclass
class Rules:
    """All rules of a hub, in the order in which they were given; the first that has something to say decides."""

    _rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rule: Rule) -> Rule:
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def shape(self, request: Request, reply: Reply) -> tuple[Reply, tuple[Fault, ...]]:
        """The reply as it goes out, and the faults that made it so."""
        with self._lock:
            taken: tuple[Fault, ...] = ()
            for rule in self._rules:
                found = rule.take(request, reply)
                if found is not None:
                    taken = found
                    break
        for fault in taken:
            reply = fault.shape(request, reply)
        return reply, taken
