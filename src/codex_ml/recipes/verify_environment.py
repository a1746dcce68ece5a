"""Holds the code, the libraries and the machine of now against those that a run was made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codex_ml.runs.verification import Check, compare, mapping
from codex_ml.tracking.provenance import LIBRARIES, ProvenanceDependencies, code_identity, platform_identity

# A kernel that was updated changes no number of a run.
_HARMLESS_PLATFORM = ("release",)
ENVIRONMENT = ("code", "versions", "platform")


def check_environment(provenance: Mapping[str, Any], dependencies: ProvenanceDependencies) -> list[Check]:
    """Return a check for the code's digest, every library, and the platform.

    The digest over the sources is the same for a wheel and a checkout of one version; git is a note beside it.
    """
    return [
        *_check_code(provenance, dependencies),
        *_check_versions(provenance, dependencies),
        *_check_platform(provenance),
    ]


def _check_code(provenance: Mapping[str, Any], dependencies: ProvenanceDependencies) -> list[Check]:
    recorded = mapping(provenance.get("code"))
    now = code_identity(dependencies.package_directory, dependencies.git)
    checks = [compare("code.source_digest", recorded.get("source_digest"), now["source_digest"])]
    for name in ("git_commit", "git_dirty"):
        note = "the digest of the sources decides"
        checks.append(Check(f"code.{name}", "noted", recorded.get(name), now[name], note))
    return checks


def _check_versions(provenance: Mapping[str, Any], dependencies: ProvenanceDependencies) -> list[Check]:
    recorded = mapping(provenance.get("versions"))
    names = dict.fromkeys((*recorded, *LIBRARIES))
    return [
        compare(f"versions.{name}", recorded[name], dependencies.version(name))
        if name in recorded
        else Check(f"versions.{name}", "noted", found=dependencies.version(name), note="not recorded")
        for name in names
    ]


def _check_platform(provenance: Mapping[str, Any]) -> list[Check]:
    recorded, now = mapping(provenance.get("platform")), platform_identity()
    checks = []
    for name in dict.fromkeys((*recorded, *now)):
        key, before, after = f"platform.{name}", recorded.get(name), now.get(name)
        if name in _HARMLESS_PLATFORM and before != after:
            checks.append(Check(key, "noted", before, after, f"{before} then, {after} now: it changes no number"))
        else:
            checks.append(compare(key, before, after))
    return checks
