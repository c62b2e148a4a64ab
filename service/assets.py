"""The files for browsers: read, compressed and named by their content once, when the application is made."""

import gzip
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from service.api import has_etag
from service.comments import condense
from service.problem import Problem

FOLDER: Final = Path(__file__).parent / "browser"
ENTRIES: Final = ("vectr0.js", "element.js", "react.js")
"""The modules that pages name. What is served is these and what they import."""
DEMO_FILES: Final = ("demo.css", "demo.js")

_IMPORT: Final = re.compile(r"""^(?:import|export)\b[^"';]*["']\./([\w.-]+)["']""", re.MULTILINE)
_DYNAMIC_IMPORT: Final = re.compile(r"""\bimport\(["']\./([\w.-]+)["']\)""")
_DEFAULT_EXPORT: Final = re.compile(r"^export (?:default\b|\{[^}]*\bdefault\b)", re.MULTILINE)

_CONTENT_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
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


class Asset:
    """A text as it is sent: plain or compressed, each with an ETag of its own."""

    def __init__(self, name: str, text: str, headers: Mapping[str, str]) -> None:
        self.plain = text.encode()
        self.gzipped = gzip.compress(self.plain, 9, mtime=0)
        self._headers = {
            **headers,
            "Content-Type": _CONTENT_TYPES[Path(name).suffix],
            "X-Content-Type-Options": "nosniff",
            "Vary": "Accept-Encoding",
        }
        self._etags = {body: f'"{sha256(body).hexdigest()[:24]}"' for body in (self.plain, self.gzipped)}

    def response(self, request: Request) -> Response:
        """Give what the request accepts, or 304 to one who has it."""
        body = self.gzipped if accepts_gzip(request.headers.getlist("accept-encoding")) else self.plain
        headers = {**self._headers, "ETag": self._etags[body]}
        if has_etag(request.headers.get("if-none-match"), headers["ETag"]):
            del headers["Content-Type"]
            return Response(status_code=304, headers=headers)
        if body is self.gzipped:
            headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers)


class Assets:
    """All that is served to browsers.

    An entry is a few lines that name its modules by the version and a digest over the content of them all. So modules
    are kept for ever, those of two versions never meet in a page, and all come at once in place of one after the other.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        modules = _closure(folder, ENTRIES, _IMPORT, _DYNAMIC_IMPORT)
        files = modules | {name: _read(folder / "demo" / name) for name in DEMO_FILES}
        digest = sha256("".join(f"{name}\0{text}\0" for name, text in sorted(files.items())).encode()).hexdigest()
        self.build = f"{version('vectr0')}-{digest[:12]}"
        self.files = {name: Asset(name, text, _FOREVER | _FOR_ALL_PAGES) for name, text in files.items()}
        self.entries = {
            name: Asset(
                name, _entry(self.build, list(_closure(folder, [name], _IMPORT).items())), _NO_CACHE | _FOR_ALL_PAGES
            )
            for name in ENTRIES
        }
        self._package = _pack(folder)
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

    async def package(self, _: Request) -> Response:
        """Give the npm package, so that no page has another version than its hub."""
        headers = {**_NO_CACHE, **_FOR_ALL_PAGES, "X-Content-Type-Options": "nosniff"}
        return Response(self._package, headers=headers, media_type="application/gzip")

    async def demo(self, request: Request) -> Response:
        """Give the page to try it."""
        return self._demo.response(request)


def accepts_gzip(accept_encoding: list[str]) -> bool:
    """Tell whether gzip is accepted, and not less than plain text (RFC 9110, section 12.5.3)."""
    qualities: dict[str, float] = {}
    for choice in ",".join(accept_encoding).lower().split(","):
        coding, *parameters = (part.strip() for part in choice.split(";"))
        weight = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
        qualities[coding] = float(weight) if re.fullmatch(r"[01](\.\d{0,3})?", weight) else 0
    quality = qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0)))
    return quality > 0 and quality >= qualities.get("identity", 0)


def _found(assets: Mapping[str, Asset], request: Request) -> Asset:
    asset = assets.get(request.path_params["file"])
    if asset is None:
        raise Problem(404, f"there is no such file here; there are {', '.join(assets)}")
    return asset


def _read(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return condense(text) if path.suffix == ".js" else text


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


def _closure(folder: Path, names: Iterable[str], *patterns: re.Pattern[str]) -> dict[str, str]:
    """Read modules and what they import, by name, each before what it imports."""
    modules: dict[str, str] = {}
    waiting = [*names]
    for name in waiting:
        if name not in modules:
            modules[name] = _read(folder / name)
            waiting.extend(found for pattern in patterns for found in pattern.findall(modules[name]))
    return modules


def _entry(build: str, modules: list[tuple[str, str]]) -> str:
    """Write a module that stands for the first of these and brings the others along."""
    (name, text), *others = modules
    default = [f'export {{ default }} from "./{build}/{name}";'] if _DEFAULT_EXPORT.search(text) else []
    lines = [f'export * from "./{build}/{name}";', *default, *(f'import "./{build}/{other}";' for other, _ in others)]
    return "".join(f"{line}\n" for line in lines)
