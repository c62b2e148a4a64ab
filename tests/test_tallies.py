"""Who runs what on one channel of one process, whatever is said."""

import random
import tracemalloc
from collections.abc import Iterable

import hypothesis.strategies as st
import pytest
from hypothesis import given

from service.build import Build, is_same, kin
from service.deployment import KEPT
from service.tallies import MAX_BUILDS, MAX_GROUPS, Tallies, Tally, _group

ONE, TWO, THREE = (Build(f"{number}" * 7, number) for number in (1, 2, 3))


def made_up(count: int, spared: Iterable[Build] = (ONE, TWO, THREE)) -> list[Build]:
    """Builds that nobody recorded, none by chance in the group of one that is asked for."""
    groups = {_group(build) for build in spared}
    builds = (Build(f"made-up-{number}", 0) for number in range(10 * count + 100))
    return [build for build in builds if _group(build) not in groups][:count]


def total(tallies: Tallies) -> int:
    return sum(tallies.counts.values())


def test_streams_are_counted_by_build():
    """Streams are counted when they come and when they go, and each build that has none is forgotten."""
    tallies = Tallies()
    entered = [tallies.enter(build) for build in (ONE, ONE, TWO, None)]
    assert tallies.counts == {"1111111~1": 2, "2222222~2": 1, "": 1}
    for tally in entered[1:]:
        tallies.leave(tally)

    assert tallies.counts == {"1111111~1": 1}


def test_each_coming_and_going_is_a_change():
    """As long as nobody comes or goes the number of changes stands still."""
    tallies = Tallies()
    seen = [tallies.changes]
    tally = tallies.enter(ONE)
    seen.append(tallies.changes)
    tallies.leave(tally)
    seen.append(tallies.changes)

    assert len(set(seen)) == 3


@pytest.mark.parametrize("count", [1, MAX_BUILDS, MAX_BUILDS + 1, 2000])
def test_made_up_builds_take_no_place(count):
    """However many made-up builds came first, the streams of a kept deployment's build are counted as such."""
    tallies = Tallies()
    entered = [tallies.enter(build) for build in made_up(count)]
    tallies.keep([TWO, ONE])
    entered += [tallies.enter(build) for build in (TWO, Build("2222222", 0), Build("2222222AB", 2), ONE)]

    assert sum(tallies.counts.get(str(build), 0) for build in (TWO, Build("2222222", 0), Build("2222222AB", 2))) == 3
    assert tallies.counts[str(ONE)] == 1
    assert total(tallies) == count + 4
    for tally in entered:
        tallies.leave(tally)
    assert tallies.counts == {}


@pytest.mark.parametrize("count", [MAX_BUILDS + 1, 2000])
def test_what_was_counted_as_other_is_matched_when_it_is_recorded(count):
    """Tabs of a build that was served before it was recorded are counted as its own once it is, and leave as such."""
    tallies = Tallies()
    entered = [tallies.enter(build) for build in made_up(count)]
    early = [tallies.enter(build) for build in (THREE, Build("3333333abcdef", 3), THREE)]
    assert tallies.counts["*"] == count - MAX_BUILDS + 3
    before = tallies.changes
    tallies.keep([THREE])

    assert tallies.changes > before
    assert tallies.counts[str(THREE)] == 3
    assert tallies.counts["*"] == count - MAX_BUILDS
    tallies.leave(early.pop())
    assert tallies.counts[str(THREE)] == 2
    for tally in [*entered, *early]:
        tallies.leave(tally)
    assert tallies.counts == {}


def test_the_made_up_give_their_places_back():
    """When the made-up builds have left, every build is told apart again."""
    tallies = Tallies()
    for tally in [tallies.enter(build) for build in made_up(100)]:
        tallies.leave(tally)
    tallies.enter(ONE)
    tallies.enter(TWO)

    assert tallies.counts == {str(ONE): 1, str(TWO): 1}


