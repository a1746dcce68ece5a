"""Variables that decide how numbers are computed are set again from a provenance, and nothing else is."""

from __future__ import annotations

from codex_ml.recipes.verify.environment import repeat_environment


def test_repeat_environment_sets_known_variables_and_takes_away_others() -> None:
    """What the run had is set, what it had not is taken away, and no other variable is touched."""
    environment = {"OMP_NUM_THREADS": "8", "MKL_CBWR": "AVX2", "PATH": "/bin"}
    recorded = {"OMP_NUM_THREADS": "2", "PATH": "/evil", "LD_PRELOAD": "/evil.so", "HF_HUB_OFFLINE": "0"}
    repeat_environment({"environment": recorded}, environment)
    assert environment == {"OMP_NUM_THREADS": "2", "PATH": "/bin"}


def test_repeat_environment_unusable_values_are_left_alone() -> None:
    """A value from a stranger's file that is none of the known form does nothing."""
    environment = {"OMP_NUM_THREADS": "8"}
    recorded = {"OMP_NUM_THREADS": "100000", "MKL_NUM_THREADS": "0", "CUBLAS_WORKSPACE_CONFIG": "x;rm", "MKL_CBWR": 1}
    repeat_environment({"environment": recorded}, environment)
    assert environment == {"OMP_NUM_THREADS": "8"}
