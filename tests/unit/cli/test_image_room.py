"""An image that cannot fit is refused before a byte of it is fetched; one that may not fit is told."""

import socket
from types import SimpleNamespace

import pytest
from docker.errors import ImageNotFound

from nimctl.cli import image_room
from nimctl.core.errors import NimctlError
from nimctl.core.facts import DiskFacts, DockerFacts
from nimctl.core.image_identity import ImageIdentity
from nimctl.launch.docker import Engine
from nimctl.launch.docker.pull import PullPlan
from nimctl.render import Output

GB = 10**9
LAYERS = tuple((f"sha256:{n}", GB) for n in range(10))
PLAN = PullPlan(ImageIdentity("r/x:1", None, None, None, "linux/amd64"), LAYERS, tuple(f"d{n}" for n in range(10)))


def ask(monkeypatch, free, *, here=(), containerd=False, filesystem="ext4", near=True):
    monkeypatch.setattr(image_room, "is_daemon_here", lambda _: near)
    monkeypatch.setattr(image_room, "look_at_image_store", lambda _: DiskFacts("/d", filesystem, free=free))
    facts = DockerFacts("ok", endpoint=endpoint, containerd_store=containerd)
    engine = SimpleNamespace(facts=facts, layers_here=lambda: [tuple(here)])
    image_room.require_room(PLAN, engine, Output.choose("pull"))  # type: ignore[arg-type]


def test_enough_room_is_not_worth_a_word(monkeypatch, capsys):
    ask(monkeypatch, 24 * GB)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("free", "containerd"), [(9 * GB, False), (19 * GB, True)])
def test_less_than_the_bytes_themselves_is_refused(monkeypatch, free, containerd):
    with pytest.raises(NimctlError) as caught:
        ask(monkeypatch, free, containerd=containerd)
    assert (caught.value.id, caught.value.exit_code) == ("disk-full", 9)
    assert "nothing was fetched" in caught.value.cause and "10.0 GB are to be fetched" in caught.value.cause


@pytest.mark.parametrize(("free", "containerd"), [(11 * GB, False), (22 * GB, True)])
def test_an_estimate_warns(monkeypatch, capsys, free, containerd):
    ask(monkeypatch, free, containerd=containerd)
    assert "[disk-tight]" in capsys.readouterr().out


def test_layers_that_are_here_need_no_room(monkeypatch, capsys):
    ask(monkeypatch, 5 * GB, here=[f"d{n}" for n in range(8)])
    assert capsys.readouterr().out == ""
    with pytest.raises(NimctlError):
        ask(monkeypatch, 5 * GB, here=["other", "d1", "d2"])


def test_a_filesystem_that_packs_proves_nothing_and_a_far_one_is_not_seen(monkeypatch, capsys):
    ask(monkeypatch, 9 * GB, filesystem="zfs")
    assert "[disk-tight]" in capsys.readouterr().out
    ask(monkeypatch, 1, near=False)
    assert capsys.readouterr().out == ""


@pytest.fixture
def endpoint(tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "d.sock"))
        listening.listen()
        yield f"unix://{tmp_path / 'd.sock'}"


def test_a_daemon_is_here_where_the_kernel_knows_its_process(endpoint, tmp_path):
    assert image_room.is_daemon_here(endpoint)
    for other in ("ssh://far", "tcp://127.0.0.1:1", None, f"unix://{tmp_path}/none"):
        assert not image_room.is_daemon_here(other)


def test_a_daemon_outside_of_this_container_has_disks_of_its_own(endpoint, monkeypatch):
    monkeypatch.setattr(image_room.struct, "unpack", lambda *_: (0, 0, 0))
    assert not image_room.is_daemon_here(endpoint)


def test_an_image_that_is_removed_meanwhile_is_passed_over():
    def inspect(name):
        if name == "gone":
            raise ImageNotFound("no")
        return {"Id": name, "RootFS": {"Layers": ["d0"]}}

    api = SimpleNamespace(images=lambda: [{"Id": "gone"}, {"Id": "here"}], inspect_image=inspect)
    assert Engine(api, DockerFacts("ok")).layers_here() == [(), ("d0",)]
