"""Every shipped recipe, as a user types it and in tiny form: killed, stopped, finished by the same command.

What comes out is that of a run left alone, bit for bit, and a folder that transformers loads. Sizes are made
smaller: of the model, the vocabulary, the text, the steps and what is in a step. All else is the recipe's own.
"""

import json
import random
import re
import signal
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import transformers

import bert
from bert import cli
from bert import config as configuration
from bert.config import yaml12
from bert.tokenizer import Tokenizer
from bert.training.distributed import EXIT_INTERRUPTED
from bert.training.logging import read_metrics
from finetune.config import FinetuneConfig, TaskConfig
from finetune.tasks.kind import columns_in
from pretrain.config import PretrainConfig
from pretrain.prepare import ensure_store
from pretrain.tokenizer import ensure_tokenizer
from tests.glue_files import write_glue, write_superglue
from tests.processes import ROOT, Runs

pytestmark = [pytest.mark.slow, pytest.mark.launch]

PRETRAIN = [*sorted((ROOT / "configs" / "pretrain").glob("*.yaml")), ROOT / "demo" / "pretrain.yaml"]
EVERY = [*sorted((ROOT / "configs" / "finetune").rglob("*.yaml")), ROOT / "demo" / "finetune.yaml"]
SUITES = {"glue": write_glue, "superglue": write_superglue}
"""recipes of several tasks, and what writes their files"""
FINETUNE = [path for path in EVERY if path.parent.name != "finetune" or path.stem not in SUITES]
SHAPE = ("model.num_layers=3", "model.hidden_size=32", "model.num_heads=2", "model.intermediate_size=48")
STEPS, SEQUENCES = 60, 4
PROCESSES = 2
"""recipes under way at once; each process computes on one core"""
COMMON = (
    "training.save_every=10",
    "training.evaluate_every=20",
    "tracking.log_every=1",
    "tracking.wandb=off",
)
OWN = {"README.md", "training_state.json", "manifest.json", "finetune.yaml"}
"""files that tell where a run lies, or how long it took"""
MACHINE = re.compile("second|memory|wait|mfu|readings")
"""figures of a machine, not of what it learns"""


def name(recipe: Path) -> str:
    return "-".join(recipe.relative_to(ROOT).with_suffix("").parts[-2:])


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of short documents in English and in Chinese."""
    from pydoc_data.topics import topics

    folder, draw = tmp_path_factory.mktemp("texts"), random.Random(0)
    for number, text in enumerate(list(topics.values())[:20]):
        characters = "".join(draw.choices("的一是了我不人在他有这上们来到时大地为子中你说生国年", k=200))
        chinese = "。".join(characters[at : at + 12] for at in range(0, 200, 12))
        (folder / f"{number}.txt").write_text(f"{text[:1000]}\n\n{chinese}。\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def prepared(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """From a recipe's tokenizer to words that name one like it, and a store, which are made once."""
    made: dict[str, tuple[str, ...]] = {}

    def words(recipe: Path) -> tuple[str, ...]:
        tiny = ("tokenizer.vocab_size=500", f"corpus.files={texts}", "corpus.heldout_share=0.1")
        tiny = (*tiny, "prepare.workers=1")
        config = configuration.load(PretrainConfig, recipe, tiny)
        key = repr(config.tokenizer)
        if key not in made:
            folder = tmp_path_factory.mktemp("prepared")
            made[key] = (*tiny, f"tokenizer.path={folder}/tokenizer", f"prepare.store={folder}/store")
            config = configuration.load(PretrainConfig, recipe, made[key])
            ensure_tokenizer(config)
            ensure_store(config)
        return made[key]

    return words


