"""Docker's events of a pull, added up against what the manifest promised."""

from hypothesis import given
from hypothesis import strategies as st

from nimctl.core.image_identity import ImageIdentity
from nimctl.core.pull_progress import PullProgress
from nimctl.launch.docker.pull import PullPlan, advance, begin, finished

NAMES = ("a" * 12, "b" * 12, "c" * 12)
DIGESTS = tuple(f"sha256:{name}{'0' * 52}" for name in NAMES)
IDENTITY = ImageIdentity("r/x:1", DIGESTS[0], DIGESTS[1], DIGESTS[2], "linux/amd64")
PLAN = PullPlan(IDENTITY, tuple(zip(DIGESTS, (100, 200, 300), strict=True)), DIGESTS)


def said(layer: int, status: str, current: int | None = None, total: int | None = None) -> dict[str, object]:
    sizes = {} if current is None else {"current": current, **({"total": total} if total else {})}
    return {"status": status, "id": NAMES[layer], "progressDetail": sizes}


def after(*events: dict[str, object], start: PullProgress | None = None) -> PullProgress:
    progress = start or begin(PLAN)
    for event in events:
        progress = advance(progress, event)
    return progress


def test_the_total_is_known_before_the_first_event_and_never_changes() -> None:
    progress = begin(PLAN)
    assert (progress.done, progress.total, progress.phase) == (0, 600, "waiting")
    assert after(said(1, "Downloading", 50, 200)).total == 600


def test_a_layer_is_fetched_then_unpacked() -> None:
    progress = after(said(0, "Downloading", 40, 100))
    assert (progress.done, progress.phase, progress.unpacked) == (40, "fetching", 0)
    progress = after(said(0, "Download complete"), start=progress)
    assert progress.done == 100
    progress = after(said(0, "Extracting", 10, 100), start=progress)
    assert (progress.done, progress.layers[NAMES[0]].state) == (100, "unpacking")
    assert after(said(0, "Pull complete"), start=progress).unpacked == 1


def test_what_was_here_counts_as_done_and_not_as_fetched() -> None:
    progress = after(said(0, "Already exists"), said(1, "Downloading", 7, 200))
    assert (progress.done, progress.fetched, progress.unpacked) == (107, 7, 1)


def test_all_fetched_is_unpacking_and_all_unpacked_is_done() -> None:
    progress = after(*(said(n, "Verifying Checksum") for n in range(3)))
    assert progress.phase == "unpacking"
    assert after(*(said(n, "Pull complete") for n in range(3)), start=progress).phase == "done"


def test_a_layer_that_docker_tries_again_is_told() -> None:
    assert "retrying in 5 seconds" in after(said(1, "Retrying in 5 seconds")).detail


def test_containerds_store_tells_no_size_of_what_it_unpacks() -> None:
    progress = after(said(0, "Download complete"), said(0, "Extracting", 1))
    assert (progress.layers[NAMES[0]].done, progress.done) == (1, 100)


def test_without_a_manifest_each_layer_says_its_size() -> None:
    progress = after(said(0, "Downloading", 5, 10), said(1, "Downloading", 1, 20), start=PullProgress())
    assert (progress.done, progress.total) == (6, 30)


def test_only_layers_without_a_gap_below_them_are_finished() -> None:
    assert finished(after(said(1, "Pull complete")), PLAN) == 0
    assert finished(after(said(0, "Already exists"), said(1, "Pull complete")), PLAN) == 2


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "status": st.sampled_from(["Downloading", "Extracting", "Pull complete", "Waiting", "?"])
                | st.integers(),
                "id": st.sampled_from([*NAMES, "else", ""]) | st.none(),
                "progressDetail": st.none()
                | st.text()
                | st.dictionaries(st.sampled_from(["current", "total"]), st.integers() | st.none() | st.text()),
            },
        )
    )
)
def test_whatever_a_daemon_says_the_sums_hold(events: list[dict[str, object]]) -> None:
    progress = after(*events)
    assert 0 <= progress.done <= progress.total
    assert 0 <= progress.fetched <= progress.done
