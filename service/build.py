"""The build: what a page says that it runs, and when two builds are the same."""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from service.rules import is_commit, is_integer

RUNNING_FORM: Final = "a commit, or commit~number with the build number"

_SHORTEST_HASH: Final = 7
_HEXADECIMAL: Final = re.compile(rf"[0-9A-Fa-f]{{{_SHORTEST_HASH},}}")


class Build(NamedTuple):
    """A commit, and the number of the CI run that built it; 0 where it has none. A tuple: its hash is C's."""

    commit: str
    number: int

    def __str__(self) -> str:
        """As it stands on the wire: the tilde is in no commit, and needs no escape in a URL (RFC 3986, section 2.3)."""
        return f"{self.commit}~{self.number}" if self.number else self.commit


@lru_cache(maxsize=1024)  # thousands of streams run the same few builds: each is one object, and parsed once
def parse(text: str) -> Build | None:
    """Read what a page says that it runs, in RUNNING_FORM.

    None where that says nothing: the stamp's ``unknown``, or what no record can hold. It is no error, because a page
    whose stream is refused never hears of a deployment again, and that is worth more than a count.
    """
    commit, tilde, digits = text.partition("~")
    number = int(digits) if re.fullmatch("[0-9]{1,16}", digits) else 0
    if (tilde and not digits) or (digits and str(number) != digits) or not is_integer(number):
        return None
    return build_of(commit, number)


def build_of(commit: object, number: object) -> Build | None:
    """Give the build that a record names, or None where it names none."""
    if not is_commit(commit) or commit == "unknown":
        return None
    return Build(str(commit), number if isinstance(number, int) and is_integer(number) else 0)


def is_same(a: Build, b: Build) -> bool:
    """Tell whether two builds are the same: the same commit and, where both have one, the same number.

    It is `isSame` of browser/rule.js without the build time, which a stream doesn't say.
    """
    return _is_same_commit(a.commit, b.commit) and (not a.number or not b.number or a.number == b.number)


def kin(build: Build) -> str:
    """Return what a build has in common with every build that may be the same: a hash's first seven digits."""
    commit = build.commit
    return commit[:_SHORTEST_HASH].lower() if _HEXADECIMAL.fullmatch(commit) else commit


def _is_same_commit(a: str, b: str) -> bool:
    """A hash may be shortened to seven or more digits."""
    if not (_HEXADECIMAL.fullmatch(a) and _HEXADECIMAL.fullmatch(b)):
        return a == b
    length = min(len(a), len(b))
    return a[:length].lower() == b[:length].lower()
