"""CI's own identity in place of a token (OpenID Connect): GitHub gives one when asked, GitLab has it in a variable."""

from collections.abc import Callable

import httpx

from service.ci import Environ
from service.failures import HubUnavailableError, WrongUseError
from service.jsontext import read_json
from service.patience import Note, Patience, persist
from service.request import ask
from service.url import bearer, is_token


def identity(environ: Environ, audience: str, *, note: Note) -> Callable[[Patience], str]:
    """Give what gets a token that proves what this job is, for this audience. It soon expires, so get it late.

    Raises WrongUseError where there is none; calling it raises HubUnavailableError.
    """
    address, secret = environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"), environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if address and secret:
        return lambda patience: _ask_github(address, secret, audience, patience, note)
    token = environ.get("VECTR0_ID_TOKEN")
    if token:
        if not is_token(token):
            raise WrongUseError("VECTR0_ID_TOKEN holds characters that no token has (it isn't shown)")
        return lambda _: token
    hints = {
        "GITHUB_ACTIONS": "the job needs `permissions: {id-token: write}`",
        "GITLAB_CI": f"the job needs `id_tokens: {{VECTR0_ID_TOKEN: {{aud: {audience}}}}}`",
    }
    hint = next((text for name, text in hints.items() if environ.get(name)), "set VECTR0_ID_TOKEN to one")
    raise WrongUseError(f"--oidc finds no identity here: {hint}")


def _ask_github(address: str, secret: str, audience: str, patience: Patience, note: Note) -> str:
    try:
        url = httpx.URL(address).copy_merge_params({"audience": audience})
    except httpx.InvalidURL as error:
        raise WrongUseError(f"ACTIONS_ID_TOKEN_REQUEST_URL is no address: {error}") from None
    response = persist(
        lambda seconds: ask("GET", url, seconds=seconds, auth=bearer(secret)),
        "GitHub's issuer of identities", patience, note=note,
    )  # fmt: skip
    try:
        token = read_json(response.content)["value"] if response.is_success else None
    except (ValueError, KeyError, TypeError):
        token = None
    if not isinstance(token, str) or not is_token(token):
        raise HubUnavailableError(f"GitHub gives no identity: it answers {response.status_code}")
    return token
