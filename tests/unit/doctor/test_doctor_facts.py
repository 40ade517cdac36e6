"""Looking at a host: each look against a prepared folder, environment or port, and the whole against this machine."""

import json
import os
import socket
import stat
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.facts import CdiSpec, DockerFacts, from_json, to_json
from nimctl.core.gpus import GpuInventory
from nimctl.doctor.facts import Subject, gather
from nimctl.doctor.observe import storage
from nimctl.doctor.observe.credentials import look_at_credentials
from nimctl.doctor.observe.network import look_at_port, look_at_proxies
from nimctl.doctor.observe.nvidia import look_at_cdi, look_at_toolkit
from nimctl.doctor.observe.storage import look_at_cache, look_at_disk, look_into_cache
from nimctl.doctor.observe.system import look_at_system
from nimctl.doctor.observe.tools import look_at_tools

CANARY = "nvapi-CANARY0123456789abcdef"


def later():
    return time.monotonic() + 60


def program(folder: Path, name: str, says: str, code: int = 0) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    path.chmod(0o755)


# The system


def test_system_is_read_from_its_files(tmp_path):
    for name, text in {
        "etc/os-release": 'ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04.3 LTS"\n# no\nBROKEN="\n',
        "proc/meminfo": "MemTotal:       1024 kB\nMemAvailable:    512 kB\nHugePages_Total:       0\n",
        "proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    seen = look_at_system(tmp_path)
    assert (seen.os_id, seen.os_version, seen.os_name) == ("ubuntu", "24.04", "Ubuntu 24.04.3 LTS")
    assert (seen.memory_total, seen.memory_available) == (1024 * 1024, 512 * 1024)
    assert seen.wsl is True
    assert seen.shm_total is None
    assert seen.uid == os.getuid()


def test_a_system_without_files_is_unknown_and_not_zero(tmp_path):
    seen = look_at_system(tmp_path)
    assert (seen.os_id, seen.memory_total, seen.shm_total) == (None, None, None)


# The container toolkit and CDI


@pytest.mark.parametrize(
    ("name", "says", "version", "source"),
    [
        ("nvidia-ctk", "NVIDIA Container Toolkit CLI version 1.17.8", "1.17.8", "nvidia-ctk"),
        ("nvidia-container-cli", "cli-version: 1.14.3", "1.14.3", "nvidia-container-cli"),
        ("dpkg-query", "installed 1:1.18.1-0ubuntu1", "1.18.1-0ubuntu1", "dpkg"),
        ("rpm", "1.16.2-1", "1.16.2-1", "rpm"),
    ],
)
def test_toolkit_version_from_whoever_knows_it(tmp_path, name, says, version, source):
    program(tmp_path, name, says)
    seen = look_at_toolkit({"PATH": str(tmp_path)}, later())
    assert (seen.version, seen.source, seen.hook) == (version, source, None)


def test_programs_that_know_nothing_are_passed_over(tmp_path):
    program(tmp_path, "nvidia-ctk", "cannot tell", code=1)
    program(tmp_path, "dpkg-query", "config-files 1.13.0")  # removed, its configuration left behind
    program(tmp_path, "nvidia-container-runtime-hook", "")
    seen = look_at_toolkit({"PATH": str(tmp_path)}, later())
    assert (seen.version, seen.source) == (None, None)
    assert seen.hook == str(tmp_path / "nvidia-container-runtime-hook")


def test_a_toolkit_that_had_no_time_to_answer_is_not_missing(tmp_path):
    program(tmp_path, "nvidia-ctk", "NVIDIA Container Toolkit CLI version 1.17.8")
    with pytest.raises(TimeoutError, match="nvidia-ctk"):
        look_at_toolkit({"PATH": str(tmp_path)}, time.monotonic())


def test_cdi_specifications_in_yaml_and_json(tmp_path):
    (tmp_path / "a.yaml").write_text("kind: nvidia.com/gpu\ndevices:\n- name: '0'\n- name: all\n")
    (tmp_path / "b.json").write_text(json.dumps({"kind": "example.com/net", "devices": [{"name": "eth0"}, 3]}))
    (tmp_path / "c.yaml").write_text("devices: {]")
    (tmp_path / "d.yaml").write_text("- a list\n")
    (tmp_path / "e.txt").write_text("not looked at")
    found = look_at_cdi([str(tmp_path), str(tmp_path / "missing"), str(tmp_path)])
    assert found[:2] == (
        CdiSpec(str(tmp_path / "a.yaml"), "nvidia.com/gpu", ("0", "all")),
        CdiSpec(str(tmp_path / "b.json"), "example.com/net", ("eth0",)),
    )
    assert [Path(s.path).name for s in found if s.problem] == ["c.yaml", "d.yaml"]
    assert len(found) == 4


# Disks and the cache folder


def test_disk_of_a_folder_that_does_not_exist_is_its_parent_s(tmp_path):
    seen = look_at_disk(tmp_path / "not" / "there")
    assert seen is not None
    assert seen.path == str(tmp_path)
    assert seen.device == f"{os.major(tmp_path.stat().st_dev)}:{os.minor(tmp_path.stat().st_dev)}"
    assert seen.total >= seen.free > 0


def test_filesystem_type_is_the_longest_mount_point_s_and_the_last_of_equals(tmp_path):
    mounts = tmp_path / "mountinfo"
    folder = tmp_path / "with space" / "cache"
    folder.mkdir(parents=True)
    escaped = str(tmp_path / "with space").replace(" ", "\\040")
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"2 1 8:2 / {escaped} rw shared:1 - ext3 /dev/sdb1 rw\n"
        f"3 1 0:9 / {escaped} rw - nfs4 server:/x rw\n"
        f"4 1 0:9 / {escaped}/cache-of-others rw - xfs /dev/sdc rw\n"
        "garbage\n"
    )
    assert look_at_disk(folder, mounts).filesystem == "nfs4"
    assert look_at_disk(tmp_path, mounts).filesystem == "ext4"
    assert look_at_disk(tmp_path, tmp_path / "missing").filesystem is None


