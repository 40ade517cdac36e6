"""Which bytes come next: each block is given once at a time, and each file ends whole, whatever the order of events."""

import itertools
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.transfer.blocks import BLOCK
from nimctl.core.fetch.transfer.schedule import _LONGEST, _WORTH_SPLITTING, Piece, Schedule, bytes_at_hand


@dataclass(eq=False)
class Blocks:
    """A partial file without bytes."""

    file: File
    count: int = 0
    done: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.count = -(-self.file.size // BLOCK)
        self.reset()

    @property
    def done_bytes(self) -> int:
        return sum(min(BLOCK, self.file.size - n * BLOCK) for n in range(self.count) if self.done[n])

    @property
    def whole(self) -> bool:
        return self.done_bytes == self.file.size

    def reset(self) -> None:
        self.done = bytearray(self.count)

    def put(self, block: int) -> None:
        self.done[block] = 1


def partial(size: int, name: str = "a") -> Blocks:
    return Blocks(File(name, size))


def run(schedule: Schedule) -> list[tuple[str, int, int]]:
    """Everything that one worker is given, in order; a sealed file is (name, -1, -1)."""
    given = []
    while (work := schedule.take()) is not None:
        if isinstance(work, Piece):
            given.append((work.partial.file.path, work.block, work.stop))
            for block in range(work.block, work.stop):
                work.partial.put(block)
            schedule.give_back(work)
        else:
            given.append((work.file.path, -1, -1))
            schedule.sealed(work)
    return given


def test_the_longest_file_comes_first_and_empty_ones_are_only_sealed():
    files = [partial(0, "empty"), partial(2 * BLOCK, "small"), partial(5 * BLOCK + 1, "large")]
    schedule = Schedule(files)
    assert run(schedule) == [
        ("empty", -1, -1),
        ("large", 0, 6),
        ("large", -1, -1),
        ("small", 0, 2),
        ("small", -1, -1),
    ]
    assert schedule.ended


def test_a_piece_is_never_longer_than_a_range_may_be():
    assert run(Schedule([partial((_LONGEST + 1) * BLOCK)])) == [
        ("a", 0, _LONGEST),
        ("a", _LONGEST, _LONGEST + 1),
        ("a", -1, -1),
    ]


def test_a_file_nobody_works_on_comes_before_a_second_connection_to_one():
    schedule = Schedule([partial(200 * BLOCK, "large"), partial(BLOCK, "small")])
    given = [schedule.take() for _ in range(3)]
    assert [(p.partial.file.path, p.block) for p in given] == [("large", 0), ("small", 0), ("large", _LONGEST)]


def test_what_is_there_already_is_not_given():
    file = partial(6 * BLOCK)
    for block in (1, 4):
        file.put(block)
    assert [(first, stop) for _, first, stop in run(Schedule([file]))][:-1] == [(0, 1), (2, 4), (5, 6)]


def test_the_last_long_piece_is_split_and_short_ones_are_not():
    schedule = Schedule([partial(_WORTH_SPLITTING * BLOCK)])
    first = schedule.take()
    second = schedule.take()
    assert (first.block, first.stop, second.block, second.stop) == (0, 4, 4, 8)
    assert schedule.take() is None


def test_bytes_of_unfinished_blocks_count():
    file = partial(3 * BLOCK)
    file.put(0)
    piece = Piece(file, 1, 3)
    piece.touch(1000)
    assert bytes_at_hand([file], [piece]) == BLOCK + 1000


class Interleaving(RuleBasedStateMachine):
    """Workers that take, progress, give back, or find that the source ignores ranges, in any order."""

    @initialize(
        blocks=st.lists(st.integers(0, 150), min_size=1, max_size=4), short=st.integers(0, BLOCK - 1), seed=st.randoms()
    )
    def begin(self, blocks, short, seed):
        self.files = [partial(max(0, n * BLOCK - short), f"f{i}") for i, n in enumerate(blocks)]
        for file in self.files:
            for block in range(file.count):
                if seed.random() < 0.2:
                    file.put(block)
        self.schedule = Schedule(self.files)
        self.pieces: list[Piece] = []
        self.to_seal: list[Blocks] = []
        self.sealed: list[Blocks] = []

    @rule()
    def take(self):
        work = self.schedule.take()
        if isinstance(work, Piece):
            assert work.block < work.stop
            assert not any(work.partial.done[work.block : work.stop]), "given although it is there"
            self.pieces.append(work)
        elif work is not None:
            assert work.whole
            assert work not in self.to_seal + self.sealed
            self.to_seal.append(work)

    @precondition(lambda self: self.pieces)
    @rule(data=st.data(), count=st.integers(1, 70))
    def progress(self, data, count):
        piece = data.draw(st.sampled_from(self.pieces))
        for _ in range(count):
            if piece.block >= piece.stop or self.schedule.is_given_up(piece.partial):
                break
            assert not piece.partial.done[piece.block], "two workers fetched the same block"
            piece.partial.put(piece.block)
            piece.block += 1

    @precondition(lambda self: self.pieces)
    @rule(data=st.data())
    def give_back(self, data):
        piece = data.draw(st.sampled_from(self.pieces))
        self.pieces.remove(piece)
        self.schedule.give_back(piece)

    @precondition(lambda self: any(p.block < p.stop for p in self.pieces))
    @rule(data=st.data())
    def range_ignored(self, data):
        piece = data.draw(st.sampled_from([p for p in self.pieces if p.block < p.stop]))
        already = self.schedule.is_given_up(piece.partial)
        assert self.schedule.go_sequential(piece.partial) is not already
        assert self.schedule.is_sequential(piece.partial)
        self.pieces.remove(piece)
        self.schedule.give_back(piece)

    @precondition(lambda self: self.to_seal)
    @rule(right=st.integers(0, 3))
    def seal(self, right):
        file = self.to_seal.pop()
        if right:
            self.sealed.append(file)
            self.schedule.sealed(file)
        else:
            self.schedule.restart(file)

    @invariant()
    def no_block_is_in_two_hands(self):
        for file in getattr(self, "files", []):
            held = sorted((p.block, p.stop) for p in self.pieces if p.partial is file and p.block < p.stop)
            assert all(one[1] <= other[0] for one, other in itertools.pairwise(held))

    def teardown(self):
        """From any state, workers that only do their duty bring every file to its end."""
        if not hasattr(self, "files"):
            return
        for file in self.to_seal:
            self.schedule.sealed(file)
        for piece in self.pieces:
            self.schedule.give_back(piece)
        run(self.schedule)
        assert self.schedule.ended
        assert all(file.whole for file in self.files)


Interleaving.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyInterleaving = Interleaving.TestCase
