"""The browser files as they are served: what is cached, what is compressed, and that nothing of them is lost."""

import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from service.assets import ENTRIES, FOLDER, Assets, accepts_gzip
from service.comments import condense
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
def test_an_entry_names_all_its_modules(service, entry):
    """An entry is a few lines that a browser asks about each time, and names, flat, all that its modules import."""
    answer = httpx.get(f"{service.url}/browser/{entry}")
    modules = {path: httpx.get(f"{service.url}/browser/{path}") for path in named(answer.text)}
    folders = {path.split("/")[0] for path in modules}
    imported = {name for module in modules.values() for name in re.findall(r'from "\./([^"]+)"', module.text)}

    assert answer.headers["cache-control"] == "no-cache"
    assert len(answer.content) < 1024
    assert answer.text.startswith(f'export * from "./{folders.pop()}/{entry}";\n')
    assert folders == set()
    assert imported | {entry} == {path.split("/")[1] for path in modules}
    for module in modules.values():
        assert module.status_code == 200
        assert module.headers["cache-control"] == KEPT_FOR_EVER


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
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_none_match(service, path, encoding, method):
    """One who has the text in this encoding gets 304, and the ETag says which encoding it is of."""
    accepting = {"Accept-Encoding": encoding}
    other = httpx.get(service.url + path, headers={"Accept-Encoding": "gzip" if encoding == "identity" else "identity"})
    first = httpx.request(method, service.url + path, headers=accepting)
    again, changed = (
        httpx.request(method, service.url + path, headers={**accepting, "If-None-Match": answer.headers["etag"]})
        for answer in (first, other)
    )

    assert first.status_code == changed.status_code == 200
    assert first.headers.get("content-encoding") == ("gzip" if encoding == "gzip" else None)
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
    ("accept_encoding", "accepted"),
    [
        ([], False),
        ([""], False),
        (["gzip"], True),
        (["gzip, deflate, br, zstd"], True),
        (["br", "GZIP"], True),
        (["x-gzip"], True),
        (["*"], True),
        (["br, *;q=0.1"], True),
        (["gzip;q=0.001"], True),
        (["gzip; q=1.0, identity; q=0.5"], True),
        (["gzip;q=0"], False),
        (["gzip;q=0.000, *"], False),
        (["*;q=0"], False),
        (["identity"], False),
        (["gzip;q=0.5, identity;q=1"], False),
        (["br, deflate"], False),
        (["gzip;q=high"], False),
        (["gzipped"], False),
    ],
)
def test_accept_encoding(accept_encoding, accepted):
    """Only who accepts gzip, and doesn't prefer plain text, gets it."""
    assert accepts_gzip(accept_encoding) is accepted


def test_both_encodings_are_of_one_text(assets):
    """What is compressed is what is sent plain, and the bytes are the same on every replica."""
    for made, again in zip(assets.files.values(), Assets().files.values(), strict=True):
        assert gzip.decompress(made.gzipped) == made.plain
        assert made.gzipped[4:8] == bytes(4)  # the time at which it was compressed
        assert made.gzipped == again.gzipped


@pytest.mark.parametrize(
    "path",
    [
        "nothing.js",
        "watch.js",
        "vectr0.d.ts",
        "package.json",
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
        "0.0.1-000000000000/vectr0.js",
        "",
    ],
)
def test_404(service, assets, path):
    """What no page needs isn't served, and neither are the files of another build; no cache remembers that."""
    answer = httpx.get(f"{service.url}/browser/{path.format(build=assets.build)}")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/browser/vectr0.js", "/browser/{build}/watch.js", "/demo"])
def test_405(service, assets, path):
    """These are read, and nothing else."""
    answer = httpx.post(service.url + path.format(build=assets.build))

    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


# Builds


def test_a_changed_file_is_another_build(sources):
    """A change of what is served changes the name of the build, and a change of a comment doesn't."""
    before = Assets(sources).build
    rule = sources / "rule.js"
    rule.write_text(rule.read_text().replace("/** The rule", "/** This is the rule"))
    commented = Assets(sources).build
    rule.write_text(rule.read_text().replace("{7,}", "{8,}"))
    changed = Assets(sources).build

    assert re.fullmatch(rf"{re.escape(version('vectr0'))}-[0-9a-f]{{12}}", before)
    assert "This is the rule" in rule.read_text()
    assert commented == before != changed


def test_exports(sources):
    """An entry exports what its module does, the default too."""
    react = sources / "react.js"
    react.write_text(react.read_text() + "\nexport default useVersionCheck;\n")
    assets = Assets(sources)
    lines = assets.entries["react.js"].plain.decode().splitlines()

    assert lines[:2] == [
        f'export * from "./{assets.build}/react.js";',
        f'export {{ default }} from "./{assets.build}/react.js";',
    ]
    assert "default" not in assets.entries["vectr0.js"].plain.decode()


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


