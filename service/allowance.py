"""An allowance: so many a second of what has to be bounded but is rare."""

from collections.abc import Callable


class Allowance:
    """Grows with time up to what one second brings."""

    def __init__(self, a_second: int, clock: Callable[[], float]) -> None:
        self._a_second = a_second
        self._clock = clock
        self._left = float(a_second)
        self._as_of = clock()

    def take(self, count: int) -> bool:
        """Take so many off, all or none. Returns whether there were as many."""
        now = self._clock()
        self._left = min(self._a_second, self._left + (now - self._as_of) * self._a_second)
        self._as_of = now
        if count > self._left:
            return False
        self._left -= count
        return True
