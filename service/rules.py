"""What a hub takes of a deployment. service.deployment says the same with packages that the commands do without."""

import re
from collections.abc import Callable, Mapping
from typing import Final

NAME_RULE: Final = "1 to 64 of A-Z a-z 0-9 . _ -, starting with a letter or digit"
TEXT_RULE: Final = "1 to 128 printable characters"
INTEGER_RULE: Final = f"an integer from 0 to {2**53 - 1}"


def is_name(value: object) -> bool:
    """Tell whether it may name an application or an environment."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value) is not None


def is_commit(value: object) -> bool:
    """Tell whether it may be a commit."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value) is not None


def is_text(value: object) -> bool:
    """Tell whether it may be a version or a tag."""
    return isinstance(value, str) and value.isprintable() and 1 <= len(value) <= 128  # noqa: PLR2004  # TEXT_RULE


def is_integer(value: object) -> bool:
    """Tell whether every JSON reader takes it exactly."""
    return type(value) is int and 0 <= value < 2**53


def is_tag(value: object) -> bool:
    """Tell whether it may be a tag, or none."""
    return value is None or is_text(value)


RULES: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "appName": (is_name, NAME_RULE),
    "version": (is_text, TEXT_RULE),
    "gitCommit": (is_commit, "1 to 64 of A-Z a-z 0-9 . _ -"),
    "buildNumber": (is_integer, INTEGER_RULE),
    "buildTime": (is_integer, f"{INTEGER_RULE}, milliseconds since 1970"),
    "environment": (is_name, NAME_RULE),
    "gitTag": (is_tag, f"null or {TEXT_RULE}"),
}
"""For each field of a deployment what it must be, and how that is said."""
