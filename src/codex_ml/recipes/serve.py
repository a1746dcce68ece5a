"""The service job: models loaded and checked, the HTTP server over them, until it is asked to stop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from codex_ml.config.paths import check_paths
from codex_ml.config.schema.root import ServeConfig
from codex_ml.data.prompt_process import PromptProcess
from codex_ml.data.tokenize import RecordTokenizer, answer_ends
from codex_ml.errors import ConfigError, ConfigProblem
from codex_ml.models.directory import extra_tokenizer_digest
from codex_ml.models.registry import load_base_model, load_tokenizer, tokenizer_digest
from codex_ml.models.source import locate_tokenizer
from codex_ml.recipes.answering import GenerateCollaborators
from codex_ml.recipes.config_check import refuse_unsafe_values
from codex_ml.recipes.generation_log import GenerationLog
from codex_ml.recipes.hosted_models import HostedModels
from codex_ml.recipes.preparation import open_digests
from codex_ml.recipes.safety_filters import Witness, bypass_warnings, open_filters
from codex_ml.recipes.target_model import check_bases, check_tokenizers
from codex_ml.recipes.weights import refuse_missing_averages, weights_of
from codex_ml.runs.targets import Target
from codex_ml.safety.audit import SafetyAudit
from codex_ml.serve.access import BearerToken, check_binding, is_loopback
from codex_ml.serve.app import build_app
from codex_ml.serve.engine import Engine, Limits
from codex_ml.serve.server import Address, HttpServer
from codex_ml.serve.service import Service, ServiceLimits
from codex_ml.serve.service_metrics import ServiceMetrics
from codex_ml.stopping import STOP


def serve(
    config: ServeConfig,
    targets: Mapping[str, Target],
    token: BearerToken | None,
    collaborators: GenerateCollaborators | None = None,
) -> int | None:
    """Serve a base model and adapters over it until a signal asks for the end.

    Parameters
    ----------
    config : ServeConfig
        Address, bounds, base.
    targets : mapping
        Name -> checkpoint of an adapter.
    token : BearerToken or None
        What requests must show; required beyond loopback.

    Returns
    -------
    int or None
        The signal that cut answers short; None when all that was taken was answered.

    Raises
    ------
    CodexError
        If the service cannot be what was asked for; nothing listens then.
    """
    outside = collaborators or GenerateCollaborators()
    check_binding(config.serve.host, token)
    check_paths(config, with_data=False)
    refuse_unsafe_values(config)
    _refuse_names(config, targets)
    filters = open_filters(config.safety)
    for line in bypass_warnings(filters):
        outside.say(line)
    tokenizer = load_tokenizer(config.model)
    prompts = RecordTokenizer(tokenizer)
    # What a first chat imports and compiles is loaded before the fork, for all processes.
    answer_ends(tokenizer)
    checkpoints = list(targets.values())
    directory = locate_tokenizer(config.model).directory
    check_tokenizers(checkpoints, tokenizer_digest(tokenizer, directory), extra_tokenizer_digest(directory))
    refuse_missing_averages(checkpoints, config.generation.weights, "generation.weights")
    STOP.check()
    assert config.run.output_dir is not None, "composing a config fills run.output_dir in"
    with closing(PromptProcess(prompts)) as process, ExitStack() as stack:
        # Forked before the model is loaded, which starts threads and takes memory that the process does not need.
        process.start()
        base = load_base_model(config.model, tokenizer, config.run.seed, open_digests(config))
        check_bases(checkpoints, base)
        STOP.check()
        outside.say(f"device {base.device.value}: {base.device.reason}; dtype {base.dtype.value}: {base.dtype.reason}")
        log = stack.enter_context(
            GenerationLog(
                config.run.output_dir, config.logging.max_bytes, filters.redact_value, outside.clock, outside.storage
            )
        )
        audit = SafetyAudit(log.write, stage="serve")
        if (bypass := Witness("serve", outside.who, outside.clock).bypass(filters)) is not None:
            audit.bypass(bypass)
        directories = {name: _directory(target, config) for name, target in targets.items()}
        models = HostedModels(config, base, directories, prompts, filters, audit, process)
        server = _server(config, models, token)
        # The server handles signals itself from here on.
        STOP.check()
        outside.say(f"models: {', '.join(models.names())}")
        return server.run(lambda: outside.say(f"serving on http://{_shown(config.serve.host)}:{server.port}"))


def _server(config: ServeConfig, models: HostedModels, token: BearerToken | None) -> HttpServer:
    section = config.serve
    metrics = ServiceMetrics()
    engine = Engine(models, Limits(section.max_running, section.max_waiting, section.request_timeout_seconds), metrics)
    metrics.watch(lambda: engine.waiting, lambda: engine.running)
    limits = ServiceLimits(
        section.max_body_bytes,
        section.body_timeout_seconds,
        section.request_timeout_seconds,
        section.send_timeout_seconds,
        section.max_new_tokens,
    )
    app = build_app(
        Service(engine, models.names(), limits, time.time),
        engine,
        metrics,
        token=token,
        loopback_only=is_loopback(section.host),
        allowed_origins=section.allowed_origins,
        clock=time.monotonic,
    )
    return HttpServer(
        app,
        engine,
        Address(section.host, section.port),
        most_requests=section.max_running + section.max_waiting,
        grace_seconds=section.grace_seconds,
        head_seconds=section.head_timeout_seconds,
        send_seconds=section.send_timeout_seconds,
    )


def _directory(target: Target, config: ServeConfig) -> Path:
    directory = weights_of(target, config.generation.weights)
    assert directory is not None, "only checkpoints have a name of their own"
    return directory


def _refuse_names(config: ServeConfig, targets: Mapping[str, Target]) -> None:
    """Stop where two models would have one name, or a checkpoint is no adapter."""
    problems = []
    if config.serve.base_name in targets:
        problems.append(
            ConfigProblem(
                "serve.base_name",
                f"an adapter is called {config.serve.base_name}, too",
                "give the base or the adapter another name",
            )
        )
    for name, target in targets.items():
        if target.directory is not None and target.manifest.get("kind") != "adapter":
            problems.append(
                ConfigProblem(
                    f"--adapter {name}",
                    f"{target.shown} holds all weights of a model and no adapter",
                    "serve it as the base: --model DIRECTORY",
                )
            )
    if problems:
        raise ConfigError(problems)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
