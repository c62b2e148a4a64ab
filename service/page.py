"""The page at `/`, the board: its text, and the files that it loads, named by their content."""

import re
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from service.assets import Asset
from service.choices import choices
from service.modules import join
from service.problem import Problem

FOLDER: Final = Path(__file__).parent / "dashboard"

_FOREVER: Final = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PAGE: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
_FOR_OTHERS: Final = """\
VECTR0 tells every open browser tab that a new version of its web application was deployed.
A browser shows a page here. For other programs there are, below this address:

  deployments      what is deployed where, as JSON
  events           every deployment as it comes, as Server-Sent Events (curl -N)
  openapi.json     all routes

`vectr0 list` and `vectr0 watch` show the same in a terminal.
"""


class Page:
    """The board as it is served.

    The page names its files by a digest over them all, so that they are kept for ever and no two versions meet.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        files = join([folder / "board.js"])
        files |= {name: (folder / name).read_text(encoding="utf-8") for name in ("board.css", "icon.svg")}
        digest = sha256("".join(f"{name}\0{text}\0" for name, text in sorted(files.items())).encode()).hexdigest()
        self.build = f"{version('vectr0')}-{digest[:8]}"
        self.files = {name: Asset(name, text, _FOREVER) for name, text in files.items()}
        text = (folder / "board.html").read_text(encoding="utf-8").replace("{build}", self.build)
        self._page = Asset("board.html", text, _PAGE)

    async def page(self, request: Request) -> Response:
        """Give the page to a browser, and to what doesn't ask for HTML, such as curl, a few words."""
        if accepts_html(request.headers.getlist("accept")):
            response = self._page.response(request)
        else:
            response = Response(_FOR_OTHERS, headers={"Cache-Control": "no-cache"}, media_type="text/plain")
        response.headers.add_vary_header("Accept")
        return response

    async def file(self, request: Request) -> Response:
        """Give a file of this very build."""
        asset = self.files.get(request.path_params["file"])
        if request.path_params["build"] != self.build or asset is None:
            raise Problem(404, f"there is no such file here; this replica serves {self.build}")
        return asset.response(request)


def accepts_html(accept: list[str]) -> bool:
    """Tell whether a client asks for HTML by name; every browser does, and ``*/*`` alone doesn't."""
    ranges = [choice.lower().replace(" ", "").split(";", 9)[:9] for choice in choices(accept)]
    return any(
        media in ("text/html", "application/xhtml+xml") and not any(re.fullmatch(r"q=0(\.0*)?", one) for one in rest)
        for media, *rest in ranges
    )
