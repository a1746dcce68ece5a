"""Builds the images from nothing, without a registry, and uses them as a user would: what ``make image-test`` runs.

In a private daemon in an empty network namespace: both images are built, compose brings everything up, every health
check is waited for, the example is trained and evaluated, the API is asked from inside, a container is shown to have no
way out and no rights, a health check is shown to fail. Then all is taken down. apt installs what the machine lacks.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from images import base_image
from images.build import build_environment
from images.compose import Compose
from images.containment import check_confined, check_health_can_fail, check_no_way_out
from images.daemon import Daemon, DaemonError, private_daemon
from images.inspection import check_image
from images.shell import Shell, StepError

PACKAGES = ("docker.io", "docker-compose", "mmdebstrap", "iproute2", "iptables")
NEEDED = ("dockerd", "mmdebstrap", "ip", "iptables", "nsenter", "unshare")
ARCHIVE = Path(".cache") / "images" / "base.tar"
REQUIRE = "CODEX_REQUIRE_DOCKER"


def why_not(environment: Mapping[str, str]) -> str | None:
    """Return why the images cannot be tried on this machine; None when they can."""
    if os.geteuid() != 0:
        return "it needs root, for a Docker daemon of its own"
    if subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode != 0:
        return "this machine gives root no network namespace (a container without rights?)"
    missing = [name for name in NEEDED if shutil.which(name, path=environment.get("PATH")) is None]
    if missing and shutil.which("apt-get", path=environment.get("PATH")) is None:
        return f"{', '.join(missing)} cannot be installed: this machine has no apt-get"
    return None


def debian_docker() -> str:
    """Return the client that belongs to the daemon; another one, first on PATH, may lack the builder."""
    return "/usr/bin/docker" if Path("/usr/bin/docker").is_file() else "docker"


class ImageTest:
    """The steps, each timed.

    Parameters
    ----------
    root : Path
        The checkout.
    as_typed : bool
        Whether the CPU image is also built by ``docker build -f Dockerfile.cpu -t codex:cpu .`` and nothing else.
    sabotage : bool
        Whether the health check of the API asks a port where nothing listens, so that the test must fail.
    """

    def __init__(self, root: Path, *, as_typed: bool, sabotage: bool) -> None:
        self._root, self._as_typed, self._sabotage = root, as_typed, sabotage
        self._started = time.monotonic()

    def run(self) -> None:
        """Do everything.

        Raises
        ------
        StepError, DaemonError
            What did not hold.
        """
        plain = Shell(self._root, os.environ)
        with self._step("packages of Debian"):
            install_packages(plain)
        with self._step("wheelhouse and base image"), ThreadPoolExecutor(2) as pool:
            made = [pool.submit(step) for step in (self._wheelhouse, self._base_archive)]
            for one in made:
                one.result()
        docker = debian_docker()
        with ExitStack() as stack:
            with self._step("daemon without a network"):
                daemon = stack.enter_context(private_daemon(docker))
            self._with_daemon(daemon, self._shell(docker, daemon))

    def _shell(self, docker: str, daemon: Daemon) -> Shell:
        # `docker` must be the same client for what is typed, for make and for compose.
        programs = daemon.directory / "bin"
        programs.mkdir()
        (programs / "docker").symlink_to(shutil.which(docker) or docker)
        environment = {
            **build_environment(docker, os.environ),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "DOCKER_HOST": daemon.host,
            "DOCKER_CONFIG": str(daemon.directory / "client"),
            "COMPOSE_PROJECT_NAME": "codex",
            "PYTHONPATH": str(self._root / "tools"),
        }
        return Shell(self._root, environment)

    def _with_daemon(self, daemon: Daemon, shell: Shell) -> None:
        with self._step("base image imported"):
            shell.run("docker", "import", str(ARCHIVE), base_image.NAME)
        if self._as_typed:
            # BuildKit takes another network for another build, so this doubles the time.
            with self._step("docker build -f Dockerfile.cpu -t codex:cpu ."):
                shell.run("docker", "build", "-f", "Dockerfile.cpu", "-t", "codex:cpu", ".", limit_seconds=1500)
        with self._step("codex:cpu, --network=none"):
            shell.run(sys.executable, "-m", "images.build", "cpu", limit_seconds=1500)
        with self._step("codex:cuda on a stand-in (the wheels for CPUs), --network=none"):
            shell.run(sys.executable, "-m", "images.build", "cuda", "--wheelhouse", "wheelhouse", limit_seconds=1500)
        for tag in ("codex:cpu", "codex:cuda"):
            with self._step(f"what {tag} holds"):
                print(check_image(shell, tag), flush=True)
        compose = Compose(shell, daemon.directory)
        if self._sabotage:
            compose.sabotage()
        try:
            self._with_compose(daemon, shell, compose)
        except StepError as error:
            raise StepError(f"{error}\n{compose.logs()}") from error
        finally:
            with self._step("down"):
                compose.down()

    def _with_compose(self, daemon: Daemon, shell: Shell, compose: Compose) -> None:
        with self._step(f"{' '.join(compose.program)} up --build: trained, and all healthy"):
            compose.up()
        with self._step("evaluated"):
            print(compose.scores(), flush=True)
        with self._step("the API answers from inside, and MLflow shows the run"):
            print(compose.ask_services(), flush=True)
        with self._step("no way out, and no rights"):
            check_no_way_out(shell, daemon, compose.container("api"))
            check_confined(shell, compose.container("api"))
        with self._step("a health check that fails is seen"):
            check_health_can_fail(shell)

    def _wheelhouse(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(self._root / "tools")}
        Shell(self._root, environment).run(sys.executable, "-m", "images.wheelhouse", limit_seconds=1200)

    def _base_archive(self) -> None:
        if not (self._root / ARCHIVE).is_file():
            base_image.make_archive(self._root / ARCHIVE)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        print(f"{begun - self._started:6.1f} s  {name} …", flush=True)
        yield
        print(f"{'':10}{time.monotonic() - begun:.1f} s", flush=True)


def install_packages(shell: Shell, which: Callable[[str], str | None] = shutil.which) -> None:
    """Install by apt what is missing.

    Raises
    ------
    StepError
        If that does not work.
    """
    if all(which(name) for name in NEEDED) and (which("docker-compose") or which("docker")):
        return
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    shell.run(*apt, "update")
    # Its own daemon is not wanted: the test has one of its own.
    options = ["-o", "Dpkg::Options::=--force-confold", "install", "-y", "--no-install-recommends"]
    Shell(shell.root, {**shell.environment, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}).run(
        *apt, *options, *PACKAGES
    )


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Try the images and return the exit code: 0 passed or skipped, 1 failed."""
    environment = os.environ if environment is None else environment
    parser = argparse.ArgumentParser(description="Builds the images without a registry and uses them.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    parser.add_argument("--as-typed", action="store_true", help="build the CPU image by plain docker build too")
    parser.add_argument("--sabotage", action="store_true", help="break the API's health check: the test must fail")
    chosen = parser.parse_args(arguments)
    if (reason := why_not(environment)) is not None:
        required = environment.get(REQUIRE) == "1"
        print(f"image test: {'FAIL' if required else 'skipped'}: {reason}")
        return 1 if required else 0
    # So that a stop takes everything down like an error does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    begun = time.monotonic()
    try:
        ImageTest(chosen.root.resolve(), as_typed=chosen.as_typed, sabotage=chosen.sabotage).run()
    except (StepError, DaemonError, OSError, subprocess.SubprocessError) as error:
        print(f"{error}\nimage test: FAIL after {time.monotonic() - begun:.0f} s")
        return 1
    print(f"image test: PASS in {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