@pytest.mark.skipif(os.getuid() != 0, reason="makes files of other groups")
@pytest.mark.parametrize(
    ("gid", "mode", "group_writable"),
    [
        (0, 0o2770, True),
        (0, 0o2750, False),
        (0, 0o2707, False),  # the group's bits count for group 0, not others'
        (0, 0o2760, False),  # without x nothing can be made in it
        (4242, 0o2770, False),
        (4242, 0o1777, True),
    ],
)
def test_who_of_group_0_may_write_in_a_folder(tmp_path, gid, mode, group_writable):
    os.chown(tmp_path, 4242, gid)
    tmp_path.chmod(mode)
    seen = look_at_cache(tmp_path)
    assert (seen.exists, seen.uid, seen.gid, seen.mode) == (True, 4242, gid, f"{mode:04o}")
    assert seen.group_writable is group_writable


def test_a_folder_that_is_missing_can_be_made_where_the_parent_can_be_written(tmp_path):
    seen = look_at_cache(tmp_path / "not" / "there")
    assert (seen.exists, seen.writable, seen.group_writable) == (False, True, None)


def test_a_file_is_not_a_folder(tmp_path):
    file = tmp_path / "file"
    file.touch()
    seen = look_at_cache(file)
    assert (seen.exists, seen.problem) == (False, f"{file} is not a folder")


def test_a_path_through_a_file_cannot_be_looked_at(tmp_path):
    (tmp_path / "file").touch()
    seen = look_at_cache(tmp_path / "file" / "cache")
    assert seen.exists is None
    assert seen.problem is not None


