"""The files for browsers: read, compressed and named by their content once, when the application is made."""

import gzip
import io
import json
import re
import tarfile
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

import brotli
import orjson
from starlette.requests import Request
from starlette.responses import Response

from service.api import has_etag
from service.choices import choices
from service.modules import exports, imported, join
from service.openapi import document
from service.problem import Problem

FOLDER: Final = Path(__file__).parent / "browser"
ENTRIES: Final = ("vectr0.js", "element.js", "react.js")
"""The modules that pages name. What is served is these and what they import."""

_CONTENT_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_FOREVER: Final = {"Cache-Control": "public, max-age=31536000, immutable"}
_NO_CACHE: Final = {"Cache-Control": "no-cache"}
_FOR_ALL_PAGES: Final = {"Cross-Origin-Resource-Policy": "cross-origin"}
_DEMO_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "Referrer-Policy": "no-referrer",
}


Coding = Literal["br", "gzip"] | None
"""A content coding; None for plain text."""


class Asset:
    """A text as it is sent: plain or compressed, each with an ETag of its own."""

    def __init__(self, name: str, text: str, headers: Mapping[str, str]) -> None:
        plain = text.encode()
        self.bodies = {
            None: plain,
            "br": brotli.compress(plain, mode=brotli.MODE_TEXT),
            "gzip": gzip.compress(plain, 9, mtime=0),
        }
        """By content coding."""
        self._headers = {
            **headers,
            "Content-Type": _CONTENT_TYPES[Path(name).suffix],
            "X-Content-Type-Options": "nosniff",
            "Vary": "Accept-Encoding",
        }
        self._etags = {coding: _etag(body) for coding, body in self.bodies.items()}

    def response(self, request: Request) -> Response:
        """Give what the request accepts, or 304 to one who has it."""
        coding = content_coding(request.headers.getlist("accept-encoding"))
        headers = {**self._headers, "ETag": self._etags[coding]}
        if has_etag(request.headers.get("if-none-match"), headers["ETag"]):
            del headers["Content-Type"]
            return Response(status_code=304, headers=headers)
        if coding:
            headers["Content-Encoding"] = coding
        return Response(self.bodies[coding], headers=headers)


class Assets:
    """All that is served to browsers.

    An entry is a line or two that name files by the version and a digest over the content of them all. So files are
    kept for ever, those of two versions never meet in a page, and all come at once in place of one after the other.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        files = join([*(folder / name for name in ENTRIES), folder / "demo" / "demo.js"])
        files["demo.css"] = _read(folder / "demo" / "demo.css")
        digest = sha256("".join(f"{name}\0{text}\0" for name, text in sorted(files.items())).encode()).hexdigest()
        self.build = f"{version('vectr0')}-{digest[:8]}"
        self.files = {name: Asset(name, text, _FOREVER | _FOR_ALL_PAGES) for name, text in files.items()}
        self.entries = {
            name: Asset(name, _entry(self.build, folder / name, imported(files[name])), _NO_CACHE | _FOR_ALL_PAGES)
            for name in ENTRIES
        }
        self._package = _pack(folder)
        self._package_etag = _etag(self._package)
        page = _read(folder / "demo" / "demo.html").replace("{build}", self.build)
        self._demo = Asset("demo.html", page, _NO_CACHE | _DEMO_HEADERS)

    async def entry(self, request: Request) -> Response:
        """Give a module that pages name."""
        return _found(self.entries, request).response(request)

    async def file(self, request: Request) -> Response:
        """Give a file of this very build. A replica of another one may have what this one hasn't, so 404 isn't kept."""
        if request.path_params["build"] != self.build:
            raise Problem(404, f"this replica serves {self.build}, and no other build")
        return _found(self.files, request).response(request)

    async def package(self, request: Request) -> Response:
        """Give the npm package, so that no page has another version than its hub."""
        headers = {**_NO_CACHE, **_FOR_ALL_PAGES, "X-Content-Type-Options": "nosniff", "ETag": self._package_etag}
        if has_etag(request.headers.get("if-none-match"), self._package_etag):
            return Response(status_code=304, headers=headers)
        return Response(self._package, headers=headers, media_type="application/gzip")

    async def demo(self, request: Request) -> Response:
        """Give the page to try it."""
        return self._demo.response(request)


class Description:
    """The OpenAPI document: it takes milliseconds to make, and never changes."""

    def __init__(self, root_path: str) -> None:
        self._document = Asset("openapi.json", orjson.dumps(document(root_path)).decode(), _NO_CACHE)

    async def answer(self, request: Request) -> Response:
        """Describe these routes to machines."""
        return self._document.response(request)


def content_coding(accept_encoding: list[str]) -> Coding:
    """Choose what is accepted most, the smaller of equals, but nothing less than plain text (RFC 9110, 12.5.3)."""
    qualities: dict[str, float] = {}
    for choice in choices(accept_encoding):
        name, *parameters = (part.strip() for part in choice.lower().split(";", 4)[:4])
        weight = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
        qualities[name.removeprefix("x-")] = float(weight) if re.fullmatch(r"[01](\.\d{0,3})?", weight) else 0
    others = qualities.get("*", 0)
    offers: tuple[tuple[Coding, float], ...] = (
        ("br", qualities.get("br", others)),
        ("gzip", qualities.get("gzip", others)),
    )
    coding, quality = max(offers, key=lambda offer: offer[1])
    return coding if quality > 0 and quality >= qualities.get("identity", 0) else None


def _etag(body: bytes) -> str:
    return f'"{sha256(body).hexdigest()[:24]}"'


def _found(assets: Mapping[str, Asset], request: Request) -> Asset:
    asset = assets.get(request.path_params["file"])
    if asset is None:
        raise Problem(404, f"there is no such file here; there are {', '.join(assets)}")
    return asset


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _pack(folder: Path) -> bytes:
    """Pack the npm package as npm does: what package.json names, below ``package/``; the same bytes each time."""
    patterns = [*json.loads((folder / "package.json").read_text())["files"], "package.json", "README.md", "LICENSE"]
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
            entry = tarfile.TarInfo(f"package/{path.name}")
            entry.size = path.stat().st_size
            archive.addfile(entry, io.BytesIO(path.read_bytes()))
    return gzip.compress(tar.getvalue(), 9, mtime=0)


def _entry(build: str, module: Path, others: list[str]) -> str:
    """Write a module that stands for a file, and brings along what that imports."""
    lines = [f'export{{{",".join(exports(module))}}}from"./{build}/{module.name}";']
    lines += [f'import"./{build}/{other}";' for other in others]
    return "".join(f"{line}\n" for line in lines)
