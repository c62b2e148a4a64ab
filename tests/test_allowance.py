"""So many a second."""

from service.allowance import Allowance


def test_as_many_as_a_second_brings():
    """What wasn't taken is kept for a second and no longer; what there isn't is not taken in part."""
    now = [100.0]
    allowance = Allowance(10, lambda: now[0])
    assert allowance.take(10)
    assert not allowance.take(1)

    now[0] += 0.5
    assert not allowance.take(6)
    assert allowance.take(5)

    now[0] += 60
    assert allowance.take(0)
    assert not allowance.take(11)
    assert allowance.take(10)
