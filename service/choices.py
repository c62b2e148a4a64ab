"""Lists in a request's headers, such as Accept: whoever sends a long one has only its beginning read."""

from collections.abc import Iterable
from typing import Final

MOST: Final = 64
"""Members that are read; no browser or cache sends as many."""


def choices(values: Iterable[str]) -> list[str]:
    """Return the members of a header's list, over all lines that it has (RFC 9110, section 5.6.1)."""
    return ",".join(values).split(",", MOST)[:MOST]
