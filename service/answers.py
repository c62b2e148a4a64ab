"""What a hub's answers have to hold, as far as it is shown or asked by; newer hubs may say more."""

from collections.abc import Mapping
from typing import Any, Final

from service.rules import is_integer, is_name

LONGEST_TEXT: Final = 128
"""Characters of what a record calls a build."""

Record = Mapping[str, Any]
"""A deployment as the hub gives it; see `is_record`."""


def is_record(value: object) -> bool:
    """Tell whether a value is a deployment, that can be shown."""
    return (
        isinstance(value, dict)
        and all(is_name(value.get(field)) for field in ("appName", "environment"))
        and all(_is_short(value.get(field)) for field in ("version", "gitCommit"))
        and (value.get("gitTag") is None or _is_short(value["gitTag"]))
        and all(is_integer(value.get(field)) for field in ("buildNumber", "deployedAt"))
        and isinstance(value.get("rollback"), bool)
    )


def is_adoption(value: object) -> bool:
    """Tell whether a value says who runs what on a channel."""
    return (
        isinstance(value, dict)
        and all(is_name(value.get(field)) for field in ("appName", "environment"))
        and all(is_integer(value.get(field)) for field in ("streams", "unknown"))
        and isinstance(value.get("stale"), bool)
        and isinstance(value.get("deployments"), list)
        and all(
            isinstance(one, dict) and is_integer(one.get("deployedAt")) and is_integer(one.get("streams"))
            for one in value["deployments"]
        )
    )


def _is_short(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= LONGEST_TEXT
