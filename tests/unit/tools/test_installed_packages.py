"""What packages say of themselves is read as SPDX where it can be, and what they require is followed."""

from __future__ import annotations

from email.message import Message
from pathlib import Path

import pytest

from installed_packages import NO_ANSWER, Package, closure, installed_packages, licence_of


def metadata(*fields: tuple[str, str]) -> Message:
    """Return metadata with these fields, in order."""
    message = Message()
    for name, value in fields:
        message[name] = value
    return message


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ([("License-Expression", "MIT OR Apache-2.0"), ("License", "GPL")], "MIT OR Apache-2.0"),
        ([("Classifier", "License :: OSI Approved :: MIT License"), ("License", "see file")], "MIT"),
        (
            [
                ("Classifier", "License :: OSI Approved :: MIT License"),
                ("Classifier", "License :: OSI Approved :: Apache Software License"),
            ],
            "Apache-2.0 AND MIT",
        ),
        ([("License", "BSD 3-Clause License")], "BSD-3-Clause"),
        ([("License", "MPL-2.0 AND MIT")], "MPL-2.0 AND MIT"),
        ([("License", "GPL-3.0-only")], "GPL-3.0-only"),
        ([("License", "UNKNOWN")], NO_ANSWER),
        ([("License", "Copyright 2018 somebody, all rights reserved")], NO_ANSWER),
        ([("Classifier", "License :: OSI Approved")], NO_ANSWER),
        ([("Classifier", "License :: Other/Proprietary License")], NO_ANSWER),
        (
            [
                ("Classifier", "License :: OSI Approved :: MIT License"),
                ("Classifier", "License :: OSI Approved :: A License Of 2030"),
            ],
            NO_ANSWER,
        ),
        ([], NO_ANSWER),
    ],
)
def test_licence_of_metadata_is_spdx_or_no_answer(fields: list[tuple[str, str]], licence: str) -> None:
    """The expression first, then classifiers, then a short text; never a guess."""
    assert licence_of(metadata(*fields)) == licence


def test_closure_extras_and_markers_are_followed() -> None:
    """What an extra draws in counts, what is for another system does not."""
    packages = {
        "ours": Package("ours", "1", "MIT", ("a[fast]>=1", "other ; sys_platform == 'nowhere'", "b ; extra == 'more'")),
        "a": Package("a", "1", "MIT", ("c ; extra == 'fast'", "d ; extra == 'slow'")),
        "b": Package("b", "1", "MIT", ()),
        "c": Package("c", "1", "MIT", ("ours",)),
    }
    assert closure(packages, "ours", ["more"]) == {"a": ("c",), "b": (), "c": ("ours",), "ours": ("a", "b")}
    assert "b" not in closure(packages, "ours", [])


def test_closure_missing_package_raises() -> None:
    """What is required and not there cannot be described."""
    with pytest.raises(KeyError, match="gone"):
        closure({"ours": Package("ours", "1", "MIT", ("gone",))}, "ours", [])


def test_installed_packages_of_a_directory_have_no_local_part(tmp_path: Path) -> None:
    """How a wheel was built is no other version."""
    (tmp_path / "torch-2.0.dist-info").mkdir()
    (tmp_path / "torch-2.0.dist-info" / "METADATA").write_text("Name: Torch\nVersion: 2.0+cpu\n")
    assert installed_packages([tmp_path]) == {"torch": Package("torch", "2.0", NO_ANSWER, ())}
