"""Measures the service on loopback: requests a second, tail latency, memory, and that no answer is lost or another's.

Run: python benchmarks/serve_load.py [--callers 16] [--requests 400] [--tokens 32]

A service of its own (the tiny model of the tests, loopback, a free port) is asked by threads that each wait for an
answer before the next question; half of the answers are streamed. Before, every question is asked alone: what came then
must come again. The load is bounded by the number of requests, and the service is stopped at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import psutil

REPOSITORY = Path(__file__).parents[1]
_QUESTIONS = 40


def start(directory: Path, most_waiting: int) -> tuple[subprocess.Popen[str], int]:
    """Start the service, and return its process and port."""
    make = [sys.executable, str(REPOSITORY / "tools" / "make_tiny_model.py"), "llama", "--output", "base"]
    subprocess.run(make, cwd=directory, check=True, capture_output=True)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "codex_ml.cli.main", "serve", "--model", "base"),
            *("serve.port=0", f"serve.max_waiting={most_waiting}"),
        ],
        cwd=directory,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"serving on http://.*:(\d+)", line):
            return process, int(found.group(1))
    raise SystemExit("the service did not start")


def ask(client: openai.OpenAI, question: int, tokens: int, *, stream: bool) -> str:
    """Return the answer to one question."""
    answer = client.completions.create(
        model="base",
        prompt=f"What is {question} plus {question + 1}? ",
        max_tokens=tokens,
        temperature=0.9,
        seed=question,
        stream=stream,
    )
    if not stream:
        return str(answer.choices[0].text)
    return "".join(piece.choices[0].text for piece in answer)


def main() -> int:
    """Run the load and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--tokens", type=int, default=32)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        process, port = start(Path(directory), arguments.callers)
        try:
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=300)
            expected = [ask(client, question, arguments.tokens, stream=False) for question in range(_QUESTIONS)]
            before = psutil.Process(process.pid).memory_info().rss

            def one(number: int) -> tuple[float, bool]:
                begun = time.monotonic()
                question = number % _QUESTIONS
                text = ask(client, question, arguments.tokens, stream=number % 2 == 0)
                return time.monotonic() - begun, text == expected[question]

            begun = time.monotonic()
            with ThreadPoolExecutor(arguments.callers) as callers:
                results = list(callers.map(one, range(arguments.requests)))
            seconds = time.monotonic() - begun
            after = psutil.Process(process.pid).memory_info().rss
        finally:
            process.terminate()
            code = process.wait(60)
    latencies = sorted(latency for latency, _ in results)
    cuts = statistics.quantiles(latencies, n=100)
    figures = {
        "callers": arguments.callers,
        "requests": len(results),
        "tokens_an_answer": arguments.tokens,
        "wrong_answers": sum(not same for _, same in results),
        "requests_per_second": round(len(results) / seconds, 1),
        "latency_seconds": {name: round(cuts[index], 3) for name, index in (("p50", 49), ("p95", 94), ("p99", 98))},
        "memory_mib": {"before": before >> 20, "after": after >> 20},
        "exit_code": code,
    }
    print(json.dumps(figures))
    return 1 if figures["wrong_answers"] or code else 0


if __name__ == "__main__":
    raise SystemExit(main())