@pytest.fixture(scope="session")
def encoder(prepared: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a small BERT, with dropout."""
    tokenizer = Tokenizer.load(
        next(w for w in prepared(PRETRAIN[0]) if "tokenizer.path" in w).partition("=")[2]
    )
    values = dict(word.removeprefix("model.").split("=") for word in SHAPE)
    shape = bert.EncoderConfig(vocab_size=tokenizer.vocab_size, **{k: int(v) for k, v in values.items()})
    folder = tmp_path_factory.mktemp("encoder") / "model"
    bert.save(bert.build(shape, "PretrainingModel"), folder, tokenizer)
    return folder


def pretraining_words(recipe: Path, texts: Path, prepared: Any, encoder: Path) -> tuple[str, ...]:
    """What makes a pretraining recipe tiny."""
    given = yaml12.load(recipe.read_text(encoding="utf-8"))
    config = configuration.load(PretrainConfig, recipe)
    words = [*COMMON, f"batch.sequences={SEQUENCES}", "evaluation.sequences=16", "prepare.workers=1"]
    longest = max([config.batch.max_length, *(phase.max_length or 0 for phase in config.batch.phases)])
    words += [f"batch.micro_tokens={2 * longest}", f"corpus.files={texts}", "corpus.heldout_share=0.1"]
    if config.model.from_ is not None:
        words += [f"model.from={encoder}"]
    elif recipe.parent.name == "demo":  # makes its tokenizer and its store itself
        words += [*SHAPE, "tokenizer.vocab_size=500"]
    else:
        words += [*SHAPE, *prepared(recipe)]
    if phases := given["batch"].get("phases"):
        most = max(phase.get("sequences", 1) for phase in phases)
        for phase in phases:
            if "sequences" in phase:
                phase["sequences"] = max(1, phase["sequences"] * SEQUENCES // most)
        words += [f"batch.phases={json.dumps(phases)}"]
    if config.training.hours is not None:
        words += ["training.hours=null"]
    if config.training.compile:  # takes longer than such a run; tests/model/test_compile.py has it
        words += ["training.compile=false"]
    if config.training.epochs is None:
        words += [f"training.steps={STEPS}"]
    return tuple(words)


def finetuning_words(recipe: Path, encoder: Path, folder: Path) -> tuple[str, ...]:
    """What makes a fine-tuning recipe tiny: files of a few rows with its columns."""
    task = configuration.load(FinetuneConfig, recipe).task
    words = [*COMMON, f"model.from={encoder}", f"batch.sequences={SEQUENCES}", "task.dataset=null"]
    words += ["task.format=auto"] if task.format == "multirc" else []
    suffix = Path(task.train).suffix if task.dataset is None else ".jsonl"
    for split, count in (("train", 48), ("validation", 24), ("test", 16)):
        if getattr(task, split) is not None:
            file = folder / f"{split}{suffix}"
            write = FILES.get(task.kind)
            text = write(task) if write else content(rows(task, count, split), suffix, task.columns is None)
            file.write_text(text, encoding="utf-8")
            words += [f"task.{split}={file}"]
    if task.other_tests:
        words += [
            f"task.other_tests={{{name}: {folder / f'validation{suffix}'}}}" for name in task.other_tests
        ]
    return tuple(words)


def rows(task: TaskConfig, count: int, seed: str) -> list[dict[str, Any]]:
    """Texts whose words tell their label; where a recipe skips rows, one without text."""
    draw, found = random.Random(seed), []
    for number in range(count):
        label = draw.randrange(2)
        columns = [*columns_in(task.text_column), *columns_in(task.pair_column)]
        row: dict[str, Any] = {
            name: " ".join(draw.choices(("the value", "an object", "this class")[label:], k=6))
            for name in columns
        }
        group = str(number // 2)
        for name, key in re.findall(r"\{(\w+)(?:\[(\w+)\])?\}", task.group_column or ""):
            row[name] = {**row.get(name, {}), key: group} if key else group
        row[task.label_column] = round(4 * label + draw.random(), 2) if task.kind == "regression" else label
        if task.labels:
            row[task.label_column] = list(task.labels)[label]
        found.append(row if task.columns is None else {name: row.get(name, "") for name in task.columns})
    if task.bad_rows == "skip":
        found[0][task.text_column] = ""
    return found


def content(rows: list[dict[str, Any]], suffix: str, header: bool) -> str:
    """The rows as a file of a format; lines of text are TREC's."""
    if suffix == ".jsonl":
        return "".join(f"{json.dumps(row)}\n" for row in rows)
    if suffix == ".txt":
        return "".join(f"{('LOC', 'NUM')[row['label']]}:other {row['text']}\n" for row in rows)
    between = {".csv": ",", ".tsv": "\t"}[suffix]
    lines = [*([rows[0]] if header else []), *(row.values() for row in rows)]
    return "".join(f"{between.join(map(str, line))}\n" for line in lines)


def sentences(task: TaskConfig) -> str:
    """A CoNLL file: capital words are names."""
    draw = random.Random(0)
    words = [("The", "O"), ("value", "O"), ("Ada", "B-PER"), ("Byron", "I-PER"), ("Rome", "B-LOC")]
    blocks = (["{} X {}\n".format(*one) for one in draw.choices(words, k=6)] for _ in range(60))
    return "\n".join(map("".join, blocks))


def squad(task: TaskConfig) -> str:
    """SQuAD's JSON: the answer is always the name."""
    draw = random.Random(0)
    asked = []
    for number in range(60):
        words = draw.choices(["the", "value", "an", "object"], k=60)
        words[draw.randrange(60)] = "Ada Byron"
        context = " ".join(words)
        answer = {"text": "Ada Byron", "answer_start": context.index("Ada")}
        question = {"id": str(number), "question": "Who is named?", "answers": [answer]}
        asked.append({"context": context, "qas": [question]})
    return json.dumps({"data": [{"title": "Names", "paragraphs": asked}]})


def choices(task: TaskConfig) -> str:
    """The right choice is always the one with the name."""
    draw = random.Random(0)
    found = []
    for _ in range(60):
        label = draw.randrange(2)
        pair = ["the value", "an object"]
        pair[label] = "Ada Byron"
        names = task.choice_columns
        row = dict.fromkeys(columns_in(task.text_column), "this class")
        row |= {names[0]: pair} if len(names) == 1 else dict(zip(names, pair, strict=True))
        found.append(row | {task.label_column: list(task.labels)[label] if task.labels else label})
    return "".join(f"{json.dumps(row)}\n" for row in found)


FILES: dict[str, Callable[[TaskConfig], str]] = {
    "token_classification": sentences,
    "question_answering": squad,
    "multiple_choice": choices,
}
"""By kind of task, the file of a split, where it is not a table of texts."""
LOADERS = {
    "token_classification": transformers.AutoModelForTokenClassification,
    "question_answering": transformers.AutoModelForQuestionAnswering,
    "multiple_choice": transformers.AutoModelForMultipleChoice,
}
"""By kind of task, transformers' class that loads the model, where it does not classify texts."""


def run_both(runs: Runs, words: tuple[str, ...], launcher: str = "python") -> None:
    """A run that is left alone, beside one that is killed, stopped and finished by the same command."""
    runs.run("whole", *words, launcher=launcher)
    killed = runs.start("parts", *words, launcher=launcher)
    runs.wait_for(lambda: runs.saved("parts") > 0, killed)
    runs.kill(killed)
    saved, before = runs.saved("parts"), runs.step("parts")
    assert saved, "it ended before its first checkpoint"
    stopped = runs.start("parts", *words, launcher=launcher)
    runs.wait_for(lambda: runs.step("parts") > before, stopped)
    runs.kill(stopped, signal.SIGTERM)
    output, _ = stopped.communicate(timeout=120)
    assert f"stopped and saved after step {runs.step('parts')}" in output, output
    assert launcher != "python" or stopped.returncode == EXIT_INTERRUPTED, output
    runs.run("parts", *words, launcher=launcher)
    assert before < runs.step("parts") == runs.step("whole")


def assert_same(runs: Runs) -> None:
    """What both runs learnt, measured and left is the same, bit for bit."""
    folders = [runs.folder / name for name in ("whole", "parts")]
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        lines = [[without_times(line) for line in read_metrics(folder / name)] for folder in folders]
        assert lines[0] == lines[1] and lines[0], name
    last = [runs.checkpoints(folder.name)[-1] for folder in folders]
    for kept in (last, [folder / "model" for folder in folders]):
        names = [
            {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} for folder in kept
        ]
        assert names[0] == names[1]
        for name in names[0] - OWN:
            assert (kept[0] / name).read_bytes() == (kept[1] / name).read_bytes(), name
    assert "optimizer.safetensors" in {file.name for file in last[0].iterdir()}


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    """What a line says of the learning, not of the machine."""
    return {key: value for key, value in line.items() if not MACHINE.search(key)}


def assert_loads(folder: Path, auto: Any) -> None:
    """transformers loads a folder with nothing missing, and computes the same from it."""
    _, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    transformers.AutoTokenizer.from_pretrained(folder)
    assert cli.main(["verify", str(folder)]) == 0


@pytest.fixture(scope="session")
def carried_out(
    request: pytest.FixtureRequest, texts: Path, prepared: Any, encoder: Path, tmp_path_factory: Any
) -> Iterator[Callable[[Path], Runs]]:
    """From a recipe to its runs, when they are done; those of all recipes to be tested are under way."""
    tested = [item for item in request.session.items if "carried_out" in getattr(item, "fixturenames", ())]
    every: dict[Path, Runs] = {}
    futures: dict[Path, Future[None]] = {}
    with ThreadPoolExecutor(PROCESSES) as pool:
        for recipe in [item.callspec.params["recipe"] for item in tested]:
            runs = every[recipe] = Runs(recipe.relative_to(ROOT), tmp_path_factory.mktemp(name(recipe)))
            if recipe in PRETRAIN:
                words = pretraining_words(recipe, texts, prepared, encoder)
            else:
                runs.command, words = "finetune", finetuning_words(recipe, encoder, runs.folder)
            launcher = "single" if recipe.parent.name == "demo" else "python"
            futures[recipe] = pool.submit(run_both, runs, words, launcher)

        def result(recipe: Path) -> Runs:
            futures[recipe].result()
            return every[recipe]

        yield result
        pool.shutdown(wait=False, cancel_futures=True)
        for runs in every.values():
            runs.end()


@pytest.mark.parametrize("recipe", PRETRAIN, ids=name)
def test_a_pretraining_recipe(recipe: Path, carried_out: Any) -> None:
    runs = carried_out(recipe)
    assert_same(runs)
    assert_loads(runs.folder / "parts" / "model", transformers.AutoModelForMaskedLM)


@pytest.mark.parametrize("recipe", FINETUNE, ids=name)
def test_a_fine_tuning_recipe(recipe: Path, carried_out: Any) -> None:
    runs = carried_out(recipe)
    assert_same(runs)
    results = [json.loads((runs.folder / run / "results.json").read_text()) for run in ("whole", "parts")]
    assert without_times(results[0]) == without_times(results[1])
    kind = configuration.load(FinetuneConfig, recipe).task.kind
    loader = LOADERS.get(kind, transformers.AutoModelForSequenceClassification)
    assert_loads(runs.folder / "parts" / "model", loader)


@pytest.mark.parametrize("recipe", SUITES)
def test_a_recipe_of_several_tasks(recipe: str, encoder: Path, tmp_path: Path) -> None:
    """On the benchmark's own files: killed after its first task, and finished by the same command."""
    SUITES[recipe](tmp_path / "files", ["value", "object", "class", "the"])
    runs = Runs(Path(recipe), tmp_path, "finetune")
    words = [f"task.folder={tmp_path / 'files'}", f"model.from={encoder}", *COMMON]
    words += ["training.epochs=null", "training.steps=2", "submission=true", "from_tasks=true"]
    tasks = [Path(task).stem for task in configuration.load(FinetuneConfig, recipe).tasks]
    first = tmp_path / "run" / "runs" / tasks[0] / "seed-0" / "results.json"
    try:
        killed = runs.start("run", *words)
        runs.wait_for(first.exists, killed)
        runs.kill(killed)
        before = first.stat().st_mtime_ns
        runs.run("run", *words)
    finally:
        runs.end()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["finished"] and set(results["tasks"]) == set(tasks)
    assert first.stat().st_mtime_ns == before
    scores = [one["score"]["median"] for one in results["details"].values()]
    assert results["average"]["median"] == pytest.approx(sum(scores) / len(tasks))
    assert {name for name, one in results["details"].items() if "from_task" in one} == (
        {"mrpc", "rte", "stsb"} if recipe == "glue" else set()
    )
    with zipfile.ZipFile(tmp_path / "run" / "submission" / "seed-0.zip") as archive:
        files = {Path(name).stem for name in archive.namelist()}
    assert len(files) == len(tasks) + 2 * (recipe == "glue")  # MNLI has three


BY_THE_CLOCK = [
    recipe for recipe in PRETRAIN if "hours" in yaml12.load(recipe.read_text(encoding="utf-8"))["training"]
]


@pytest.mark.parametrize("recipe", BY_THE_CLOCK, ids=name)
def test_a_recipe_by_the_clock_keeps_its_number_of_steps(
    recipe: Path, texts: Path, prepared: Any, encoder: Path, tmp_path: Path
) -> None:
    """Some seconds in place of hours: killed when the number is fixed, stopped, finished by the same command."""
    runs, seconds = Runs(recipe.relative_to(ROOT), tmp_path), 8
    words = pretraining_words(recipe, texts, prepared, encoder)
    words = (*(word for word in words if not word.startswith(("training.hours", "training.steps"))),)
    words = (*words, f"training.hours={seconds / 3600}")

    def state() -> Any:
        newest = runs.checkpoints("parts")[-1:]
        return json.loads((newest[0] / "training_state.json").read_text())["run"] if newest else {}

    try:
        killed = runs.start("parts", *words)
        runs.wait_for(lambda: bool(state().get("pace")), killed)
        runs.kill(killed)
        fixed, before = state()["pace"]["steps"], runs.step("parts")
        stopped = runs.start("parts", *words)
        runs.wait_for(lambda: runs.step("parts") > before, stopped)
        runs.kill(stopped, signal.SIGTERM)
        runs.finish(stopped, EXIT_INTERRUPTED)
        runs.run("parts", *words)
    finally:
        runs.end()
    pace = state()["pace"]
    assert pace["steps"] == fixed >= pace["from_step"] + pace["length"] == runs.step("parts") > before
    assert state()["seconds"] < 3 * seconds
