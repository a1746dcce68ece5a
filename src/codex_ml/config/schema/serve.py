"""The `serve` section: where `codex-ml serve` listens, and how much it takes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from codex_ml.config.schema.base import Rule, Section, Violation

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")]
# As a browser writes it: lower case, no path, no final slash.
Origin = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$")]
_DEFAULT_PORTS = (("http://", ":80"), ("https://", ":443"))


def _origins_without_default_port(section: ServeSection) -> Violation | None:
    for origin in section.allowed_origins:
        for scheme, port in _DEFAULT_PORTS:
            if origin.startswith(scheme) and origin.endswith(port):
                return Violation(
                    "allowed_origins",
                    f"{origin} never matches: browsers leave the default port out",
                    f"write {origin.removesuffix(port)}",
                )
    return None


class ServeSection(Section):
    """Address and bounds of the service."""

    section_key: ClassVar[str] = "serve"
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("serve-origin-port", ("allowed_origins",), _origins_without_default_port),
    )

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on; other addresses than loopback require a token.",
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0: any free port.")
    allowed_origins: Annotated[tuple[Origin, ...], Field(strict=False)] = Field(
        default=(),
        description=(
            "Additional origins of web pages that may call the service; lower case, without a path, "
            "such as http://localhost:3000."
        ),
    )
    base_name: ModelName = Field(default="base", description="Model name under which clients request the base model.")
    max_running: int = Field(default=8, ge=1, description="Maximum number of requests answered concurrently.")
    max_waiting: int = Field(
        default=32, ge=1, description="Maximum queue length; further requests are rejected with status 429."
    )
    max_new_tokens: int = Field(
        default=1024, ge=1, description="Maximum answer length that a client can request, in tokens."
    )
    max_body_bytes: int = Field(default=1 << 20, ge=1024, description="Maximum size of a request body in bytes.")
    head_timeout_seconds: float = Field(
        default=10.0, gt=0, description="Timeout for the head of a request, also on a kept-alive connection."
    )
    body_timeout_seconds: float = Field(default=10.0, gt=0, description="Timeout for a request body.")
    request_timeout_seconds: float = Field(
        default=300.0, gt=0, description="Time limit from a request to the end of its answer."
    )
    send_timeout_seconds: float = Field(
        default=30.0, gt=0, description="Time limit for a client to read a part of its answer."
    )
    grace_seconds: float = Field(default=30.0, ge=0, description="Grace period for in-flight requests on shutdown.")
