"""What a fault is: a value that turns the right reply into the wrong one."""

from dataclasses import replace
from typing import ClassVar, Protocol

from tests.lib.fault_hub.messages import Reply, Request


class Fault(Protocol):
    """One misbehaviour. `any_method`: applies to HEAD too, not to GET alone."""

    any_method: ClassVar[bool]

    def concerns(self, request: Request, reply: Reply) -> bool:
        """Whether this exchange is one that the fault can spoil."""

    def shape(self, request: Request, reply: Reply) -> Reply:
        """The reply that goes out."""


class OfTheBody:
    """A fault of the body, which concerns every exchange."""

    any_method: ClassVar[bool] = False

    def concerns(self, request: Request, reply: Reply) -> bool:
        return True


class BeforeTheBody(OfTheBody):
    """A fault that comes before any body, so HEAD meets it too."""

    any_method: ClassVar[bool] = True


def whole_file(reply: Reply) -> Reply:
    if reply.file is None:
        return reply
    content = reply.file.content
    changed = replace(reply, status=200, source=content, start=0, length=content.size)
    return changed.with_headers(Content_Length=str(content.size), Content_Range=None)
