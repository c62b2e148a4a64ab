import orjson
import pytest

from service.adoption import (
    HOLD_MS,
    MAX_SAMPLES,
    Adoption,
    Curve,
    add_counts,
    counts_from_json,
)
from service.build import Build
from service.deployment import Deployment
from tests.parts import deployment

ONE, TWO, THREE = (Build(f"{number}" * 7, number) for number in (1, 2, 3))


def record(at: int, build: Build, *, previous: int | None = None) -> Deployment:
    fields = deployment(gitCommit=build.commit, buildNumber=build.number)
    return Deployment.from_json(orjson.dumps({**fields, "deployedAt": at, "previous": previous, "rollback": False}))


def adoption(newest: int, older: int = 0, unknown: int = 0, at: int = 1_000_000) -> Adoption:
    """What is counted on a channel with two kept deployments."""
    return Adoption(((at, newest), (at - 1000, older)), 0, unknown)


# Counting


def test_counts_are_added_up():
    """The same build on several replicas is one."""
    assert add_counts([{"a": 1, "": 2}, {}, {"a": 3, "b": 1}]) == {"a": 4, "": 2, "b": 1}


@pytest.mark.parametrize("text", [b"", b"x", b"[1]", b"null", b'{"a":"1"}', b'{"a":1.5}', b'{"a":true}', b'{"a":{}}'])
def test_what_is_no_count_counts_nothing(text):
    """Whatever somebody else has put there is passed over."""
    assert counts_from_json(text) == {}


# Matching


def test_matching():
    """Each build counts for the kept deployment that it is the same as; the others, and those that don't say, apart."""
    deployments = [record(2000, TWO, previous=1000), record(1000, ONE)]
    found = Adoption.of({"2222222~2": 5, "2222222": 1, "1111111~1": 3, "3333333~3": 4, "*": 2, "": 7}, deployments)

    assert found.deployments == ((2000, 6), (1000, 3))
    assert (found.newest, found.older, found.other, found.unknown, found.streams) == (6, 3, 6, 7, 22)
    assert found.share == 6 / 15


def test_after_a_rollback_the_build_counts_for_the_newest():
    """Where two kept deployments are of one build its streams run the newest of them."""
    deployments = [record(3000, ONE), record(2000, TWO), record(1000, ONE)]

    assert Adoption.of({"1111111~1": 3, "2222222~2": 1}, deployments).deployments == ((3000, 3), (2000, 1), (1000, 0))


def test_a_deployment_without_a_commit_has_no_streams():
    """Nobody can tell that he runs it."""
    nameless = record(5, Build("unknown", 1))

    assert Adoption.of({"1111111~1": 2, "": 1}, [nameless]) == Adoption(((5, 0),), 2, 1)


def test_nobody_says():
    """Where no stream says what it runs there is no share."""
    found = Adoption.of({"": 3}, [record(1000, ONE)])

    assert found.share is None
    assert found.document()["share"] is None
    assert found.document()["streams"] == 3


def test_what_another_version_may_say_is_other():
    """A count by something that this version doesn't read is one of another build."""
    assert Adoption.of({"a~b~c": 2}, [record(1000, ONE)]).other == 2


# The curve


def test_samples_are_taken_at_changes():
    """A sample is taken when something has changed, and the last one was two seconds ago."""
    curve = Curve()
    start = 1_000_000
    taken = [
        (0, curve.add(start, adoption(0, 4))),
        (1, curve.add(start + 1000, adoption(1, 3))),  # too soon
        (2, curve.add(start + 2000, adoption(1, 3))),
        (3, curve.add(start + 4000, adoption(1, 3))),  # nothing new
        (4, curve.add(start + 6000, adoption(2, 2, unknown=1))),
    ]

    assert [number for number, is_new in taken if is_new] == [0, 2, 4]
    assert curve.samples == [(start, 0, 4, 0), (start + 2000, 1, 4, 0), (start + 6000, 2, 5, 1)]


def test_samples_get_farther_apart_with_age():
    """Through a month in which something changes all the time there are few enough samples."""
    curve = Curve()
    now, count = 1_000_000, 0
    while now < 1_000_000 + 31 * 86_400_000:
        count += 1
        curve.add(now, adoption(count % 97, 3))
        now += 2000 if count < 5000 else 60_000

    assert 250 < len(curve.samples) < MAX_SAMPLES
    assert curve.samples == sorted(curve.samples)


