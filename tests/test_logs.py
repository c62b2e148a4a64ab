"""The log: it never holds the service up, whoever reads it or doesn't, and who has no token can't fill it."""

import errno
import fcntl
import io
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.logqueue import MOST_QUEUED, QueuedHandler
from service.restraint import BURST, INTERVAL, Restraint
from tests.identities import AUDIENCE
from tests.parts import TOKEN, Replica, deployment, free_port, post, wait_until

SET_PIPE_SIZE = 1031
"""F_SETPIPE_SZ of <linux/fcntl.h>, which Python 3.11 doesn't name on every system."""
IDENTITY = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJ6In0.aaaa"
"""What looks like one, and is nobody's."""
LEFT_OUT = 'vectr0_log_lines_left_out_total{{reason="{}"}}'


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A small pipe: where it is read, and where it is written."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, SET_PIPE_SIZE, 4096)
    try:
        yield reading, writing
    finally:
        for descriptor in (reading, writing):
            try:
                os.close(descriptor)
            except OSError as error:
                assert error.errno == errno.EBADF  # noqa: PT017  # the test has closed it


class Outputs(list[QueuedHandler]):
    """The handlers of a test, and what each left out."""

    def __init__(self) -> None:
        self.left_out: list[str] = []

    def logger(self, descriptor: int) -> logging.Logger:
        """A logger that writes there, in plain lines."""
        output = QueuedHandler(descriptor, Restraint())
        output.on_left_out = self.left_out.append
        self.append(output)
        logger = logging.Logger("vectr0")  # noqa: LOG001  # of the test alone
        logger.addHandler(output)
        return logger


def read(descriptor: int, until: bytes) -> bytes:
    found = b""
    while until not in found:
        found += os.read(descriptor, 65536)
    return found


def test_nobody_reads(pipe):
    """Logging goes on at once though the pipe is full; when it is read again, one line says how many are missing."""
    reading, writing = pipe
    outputs = Outputs()
    logger = outputs.logger(writing)
    for number in range(2_500):  # which is more than what waits and what the pipe takes
        logger.info("%d %s", number, "x" * 1000)
    outputs[0].flush()
    missing = outputs.left_out.count("unwritten")
    found = read(reading, b"missing\n").decode().splitlines()

    assert missing > 2_500 - (MOST_QUEUED + 2 * 4096) // 1000 - 1
    assert len(found) == 2_500 - missing + 1
    numbers = [int(line.split()[0]) for line in found[:-1]]
    assert numbers == sorted(set(numbers))
    assert found[-1] == f"the log took no more for a while: {missing} lines are missing"
    assert outputs.left_out.count("unwritten") == missing


def test_reader_is_gone(pipe):
    """Lines that nobody can get are dropped and counted, and the service lives on."""
    reading, writing = pipe
    outputs = Outputs()
    logger = outputs.logger(writing)
    os.close(reading)
    for number in range(3):
        logger.info("%d", number)
    outputs[0].flush()
    wait_until(lambda: len(outputs.left_out) == 3, what="the third line")

    assert outputs.left_out == ["unwritten"] * 3


def test_disk_that_was_full(monkeypatch, pipe):
    """What couldn't be written is told when it can be again, and half a line is ended first."""
    reading, writing = pipe
    real, is_full = os.write, [True]

    def write(descriptor: int, data: bytes) -> int:
        if descriptor == writing and is_full[0]:
            if len(data) <= 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, data[:2])
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    outputs = Outputs()
    logger = outputs.logger(writing)
    logger.info("abc")
    logger.info("def")
    wait_until(lambda: len(outputs.left_out) == 2, what="the second line")
    is_full[0] = False
    logger.info("ghi")

    assert read(reading, b"missing\n").splitlines() == [
        b"ab", b"def", b"ghi", b"the log took no more for a while: 2 lines are missing"
    ]  # fmt: skip


def test_descriptor_that_does_not_block(pipe):
    """One that somebody else, who has it too, made non-blocking loses nothing."""
    reading, writing = pipe
    os.set_blocking(writing, False)
    outputs = Outputs()
    logger = outputs.logger(writing)
    for number in range(100):
        logger.info("%d %s", number, "x" * 500)
    found = read(reading, b"99 x")
    while not found.endswith(b"\n"):
        found += os.read(reading, 65536)

    assert [int(line.split()[0]) for line in found.splitlines()] == list(range(100))
    assert outputs.left_out == []


def test_line_that_cannot_be_formatted(pipe):
    """It becomes a line that says where it is from, and never a traceback that is written past the queue."""
    reading, writing = pipe
    outputs = Outputs()
    outputs.logger(writing).info("%d", "no number")

    assert b"test_logs.py" in read(reading, b"\n")


def refused(text: str = "refused: %s", name: str = "vectr0.publishers", line: int = 1) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "publishers.py", line, text, ("x",), None)


