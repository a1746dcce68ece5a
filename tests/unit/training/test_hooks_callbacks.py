"""Hooks: when a validation, a line or a stop is due, and what a line says."""

from __future__ import annotations

import errno
import io
from collections.abc import Mapping

import pytest

from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.hooks import (
    VALIDATION_LOSS,
    EarlyStopping,
    Evaluation,
    MetricLog,
    Progress,
    format_seconds,
    line_is_due,
    progress_line,
)

METRICS = {
    "loss": 1.23456,
    "learning_rate": 2e-4,
    "gradient_norm": 0.5,
    "supervised_tokens_per_second": 1234.5,
    "memory_bytes": 300.0 * 2**20,
    "seconds_left": 62.0,
}


class Terminal(io.StringIO):
    """A stream that calls itself a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.mark.parametrize(("every", "expected"), [(3, [3, 6, 7]), (None, [7]), (10, [7]), (7, [7])])
def test_evaluation_interval_runs_when_due_and_at_the_end(every: int | None, expected: list[int]) -> None:
    """Every so many steps and once after the last, also in the only epoch."""
    hook = Evaluation(lambda: {VALIDATION_LOSS: 0.5}, every, total_steps=7)
    due = []
    for step in range(1, 8):
        hook.before_step(step)
        result = hook.after_step(step, {})
        if result is not None:
            assert result.metrics == {VALIDATION_LOSS: 0.5}
            due.append(step)
    assert due == expected


def test_early_stopping_patience_used_up_stops_at_a_validation_only() -> None:
    """The count is the state's; between validations nothing is decided."""
    state = TrainerState(evaluations_without_improvement=2)
    hook = EarlyStopping(state, patience=2)
    hook.before_step(1)
    assert hook.after_step(1, {"loss": 1.0}) is None
    result = hook.after_step(2, {VALIDATION_LOSS: 1.0})
    assert result is not None
    assert result.stop_reason == "no improvement of validation_loss in 2 evaluations"
    state.evaluations_without_improvement = 1
    assert hook.after_step(3, {VALIDATION_LOSS: 1.0}) is None


def test_metric_log_lines_are_written_when_due() -> None:
    """At the interval, at a validation and at the last step."""
    written: list[int] = []
    hook = MetricLog(lambda step, _: written.append(step), every_steps=4, total_steps=9)
    for step in range(1, 10):
        hook.before_step(step)
        hook.after_step(step, {VALIDATION_LOSS: 1.0} if step == 6 else {})
    assert written == [4, 6, 8, 9]
    assert [step for step in range(1, 10) if line_is_due(step, {}, 4, 9)] == [4, 8, 9]


def test_progress_line_holds_everything_that_matters() -> None:
    """One line carries step, loss, rate, norm, speed, memory, time left, and the validation where there is one."""
    line = progress_line(3, 10, METRICS)
    assert line == (
        "step 3/10 | loss 1.2346 | learning rate 2.00e-04 | gradient norm 0.500 | 1,234 supervised tokens/s | "
        "memory 300 MiB | 1:02 left"
    )
    assert progress_line(3, 10, {**METRICS, VALIDATION_LOSS: 0.5}) == line + " | validation loss 0.5000"


def test_progress_no_terminal_prints_plain_lines_at_intervals() -> None:
    """A log file gets lines, no bar."""
    stream = io.StringIO()
    run_progress(Progress(total_steps=5, every_steps=2, stream=stream))
    assert [line.split(" | ")[0] for line in stream.getvalue().splitlines()] == ["step 2/5", "step 4/5", "step 5/5"]
    assert "\r" not in stream.getvalue()


def test_progress_terminal_shows_a_bar_that_starts_where_the_run_stands() -> None:
    """A terminal gets a bar that moves, with the lines above it."""
    stream = Terminal()
    progress = Progress(total_steps=5, every_steps=2, start_step=2, stream=stream)
    run_progress(progress, first=3)
    assert "2/5" in stream.getvalue()
    assert "5/5" in stream.getvalue()
    assert "step 4/5 | loss 1.2346" in stream.getvalue()


class HungUp(Terminal):
    """A terminal that takes nothing any more once it has hung up."""

    hung_up = False

    def write(self, text: str) -> int:
        """Fail as a closed pseudo terminal does."""
        if self.hung_up:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


@pytest.mark.parametrize("number", [errno.EIO, errno.EPIPE])
def test_progress_terminal_that_hung_up_ends_no_run(number: int) -> None:
    """A bar that cannot be drawn any more is no error; a full disk under a redirected stream is."""
    stream = HungUp()
    progress = Progress(total_steps=5, every_steps=1, stream=stream)
    progress.after_step(1, METRICS)
    stream.hung_up = True
    run_progress(progress, first=2)

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(number, text)

    run_progress(Progress(total_steps=5, every_steps=1, stream=Broken()))


def test_progress_stream_on_a_full_disk_ends_no_run() -> None:
    """The debug log and the metrics also contain the lines; only results on standard output must not be lost."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, text)

    run_progress(Progress(total_steps=5, every_steps=1, stream=Full()))


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")])
def test_format_seconds_minutes_and_hours(seconds: float, text: str) -> None:
    """Durations read like a clock."""
    assert format_seconds(seconds) == text


def run_progress(progress: Progress, first: int = 1, metrics: Mapping[str, float] = METRICS) -> None:
    """Take all steps up to the fifth."""
    for step in range(first, 6):
        progress.before_step(step)
        progress.after_step(step, metrics)
