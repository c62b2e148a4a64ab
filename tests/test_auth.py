from hashlib import sha256

import pytest

from service.auth import Grant, InvalidTokenError, MissingTokenError, OutOfScopeError, Tokens, authorize
from service.deployment import ChannelName

WEB = ChannelName("web/production")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic s3cret", "s3cret"])
def test_missing_token(header):
    """A header without a bearer token is as none."""
    with pytest.raises(MissingTokenError):
        Tokens([Grant.parse("s3cret")]).identify(header)


def test_unknown_token():
    """A token that isn't known is refused, without being repeated in the message."""
    with pytest.raises(InvalidTokenError) as caught:
        Tokens([Grant.parse("s3cret")]).identify("Bearer s3cre")

    assert "s3cre" not in str(caught.value)


def test_tokens_rotate():
    """Several tokens are valid at once."""
    tokens = Tokens([Grant.parse("old"), Grant.parse("new")])

    assert tokens.identify("Bearer old")
    assert tokens.identify("bearer new")


def test_hashed_token():
    """A token may be set by its hash."""
    digest = sha256(b"s3cret").hexdigest()

    assert Tokens([Grant.parse(f"sha256:{digest}")]).identify("Bearer s3cret")


@pytest.mark.parametrize(
    ("scope", "channel", "covered"),
    [
        ("web/*", "web/production", True),
        ("web/*", "web2/production", False),
        ("*/production", "web/production", True),
        ("*/production", "web/staging", False),
        ("web/pr-*", "web/pr-12", True),
        ("web/pr-*", "web/production", False),
        ("w.b/production", "web/production", False),
        ("*/*", "web/production", True),
    ],
)
def test_scope(scope, channel, covered):
    """A star stands for any run of characters of a name, and everything else for itself."""
    assert Grant.parse(f"s3cret@{scope}").covers(ChannelName(channel)) is covered


def test_scopes_of_one_token_add_up():
    """One token in two entries is good for both scopes, and for nothing else."""
    grants = Tokens([Grant.parse("s3cret@web/production"), Grant.parse("s3cret@admin/*")]).identify("Bearer s3cret")

    authorize(grants, WEB)
    authorize(grants, ChannelName("admin/staging"))
    with pytest.raises(OutOfScopeError):
        authorize(grants, ChannelName("web/staging"))


@pytest.mark.parametrize("entry", ["", "se cret", "s3cret@", "s3cret@web", "s3cret@web/a/b", "sha256:abc", "sécret"])
def test_malformed_entry_is_refused_without_repeating_it(entry):
    """An entry that breaks the rule is refused with the rule, never with the secret."""
    with pytest.raises(ValueError) as caught:
        Grant.parse(entry)

    assert not entry or entry not in str(caught.value)
