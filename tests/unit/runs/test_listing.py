"""One line for each run, from its small files; what is damaged is passed over."""

from __future__ import annotations

import pytest

from codex_ml.runs.listing import last_logged_step, render_list, summarise


def test_summarise_steps_are_the_furthest_and_loss_the_newest_checkpoints(make_run, add_checkpoint) -> None:
    """A log line after the last checkpoint counts as a step; the best loss is what the newest checkpoint says."""
    layout, record = make_run()
    add_checkpoint(layout, 9, best_metric=2.5)
    add_checkpoint(layout, 10, best_metric=1.25)
    summary = summarise(layout, record)
    assert (summary.steps, summary.best_validation_loss, summary.status) == (10, 1.25, "FINISHED")
    layout.metrics.write_text('{"step": 12}\n{"step": 13}\n{"step": 14')
    assert summarise(layout, record).steps == 13


def test_summarise_fresh_run_has_neither(make_run) -> None:
    """Unknown is not zero."""
    summary = summarise(*make_run(status="RUNNING"))
    assert (summary.steps, summary.best_validation_loss) == (None, None)


@pytest.mark.parametrize("damage", ["no manifest", "state cut", "state of another shape"])
def test_summarise_damaged_newest_checkpoint_is_passed_over(make_run, add_checkpoint, damage: str) -> None:
    """The one before it is asked."""
    layout, record = make_run()
    add_checkpoint(layout, 5, best_metric=3.0)
    newest = add_checkpoint(layout, 10, best_metric=1.0)
    if damage == "no manifest":
        (newest / "manifest.json").unlink()
    else:
        (newest / "trainer_state.json").write_text('{"trainer": ' if damage == "state cut" else "[]")
    summary = summarise(layout, record)
    assert (summary.steps, summary.best_validation_loss) == (5, 3.0)


def test_summarise_no_validation_gives_no_loss(make_run, add_checkpoint) -> None:
    """A run that never validated shows none."""
    layout, record = make_run()
    add_checkpoint(layout, 10)
    assert summarise(layout, record).best_validation_loss is None


def test_last_logged_step_long_file_reads_its_end(tmp_path) -> None:
    """Only the tail is read, and a first piece that begins inside a line does not matter."""
    metrics = tmp_path / "metrics.ndjson"
    metrics.write_text("".join(f'{{"step": {step}, "text": "{"x" * 90}"}}\n' for step in range(1000)))
    assert last_logged_step(metrics) == 999
    metrics.write_text("no json\n")
    assert last_logged_step(metrics) is None
    assert last_logged_step(tmp_path / "absent") is None


def test_render_list_columns_are_aligned_and_unknown_is_a_dash(make_run, add_checkpoint) -> None:
    """One line a run under one header."""
    layout, record = make_run("long-name")
    add_checkpoint(layout, 10, best_metric=1.25)
    other = make_run("b")
    text = render_list([summarise(layout, record), summarise(*other)])
    header, first, second = text.split("\n")
    assert header.index("status") == first.index("FINISHED") == second.index("FINISHED")
    assert "2026-11-22 12:00:00  long-name  FINISHED  10" in first
    assert "1.2500" in first
    assert second.split() == ["2026-11-22", "12:00:00", "b", "FINISHED", "-", "-", "-", str(other[0].directory)]
