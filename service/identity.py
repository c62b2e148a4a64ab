"""CI's own identity in place of a token (OpenID Connect): GitHub gives one when asked, GitLab has it in a variable."""

from collections.abc import Callable
from typing import Final

import httpx

from service.ci import Environ
from service.client import send
from service.failures import HubUnavailableError, WrongUseError

RETRIES: Final = 3


def identity(environ: Environ, audience: str, *, timeout: float, note: Callable[[str], None]) -> Callable[[], str]:
    """Give what gets a token that proves what this job is, for this audience. It soon expires, so get it late.

    Raises WrongUseError where there is none; calling it raises HubUnavailableError.
    """
    address, secret = environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"), environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if address and secret:
        return lambda: _ask_github(address, secret, audience, timeout, note)
    token = environ.get("VECTR0_ID_TOKEN")
    if token:
        return lambda: token
    hints = {
        "GITHUB_ACTIONS": "the job needs `permissions: {id-token: write}`",
        "GITLAB_CI": f"the job needs `id_tokens: {{VECTR0_ID_TOKEN: {{aud: {audience}}}}}`",
    }
    hint = next((text for name, text in hints.items() if environ.get(name)), "set VECTR0_ID_TOKEN to one")
    raise WrongUseError(f"--oidc finds no identity here: {hint}")


def _ask_github(address: str, secret: str, audience: str, timeout: float, note: Callable[[str], None]) -> str:
    url = httpx.URL(address).copy_merge_params({"audience": audience})
    with httpx.Client(timeout=timeout, headers={"Authorization": f"Bearer {secret}"}) as client:
        response = send(lambda: client.get(url), "GitHub's issuer of identities", retries=RETRIES, note=note)
    try:
        return str(response.raise_for_status().json()["value"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        raise HubUnavailableError(f"GitHub gives no identity: it answers {response.status_code}") from None
