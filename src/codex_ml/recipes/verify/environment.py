"""Holds the code, the libraries and the machine of now against those of a run, and sets what can be set again."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

from codex_ml.runs.verification import Check, compare, mapping
from codex_ml.tracking.provenance import LIBRARIES, ProvenanceDependencies, code_identity, platform_identity

# A kernel that was updated changes no number of a run.
_HARMLESS_PLATFORM = ("release",)
# These are reported before a run is repeated, and never a reason not to try: the repetition shows whether they matter.
REPORTED_ONLY = ("code", "versions", "platform")
# Read by numeric libraries when they are imported; each decides the order of additions or the kernels. The values come
# from an untrusted file, so only harmless ones are taken.
_REPEATED_VARIABLES = {
    "OMP_NUM_THREADS": r"[1-9][0-9]{0,2}",
    "MKL_NUM_THREADS": r"[1-9][0-9]{0,2}",
    "MKL_CBWR": r"[A-Z0-9_,]{1,40}",
    "ONEDNN_MAX_CPU_ISA": r"[A-Z0-9_]{1,40}",
    "ATEN_CPU_CAPABILITY": r"[a-z0-9_]{1,40}",
    "CUBLAS_WORKSPACE_CONFIG": r":[0-9]{1,7}:[0-9]{1,3}",
}


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


def repeat_environment(provenance: Mapping[str, Any], environment: MutableMapping[str, str]) -> None:
    """Give the variables that decide how numbers are computed the values that they had for a run.

    To be called before torch is imported. What the run did not have set is taken away; what cannot be used is left
    alone, and shows as a difference afterwards.
    """
    recorded = mapping(provenance.get("environment"))
    for name, pattern in _REPEATED_VARIABLES.items():
        value = recorded.get(name)
        if value is None:
            environment.pop(name, None)
        elif isinstance(value, str) and re.fullmatch(pattern, value):
            environment[name] = value
