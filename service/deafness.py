"""The deafness of a subscription: it is there, but doesn't bring what is published."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from service.deployment import KEPT, ChannelName, Deployment

DEAF_AFTER: Final = 2.0
"""Seconds from when a reconcile found a deployment; what hasn't been brought by then won't be."""


class Deafness:
    """Compares what reconciles find with what one subscription brings.

    Only the order in which this process learns of things counts, and its own clock. Ids are times of the node that
    gave them, and after a failover that is another node, whose clock may be wrong by more than a few seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._found: Mapping[ChannelName, Deployment | None] | None = None
        """The newest deployments at the last reconcile since the subscription was confirmed; None before the first."""
        self._brought: dict[ChannelName, deque[Deployment]] = {}
        self._missed: dict[ChannelName, tuple[Deployment, float]] = {}
        """What should have been brought, and since when."""

    def begin(self) -> None:
        """A subscription is confirmed: it has to bring what is published from now on."""
        self._found = None
        self._brought.clear()
        self._missed.clear()

    def bring(self, channel: ChannelName, deployment: Deployment) -> None:
        """The subscription has brought a deployment."""
        if channel in self._missed and self._missed[channel][0] == deployment:
            del self._missed[channel]  # it was only late
        if self._found is not None and channel in self._found:
            self._brought.setdefault(channel, deque(maxlen=KEPT)).append(deployment)

    def find(self, found: Mapping[ChannelName, Deployment | None]) -> bool:
        """Take the newest deployments that a reconcile found, and tell whether the subscription is deaf.

        The reconcile must have been sent after the subscription was confirmed. What the first one finds, of a
        channel, may be from before that; what a later one finds beyond it was published since.
        """
        before = self._found or {}
        for channel, deployment in found.items():
            if (
                deployment is not None
                and channel in before
                and _follows(deployment, before[channel])
                and deployment not in self._brought.get(channel, ())
            ):
                self._missed.setdefault(channel, (deployment, self._clock()))
        self._found = found
        self._brought = {channel: brought for channel, brought in self._brought.items() if channel in found}
        return any(since + DEAF_AFTER <= self._clock() for _, since in self._missed.values())


def _follows(deployment: Deployment, before: Deployment | None) -> bool:
    """Tell whether a deployment was recorded upon another; a Redis that has gone back to older ones publishes none."""
    return before is None or (deployment.previous or 0) >= before.id
