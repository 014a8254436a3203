"""LossMonitor, metrics files, throughput."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from bert.errors import RunFailed
from bert.model.config import EncoderConfig
from bert.progress import duration
from bert.training.flops import peak_flops, training_flops
from bert.training.logging import MetricsFile, read_metrics
from bert.training.state import LossMonitor


def test_steps_that_are_not_finite_are_counted_and_end_the_run() -> None:
    loss_monitor = LossMonitor()
    for step in range(1, 4):
        message = loss_monitor.check(step, math.nan, 1.0, False, "abc", max_skipped=4)
        assert message and "skipped" in message and "abc" in message
    assert loss_monitor.check(4, 1.0, 1.0, True, "abc", max_skipped=4) is None
    assert (loss_monitor.skipped, loss_monitor.skipped_in_a_row) == (3, 0)
    for step in range(5, 8):
        loss_monitor.check(step, 1.0, math.inf, False, "abc", max_skipped=4)
    with pytest.raises(RunFailed, match="4 steps in a row were not finite, the last one step 8"):
        loss_monitor.check(8, math.nan, math.nan, False, "abc", max_skipped=4)


def test_a_rise_of_the_loss_is_reported_once() -> None:
    loss_monitor, noise = LossMonitor(), random.Random(0)
    losses = [5.0 + noise.gauss(0, 0.1) for _ in range(300)]
    assert all(loss_monitor.check(i, loss, 1.0, True, "", 20) is None for i, loss in enumerate(losses))
    message = loss_monitor.check(300, 9.0, 1.0, True, "abc", 20)
    assert message and "rose to 9.000 from about" in message and "abc" in message
    assert loss_monitor.check(301, 9.0, 1.0, True, "abc", 20) is None


def test_a_run_that_goes_back_forgets_the_lines_after(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for step in range(1, 6):
        file.append({"step": step, "loss": math.nan if step == 2 else 1.0})
    with file.path.open("a") as torn:
        torn.write('{"step": 6, "lo')
    assert [line["step"] for line in read_metrics(file.path)] == [1, 2, 3, 4, 5]
    file.truncate(3)
    assert [json.loads(line) for line in file.path.read_text().splitlines()] == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": None},
        {"step": 3, "loss": 1.0},
    ]


def test_metrics_on_a_full_disk_are_reported_once_and_the_run_goes_on() -> None:
    said: list[str] = []
    file = MetricsFile(Path("/dev/full"), said.append)
    file.append({"step": 1})
    file.append({"step": 2})
    assert len(said) == 1 and "training continues" in said[0]


def test_arithmetic_of_a_step_by_hand() -> None:
    config = EncoderConfig(
        vocab_size=10,
        hidden_size=8,
        num_layers=2,
        num_heads=2,
        intermediate_size=32,
        layer_pattern="GL",
        window=4,
    )
    attention, after = 6 * 3 * 8 * 8, 6 * (8 * 8 + 2 * 8 * 32)
    first = 100 * (attention + 12 * 10 * 8 + after)
    last = 100 * (attention + 12 * 4 * 8) + (15 + 10) * after
    expected = first + last + 15 * 6 * (8 * 8 + 8 * 10)
    assert training_flops(config, tokens=100, sequences=10, predicted=15) == expected


def test_arithmetic_with_shared_keys_and_without_a_head_by_hand() -> None:
    config = EncoderConfig(
        vocab_size=10,
        hidden_size=8,
        num_layers=1,
        num_heads=4,
        num_kv_heads=1,
        intermediate_size=32,
        head="none",
    )
    attention, after = 6 * (8 + 2 + 2) * 8 + 12 * 10 * 8, 6 * (8 * 8 + 2 * 8 * 32)
    expected = 100 * attention + (15 + 10) * after + 15 * 6 * 8 * 10
    assert training_flops(config, tokens=100, sequences=10, predicted=15) == expected
    wide = replace(config, head="two_layer", head_width=20)
    more = training_flops(wide, tokens=100, sequences=10, predicted=15) - expected
    assert more == 15 * 6 * (8 * 20 + 20 * 8)


def test_peaks_are_found_by_the_devices_name() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("An unknown device") is None


def test_durations_read_well() -> None:
    assert [duration(s) for s in (8.4, 310, 12000)] == ["8 s", "5 min 10 s", "3 h 20 min"]