def test_a_rebuild_is_not_counted_for_the_build_before_it():
    """A second build of one commit waits among the others for its own record, whatever else is recorded before."""
    tallies = Tallies()
    first, second = Build("abcdef1", 128), Build("abcdef1", 129)
    tallies.keep([first])
    held = [tallies.enter(build) for build in made_up(MAX_BUILDS, [first])]
    held += [tallies.enter(first), *(tallies.enter(second) for _ in range(5))]
    tallies.keep([ONE, first])
    assert tallies.counts[str(first)] == 1
    tallies.keep([second, ONE, first])

    assert tallies.counts[str(second)] == 5
    assert tallies.counts[str(first)] == 1


def test_a_team_that_deploys_often():
    """After hundreds of deployments, each with tabs that stay behind, the kept ones have their places."""
    tallies = Tallies()
    builds = [Build(f"{number:07x}", number) for number in range(0x1000, 0x1000 + 300)]
    held: list[Tally] = []
    for number, build in enumerate(builds):
        held += [tallies.enter(build) for _ in range(3)]  # served before it is recorded
        tallies.keep(builds[max(0, number - KEPT + 1) : number + 1][::-1])
        held += [tallies.enter(build) for _ in range(2)]
        assert tallies.counts[str(build)] >= 5

        assert len(tallies.counts) <= MAX_BUILDS + KEPT + 2
        assert total(tallies) == len(held)
    random.Random(5).shuffle(held)
    for tally in held:
        tallies.leave(tally)
    assert tallies.counts == {}


def test_memory_is_bounded():
    """Twenty thousand streams, each of a build of its own, hold little more than their tallies' bounded number."""
    tallies = Tallies()
    builds = made_up(20_000)
    held: list[Tally | None] = [None] * len(builds)
    tracemalloc.start()
    for index, build in enumerate(builds):
        held[index] = tallies.enter(build)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len({id(tally) for tally in held}) <= MAX_BUILDS + MAX_GROUPS
    assert size < 400 * (MAX_BUILDS + MAX_GROUPS)
    assert len(tallies.counts) == MAX_BUILDS + 1


def test_counting_a_stream_allocates_nothing():
    """A stream more of a build that is there costs no memory but its own pointer."""
    tallies = Tallies()
    held = [tallies.enter(ONE)] * 10_000
    tracemalloc.start()
    for index in range(len(held)):
        held[index] = tallies.enter(ONE)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert size / len(held) < 1
    assert tallies.counts == {str(ONE): 10_001}


commits = st.one_of(st.sampled_from(["unknown", "v1", "abcdef", "abcdef1", "ABCDEF12", "abcdef1g"]), st.from_regex(
    r"[0-9A-Fa-f]{5,10}", fullmatch=True))  # fmt: skip
builds = st.builds(Build, commits, st.integers(0, 2))


@given(builds, builds)
def test_what_is_the_same_is_kin(one, other):
    """Builds that are the same have the same kin, so that they are found in one group."""
    if is_same(one, other):
        assert kin(one) == kin(other)


@given(st.lists(st.one_of(builds.map(lambda build: ("enter", build)), st.integers(0, 50).map(lambda n: ("leave", n)),
                          st.lists(builds, max_size=KEPT).map(lambda kept: ("keep", kept)))))  # fmt: skip
def test_nobody_is_lost(steps):
    """Whatever comes, goes and is recorded, the sum of the counts is that of the streams, and none is below one."""
    tallies = Tallies()
    held = [tallies.enter(build) for build in made_up(MAX_BUILDS)]
    for step, argument in steps:
        if step == "enter":
            held.append(tallies.enter(argument))
        elif step == "keep":
            tallies.keep(argument)
        elif held:
            tallies.leave(held.pop(argument % len(held)))

        assert total(tallies) == len(held)
        assert all(streams > 0 for streams in tallies.counts.values())
