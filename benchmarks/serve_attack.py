"""Attacks the service on loopback while one client sends a request every second, and checks every answer to it.

Run: python benchmarks/serve_attack.py [--minutes 20] [--phases ab] [--memory-share 0.1]

Two services are attacked one after the other, each for half of the time, with all network attacks at once
(`serve_attack_clients.py`). Phase A has an ordinary model. Phase B has a chat template that loops for hours and a
tokenizer that hangs or panics on some texts: the first of `_TOKENIZERS` that the service does not refuse when it loads
the model; the summary shows the refused ones. The client sends the same prompt before and during the attack, and each
answer must be the same. The exit code is 1 if an answer is wrong or missing, if the service ends early or with another
exit code than 0, or if its memory grows by more than the given share from the first quarter of a phase to the last.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import psutil
from serve_attack_clients import Attack, model_attacks, network_attacks, read_page

REPOSITORY = Path(__file__).parents[1]
_LOOPING_TEMPLATE = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{{ messages }}"
_SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SAMPLE_SECONDS = 5.0
_QUESTION = "Where is the night nurse? "
Change = Callable[[dict[str, Any]], None]


def _split_by(pattern: str) -> Change:
    def change(tokenizer: dict[str, Any]) -> None:
        first = {**_SPLIT, "pattern": {"Regex": pattern}}
        byte_level = {**tokenizer["pre_tokenizer"], "use_regex": False}
        tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [first, byte_level]}

    return change


def _empty_replace(tokenizer: dict[str, Any]) -> None:
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": ""}, "content": "b"}


# Worst first; the last one is the regex of Llama 3, which published models use.
_TOKENIZERS: tuple[tuple[str, Change], ...] = (
    ("regex with exponential backtracking", _split_by(r"(a+)+$|\w+|.")),
    ("empty pattern of a replacement", _empty_replace),
    ("regex of Llama 3", _split_by(_LLAMA_3)),
)


@dataclass
class Service:
    """A service in a child process."""

    process: subprocess.Popen[str]
    port: int

    @functools.cached_property
    def client(self) -> openai.OpenAI:
        """The official client, without retries."""
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0, timeout=60)


def start(directory: Path, model: str) -> Service | None:
    """Start the service; return None if it refuses the model."""
    command = [sys.executable, "-m", "codex_ml.cli.main", "serve", "--model", model, "serve.port=0"]
    process = subprocess.Popen(command, cwd=directory, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"serving on http://.*:(\d+)", line):
            # Read to the end, or the service would block when the pipe is full.
            threading.Thread(target=_show, args=(process.stderr,), daemon=True).start()
            return Service(process, int(found.group(1)))
    process.wait()
    return None


def _show(lines: Any) -> None:
    for line in lines:
        print("service:", line, end="", file=sys.stderr)


def start_bad_model(directory: Path) -> tuple[Service | None, dict[str, str]]:
    """Return a service with a looping template and the worst tokenizer it accepts, and the verdict on each one."""
    said: dict[str, str] = {}
    base = directory / "base"
    for number, (name, change) in enumerate(_TOKENIZERS):
        model = directory / f"bad-{number}"
        model.mkdir()
        for file in base.iterdir():
            (model / file.name).write_bytes(file.read_bytes())
        tokenizer = json.loads((base / "tokenizer.json").read_text("utf-8"))
        change(tokenizer)
        (model / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
        (model / "chat_template.jinja").write_text(_LOOPING_TEMPLATE, "utf-8")
        service = start(directory, model.name)
        said[name] = "refused" if service is None else "accepted"
        if service is not None:
            try:
                answer(service)
            except openai.OpenAIError as error:
                # An ordinary prompt must be answered, because later answers are compared with this one.
                said[name] = f"unusable: {type(error).__name__}"
                service.process.kill()
                service.process.wait()
                continue
            return service, said
    return None, said


def answer(service: Service) -> str:
    """Return the answer to the prompt of the well-behaved client.

    Raises
    ------
    openai.OpenAIError
        If there is no answer.
    """
    response = service.client.completions.create(model="base", prompt=_QUESTION, max_tokens=8, temperature=0)
    return response.choices[0].text


@dataclass
class Watch:
    """Answers to the well-behaved client, and samples of the service."""

    service: Service
    expected: str
    right: int = 0
    wrong: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    probes: Counter[str] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def ask(self) -> None:
        """Send the prompt once, and compare the answer."""
        begun = time.monotonic()
        try:
            text = answer(self.service)
        except openai.APIStatusError as error:
            self.missing[str(error.status_code)] += 1
        except openai.OpenAIError as error:
            self.missing[type(error).__name__] += 1
        else:
            self.latencies.append(time.monotonic() - begun)
            self.right += text == self.expected
            self.wrong += text != self.expected

    def probe(self) -> None:
        """Request both health checks."""
        for path in ("/healthz", "/readyz"):
            self.probes[f"{path} {read_page(self.service.port, path)[0]}"] += 1

    def sample(self) -> None:
        """Add memory and processor time of the service and its children."""
        memory, seconds = 0, 0.0
        parent = psutil.Process(self.service.process.pid)
        for process in [parent, *parent.children(recursive=True)]:
            try:
                times = process.cpu_times()
                memory += process.memory_info().rss
                seconds += times.user + times.system
            except psutil.NoSuchProcess:
                continue
        times = parent.cpu_times()
        self.memory.append(memory)
        self.cpu_seconds.append(max(seconds, times.user + times.system + times.children_user + times.children_system))


def _every(seconds: float, action: Callable[[], None], stop: threading.Event) -> None:
    while not stop.wait(seconds):
        action()


def run_phase(
    service: Service, seconds: float, attacks: Callable[[Attack], list[Callable[[], None]]]
) -> dict[str, Any]:
    """Attack a service for some time, stop it, and return the figures."""
    for _ in range(3):
        expected = answer(service)
    attack, watch = Attack(service.port), Watch(service, expected)
    actions = [
        lambda: _every(1.0, watch.ask, attack.stop),
        lambda: _every(1.0, watch.probe, attack.stop),
        lambda: _every(_SAMPLE_SECONDS, watch.sample, attack.stop),
        *attacks(attack),
    ]
    threads = [threading.Thread(target=action, daemon=True) for action in actions]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    while time.monotonic() - begun < seconds and service.process.poll() is None:
        time.sleep(0.5)
    attack.stop.set()
    for thread in threads:
        thread.join(90)
    elapsed = time.monotonic() - begun
    ended = service.process.poll()
    restarts = 0.0 if ended is not None else _restarts(service)
    began_to_stop = time.monotonic()
    service.process.terminate()
    try:
        code = service.process.wait(120)
    except subprocess.TimeoutExpired:
        service.process.kill()
        code = service.process.wait()
    return {
        **_figures(attack, watch, elapsed),
        "worker_restarts": restarts,
        "ended_early": ended is not None,
        "exit_code": code,
        "seconds_to_stop": round(time.monotonic() - began_to_stop, 1),
    }


def _restarts(service: Service) -> float:
    """Return the sum of the service's own counters of restarts."""
    _, text = read_page(service.port, "/metrics")
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(r"\w*restarts_total", line))