@pytest.mark.skipif(os.getuid() != 0, reason="makes files of group 0")
def test_what_group_0_cannot_use_is_listed_with_owner_and_mode(tmp_path):
    hub = tmp_path / "huggingface" / "hub"
    hub.mkdir(parents=True)
    for folder in (hub.parent, hub):
        folder.chmod(0o2770)
    private = tmp_path / "engine" / "1000"
    private.mkdir(parents=True)
    (tmp_path / "engine").chmod(0o2770)
    private.chmod(0o700)
    for name, mode in {"open": 0o640, "closed": 0o600}.items():
        (hub / name).write_text("weights")
        (hub / name).chmod(mode)
    (hub / "link").symlink_to(hub / "closed")
    narrow = tmp_path / "narrow"
    narrow.mkdir()
    narrow.chmod(0o755)
    seen = look_into_cache(tmp_path, later(), 1000)
    assert [(e.path, e.mode) for e in seen.unreadable_entries] == [("huggingface/hub/closed", "0600")]
    assert [(e.path, e.mode) for e in seen.unwritable_entries] == [("narrow", "0755")]
    assert seen.entries_seen == 7  # engine/1000 is private, and not among them
    assert seen.entries_bytes > 0


def test_looking_into_a_cache_stops_after_so_many_entries_and_in_time(tmp_path, monkeypatch):
    for i in range(20):
        (tmp_path / str(i)).touch()
    monkeypatch.setattr(storage, "MOST_ENTRIES", 5)
    assert look_into_cache(tmp_path, later(), 1000).entries_seen == 5
    assert look_into_cache(tmp_path, time.monotonic() - 1, 1000).entries_seen == 0


def test_what_files_take_counts_and_not_what_they_pretend(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    assert look_into_cache(tmp_path, later(), 1000).entries_bytes < 2**20


@pytest.mark.skipif(os.getuid() != 0, reason="makes files of other users")
def test_a_user_s_own_files_do_not_hide_those_that_this_user_cannot_read(tmp_path):
    for i in range(storage.MOST_EXAMPLES + 10):
        own = tmp_path / f"a{i}"
        own.touch(mode=0o600)
        os.chown(own, 1000, 1000)
    (tmp_path / "closed-to-its-owner").touch(mode=0o060)
    os.chown(tmp_path / "closed-to-its-owner", 1000, 0)
    (tmp_path / "root-s").touch(mode=0o600)
    for uid, expected in ((1000, ["closed-to-its-owner", "root-s"]), (4242, storage.MOST_EXAMPLES)):
        seen = [entry.path for entry in look_into_cache(tmp_path, later(), uid).unreadable_entries]
        assert (seen if uid == 1000 else len(seen)) == expected


@pytest.mark.skipif(os.getuid() != 0, reason="makes files of other users")
def test_a_name_that_is_not_utf_8_can_be_written_anywhere(tmp_path):
    cache = Path(os.fsdecode(os.fsencode(tmp_path) + b"/nim-\xff"))
    cache.mkdir()
    (cache / os.fsdecode(b"weights-\xfe.safetensors")).touch(mode=0o600)
    seen = look(cache).cache
    json.dumps(to_json(seen), ensure_ascii=False).encode("utf-8")
    assert [entry.path for entry in seen.unreadable_entries] == ["weights-\\udcfe.safetensors"]
    assert seen.path.endswith("nim-\\udcff")
    missing, late = look(cache / "missing").cache, look(cache, limit=0.0, after_docker=0.0).cache
    for facts in (missing, late):
        json.dumps(to_json(facts), ensure_ascii=False).encode("utf-8")


@pytest.fixture
def containerd(tmp_path):
    """A Docker that keeps images with containerd, in the folder that this configuration names."""
    (tmp_path / "own").mkdir()
    (tmp_path / "usual").mkdir()
    config = tmp_path / "config.toml"
    daemon = replace(DAEMON, data_root=str(tmp_path), containerd_store=True)
    return config, lambda: storage.look_at_image_store(daemon, tmp_path / "usual", config)


def test_the_folder_of_containerd_is_what_its_configuration_says(containerd):
    config, place = containerd
    assert place().path.endswith("usual")
    config.write_text(f'root = "{config.parent / "own"}"')
    assert place().path.endswith("own")


@pytest.mark.parametrize("kind", ["pipe", "large"])
def test_a_configuration_that_is_no_ordinary_file_is_not_read(containerd, kind):
    config, place = containerd
    if kind == "pipe":
        os.mkfifo(config)
    else:
        config.write_text(f'root = "{config.parent / "own"}"\n#' + 2**20 * "x")
    assert place().path.endswith("usual")


# Port and proxies


def test_a_free_port_and_a_taken_one():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = look_at_port("127.0.0.1", port)
        assert (taken.free, taken.detail) == (False, "another program listens there")
        assert look_at_port("0.0.0.0", port).free is False
    assert look_at_port("127.0.0.1", port).free is True


def test_a_port_whose_connections_linger_is_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address) as client:
            accepted, _ = server.accept()
            accepted.close()  # the side that closes first keeps TIME_WAIT
            client.recv(1)
    assert look_at_port(*address).free is True


