"""Tests of docker-compose.yml as it is written; `make image-test` brings it up."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from images.compose import JOBS, SERVICES


@pytest.fixture(scope="module")
def services(repository_root: Path) -> dict:
    """Return the services, with what they share merged in."""
    return yaml.safe_load((repository_root / "docker-compose.yml").read_text("utf-8"))["services"]


@pytest.mark.parametrize("name", [*JOBS, *SERVICES, "train-gpu"])
def test_service_of_compose_is_confined(services: dict, name: str) -> None:
    """No rights, no way out, no writable root, and bounds."""
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["networks"] == ["inside"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert "ports" not in service
    assert "privileged" not in service
    assert [volume.rpartition("/work")[2] for volume in service["volumes"]] == ["/models:ro", "/data:ro", "/runs"]


def test_network_of_compose_is_internal(repository_root: Path) -> None:
    """And nothing in the file is later than what docker-compose 1.29 reads."""
    whole = yaml.safe_load((repository_root / "docker-compose.yml").read_text("utf-8"))
    assert whole["networks"] == {"inside": {"internal": True}}
    assert "name" not in whole
    assert "include" not in whole


def test_services_that_stay_have_a_health_check_without_a_shell(services: dict) -> None:
    """A list that begins with CMD is started as it is."""
    for name in SERVICES:
        assert services[name]["healthcheck"]["test"][0] == "CMD"
        assert "--url" in services[name]["healthcheck"]["test"]
    assert all(services[name]["build"]["network"] == "none" for name in ("train", "train-gpu"))


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_dockerfile_of_either_kind_keeps_its_promises(repository_root: Path, kind: str) -> None:
    """Two stages, no package index, nothing that only BuildKit or a registry could read; the version is ours."""
    text = (repository_root / f"Dockerfile.{kind}").read_text("utf-8")
    assert text.count("\nFROM ${BASE_IMAGE}") == 2
    assert "--no-index" in text
    assert "--require-hashes" in text
    for late in ("# syntax=", "--mount", "COPY --link", "<<"):
        assert late not in text
    project = (repository_root / "pyproject.toml").read_text("utf-8")
    version = next(line for line in project.splitlines() if line.startswith("version = ")).split('"')[1]
    assert f"ARG VERSION={version}\n" in text
    assert text.index("USER 10001:10001") > text.rindex("RUN ")
