"""What is installed beside this Python, read from its metadata: names, versions, licences, and who requires whom."""

from __future__ import annotations

import importlib.metadata
import re
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

NO_ANSWER = "LicenseRef-unknown"
# Classifiers and old free texts, as SPDX says them. "BSD License" does not say which, so it stays what it is.
_AS_SPDX = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "LicenseRef-BSD",
    "bsd license": "LicenseRef-BSD",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "gnu general public license v3 (gplv3)": "GPL-3.0-only",
    "gnu general public license v2 (gplv2)": "GPL-2.0-only",
    "gnu affero general public license v3": "AGPL-3.0-only",
    "gnu lesser general public license v2 or later (lgplv2+)": "LGPL-2.0-or-later",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit": "MIT",
    "mit license": "MIT",
    "the mit license (mit)": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "psfl": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
    "zope public license": "ZPL-2.1",
}
_NAMES_NONE = ("osi approved", "dfsg approved", "other/proprietary license")
_SPDX_WORD = re.compile(r"[A-Za-z0-9.+-]+")


@dataclass(frozen=True)
class Package:
    """One installed package; ``licence`` is an SPDX expression as far as its metadata tell."""

    name: str
    version: str
    licence: str
    requires: tuple[str, ...]


def installed_packages(paths: Sequence[Path] | None = None) -> dict[str, Package]:
    """Return every package installed in these directories (default: those of this Python), by canonical name."""
    if paths is None:
        paths = [Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")]
    packages: dict[str, Package] = {}
    for found in importlib.metadata.distributions(path=list(dict.fromkeys(map(str, paths)))):
        name, version = canonicalize_name(_field(found.metadata, "Name")), _field(found.metadata, "Version")
        if name and name not in packages:
            # How a wheel was built (2.13.0+cpu) is no other version.
            version = version.partition("+")[0]
            packages[name] = Package(name, version, licence_of(found.metadata), tuple(found.requires or ()))
    return packages


def licence_of(metadata: importlib.metadata.PackageMetadata | Message) -> str:
    """Return what the metadata of a package say of its licence, as an SPDX expression, or `NO_ANSWER`.

    The expression of PEP 639 first; then the classifiers, all of which must be met; then the free text, if short.
    """
    if expression := _field(metadata, "License-Expression"):
        return expression
    classifiers = metadata.get_all("Classifier") or []
    texts = [text.rpartition(" :: ")[2].lower() for text in classifiers if text.startswith("License ::")]
    named = sorted({_AS_SPDX.get(text, NO_ANSWER) for text in texts if text not in _NAMES_NONE})
    if named and NO_ANSWER not in named:
        return " AND ".join(named)
    free_text = _field(metadata, "License")
    if free_text.lower() in _AS_SPDX:
        return _AS_SPDX[free_text.lower()]
    words = _SPDX_WORD.findall(free_text)
    is_expression = len(free_text) < 80 and "".join(words) == re.sub(r"[\s()]", "", free_text)
    return free_text if free_text and is_expression and free_text.lower() != "unknown" else NO_ANSWER


def closure(packages: Mapping[str, Package], root: str, extras: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return what a package draws in on this machine: for each canonical name, the names it requires.

    Raises
    ------
    KeyError
        If a package that is required is not installed.
    """
    edges: dict[str, set[str]] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(root), extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        edges.setdefault(name, set())
        for text in packages[name].requires:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                # Metadata from before PEP 508.
                continue
            # What is required whichever extra is asked for is followed once for each; `seen` ends that.
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                required = canonicalize_name(requirement.name)
                edges[name].add(required)
                waiting.extend((required, one) for one in ("", *requirement.extras))
    return {name: tuple(sorted(required - {name})) for name, required in sorted(edges.items())}


def _field(metadata: importlib.metadata.PackageMetadata | Message, name: str) -> str:
    return str(metadata[name]).strip() if name in metadata else ""