@pytest.mark.parametrize(("host", "port"), [("no..name", 8000), ("192.0.2.1", 8000), ("127.0.0.1", 70000)])
def test_a_port_that_cannot_be_tried_is_unknown(host, port):
    seen = look_at_port(host, port)
    assert seen.free is None
    assert seen.detail


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://user:pass@proxy:3128/", "http://proxy:3128/"),
        ("http://user:p@ss@proxy:3128", "http://proxy:3128"),
        ("user:pass@proxy:3128", "proxy:3128"),
        ("http://user:pa/ss@proxy", "http://proxy"),
        (f"http://proxy/{CANARY}", "http://proxy/***"),
    ],
)
def test_proxies_are_shown_without_user_and_password(value, shown):
    assert look_at_proxies({"https_proxy": value, "NO_PROXY": "localhost,.example.com"}) == {
        "HTTPS_PROXY": shown,
        "NO_PROXY": "localhost,.example.com",
    }


# Keys


def test_keys_are_told_present_from_variables_and_files(tmp_path):
    (tmp_path / "key").write_text(CANARY)
    (tmp_path / "empty").touch()
    home = {"HOME": str(tmp_path)}
    assert look_at_credentials({**home, "NGC_API_KEY": CANARY, "HF_TOKEN": " "}).keys == {
        "NGC_API_KEY": True,
        "HF_TOKEN": False,
    }
    files = {"NGC_API_KEY_FILE": str(tmp_path / "key"), "HF_TOKEN_FILE": str(tmp_path / "empty")}
    assert look_at_credentials({**home, **files}).keys == {"NGC_API_KEY": True, "HF_TOKEN": False}
    for broken in ("missing", "."):
        assert look_at_credentials({**home, "HF_TOKEN_FILE": str(tmp_path / broken)}).keys["HF_TOKEN"] is False
    assert look_at_credentials({**home, "NGC_CLI_API_KEY": CANARY}).keys["NGC_API_KEY"] is True
    assert CANARY not in repr(look_at_credentials({**home, **files, "NGC_CLI_API_KEY": CANARY}))


def test_logins_are_names_of_registries_and_nothing_else(tmp_path):
    config = {
        "auths": {"nvcr.io": {"auth": CANARY}, "https://index.docker.io/v1/": {}, "https://u:p@quay.io/v2": {}},
        "credHelpers": {"gcr.io": "gcloud"},
        "credsStore": "desktop",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    seen = look_at_credentials({"DOCKER_CONFIG": str(tmp_path)})
    assert seen.logins == ("gcr.io", "index.docker.io", "nvcr.io", "quay.io")
    assert seen.store == "desktop"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"auths": 3, "credsStore": []}', "\xff"])
