"""What is shipped: the package, the image, the compose file, the locks.

No container engine is needed: the Dockerfile and the compose file are read as text, and what the
image would start is started by hand, from the package that the image would install.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.settings import load_settings

ROOT = Path(__file__).parents[1]
TOKEN = "packaging-test-admin-token-0123456789"
START_S_MAX = 60


# --- the Dockerfile ---------------------------------------------------------------------------


@dataclass
class Stage:
    """One ``FROM`` and what follows it."""

    image: str
    name: str | None
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        return [value for word, value in self.instructions if word == keyword]

    def command(self, keyword: str) -> list[str]:
        """The exec form of the last ENTRYPOINT or CMD."""
        value: list[str] = json.loads(self.all(keyword)[-1])
        return value

    @property
    def env(self) -> dict[str, str]:
        pairs = (pair for value in self.all("ENV") for pair in shlex.split(value))
        return dict(pair.split("=", 1) for pair in pairs)


def parse_dockerfile(text: str) -> list[Stage]:
    """Stages of a Dockerfile without heredocs."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    stages: list[Stage] = []
    for line in joined.splitlines():
        keyword, value = line.split(maxsplit=1)
        if keyword == "FROM":
            image, _, name = value.partition(" AS ")
            stages.append(Stage(image, name or None))
        else:
            stages[-1].instructions.append((keyword, value))
    return stages


def dockerfile_faults(text: str, ignored: str) -> list[str]:
    """What would make the image fail to build, or run as root."""
    stages = parse_dockerfile(text)
    names = {stage.name for stage in stages}
    faults: list[str] = []
    for stage in stages:
        for value in stage.all("COPY"):
            *words, _target = value.split()
            origin = [word for word in words if word.startswith("--from=")]
            if origin:
                if origin[0].removeprefix("--from=") not in names:
                    faults.append(f"COPY {value}: no such stage")
                continue
            for source in words:
                if not (ROOT / source).exists():
                    faults.append(f"COPY {value}: {source} does not exist")
                if f"!{Path(source).parts[0]}" not in ignored.replace("/\n", "\n").splitlines():
                    faults.append(f"COPY {value}: .dockerignore leaves {source} out")
    users = stages[-1].all("USER")
    if not users or users[-1].split(":")[0] in {"root", "0"}:
        faults.append("the image runs as root")
    return faults


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def image(dockerfile: str) -> Stage:
    """The last stage: what runs."""
    return parse_dockerfile(dockerfile)[-1]


def test_the_dockerfile_builds_from_files_that_exist_and_does_not_run_as_root(
    dockerfile: str,
) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert dockerfile_faults(dockerfile, ignored) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("USER dosql\n", ""),
        ("USER dosql\n", "USER dosql\nUSER root\n"),
        ("COPY migrations migrations", "COPY migration migrations"),
        ("COPY migrations migrations", "COPY tests tests"),
        ("--from=build", "--from=builder"),
    ],
)
def test_a_broken_dockerfile_would_be_found(dockerfile: str, before: str, after: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert before in dockerfile
    assert dockerfile_faults(dockerfile.replace(before, after), ignored) != []


def test_the_image_keeps_its_data_in_a_volume_and_exposes_its_port(image: Stage) -> None:
    assert image.all("VOLUME") == [image.env["DOSQL_DATA_DIR"]]
    assert image.all("EXPOSE") == [image.env["DOSQL_LISTEN"].split(":")[1]]


def test_the_image_installs_locked_wheels_only(dockerfile: str) -> None:
    """An installation without hashes would not be the one that was tested."""
    installs = re.findall(r"pip install (.*?)(?:&&|$)", dockerfile, re.DOTALL | re.MULTILINE)
    assert len(installs) == 3
    for arguments in installs:
        locked = "--require-hashes" in arguments and "--only-binary :all:" in arguments
        assert locked or "--no-deps dist/*.whl" in arguments


# --- the package ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built as the Dockerfile builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's files, as pip would lay them out."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_package_holds_what_it_needs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"dosql/py.typed", "server/static/swagger-ui/swagger-ui-bundle.js"} <= names
    assert [name for name in names if name.endswith("dist-info/licenses/LICENSE")]
    for path in (ROOT / "migrations").glob("*.sql"):
        assert f"server/migrations/{path.name}" in names
    parts = {name.split("/")[0] for name in names}
    assert {part for part in parts if not part.endswith(".dist-info")} == {"dosql", "server"}


@dataclass
class Running:
    """What the image would start."""

    process: subprocess.Popen[bytes]
    port: int

    def get(self, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.loads(reply.read() or b"null")


def image_environment(image: Stage, installed: Path, data: Path, port: int) -> dict[str, str]:
    """The image's own, with the port and the volume moved to where a test may have them."""
    env = {name: value for name, value in image.env.items() if name != "PATH"}
    env["DOSQL_LISTEN"] = env["DOSQL_LISTEN"].replace(":8787", f":{port}")
    env["DOSQL_DATA_DIR"] = str(data)
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed), **env}


