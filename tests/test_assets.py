"""The browser files as they are served: what is cached, what is compressed, and that nothing of them is lost."""

import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import brotli
import httpx
import pytest
from rjsmin import jsmin

from service.assets import ENTRIES, FOLDER, Assets, content_coding
from service.modules import exports
from tests.parts import Replica, require
from tests.test_clients import NPM, require_npm_package

PAGE = "https://app.example"
KEPT_FOR_EVER = "public, max-age=31536000, immutable"


@pytest.fixture(scope="module")
def assets() -> Assets:
    return Assets()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A service on its embedded Redis, which these files have nothing to do with."""
    replica = Replica(tmp_path_factory.mktemp("assets"))
    try:
        yield replica.start()
    finally:
        replica.kill()


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the browser files, to be changed."""
    return shutil.copytree(FOLDER, tmp_path / "browser")


def named(text: str) -> list[str]:
    """What an entry names, in its order."""
    return re.findall(r'"\./([^"]+)"', text)


# What is served


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_names_all_its_files(service, entry):
    """An entry is a line or two that a browser asks about each time, and names, flat, all that its file imports."""
    answer = httpx.get(f"{service.url}/browser/{entry}")
    files = {path: httpx.get(f"{service.url}/browser/{path}") for path in named(answer.text)}
    folders = {path.split("/")[0] for path in files}
    imported = {name for file in files.values() for name in named(file.text)}
    names = ",".join(exports(FOLDER / entry))

    assert answer.headers["cache-control"] == "no-cache"
    assert len(answer.text) < 256
    assert answer.text.startswith(f'export{{{names}}}from"./{folders.pop()}/{entry}";\n')
    assert folders == set()
    assert imported | {entry} == {path.split("/")[1] for path in files}
    for file in files.values():
        assert file.status_code == 200
        assert file.headers["cache-control"] == KEPT_FOR_EVER


def test_headers(service):
    """Pages of other origins may load these files, as what they are and nothing else."""
    entry = httpx.get(f"{service.url}/browser/vectr0.js", headers={"Origin": PAGE})
    module = httpx.get(f"{service.url}/browser/{named(entry.text)[0]}", headers={"Origin": PAGE})

    for answer in (entry, module):
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["vary"] == "Accept-Encoding, Origin"