def test_a_broken_docker_configuration_holds_no_logins(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    assert look_at_credentials({"DOCKER_CONFIG": str(tmp_path)}).logins == ()


# Tools


def test_nginx_and_its_version(tmp_path):
    path = tmp_path / "nginx"
    path.write_text("#!/bin/sh\necho 'nginx version: nginx/1.22.1' >&2\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    seen = look_at_tools({"PATH": str(tmp_path)})
    assert (seen.nginx, seen.nginx_version) == (str(path), "1.22.1")


# The whole


DAEMON = DockerFacts("ok", version="28.5.2", cdi_spec_dirs=("/etc/cdi",))
NO_GPUS = GpuInventory("no-library", detail="not found")


def look(cache: Path, **changes):
    subject = {
        "cache": cache,
        "host": "127.0.0.1",
        "port": 0,
        "environment": {"PATH": "/usr/bin:/bin", "NGC_API_KEY": CANARY, "HTTPS_PROXY": f"http://u:{CANARY}@proxy:1"},
        "uid": 1000,
    }
    subject |= {name: changes.pop(name) for name in list(changes) if name in {f.name for f in fields(Subject)}}
    arguments = {
        "docker_facts": lambda timeout: DAEMON,
        "gpu_inventory": lambda: NO_GPUS,
    }
    return gather(Subject(**subject), **{**arguments, **changes})


def test_all_facts_of_this_machine_survive_json_and_hold_no_key(tmp_path):
    seen = look(tmp_path)
    assert seen.problems == ()
    assert (seen.docker, seen.gpus, seen.cache.path) == (DAEMON, NO_GPUS, str(tmp_path))
    assert seen.cache.exists is True
    assert seen.cache.entries_seen == 0
    assert seen.system.memory_total > 0
    text = json.dumps(to_json(seen))
    assert from_json(json.loads(text)) == seen
    assert "CANARY" not in text


def test_the_port_is_left_alone_when_nobody_asks_for_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert look(tmp_path, port=port).port.free is False
        seen = look(tmp_path, port=port, try_port=False)
    assert (seen.port.host, seen.port.port, seen.port.free, seen.problems) == ("127.0.0.1", port, None, ())


def test_the_image_store_and_further_cdi_folders_are_where_docker_says(tmp_path):
    (tmp_path / "own.yaml").write_text("kind: nvidia.com/gpu\ndevices:\n- name: all\n")
    daemon = replace(DAEMON, data_root=str(tmp_path), cdi_spec_dirs=("/etc/cdi", str(tmp_path)))
    seen = look(tmp_path, docker_facts=lambda timeout: daemon)
    assert seen.image_store is not None
    assert seen.image_store.path == str(tmp_path)
    assert CdiSpec(str(tmp_path / "own.yaml"), "nvidia.com/gpu", ("all",)) in seen.cdi


def test_a_data_root_in_a_virtual_machine_is_no_folder_of_this_host(tmp_path):
    daemon = replace(DAEMON, data_root=str(tmp_path / "not-here"))
    assert look(tmp_path, docker_facts=lambda timeout: daemon).image_store is None


def test_a_look_that_fails_is_a_problem_and_hides_nothing(tmp_path):
    def broken():
        raise RuntimeError(f"out of luck with {CANARY}")

    seen = look(tmp_path, gpu_inventory=broken)
    assert seen.problems == ("gpus: RuntimeError: out of luck with ***",)
    assert (seen.gpus.state, seen.gpus.driver) == ("failed", None)
    assert seen.docker == DAEMON


def test_docker_is_asked_to_answer_before_the_look_is_given_up(tmp_path):
    asked = []

    def daemon(timeout):
        asked.append(timeout)
        return DAEMON

    look(tmp_path, docker_facts=daemon, limit=5.0)
    assert asked == [4.5]


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ("not even an object", "schema"),
        ({}, "schema"),
        ({"schema": "nimctl.facts/0"}, "schema"),
        ({"schema": "nimctl.facts/1"}, "missing"),
        ({"port": {"host": "127.0.0.1", "port": "8000"}}, "port.port"),
        ({"docker": {"state": "tired"}}, "docker.state"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_a_file_that_holds_no_facts_is_refused_with_the_key_that_is_wrong(tmp_path, document, word):
    if isinstance(document, dict) and "schema" not in document:
        document = {**to_json(look(tmp_path)), **document} if document else document
    with pytest.raises(NimctlError) as caught:
        from_json(document)
    assert caught.value.id == "facts-invalid"
    assert word in caught.value.cause
