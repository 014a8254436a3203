"""`make gpu-check` and `make gpu-recipe` on a CPU, with small models: what a machine with a GPU is to run."""

import importlib
import io
import json
import os
import random
import re
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
CHECK, RECIPE = "benchmarks/gpu/check.py", "benchmarks/gpu/recipe.py"
WEATHER = ["rain", "wind", "sun", "cloud", "storm", "snow", "fog", "heat"]
KITCHEN = ["bread", "salt", "oven", "spoon", "onion", "pepper", "flour", "knife"]
PATHS = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "gpu")]


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, as it is imported where it runs."""
    for path in PATHS:
        monkeypatch.syspath_prepend(path)
    return importlib.import_module("recipe")


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for path in PATHS:
        monkeypatch.syspath_prepend(path)
    return importlib.import_module("check")


@pytest.fixture
def travelling(recipe: ModuleType, tmp_path: Path) -> Path:
    """A prepared folder."""
    draw = random.Random(0)
    words = [
        "rain",
        "wind",
        "sun",
        "cloud",
        "storm",
        "snow",
        "fog",
        "heat",
        "frost",
        "bread",
        "salt",
        "oven",
        "spoon",
        "onion",
        "pepper",
        "flour",
    ]
    text = tmp_path / "text"
    text.mkdir()
    for number in range(40):
        lines = [f"The {' and the '.join(draw.sample(words, 4))} are here." for _ in range(30)]
        (text / f"{number}.txt").write_text("\n".join(lines))
    pairs = [{"sentence_good": "The wind is here.", "sentence_bad": "The wind are here."}] * 3
    (tmp_path / "agreement.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    rows = [
        f"The {draw.choice(words[:8])},weather\nThe {draw.choice(words[8:])},kitchen\n" for _ in range(20)
    ]
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("text,label\n" + "".join(rows))
    task = [f"task.train={tmp_path}/train.csv", f"task.test={tmp_path}/test.csv"]
    folder = tmp_path / "folder"
    words = ["prepare", str(folder), str(text), "--pairs", str(tmp_path / "agreement.jsonl"), "--tiny"]
    recipe.main([*words, "--task", *task])
    return folder


def check_recipe(results: Path) -> None:
    """What a run leaves, and says."""
    found = json.loads((results / "gpu-recipe.json").read_text())["parts"]
    assert {name: one["status"] for name, one in found.items()} == dict.fromkeys(
        ("training", "evaluation", "classification"), "done"
    )
    text = (results / "gpu-recipe.txt").read_text()
    for said in (
        "4 steps, ",
        "held-out loss ",
        "minimal pairs, agreement: ",
        "classification, test texts: loss ",
    ):
        assert said in text, text


def in_this_process(part: object, seconds: float, rows: Path, log: Path) -> str:
    """A part of the recipe as `parts` runs it, but in no process of its own."""
    _, module, *words = part.command  # type: ignore[attr-defined]
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(output):
        patch.setattr(sys, "argv", [module, *words])
        patch.chdir(ROOT)
        with pytest.raises(SystemExit) as end:
            runpy.run_module(module, run_name="__main__")
    log.write_text(output.getvalue())
    return f"failed: {output.getvalue()}" if end.value.code else "done"


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_the_recipe_in_one_process(
    recipe: ModuleType, travelling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads((travelling / "prepared.json").read_text())["task"] == [
        "task.train=task/train.csv",
        "task.test=task/test.csv",
        "task.validation=null",
    ]
    monkeypatch.setattr(sys.modules["parts"], "_run", in_this_process)
    words = ["run", str(travelling), "--tiny", "--run", str(tmp_path / "run"), "--results", str(tmp_path)]
    recipe.main(words)
    check_recipe(tmp_path)
    with pytest.raises(recipe.UserError, match="run: is there already"):
        recipe.main(words)


def test_a_folder_that_is_too_large_does_not_appear(
    recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "MOST_BYTES", 30_000)
    (tmp_path / "text.txt").write_text("\n\n".join(f"It rains on day {number}." for number in range(3000)))
    with pytest.raises(
        recipe.UserError, match=r"would have \d+ MB, more than 0; give about \d+% of the text"
    ):
        recipe.main(["prepare", str(tmp_path / "folder"), str(tmp_path / "text.txt"), "--tiny"])
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
    with pytest.raises(recipe.UserError, match="folder: is not prepared"):
        recipe.main(["run", str(tmp_path / "folder"), "--tiny"])


def typed(script: str, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS[:2]), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, script, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_recipe_as_it_is_typed(travelling: Path, tmp_path: Path) -> None:
    words = ["run", str(travelling), "--tiny", "--run", str(tmp_path / "run"), "--results", str(tmp_path)]
    end = typed(RECIPE, *words)
    assert end.returncode == 0, end.stdout + end.stderr
    check_recipe(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_check_as_it_is_typed(tmp_path: Path) -> None:
    """Fifteen processes, one after the other."""
    end = typed(CHECK, "--tiny", "--minutes", "18", "--results", str(tmp_path))
    assert end.returncode == 0, end.stdout + end.stderr
    parts = json.loads((tmp_path / "gpu-check.json").read_text())["parts"]
    sides = ["ours", "Trainer as shipped", "Trainer tuned"]
    for model in ("bert-base", "modern-base"):
        rows = parts[f"steps of {model}"]["rows"]
        operations, losses, peak, *measured = rows
        assert operations["ours"] == operations["torch"]
        assert losses["agree"] and set(losses["losses"]) == set(sides)
        assert peak["matmul_flops_per_second"] > 0
        compiled = [(16, "ours, compiled"), (16, "Trainer tuned, compiled")]
        expected = [(length, side) for length in (16, 32) for side in sides] + compiled
        assert [(row["length"], row["side"]) for row in measured] == expected
        assert all(0 < row["mfu"] < 10 and row["peak_bytes"] > 0 for row in measured)
    assert sum(parts["profile"]["rows"][0]["profile"]["kinds"].values()) == pytest.approx(1)
    assert [(row["model"], row["length"]) for row in parts["encoder"]["rows"]] == [
        (model, length) for model in ("bert-base", "modern-base") for length in (16, 32)
    ]
    text = (tmp_path / "gpu-check.txt").read_text()
    assert "tests/gpu: 0 passed, 0 failed, " in text and "of the peak" in text


def test_make_runs_both() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target, command in {
        "gpu-check": f"$(ON_GPU) {CHECK}",
        "gpu-store": f"$(ON_GPU) {RECIPE} prepare $(STORE) $(TEXT) $(WITH)",
        "gpu-recipe": f"$(ON_GPU) {RECIPE} run $(STORE)",
    }.items():
        assert re.search(rf"^{target}: .*\n\t{re.escape(command)}$", makefile, re.MULTILINE), target


def test_without_a_gpu_nothing_is_measured(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [CHECK, "--results", str(tmp_path / "results")])
    monkeypatch.setattr(check, "machine", dict)
    with pytest.raises(SystemExit, match="torch sees no GPU here; --tiny tries this program on the CPU"):
        check.main()
    monkeypatch.setitem(check.REQUIRED, "nothing_like_it", "nothing-like-it")
    with pytest.raises(SystemExit, match="error: not installed: nothing-like-it; without a network, carry"):
        check.main()
    assert not (tmp_path / "results").exists()


def test_the_text_of_what_was_found(check: ModuleType) -> None:
    output = (
        "tests/gpu/test_a.py::test_b[1] PASSED [ 33%]\ntests/gpu/test_a.py::test_b[x y] FAILED [ 66%]\n"
        "tests/gpu/test_c.py::test_d SKIPPED (why)\nFAILED tests/gpu/test_a.py::test_b[x y] - assert 1 == 2\n"
    )
    place = {"model": "bert-base", "length": 512, "examples": "pairs", "sequences": 128}
    ours = {"side": "ours", "micro_tokens": 16384, "tokens_per_second": 3000, "mfu": 0.5, "peak_bytes": 2e9}
    tuned = {
        "side": "Trainer tuned",
        "micro_tokens": 16384,
        "tokens_per_second": 1500,
        "mfu": 0.25,
        "peak_bytes": 4e9,
    }
    shipped = {"side": "Trainer as shipped", "problem": "out of memory"}
    kernel = {"kernel": "nvjet_x", "kind": "matrix products", "milliseconds": 7.5, "launches": 12}
    profile = {
        "seconds": 0.1,
        "kinds": {"matrix products": 0.75},
        "idle": 0.1,
        "launches": 900,
        "kernels": [kernel],
    }
    text = check.described(
        [
            check.Outcome("tests", "failed: exit code 1", 3.0, check.results_of_tests(output), ["the end"]),
            check.Outcome(
                "steps of bert-base", "out of time", 9.0, [place | side for side in (ours, shipped, tuned)]
            ),
            check.Outcome("profile", "done", 1.0, [place | {"profile": profile}]),
        ]
    )
    said = "tests/gpu: 1 passed, 1 failed, 1 skipped\n  tests/gpu/test_a.py::test_b[x y] - assert 1 == 2"
    assert said in text and "out of time" in text and "  the end" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["bert-base,", "pairs", "512", "ours", "16384", "3,000", "1.00", "50.0%", "2.00"] in lines
    assert [
        "bert-base,",
        "pairs",
        "512",
        "Trainer",
        "tuned",
        "16384",
        "1,500",
        "2.00",
        "25.0%",
        "4.00",
    ] in lines
    assert ["bert-base,", "pairs", "512", "Trainer", "as", "shipped", "out", "of", "memory"] in lines
    assert "idles 10% of the time; 900 kernels are launched" in text
    assert "7.500 ms     12  matrix products: nvjet_x" in text


def test_kernels_have_kinds() -> None:
    from benchmarks.profiling import kind_of_kernel

    for name, kind in {
        "nvjet_tst_128x256_64x4_2x1_v_bz_coopA_TNT": "matrix products",
        "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits>": "attention",
        "triton_per_fused_native_layer_norm_0": "compiled (Triton)",
        "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float>": "norms",
        "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdam>": "optimizer",
        "void at::native::elementwise_kernel<128, 2, gelu>": "element by element",
        "Memcpy HtoD (Pinned -> Device)": "copies and fills",
        "something_else": "other",
    }.items():
        assert kind_of_kernel(name) == kind
