"""When a subscription counts as deaf."""

import orjson
import pytest

from service.deafness import DEAF_AFTER, Deafness
from service.deployment import ChannelName, Deployment

WEB = ChannelName("web/production")
API = ChannelName("api/production")


class Clock:
    """This process's clock."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(number: int, previous: int | None, primary: str = "one") -> Deployment:
    record = orjson.dumps({"deployedAt": number, "previous": previous, "primary": primary})
    return Deployment(record, number, previous)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def deafness(clock: Clock) -> Deafness:
    """That of a subscription whose first reconcile has found one deployment."""
    deafness = Deafness(clock)
    deafness.begin()
    deafness.find({WEB: record(1, None)})
    return deafness


def found_later(deafness: Deafness, clock: Clock, deployment: Deployment | None) -> bool:
    """Whether it is deaf when a reconcile finds the same again, so much later."""
    clock.now += DEAF_AFTER
    return deafness.find({WEB: deployment})


def test_what_is_never_brought(deafness, clock):
    """A deployment that a reconcile found, and that hasn't been brought two seconds later, means deaf."""
    assert not deafness.find({WEB: record(2, 1)})
    assert found_later(deafness, clock, record(2, 1))


def test_what_is_brought_late(deafness, clock):
    """What is brought within the two seconds was only late."""
    deafness.find({WEB: record(2, 1)})
    clock.now += DEAF_AFTER / 2
    deafness.bring(WEB, record(2, 1))

    assert not found_later(deafness, clock, record(2, 1))


def test_what_was_brought_before_it_was_found(deafness, clock):
    """What was brought and couldn't be taken, or was overtaken by the next, isn't missed."""
    deafness.bring(WEB, record(2, 1))
    deafness.bring(WEB, record(3, 2))
    deafness.find({WEB: record(2, 1)})

    assert not found_later(deafness, clock, record(3, 2))


def test_what_the_first_reconcile_finds(clock):
    """What was there before the subscription needn't be brought by it."""
    deafness = Deafness(clock)
    deafness.begin()
    deafness.find({WEB: record(1, None)})

    assert not found_later(deafness, clock, record(1, None))


def test_channel_that_came_later(deafness, clock):
    """Of a channel that is new in memory the first find says nothing, and the second does."""
    deafness.find({API: record(1, None)})
    deafness.find({API: record(1, None)})
    clock.now += DEAF_AFTER
    assert not deafness.find({API: record(2, 1)})

    clock.now += DEAF_AFTER
    assert deafness.find({API: record(2, 1)})


def test_redis_that_went_back(deafness, clock):
    """An older deployment, or none, was not published just now."""
    deafness.find({WEB: record(5, 1)})
    deafness.bring(WEB, record(5, 1))
    deafness.find({WEB: record(1, None)})
    assert not found_later(deafness, clock, record(1, None))

    deafness.find({WEB: None})
    assert not found_later(deafness, clock, None)


@pytest.mark.parametrize("skew", [-10_000, 10_000])
def test_clock_of_another_node(deafness, clock, skew):
    """Ten seconds between the nodes' clocks neither hide that it is deaf nor make what is only late look so."""
    base = 1_763_800_000_000
    deafness.find({WEB: record(base, 1)})
    deafness.bring(WEB, record(base, 1))
    other = record(max(base + skew, base + 1), base, "two")
    deafness.find({WEB: other})
    clock.now += DEAF_AFTER / 2
    assert not deafness.find({WEB: other})
    assert found_later(deafness, clock, other)

    deafness.bring(WEB, other)
    assert not found_later(deafness, clock, other)


def test_other_record_of_an_id(deafness, clock):
    """What was brought of one primary doesn't stand for what another gave the same id."""
    deafness.bring(WEB, record(2, 1, "one"))
    deafness.find({WEB: record(2, 1, "two")})

    assert found_later(deafness, clock, record(2, 1, "two"))


def test_new_subscription_hears_again(deafness, clock):
    """A new confirmation begins anew."""
    deafness.find({WEB: record(2, 1)})
    deafness.begin()
    deafness.find({WEB: record(2, 1)})

    assert not found_later(deafness, clock, record(2, 1))