def image_command(image: Stage) -> list[str]:
    entrypoint, *arguments = [*image.command("ENTRYPOINT"), *image.command("CMD")]
    return [str(Path(sys.executable).with_name(entrypoint)), *arguments]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def running(image: Stage, installed: Path, tmp_path: Path) -> Iterator[Running]:
    port = free_port()
    data = tmp_path / "data"
    data.mkdir()
    env = image_environment(image, installed, data, port)
    env["DOSQL_ADMIN_TOKEN"] = TOKEN
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(image_command(image), cwd=data, env=env, stdout=log, stderr=log)
    try:
        wait_until_it_listens(port, process, tmp_path / "log")
        yield Running(process, port)
    finally:
        process.kill()
        process.wait()


def wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(START_S_MAX * 20):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            try:
                process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
        else:
            return
        break
    raise AssertionError(f"it did not start:\n{log.read_text()}")


def test_what_the_image_starts_serves_and_stops_cleanly(running: Running, image: Stage) -> None:
    """It runs from the built package alone: migrations and the pages of /schema included."""
    assert running.get("/live")[0] == 200
    status, reply = running.get("/t/acme/query", {"sql": "SELECT count(*) AS n FROM users"})
    assert (status, reply) == (200, {"rows": [{"n": 0}]})

    _, check = image.all("HEALTHCHECK")[-1].split("CMD", 1)
    program, *arguments = json.loads(check)
    assert program == "python"
    arguments = [word.replace(":8787", f":{running.port}") for word in arguments]
    subprocess.run([sys.executable, *arguments], check=True)

    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=30) == 0


def test_the_image_refuses_to_start_without_an_admin_token(
    image: Stage, installed: Path, tmp_path: Path
) -> None:
    """It is reachable from outside, so a token that nobody chose will not do."""
    env = image_environment(image, installed, tmp_path, free_port())
    done = subprocess.run(
        image_command(image),
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=START_S_MAX,
        check=False,
    )
    assert done.returncode != 0
    assert "DOSQL_ADMIN_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


# --- the compose file -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


def test_compose_starts_dosql_and_minio(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"dosql", "minio", "minio-bucket"}
    load_settings({}, {k: v for k, v in services["dosql"]["environment"].items() if "$" not in v})
    assert services["dosql"]["environment"]["DOSQL_BUCKET"] == "s3://dosql"
    assert "store/dosql" in services["minio-bucket"]["command"][0]
    assert compose["services"]["dosql"]["image"] == f"dosql:{project()['version']}"
    assert (ROOT / compose["services"]["dosql"]["build"] / "Dockerfile").exists()


def test_compose_holds_no_secrets_and_gives_no_defaults_for_them(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            if name not in {"DOSQL_BUCKET", "DOSQL_S3_ENDPOINT"}:
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), name


def test_compose_keeps_data_in_named_volumes_and_ports_on_the_loopback(
    compose: dict[str, Any], image: Stage
) -> None:
    mounts = {
        name: [volume.split(":") for volume in service.get("volumes", [])]
        for name, service in compose["services"].items()
    }
    assert {source for each in mounts.values() for source, _ in each} == set(compose["volumes"])
    assert mounts["dosql"][0][1] == image.all("VOLUME")[0]
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_every_service_of_compose_has_a_pinned_image_and_a_health_check(
    compose: dict[str, Any], image: Stage
) -> None:
    for name, service in compose["services"].items():
        assert service["image"].partition(":")[2] not in {"", "latest"}
        if name != "minio-bucket":  # it runs once
            assert "healthcheck" in service or (name == "dosql" and image.all("HEALTHCHECK"))


# --- the locks --------------------------------------------------------------------------------


def project() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return content


def locked(name: str) -> dict[str, str]:
    """Package to version."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9][a-z0-9.-]*)(?:\[.*?\])?==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["dev", "server", "build"])
def test_a_lock_pins_every_package_with_hashes_and_names_no_registry(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    requirements = re.findall(r"^\S.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    requirements = [each for each in requirements if not each.startswith("#")]
    assert requirements
    assert all("==" in each and "--hash=sha256:" in each for each in requirements)
    assert "://" not in text
    assert "--index-url" not in text


def test_the_locks_agree_with_each_other_and_with_the_project() -> None:
    """A dependency that was added without `make lock` is found here."""
    dev = locked("dev")
    for name in ("server", "build"):
        assert locked(name).items() <= dev.items()
    extras = project()["optional-dependencies"]
    wanted = [*project()["dependencies"], *(each for extra in extras.values() for each in extra)]
    names = {re.split(r"[\[<>=;!~ ]", each)[0].lower() for each in wanted} - {"dosql"}
    assert names <= set(dev)
    server = [*project()["dependencies"], *extras["server"]]
    assert {re.split(r"[\[<>=;!~ ]", each)[0] for each in server} <= set(locked("server"))


# --- the Makefile -----------------------------------------------------------------------------


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split())
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "MAKEFLAGS"},
    )
    assert set(re.findall(r"^  make (\S+)", done.stdout, re.MULTILINE)) == phony


def test_ci_runs_the_checks_and_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert text.index(" check\n") < text.index(" test\n")
    subprocess.run(["bash", "-n", script], check=True)
