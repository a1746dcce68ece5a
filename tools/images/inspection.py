"""What an image holds and must not hold: labels, user, health check; no compiler, no installer, no wheels."""

from __future__ import annotations

import json

from images.shell import Shell, StepError

LABELS = (
    "org.opencontainers.image.version",
    "org.opencontainers.image.revision",
    "org.opencontainers.image.base.digest",
    "codex-ml.wheelhouse.digest",
)
# Prints what is there and should not be.
UNWANTED = """
import pathlib, shutil
programs = ("gcc", "cc", "g++", "make", "ld", "pip", "pip3", "git", "curl", "wget")
found = [name for name in programs if shutil.which(name)]
found += [str(path) for path in pathlib.Path("/").glob("wheel*")]
found += [str(path) for path in pathlib.Path("/opt/codex").rglob("*.whl")]
found += [str(path) for path in pathlib.Path("/etc/apt").glob("sources.list*")]
print(*found)
"""


def check_image(shell: Shell, tag: str) -> str:
    """Return the size and the labels of an image.

    Raises
    ------
    StepError
        If it runs as root, has no health check or label, or holds what only a build needs.
    """
    (image,) = json.loads(shell.run("docker", "image", "inspect", tag))
    config = image["Config"]
    if config["User"] != "10001:10001":
        raise StepError(f"{tag} runs as {config['User'] or 'root'}")
    if config.get("Healthcheck", {}).get("Test", [""])[0] != "CMD":
        raise StepError(f"{tag} has no health check that works without a shell: {config.get('Healthcheck')}")
    labels = {name: (config["Labels"] or {}).get(name, "unknown") for name in LABELS}
    if "unknown" in labels.values():
        raise StepError(f"{tag} has no label for what it is made of: {labels}")
    python = ["docker", "run", "--rm", "--network=none", "--read-only", "--entrypoint", "/opt/codex/bin/python", tag]
    if found := shell.run(*python, "-c", UNWANTED).strip():
        raise StepError(f"{tag} holds {found}")
    return f"{tag}: {image['Size'] / 1e9:.2f} GB, {json.dumps(labels)}"
