"""What `pretrain.tune` measures, chooses and writes."""

import json
from fnmatch import fnmatch
from pathlib import Path

import pytest

from bert.config import difference, load
from bert.errors import UserError
from bert.training.run_dir import FREE_KEYS
from pretrain import tune
from pretrain.config import PretrainConfig
from pretrain.tune import KEYS, MARK, Settings, search, table, tuned

START = Settings(micro_tokens=512, num_threads=2, num_workers=1, compile=False)


def test_the_fastest_settings_are_found_one_after_the_other() -> None:
    def speed(settings: Settings, seconds: float) -> float | None:
        assert seconds == 1.0, "the time is shared out"
        if settings.micro_tokens > 2048:
            return None
        gain = {512: 1.0, 1024: 1.02, 2048: 1.5}[settings.micro_tokens]
        return 1000 * gain / settings.num_threads * (1.1 if settings.num_workers == 0 else 1.0)

    tried = {"num_threads": [1, 2], "num_workers": [0, 1], "micro_tokens": [512, 1024, 2048, 4096]}
    best, speeds = search(speed, START, tried, seconds=6.0)
    assert best == Settings(2048, 1, 0, False) and len(speeds) == 6
    lines = table(START, best, speeds).splitlines()
    assert lines[1].split() == ["512", "2", "1", "false", "500", "as", "configured"]
    assert lines[-2].split() == ["2,048", "1", "0", "false", "1,650", "fastest"]
    assert lines[-1].endswith("out of memory")


def test_what_is_hardly_faster_stays_as_configured() -> None:
    best, _ = search(lambda s, _: 1000 + s.micro_tokens / 100, START, {"micro_tokens": [1024, 2048]}, 1.0)
    assert best == START


def test_memory_that_never_suffices_is_named() -> None:
    with pytest.raises(UserError, match=r"micro_tokens.*gradient_checkpointing"):
        search(lambda *_: None, START, {"micro_tokens": [1024]}, 1.0)


def test_settings_say_how_the_work_is_done_not_what_is_learnt() -> None:
    assert all(any(fnmatch(key, free) for free in FREE_KEYS) for key in KEYS.values())


def test_dotted_keys_of_the_file_are_replaced() -> None:
    text = tuned("seed: 1  # one\nbatch.micro_tokens: 8\n", {"batch.micro_tokens": 16}, "quick")
    assert text == f"seed: 1  # one\n\n{MARK}: quick\nbatch.micro_tokens: 16\n"


def test_a_run_is_measured_and_its_configuration_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = " ".join(f"Word {n} sees word {n + 1}." for n in range(40))
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": f"{n}. {text}"}) for n in range(40)))
    config = tmp_path / "mine.yaml"
    config.write_text(
        "# mine\nbatch:  # small\n  {sequences: 16, micro_tokens: 512, max_length: 64}\n"
        "model: {num_layers: 1, hidden_size: 32, num_heads: 2, intermediate_size: 64}\n"
        "tokenizer.vocab_size: 300\ntraining: {steps: 100, num_workers: 0}\n"
    )
    words = [f"run_dir={tmp_path / 'run'}", f"corpus.files={tmp_path / 'text.jsonl'}", "prepare.workers=1"]
    tune.main([str(config), *words, "seconds=0.1"])
    written = tmp_path / "mine.tuned.yaml"
    shown = capsys.readouterr().out
    assert "as configured" in shown and f"written to {written}: batch.micro_tokens=" in shown
    assert written.read_text().startswith(config.read_text())
    before, after = (load(PretrainConfig, path, words) for path in (config, written))
    changed = {line.partition(":")[0] for line in difference(before, after)}
    assert changed <= set(KEYS.values()) and "training.num_threads" in changed
    assert not (tmp_path / "run" / "metrics.jsonl").exists(), "the run can still begin"

    tune.main([str(written), *words, "seconds=0.1"])
    assert written.read_text().count(MARK) == 1, "written anew"


def test_a_file_of_the_users_is_not_replaced(tmp_path: Path) -> None:
    config, other = tmp_path / "mine.yaml", tmp_path / "other.yaml"
    config.write_text("training.steps: 3\n")
    other.write_text("seed: 1\n")
    reasons = {
        other: "is not of this command",
        tmp_path / "no" / "x.yaml": "no folder",
        tmp_path: "is a folder",
    }
    for output, reason in reasons.items():
        with pytest.raises(UserError, match=f"output: .*{reason}"):
            tune.main([str(config), f"output={output}"])
    assert other.read_text() == "seed: 1\n"
