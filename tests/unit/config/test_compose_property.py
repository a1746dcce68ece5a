"""Properties of composition: the merged values are those that Hydra itself composes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import ConfigCompositionException
from hypothesis import Phase, given, reject
from hypothesis import strategies as st
from omegaconf import OmegaConf

from codex_ml.config.files import compose_files
from codex_ml.config.paths import packaged_directory
from tiers import examples

names = st.sampled_from(["a", "b", "c", "kind"])
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.text("xyz é", max_size=4), st.lists(st.integers(0, 3))
)
mappings = st.recursive(
    st.dictionaries(names, scalars, max_size=3),
    lambda inner: st.dictionaries(names, st.one_of(scalars, inner), max_size=3),
)


def by_hydra(root: Path, name: str, groups: list[str]) -> dict:
    """Return what Hydra composes."""
    with initialize_config_dir(str(root), version_base="1.3"):
        return OmegaConf.to_container(hydra_compose(name, groups), resolve=False)


# Without shrinking: one Hydra composition takes a tenth of a second, and the shapes are small as they are.
@examples(12, phases=[Phase.explicit, Phase.generate])
@given(first=mappings, second=mappings, chosen=mappings, own=mappings, choose=st.booleans())
def test_compose_files_any_layers_equal_hydra(first, second, chosen, own, choose):
    """Layers of any shape give the values of Hydra's own composition."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "group").mkdir()
        (root / "group" / "one.yaml").write_text(yaml.safe_dump(first))
        (root / "group" / "two.yaml").write_text(yaml.safe_dump(chosen))
        (root / "base.yaml").write_text(yaml.safe_dump({"group": second}))
        defaults = {"defaults": [{"group": "one"}, "base", "_self_"]}
        (root / "main.yaml").write_text(yaml.safe_dump({**defaults, **own}))
        groups = ["group=two"] if choose else []
        try:
            expected = by_hydra(root, "main", groups)
        except ConfigCompositionException:
            # Hydra will not lay a list over a mapping; here the later one stands, and the schema judges it.
            reject()
        assert compose_files("main", (root,), groups, root, root, None).values() == expected


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("default", ["adapter=none", "tracking=mlflow"]),
        ("examples/minimal", []),
        ("examples/pretrain_base", ["~logging"]),
    ],
)
def test_compose_files_packaged_tree_equals_hydra(name, groups):
    """The shipped tree gives the values of Hydra's own composition."""
    root = packaged_directory("configs")
    assert compose_files(name, (root,), groups, root, root, None).values() == by_hydra(root, name, groups)