def test_restraint():
    """Of each kind of line there is a number in an interval; then one line says how many more there were."""
    now = [100.0]
    restraint = Restraint(lambda: now[0])
    admitted = [restraint.admits(refused()) for _ in range(BURST + 5)]
    others = [restraint.admits(refused(line=2)), restraint.admits(refused("recorded", name="vectr0.deployments"))]
    early, pause = list(restraint.tell()), restraint.pause
    now[0] += INTERVAL
    held = restraint.admits(refused())
    [told] = restraint.tell()

    assert admitted == [True] * BURST + [False] * 5
    assert others == [True, True]
    assert early == []
    assert pause == INTERVAL
    assert not held
    assert (told.name, told.levelno) == ("vectr0.publishers", logging.WARNING)
    assert told.getMessage() == "6 more lines like 'refused: %s' were left out"
    assert restraint.pause is None
    assert restraint.admits(refused())


@pytest.mark.parametrize("name", ["uvicorn.error", "asyncio", "vectr0.publishers"])
def test_restrained(name):
    """What libraries say of connections is restrained as well."""
    restraint = Restraint(lambda: 0.0)

    assert sum(restraint.admits(refused(name=name)) for _ in range(100)) == BURST


def test_what_only_publishers_cause_is_not_restrained():
    """Every deployment that was recorded is in the log."""
    restraint = Restraint(lambda: 0.0)

    assert all(restraint.admits(refused(name="vectr0.deployments")) for _ in range(100))


def hub(folder: Path, stderr: int, **settings: str) -> Replica:
    """A service that logs there."""
    replica = Replica(folder, **settings)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VECTR0_")}
    replica.process = subprocess.Popen(
        [sys.executable, "-m", "service"],
        env={**environ, **replica.settings}, stdout=subprocess.DEVNULL, stderr=stderr,
    )  # fmt: skip
    wait_until(replica.is_ready, 30, what="the service")
    return replica


def trusting() -> dict[str, str]:
    """Settings that trust an issuer that isn't there."""
    issuer = f"http://127.0.0.1:{free_port()}"
    return {
        "trust": f'[{{"issuer": "{issuer}", "claims": {{"sub": "x"}}, "channels": ["web/*"]}}]',
        "audience": AUDIENCE,
    }


@pytest.mark.parametrize("format_", ["text", "json"])
def test_hub_whose_log_nobody_reads(tmp_path, pipe, format_):
    """Publishers and strangers are answered on and on, what is missing is counted, and SIGTERM ends it in order."""
    _, writing = pipe
    replica = hub(tmp_path, writing, log_format=format_, **trusting())
    try:
        with httpx.Client(base_url=replica.url, timeout=20) as client:
            for number in range(300):  # lines of some 100 bytes, many times what the pipe takes
                recorded = client.post(
                    "/deployments",
                    json=deployment(version=f"{number} {'x' * 100}"),
                    headers={"Authorization": f"Bearer {TOKEN}"},
                )
                assert recorded.status_code == 201
                refused_ = client.post(
                    "/deployments", json=deployment(), headers={"Authorization": f"Bearer {IDENTITY}"}
                )
                assert refused_.status_code == 403
            assert client.get("/livez").status_code == 200
        restrained = replica.metric(LEFT_OUT.format("restrained"))
        began = time.monotonic()
        status = replica.terminate()
    finally:
        replica.kill()

    assert restrained > 0
    assert status == 0
    assert time.monotonic() - began < 10


def test_strangers_cannot_fill_the_log(start_replica):
    """Hundreds of refused identities leave some lines, and one that says how many more there were."""
    replica = start_replica(**trusting())
    began, logged = time.monotonic(), len(replica.log)
    with httpx.Client(base_url=replica.url, timeout=20) as client:
        for _ in range(300):
            answer = client.post("/deployments", json=deployment(), headers={"Authorization": f"Bearer {IDENTITY}"})
            assert answer.status_code == 403
    intervals = 1 + int((time.monotonic() - began) / INTERVAL)
    status = replica.terminate()

    lines = [line for line in replica.log[logged:].splitlines() if "an identity was refused" in line]
    counted = [line for line in lines if "were left out" in line]
    assert status == 0
    assert len(lines) <= (BURST + 1) * (intervals + 1)
    assert len(lines) - len(counted) + sum(int(line.split(": ")[1].split()[0]) for line in counted) == 300


def test_full_disk(tmp_path):
    """A log on a full disk costs nothing but the log."""
    with Path("/dev/full").open("wb") as full:
        replica = hub(tmp_path, full.fileno())
    try:
        assert [post(replica.url, deployment(version=str(number))).status_code for number in range(3)] == [201] * 3
        assert replica.metric(LEFT_OUT.format("unwritten")) >= 3
        assert replica.terminate() == 0
    finally:
        replica.kill()


def test_last_words_are_written(start_replica):
    """What is logged at the end is there when the process is gone."""
    replica = start_replica()
    replica.process.send_signal(signal.SIGTERM)

    assert replica.process.wait(10) == 0
    assert replica.log.rstrip().endswith("INFO vectr0: stopped")


def test_no_standard_error(monkeypatch):
    """A process that was started without one logs nothing, and not into whatever has its number now."""
    from service import logs

    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "stderr", None)
    try:
        root.handlers = []
        logs.configure("text")
        [output] = root.handlers
    finally:
        root.handlers = before
        root.setLevel(level)

    assert isinstance(output, logging.NullHandler)
    assert not isinstance(output, io.IOBase)
