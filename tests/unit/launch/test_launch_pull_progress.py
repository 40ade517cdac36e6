"""Adding up the events of a pull."""

from hypothesis import given
from hypothesis import strategies as st

from nimctl.launch.docker.engine import split_reference
from nimctl.launch.docker.pull import PullProgress, advance


def after(*events: dict[str, object]) -> PullProgress:
    progress = PullProgress()
    for event in events:
        progress = advance(progress, event)
    return progress


def downloading(layer: str, current: int, total: int) -> dict[str, object]:
    return {"id": layer, "status": "Downloading", "progressDetail": {"current": current, "total": total}}


def test_layers_add_up_and_a_finished_layer_counts_whole() -> None:
    progress = after(downloading("a", 10, 100), downloading("b", 5, 50))
    assert (progress.done, progress.total) == (15, 150)
    progress = advance(progress, {"id": "a", "status": "Download complete", "progressDetail": {}})
    assert (progress.done, progress.total) == (105, 150)


def test_nothing_is_known_before_the_first_size() -> None:
    progress = after({"status": "Pulling from nim/x", "id": "1"}, {"id": "a", "status": "Already exists"})
    assert (progress.done, progress.total) == (None, None)
    assert progress.complete == {"a"}


def test_the_digest_is_kept() -> None:
    assert after({"status": "Digest: sha256:" + "0" * 64}, {"status": "Status: ..."}).digest == "sha256:" + "0" * 64


statuses = st.sampled_from(["Downloading", "Extracting", "Pull complete", "Download complete", "Waiting", ""])
events = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from("abc"), "status": statuses},
        optional={
            "progressDetail": st.fixed_dictionaries(
                {}, optional={"current": st.integers(0, 10**12), "total": st.integers(0, 10**12)}
            )
        },
    )
)


@given(events)
def test_never_more_done_than_announced(given_events: list[dict[str, object]]) -> None:
    progress = PullProgress()
    for event in given_events:
        progress = advance(progress, event)
        assert (progress.done or 0) <= (progress.total or 0)


def test_references_are_split_as_docker_splits_them() -> None:
    digest = "sha256:" + "a" * 64
    assert split_reference("r:5000/nim/x:1") == ("r:5000/nim/x", "1")
    assert split_reference("r:5000/nim/x") == ("r:5000/nim/x", "latest")
    assert split_reference(f"r:5000/nim/x@{digest}") == ("r:5000/nim/x", digest)
    assert split_reference(f"r/nim/x:1@{digest}") == ("r/nim/x", digest)
    assert split_reference("ubuntu") == ("ubuntu", "latest")
