"""Named components: lazy entries, plugins, collisions and helpful refusals."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint

import pytest

from codex_ml.errors import UserError
from codex_ml.registry import Registry


def plugins(*pairs: tuple[str, str]) -> Registry[object]:
    """Return a registry of metrics whose installed packages offer these entries."""

    def find(group: str) -> Iterable[EntryPoint]:
        return [EntryPoint(name, value, group) for name, value in pairs]

    return Registry("metric", group="codex_ml.metrics", find_entry_points=find)


def test_get_registered_object_returns_it() -> None:
    """What was registered is what comes back."""
    registry: Registry[int] = Registry("number")
    registry.register("one", 1)
    assert registry.get("one") == 1


def test_get_lazy_entry_imports_it_once() -> None:
    """A "module:attribute" entry is imported at its first use, nested attributes too."""
    registry: Registry[object] = Registry("thing")
    registry.register("dumps", "json:dumps")
    registry.register("decode", "json:JSONDecoder.decode")
    import json

    assert registry.get("dumps") is json.dumps
    assert registry.get("dumps") is json.dumps
    assert registry.get("decode") is json.JSONDecoder.decode


@pytest.mark.parametrize("reference", ["codex_ml_has_no_such_module:x", "json:no_such_attribute"])
def test_get_lazy_entry_that_cannot_load_names_it(reference: str) -> None:
    """A missing optional library is an error that a user understands."""
    registry: Registry[object] = Registry("sink")
    registry.register("broken", reference)
    with pytest.raises(UserError, match=f"sink 'broken' cannot be loaded from {reference}"):
        registry.get("broken")


def test_get_near_miss_suggests_the_nearest_and_lists_all() -> None:
    """A misspelt name is met with a suggestion."""
    registry: Registry[int] = Registry("schedule")
    for name in ("constant", "linear", "cosine"):
        registry.register(name, 0)
    with pytest.raises(UserError, match="unknown schedule 'cosin'") as caught:
        registry.get("cosin")
    assert caught.value.fix == "did you mean 'cosine'? available: constant, cosine, linear"


def test_get_unknown_in_empty_registry_says_none() -> None:
    """Without entries there is nothing to suggest."""
    with pytest.raises(UserError) as caught:
        Registry[int]("filter").get("x")
    assert caught.value.fix == "available: none"


def test_register_taken_name_is_refused() -> None:
    """One name means one component."""
    registry: Registry[int] = Registry("metric")
    registry.register("bleu", 1)
    with pytest.raises(UserError, match="'bleu' is registered twice"):
        registry.register("bleu", 2)
    assert registry.get("bleu") == 1


def test_names_with_plugin_lists_both_in_order() -> None:
    """Plugins of installed packages stand beside our own entries."""
    registry = plugins(("dumps", "json:dumps"))
    registry.register("zebra", 1)
    registry.register("ant", 2)
    assert registry.names() == ["ant", "dumps", "zebra"]


def test_get_plugin_name_imports_the_plugin() -> None:
    """A plugin is loaded by its entry point's value."""
    import json

    assert plugins(("dumps", "json:dumps")).get("dumps") is json.dumps


def test_get_plugin_collides_with_ours_is_refused_every_time() -> None:
    """A plugin cannot take over a name, and asking twice gives the same answer."""
    registry = plugins(("fresh", "json:dumps"), ("bleu", "json:loads"))
    registry.register("bleu", 1)
    for _ in range(2):
        with pytest.raises(UserError, match="'bleu' is registered twice"):
            registry.get("bleu")


def test_plugins_are_read_once() -> None:
    """Entry points are looked up at first use only."""
    asked: list[str] = []

    def find(group: str) -> Iterable[EntryPoint]:
        asked.append(group)
        return []

    registry: Registry[int] = Registry("metric", group="g", find_entry_points=find)
    registry.register("a", 1)
    assert asked == []
    registry.get("a")
    registry.names()
    assert asked == ["g"]
