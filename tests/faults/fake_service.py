"""Run the HTTP service over a fake model and print its port. Argument: the seconds allowed for a request head."""

from __future__ import annotations

import sys
import time

from fake_source import FakeSource

from codex_ml.serve.app import build_app
from codex_ml.serve.engine import Engine, Limits
from codex_ml.serve.server import Address, HttpServer
from codex_ml.serve.service import Service, ServiceLimits, ServiceMetrics


def main() -> None:
    """Serve on loopback until a signal arrives."""
    source, metrics = FakeSource(), ServiceMetrics()
    engine = Engine(source, Limits(8, 32), metrics)
    metrics.watch(lambda: engine.waiting, lambda: engine.running)
    app = build_app(
        Service(engine, source.names(), ServiceLimits(1 << 20, 10.0, 300.0, 30.0, 1024), time.time),
        engine,
        metrics,
        token=None,
        loopback_only=True,
        allowed_origins=(),
        clock=time.monotonic,
    )
    server = HttpServer(
        app,
        engine,
        Address("127.0.0.1", 0),
        most_requests=40,
        grace_seconds=5.0,
        head_seconds=float(sys.argv[1]),
        send_seconds=30.0,
    )
    server.run(lambda: print(server.port, flush=True))


if __name__ == "__main__":
    main()