def test_samples_are_bounded():
    """Beyond the most, every other sample goes, but for the first and the last."""
    curve = Curve()
    curve.add(1_000_000, adoption(0, 1))
    curve.samples = [(1_000_000 + n, 0, 1, 0) for n in range(MAX_SAMPLES)]
    assert curve.add(1_500_000, adoption(1, 0))

    assert len(curve.samples) == MAX_SAMPLES // 2 + 1
    assert curve.samples[0] == (1_000_000, 0, 1, 0)
    assert curve.samples[-1] == (1_500_000, 1, 1, 0)


def test_another_deployment_begins_another_curve():
    """The samples are those since the newest deployment; milestones stay as long as their deployments are kept."""
    curve = Curve()
    for now in (1_000_000, 1_000_000 + HOLD_MS):
        curve.add(now, adoption(4))
    assert curve.reached == {1_000_000: {50: 0, 90: 0, 99: 0}}
    curve.add(2_000_000, Adoption(((2_000_000, 0), (1_000_000, 4)), 0, 0))
    assert curve.samples == [(2_000_000, 0, 4, 0)]
    assert curve.reached == {1_000_000: {50: 0, 90: 0, 99: 0}, 2_000_000: {}}
    curve.add(3_000_000, Adoption(((3_000_000, 0), (2_000_000, 0)), 0, 0))

    assert curve.reached == {2_000_000: {}, 3_000_000: {}}


def test_milestones():
    """Each per cent is entered with the time from the deployment until its share was there."""
    curve = Curve()
    shares = [0, 4, 5, 5, 9, 9, 10, 10]
    for number, newest in enumerate(shares):
        curve.add(1_000_000 + number * HOLD_MS, adoption(newest, 10 - newest, unknown=50))

    assert curve.reached == {1_000_000: {50: 2 * HOLD_MS, 90: 4 * HOLD_MS, 99: 6 * HOLD_MS}}


def test_a_milestone_has_to_hold():
    """A share that is there for a moment, as when tabs come back one by one after a restart, reaches nothing."""
    curve = Curve()
    for after, newest, older in [(0, 1, 0), (HOLD_MS - 1, 1, 0), (HOLD_MS, 1, 9), (2 * HOLD_MS, 1, 9)]:
        curve.add(1_000_000 + after, adoption(newest, older))
    assert curve.reached == {1_000_000: {}}
    curve.add(1_000_000 + 3 * HOLD_MS, Adoption(((1_000_000, 0),), 0, 3))
    curve.add(1_000_000 + 4 * HOLD_MS, Adoption(((1_000_000, 0),), 0, 3))

    assert curve.reached == {1_000_000: {}}


def test_nothing_is_taken_before_its_deployment():
    """Counts that are older than the deployment that they are matched with say nothing of it."""
    curve = Curve()

    assert not curve.add(999_999, adoption(1))
    assert not curve.add(1_000_000, Adoption((), 0, 3))
    assert curve.samples == []


def test_a_curve_is_kept():
    """What is kept gives the same curve, which goes on."""
    curve = Curve()
    for now in (1_000_000, 1_000_000 + HOLD_MS):
        curve.add(now, adoption(4, 4, unknown=1))
    kept = Curve.from_json(curve.json)

    assert (kept.newest, kept.samples, kept.reached) == (curve.newest, curve.samples, curve.reached)
    assert kept.reached == {1_000_000: {50: 0}}
    assert kept.add(1_000_000 + 2 * HOLD_MS, adoption(8, 0, unknown=1))


@pytest.mark.parametrize(
    "text", [None, b"", b"x", b"[]", b"{}", b'{"newest":1,"reached":[],"samples":[]}',
             b'{"newest":1,"reached":{},"samples":[[1,2]]}', b'{"newest":null,"reached":{},"samples":[]}',
             b'{"newest":"x","reached":{},"samples":[[1,2,3,4]]}'],
)  # fmt: skip
def test_what_is_no_curve_is_as_none(text):
    """Whatever somebody else has put there begins anew."""
    curve = Curve.from_json(text)

    assert (curve.newest, curve.samples, curve.reached) == (None, [], {})
