"""A container is made of the image that was decided on, by its id: what is printed, asked for and read back."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nimctl.core.image_identity import ImageIdentity
from nimctl.launch.docker.create_request import container_body
from nimctl.launch.docker.runtime import image_problem
from nimctl.launch.model import ExactImage, pinned
from nimctl.launch.show import docker_run_line
from tests.unit.launch.launch_hosts import IMAGE, plan

DIGESTS = tuple(f"sha256:{digit * 64}" for digit in "abcdef")
INDEX, MANIFEST, CONFIG, OTHER, *_ = DIGESTS
PULLED = ImageIdentity(IMAGE, INDEX, MANIFEST, CONFIG, "linux/amd64")
BUILT = ImageIdentity(IMAGE, None, None, CONFIG, "linux/amd64")


def test_the_container_is_made_of_the_id_and_keeps_the_name_for_people() -> None:
    body = container_body(replace(plan("demo"), exact=ExactImage(CONFIG, PULLED)), {})
    assert body["Image"] == CONFIG
    assert body["Labels"]["io.nimctl.image"] == IMAGE


def test_the_printed_command_names_the_digest_else_the_id() -> None:
    made = plan("demo")
    assert docker_run_line(made).endswith(IMAGE)
    pulled = docker_run_line(replace(made, exact=ExactImage(CONFIG, PULLED)))
    assert pulled.endswith(f"registry.example/nimctl/cuda@{INDEX}")
    assert f"io.nimctl.image={IMAGE}" in pulled
    assert docker_run_line(replace(made, exact=ExactImage(CONFIG, BUILT))).endswith(CONFIG)


def test_a_digest_takes_the_place_of_the_tag_and_not_of_a_port() -> None:
    assert pinned("host:5000/a/b:1", INDEX) == f"host:5000/a/b@{INDEX}"
    assert pinned("host:5000/a/b", INDEX) == f"host:5000/a/b@{INDEX}"
    assert pinned(f"host/b:1@{OTHER}", INDEX) == f"host/b@{INDEX}"
    assert pinned("b", None) is None


@given(st.sampled_from(DIGESTS), st.sampled_from(DIGESTS), st.sets(st.sampled_from(DIGESTS)))
def test_only_the_image_that_was_decided_on_passes(held: str, made_of: str, promised: set[str]) -> None:
    index, manifest, config = (*sorted(promised), None, None, None)[:3]
    problem = image_problem(ExactImage(held, ImageIdentity(IMAGE, index, manifest, config, "linux/amd64")), made_of)
    known = {index, manifest, config} - {None}
    if made_of != held:
        assert problem is not None and problem.id == "digest-changed"
    elif known and made_of not in known:
        assert problem is not None and problem.id == "image-tampered"
    else:
        assert problem is None


def test_a_daemon_that_says_nothing_is_not_believed() -> None:
    problem = image_problem(ExactImage(CONFIG, PULLED), "")
    assert problem is not None and problem.id == "digest-changed" and "nothing" in problem.cause
