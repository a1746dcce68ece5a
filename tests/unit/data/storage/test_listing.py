"""A cache is looked into while others build in it and clear it: what vanishes is passed over, nothing is refused."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from codex_ml.data.storage.arrays import TokenArraysWriter
from codex_ml.data.storage.cache import TokenCache
from codex_ml.data.storage.listing import check_items, look_into

KEY = "a" * 64


def _build(cache: TokenCache, publish: bool = True) -> None:
    with cache.building(KEY) as builder:
        TokenArraysWriter(builder.sinks("train")).flush()
        builder.arrays("train", [])
        if publish:
            builder.publish({"file_names": {"train": []}, "splits": {}, "files": []}, b"")


def test_look_into_beside_builders_and_cleaners_finds_no_fault(tmp_path: Path) -> None:
    """Directories come, are renamed and go between the looks at them."""
    cache, stop = TokenCache(tmp_path / "cache"), threading.Event()
    cache.directory.mkdir(mode=0o700)

    def work() -> None:
        while not stop.is_set():
            _build(cache, publish=False)
            _build(cache)
            cache.discard(KEY)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(300):
            content = look_into(cache.directory)
            assert {item.state for item in content.items} <= {"whole", "unfinished"}
            assert content.unknown == ()
    finally:
        stop.set()
        worker.join()


def test_check_items_entry_that_was_cleared_meanwhile_is_not_damaged(tmp_path: Path) -> None:
    """It is gone; nobody changed a byte of it."""
    cache = TokenCache(tmp_path / "cache")
    _build(cache)
    items = look_into(cache.directory).items
    shutil.rmtree(cache.directory / KEY)
    assert check_items(items) == []
