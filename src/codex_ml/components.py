"""The components that a configuration names: each kind has a table of lazy entries and an entry-point group.

Only names are here, so that `validate` knows every built-in and installed name without importing torch.
"""

from __future__ import annotations

from typing import Any

from codex_ml.registry import Registry

METRICS: Registry[Any] = Registry("metric", group="codex_ml.metrics")
for _name in ("bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "rouge_lsum", "f1", "exact_match"):
    METRICS.register(_name, f"codex_ml.eval.text_metrics:{_name.upper()}")
for _name in ("loss", "perplexity", "token_accuracy"):
    METRICS.register(_name, f"codex_ml.eval.metrics:{_name.upper()}")

SCHEDULES: Registry[Any] = Registry("schedule", group="codex_ml.schedules")
for _name in ("constant", "linear", "cosine"):
    SCHEDULES.register(_name, f"codex_ml.training.schedule:{_name}")

SINKS: Registry[Any] = Registry("tracking sink", group="codex_ml.sinks")
SINKS.register("mlflow", "codex_ml.tracking.mlflow_sink:create_mlflow_sink")

# Key of the configuration -> the components that it names.
NAMED_COMPONENTS: dict[str, Registry[Any]] = {
    "eval.metrics": METRICS,
    "training.schedule": SCHEDULES,
    "tracking.sinks": SINKS,
}