def _figures(attack: Attack, watch: Watch, elapsed: float) -> dict[str, Any]:
    sent: dict[str, dict[str, int]] = {}
    for (kind, outcome), count in sorted(attack.counts.items()):
        sent.setdefault(kind, {})[outcome] = count
    quarter = max(1, len(watch.memory) // 4)
    first, last = (statistics.mean(part or [0]) for part in (watch.memory[:quarter], watch.memory[-quarter:]))
    latencies = sorted(watch.latencies) or [0.0]
    cpu = watch.cpu_seconds or [0.0]
    return {
        "seconds": round(elapsed),
        "attacks": sent,
        "well_behaved": {
            "asked": watch.right + watch.wrong + watch.missing.total(),
            "right": watch.right,
            "wrong": watch.wrong,
            "missing": dict(watch.missing),
            "latency_seconds": {
                "p50": round(statistics.median(latencies), 3),
                "p99": round(latencies[int(0.99 * (len(latencies) - 1))], 3),
                "most": round(latencies[-1], 3),
            },
        },
        "probes": dict(sorted(watch.probes.items())),
        "memory_mib": {"first_quarter": round(first / 2**20), "last_quarter": round(last / 2**20)},
        "memory_growth": round(last / first - 1, 4) if first else 0.0,
        "cpu_share": round((cpu[-1] - cpu[0]) / elapsed, 2),
    }


def faults(figures: dict[str, Any], memory_share: float) -> list[str]:
    """Return the faults of a service under attack."""
    client = figures["well_behaved"]
    found = [f"{client['wrong']} wrong answers"] if client["wrong"] else []
    found += [f"{sum(client['missing'].values())} missing answers"] if client["missing"] else []
    found += [] if client["asked"] else ["the client asked nothing"]
    found += [f"memory grew by {figures['memory_growth']:.1%}"] if figures["memory_growth"] > memory_share else []
    found += ["the service ended"] if figures["ended_early"] else []
    found += [f"exit code {figures['exit_code']}"] if figures["exit_code"] else []
    return found


def show(phase: str, figures: dict[str, Any], found: list[str]) -> None:
    """Print the figures of one phase on standard error."""
    client = figures["well_behaved"]
    lines = [
        f"phase {phase}, {figures['seconds']} s",
        f"  client: {client['asked']} asked, {client['right']} right, {client['wrong']} wrong, "
        f"{sum(client['missing'].values())} missing; {client['latency_seconds']}",
        f"  memory MiB: {figures['memory_mib']}, cores in use: {figures['cpu_share']}, probes: {figures['probes']}",
        *(f"  {kind}: {outcomes}" for kind, outcomes in figures["attacks"].items()),
        f"  result: {', '.join(found) or 'no fault'}",
    ]
    print("\n".join(lines), file=sys.stderr)


def main() -> int:
    """Run the phases and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="Time of all phases together.")
    parser.add_argument("--phases", choices=("a", "b", "ab"), default="ab")
    parser.add_argument("--memory-share", type=float, default=0.1, help="Growth of memory that is a fault.")
    arguments = parser.parse_args()
    # The service must not outlive this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seconds = 60 * arguments.minutes / len(arguments.phases)
    result: dict[str, Any] = {}
    found: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        make = [sys.executable, str(REPOSITORY / "tools" / "make_tiny_model.py"), "llama", "--output", "base"]
        subprocess.run(make, cwd=directory, check=True, capture_output=True)
        for phase in arguments.phases:
            service, said = (start(directory, "base"), {}) if phase == "a" else start_bad_model(directory)
            if service is None:
                found.append(f"phase {phase}: the service did not start: {said}")
                continue
            attacks = network_attacks if phase == "a" else lambda it: [*network_attacks(it), *model_attacks(it)]
            try:
                figures = run_phase(service, seconds, attacks)
            finally:
                service.process.kill()
            ours = faults(figures, arguments.memory_share)
            show(phase, figures, ours)
            result[phase] = {**figures, "tokenizers": said}
            found += [f"phase {phase}: {one}" for one in ours]
    print(json.dumps({"phases": result, "faults": found}))
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
