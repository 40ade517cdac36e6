"""A loopback server that imitates the Hugging Face Hub, NGC and a plain mirror, and misbehaves as it is told.

    with FaultHub() as hub:
        commit = hub.add_repo("org/name", {"config.json": b"{}", "model-00001.safetensors": Sparse(10**9, seed=1)})
        hub.fail("model-*.safetensors", Cut(after=1000), times=2)
        hub.fail("config.json", "2*status(429, retry_after=1)")
        ...                                       # let the code under test loose on hub.url
        assert hub.bytes_sent("*.safetensors") < 1.1 * 10**9
        assert not hub.credentials_seen(listener="cdn")

Faults are in `faults` and `header_faults`, patterns and the text notation in `rules`, what each API is known to do in
`hugging_face` and `ngc`, the forward proxy in `proxy`.
"""

from tests.lib.fault_hub.content import Content, InMemory, Lie, Sparse, StoredFile, sha256_of
from tests.lib.fault_hub.fault import Fault
from tests.lib.fault_hub.faults import (
    Cut,
    EmptyBody,
    Extra,
    FlipBit,
    Gzip,
    IgnoreRange,
    ShortRange,
    Slow,
    Stall,
    Truncate,
    WrongBytes,
    WrongContentRange,
)
from tests.lib.fault_hub.header_faults import (
    ChangedEtag,
    EndlessRedirect,
    Garbage,
    Redirect,
    Reset,
    Status,
    WrongEtag,
    WrongTotal,
)
from tests.lib.fault_hub.hub import SEND_BUFFER, UNREAD, FaultHub
from tests.lib.fault_hub.hugging_face import TOKEN
from tests.lib.fault_hub.ledger import Entry, Ledger
from tests.lib.fault_hub.ngc import KEY
from tests.lib.fault_hub.proxy import PASSWORD, USER, ForwardProxy, Passage
from tests.lib.fault_hub.rules import Rule

__all__ = [
    "KEY",
    "PASSWORD",
    "SEND_BUFFER",
    "TOKEN",
    "UNREAD",
    "USER",
    "ChangedEtag",
    "Content",
    "Cut",
    "EmptyBody",
    "EndlessRedirect",
    "Entry",
    "Extra",
    "Fault",
    "FaultHub",
    "FlipBit",
    "ForwardProxy",
    "Garbage",
    "Gzip",
    "IgnoreRange",
    "InMemory",
    "Ledger",
    "Lie",
    "Passage",
    "Redirect",
    "Reset",
    "Rule",
    "ShortRange",
    "Slow",
    "Sparse",
    "Stall",
    "Status",
    "StoredFile",
    "Truncate",
    "WrongBytes",
    "WrongContentRange",
    "WrongEtag",
    "WrongTotal",
    "sha256_of",
]