@pytest.mark.parametrize("path", ["/browser/vectr0.js", "/demo"])
@pytest.mark.parametrize("encoding", ["br", "gzip", "identity"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_none_match(service, path, encoding, method):
    """One who has the text in this encoding gets 304, and the ETag says which encoding it is of."""
    accepting = {"Accept-Encoding": encoding}
    other = httpx.get(service.url + path, headers={"Accept-Encoding": "gzip" if encoding != "gzip" else "br"})
    first = httpx.request(method, service.url + path, headers=accepting)
    again, changed = (
        httpx.request(method, service.url + path, headers={**accepting, "If-None-Match": answer.headers["etag"]})
        for answer in (first, other)
    )

    assert first.status_code == changed.status_code == 200
    assert first.headers.get("content-encoding", "identity") == encoding
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == first.headers["etag"] != other.headers["etag"]
    assert again.headers["cache-control"] == first.headers["cache-control"]
    assert again.headers["vary"] == first.headers["vary"] == "Accept-Encoding, Origin"
    assert "content-encoding" not in again.headers


@pytest.mark.parametrize("path", ["/browser/element.js", "/demo"])
def test_head(service, path):
    """HEAD has the headers of GET, and no body."""
    get, head = (httpx.request(method, service.url + path) for method in ("GET", "HEAD"))

    assert head.content == b""
    assert {**head.headers, "date": ""} == {**get.headers, "date": ""}


@pytest.mark.parametrize(
    ("accept_encoding", "coding"),
    [
        ([], None),
        ([""], None),
        (["gzip"], "gzip"),
        (["gzip, deflate, br, zstd"], "br"),
        (["br"], "br"),
        (["gzip", "BR"], "br"),
        (["GZIP"], "gzip"),
        (["x-gzip"], "gzip"),
        (["*"], "br"),
        (["br;q=0, *;q=0.1"], "gzip"),
        (["br;q=0.5, gzip"], "gzip"),
        (["gzip;q=0.001"], "gzip"),
        (["gzip; q=1.0, identity; q=0.5"], "gzip"),
        (["gzip;q=0"], None),
        (["gzip;q=0.000, br;q=0, *"], None),
        (["*;q=0"], None),
        (["identity"], None),
        (["gzip;q=0.5, br;q=0.5, identity;q=1"], None),
        (["deflate, zstd"], None),
        (["gzip;q=high"], None),
        (["gzipped"], None),
    ],
)
def test_accept_encoding(accept_encoding, coding):
    """A client gets what it likes most, the smaller of equals, and no coding that it likes less than plain text."""
    assert content_coding(accept_encoding) == coding


def test_all_codings_are_of_one_text(assets):
    """What is compressed is what is sent plain, and the bytes are the same on every replica."""
    for made, again in zip(assets.files.values(), Assets().files.values(), strict=True):
        assert gzip.decompress(made.bodies["gzip"]) == brotli.decompress(made.bodies["br"]) == made.bodies[None]
        assert made.bodies["gzip"][4:8] == bytes(4)  # the time at which it was compressed
        assert made.bodies == again.bodies


@pytest.mark.parametrize(
    "path",
    [
        "nothing.js",
        "watch.js",
        "vectr0.d.ts",
        "package.json",
        "{build}/watch.js",
        "{build}/vite.js",
        "{build}/stamp.js",
        "{build}/ci.js",
        "{build}/vectr0.d.ts",
        "{build}/package.json",
        "{build}/README.md",
        "{build}/demo.html",
        "{build}/",
        "{build}/demo/demo.js",
        "{build}/..%2F..%2Fapi.py",
        "0.0.1-00000000/vectr0.js",
        "",
    ],
)
def test_404(service, assets, path):
    """What no page needs isn't served, and neither are the files of another build; no cache remembers that."""
    answer = httpx.get(f"{service.url}/browser/{path.format(build=assets.build)}")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/browser/vectr0.js", "/browser/{build}/vectr0.js", "/demo"])
def test_405(service, assets, path):
    """These are read, and their options asked for, and nothing else."""
    answer = httpx.post(service.url + path.format(build=assets.build))

    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


# Builds


def test_a_changed_file_is_another_build(sources):
    """A change of what is served changes the name of the build, and a change of a comment doesn't."""
    before = Assets(sources).build
    rule = sources / "rule.js"
    rule.write_text(rule.read_text().replace("/** The rule", "/** This is the rule"))
    commented = Assets(sources).build
    rule.write_text(rule.read_text().replace("{7,}", "{8,}"))
    changed = Assets(sources).build

    assert re.fullmatch(rf"{re.escape(version('vectr0'))}-[0-9a-f]{{8}}", before)
    assert "This is the rule" in rule.read_text()
    assert commented == before != changed


def test_during_an_upgrade(tmp_path, monkeypatch, start_replica, start_nginx):
    """While replicas of two builds are behind nginx, the files of both are had, whichever of them is asked first."""
    older = tmp_path / "older"
    shutil.copytree(FOLDER.parent, older / "service", ignore=shutil.ignore_patterns("__pycache__"))
    rule = older / "service/browser/rule.js"
    rule.write_text(rule.read_text().replace("{7,}", "{8,}"))
    new = start_replica()
    with monkeypatch.context() as patched:
        patched.chdir(older)
        old = start_replica()
    nginx = start_nginx(old, new)
    entries = {replica: httpx.get(f"{replica.url}/browser/element.js").text for replica in (old, new)}

    assert entries[old] != entries[new]
    for entry in entries.values():
        answers = [httpx.get(f"{nginx.url}/browser/{path}") for path in named(entry)]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.headers["cache-control"] for answer in answers} == {KEPT_FOR_EVER}
    for _ in range(4):
        nowhere = httpx.get(f"{nginx.url}/browser/nothing.js")
        assert nowhere.status_code == 404
        assert nowhere.headers["content-type"] == "application/problem+json"


# What is left out


def test_nothing_else_is_left_out(tmp_path):
    """To esbuild's parser every module is without comments and white space what it is with them.

    That is not a matter of course: jsmin takes a template within a template for code.
    """
    require_npm_package("esbuild")
    originals = {path.name: path.read_text() for path in FOLDER.parent.rglob("*.js")}
    stripped = {name: jsmin(text) for name, text in originals.items()}
    (tmp_path / "texts.json").write_text(json.dumps([stripped, originals]))
    script = """
        import { transform } from "./node_modules/esbuild/lib/main.js";
        import { readFileSync } from "node:fs";
        const options = { minifyWhitespace: true, legalComments: "none" };
        const parsed = JSON.parse(readFileSync(process.argv[1])).map(async (texts) =>
            Object.fromEntries(await Promise.all(Object.entries(texts).map(
                async ([name, text]) => [name, (await transform(text, options)).code],
            ))),
        );
        console.log(JSON.stringify(await Promise.all(parsed)));
    """
    command = [require("node"), "--input-type=module", "--eval", script, "--", str(tmp_path / "texts.json")]
    parsed = json.loads(subprocess.run(command, cwd=NPM, capture_output=True, check=True, timeout=60).stdout)

    assert parsed[0] == parsed[1]
    assert "watch.js" in stripped
    assert not re.search(r"^\s*/[/*]", "".join(stripped.values()), re.MULTILINE)


def test_files_work_as_served(assets, tmp_path):
    """Each file is a module to Node.js (so no two names clash in it), and exports what its entry passes on."""
    for name, asset in assets.files.items():
        (tmp_path / name).write_bytes(asset.bodies[None])
    require_npm_package("react")
    react = tmp_path / "node_modules" / "react"
    shutil.copytree(NPM / "node_modules" / "react", react)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for entry in ENTRIES:
        script = "console.log(JSON.stringify(Object.keys(await import(process.argv[1]))))"
        command = [require("node"), "--input-type=module", "--eval", script, "--", str(tmp_path / entry)]
        names = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
        assert set(exports(FOLDER / entry)) <= set(names)
    subprocess.run([require("node"), "--check", tmp_path / "demo.js"], check=True, timeout=60)


@pytest.mark.parametrize(("entry", "limit"), [("vectr0.js", 5 * 1024), ("element.js", 12 * 1024)])
def test_sizes(service, entry, limit):
    """All bodies that a page loads for an entry are, compressed, no more than promised."""
    accepting = {"Accept-Encoding": "gzip, br"}
    first = httpx.get(f"{service.url}/browser/{entry}", headers=accepting)
    answers = [first]
    answers += [httpx.get(f"{service.url}/browser/{path}", headers=accepting) for path in named(first.text)]
    sizes = {str(answer.url).rpartition("/")[2]: int(answer.headers["content-length"]) for answer in answers}

    assert all(answer.headers["content-encoding"] == "br" for answer in answers)
    assert sum(int(answer.headers["content-length"]) for answer in answers) <= limit, sizes


# The page to try it


def test_demo_headers(service):
    """The page may load nothing but this service's files, talk to nobody else, and be framed by nobody."""
    answer = httpx.get(f"{service.url}/demo")
    policy = dict(directive.split(" ", 1) for directive in answer.headers["content-security-policy"].split("; "))

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }


@pytest.mark.parametrize("prefix", ["", "/hub"])
def test_demo_files(start_replica, prefix):
    """All that the page loads is there, below a path prefix, too."""
    service = start_replica(root_path=prefix)
    url = httpx.URL(f"{service.url}{prefix}/demo")
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', re.sub(r'"data:[^"]+"', "", httpx.get(url).text))
    answers = [httpx.get(url.join(path)) for path in loaded]

    assert {path.rpartition("/")[2] for path in loaded} == {"demo.css", "element.js", "demo.js"}
    assert not any(path.startswith("/") for path in loaded)
    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.parametrize("tokens", ["", "s3cret"])
def test_greeting(start_replica, tokens):
    """The command names the page, with the token only where it was made for this run."""
    service = start_replica(tokens=tokens)
    [made] = re.findall(r"made for this run: (\S+)", service.log) or [None]
    [printed] = re.findall(r"Try it in a browser: (\S+)", service.log)

    assert (made is None) == bool(tokens)
    assert printed == f"{service.url}/demo" + (f"#token={made}" if made else "")