@pytest.mark.parametrize(
    ("source", "condensed"),
    [
        ("a;\n// b\nc;\n", "a;\n\nc;\n"),
        ("a;\n    // b", "a;\n"),
        ("/** a\n * b */\nc;\n", "\n\nc;\n"),
        ("{\n    a;\n\n    b;\n}", "{\na;\n\nb;\n}"),
        ("a; // b\nc; /* d */\n", "a; // b\nc; /* d */\n"),
        ("/* a */ b;\n", "/* a */ b;\n"),
        ("a; /* b\n// c */ d;\n", "a; /* b\n// c */ d;\n"),
        ("`\n    // a\n    /* b */\n`;", "`\n    // a\n    /* b */\n`;"),
        ("`${\n    // a\n    b}\n    // c\n`;", "`${\n\nb}\n    // c\n`;"),
        ("`a ${`\n    // b ${{ c }}\n` + d}\n    // e`;\n// f", "`a ${`\n    // b ${{ c }}\n` + d}\n    // e`;\n"),
        ("`\\`\n    // a\n\\${\n    // b\n`;", "`\\`\n    // a\n\\${\n    // b\n`;"),
        ("a = '`';\n// b\nc = '`';", "a = '`';\n\nc = '`';"),
        ('"/* a";\n// b\n"*/";', '"/* a";\n\n"*/";'),
        ("a = /[`/]`/;\n// b\nc = `\n    // d`;", "a = /[`/]`/;\n\nc = `\n    // d`;"),
        ("return /'/.test(a);\n// b\n", "return /'/.test(a);\n\n"),
        ("a = b / c; // '\nd = e / f;\n    // g", "a = b / c; // '\nd = e / f;\n"),
        ("a = (b) / c;\n    // '\nd(e / 2);", "a = (b) / c;\n\nd(e / 2);"),
        ("if (a) /'/.test(b);\n    // c", "if (a) /'/.test(b);\n    // c"),
    ],
)
def test_comments_and_indentation(source, condensed):
    """Lines of comments and what lines begin with go, the number of lines and all else stay."""
    assert condense(source) == condensed


def test_nothing_else_is_left_out(assets, tmp_path):
    """Node.js takes every module as it is served, and to esbuild's parser it is the same as the file that it came from."""
    require_npm_package("esbuild")
    served = {name: asset.plain.decode() for name, asset in assets.files.items() if name.endswith(".js")}
    originals = {name: find(name).read_text() for name in served}
    (tmp_path / "texts.json").write_text(json.dumps([served, originals]))
    for name, text in served.items():
        (tmp_path / name.replace(".js", ".mjs")).write_text(text)
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
    node = require("node")
    command = [node, "--input-type=module", "--eval", script, "--", str(tmp_path / "texts.json")]
    parsed = json.loads(subprocess.run(command, cwd=NPM, capture_output=True, check=True, timeout=60).stdout)

    assert parsed[0] == parsed[1]
    assert "watch.js" in served
    for name, text in served.items():
        assert text.count("\n") == originals[name].count("\n")
        assert "\n//" not in text
        assert "\n/*" not in text
        subprocess.run([node, "--check", tmp_path / name.replace(".js", ".mjs")], check=True, timeout=60)


def find(name: str) -> Path:
    """The file that a served one came from."""
    return next(FOLDER.rglob(name))


def test_modules_work_as_served(assets, tmp_path):
    """The modules of a browser's watch that need no browser do as served what they do as they are."""
    served = tmp_path / "served"
    served.mkdir()
    for name, asset in assets.files.items():
        (served / name).write_bytes(asset.plain)
    (served / "package.json").write_text('{"type": "module"}')
    script = """
        const builds = [
            { gitCommit: "3f2c1ab", buildNumber: 1, gitTag: "v1" }, { gitCommit: "3F2C1AB00", buildNumber: 1 },
            { gitCommit: "unknown", gitTag: "1" }, { gitCommit: "dev" }, { gitCommit: "0000000", buildTime: 5 }, null,
        ];
        const { isUpdate } = await import(process.argv[1]);
        console.log(JSON.stringify(builds.map((a) => builds.map((b) => isUpdate(a, b)))));
    """
    original = tmp_path / "original"
    original.mkdir()
    shutil.copy(FOLDER / "rule.js", original)
    shutil.copy(served / "package.json", original)
    table, expected = (
        subprocess.run(
            [require("node"), "--input-type=module", "--eval", script, "--", str(folder / "rule.js")],
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for folder in (served, original)
    )

    assert table == expected
    assert b"true" in table


@pytest.mark.xfail(reason="both are some hundred to thousands of bytes over what was promised; issue 4 stays open")
@pytest.mark.parametrize(("entry", "limit"), [("vectr0.js", 5 * 1024), ("element.js", 12 * 1024)])
def test_sizes(service, entry, limit):
    """All bodies that a page loads for an entry are, compressed, no more than promised."""
    first = httpx.get(f"{service.url}/browser/{entry}")
    answers = [first, *(httpx.get(f"{service.url}/browser/{path}") for path in named(first.text))]
    sizes = {str(answer.url).rpartition("/")[2]: int(answer.headers["content-length"]) for answer in answers}

    assert all(answer.headers["content-encoding"] == "gzip" for answer in answers)
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
