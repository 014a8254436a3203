"""What the documents repeat of the code is so; what they point to is there."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from bert.config import elsewhere, help_text, load
from bert.errors import UserError
from finetune.config import KINDS, FinetuneConfig
from pretrain.config import PretrainConfig

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_generated_is_as_it_would_be_now(generate: ModuleType) -> None:
    for name, renew in generate.RENEWED.items():
        document = (ROOT / name).read_text(encoding="utf-8")
        assert document == renew(document), f"{name}: run make docs"


@pytest.fixture(scope="module")
def keys(generate: ModuleType) -> set[str]:
    return {key.name for schema in generate.REFERENCES.values() for key in generate.keys_of(schema)}


@pytest.mark.parametrize(
    ("word", "here"),
    [
        ("mlm_probability=0.2", "mlm_probability: unknown key; here it is objective.mask_prob"),
        (
            "per_device_train_batch_size=8",
            "batch.sequences (a whole optimizer step: of all micro-batches on all",
        ),
        ("per_device_train_batch_size=8", "and batch.micro_tokens (tokens that one process holds at a time"),
        ("training.max_steps=8", "training.max_steps: unknown key; here it is training.steps"),
        ("max_duration=1ep", "here it is training.steps (max_duration in ba) and training.tokens"),
        ("optimizer.lr=1e-3", "optimizer.lr: unknown key; here it is optimizer.learning_rate"),
        ("learning_rate=1e-3", "here it is optimizer.learning_rate"),
    ],
)
def test_a_name_of_another_toolkit_is_refused_with_ours(word: str, here: str) -> None:
    with pytest.raises(UserError) as refusal:
        load(PretrainConfig, None, [word])
    assert here in str(refusal.value)


def test_names_elsewhere_are_of_keys_that_exist(keys: set[str]) -> None:
    assert [row.key for row in elsewhere.TABLE if row.key not in keys] == []


def test_help_names_every_metric_that_may_choose_the_best_checkpoint(generate: ModuleType) -> None:
    helped = next(key.help for key in generate.keys_of(FinetuneConfig) if key.name == "task.metric")
    known = {metric for kind in KINDS.values() for metric in kind.metrics}
    for kind in KINDS:
        named = re.search(rf"{kind}: ([^;]*)", helped)
        assert named is not None
        words = re.findall(r"\w+", named[1])
        assert words[0] == KINDS[kind].metrics[0], "the default"
        assert {word for word in words if word in known} == set(KINDS[kind].metrics)


def test_help_finds_a_key_by_the_name_it_has_elsewhere() -> None:
    for schema in (PretrainConfig, FinetuneConfig):
        lines = help_text(schema, "usage").splitlines()
        for name, key in {
            "gradient_accumulation_steps (transformers)": "batch.micro_tokens",
            "lr_scheduler_type (transformers)": "schedule.name",
            "device_train_microbatch_size (ModernBERT)": "batch.micro_tokens",
            "save_checkpoints_steps (Google's BERT)": "training.save_every",
            "max_seq_length (transformers, Google's BERT)": "batch.max_length",
        }.items():
            assert [line.split(":")[0].strip() for line in lines if name in line] == [key]


@pytest.mark.parametrize(
    "term, key",
    {
        "gradient accumulation": "batch.micro_tokens",
        "sequence packing": "batch.layout",
        "mixed precision": "training.precision",
        "early stopping": "task.patience",
        "dynamic masking": "objective.masking",
        "validation loss": "training.evaluate_every",
        "gradient checkpointing": "model.gradient_checkpointing",
        "gradient clipping": "optimizer.max_grad_norm",
        "optimizer state": "training.precision",
        "weight decay": "optimizer.weight_decay",
        "warm-up": "schedule.warmup",
    }.items(),
)
def test_help_and_guides_use_the_terms_of_the_field(generate: ModuleType, term: str, key: str) -> None:
    helps = {
        row.name: row.help for schema in generate.REFERENCES.values() for row in generate.keys_of(schema)
    }
    assert term in helps[key]
    assert term in (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_keys_that_are_named_exist(document: Path, keys: set[str]) -> None:
    sections = "|".join({key.partition(".")[0] for key in keys if "." in key})
    code = re.findall(
        r"`[^`\n]*`|^```\w*$.*?^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    named = set(re.findall(rf"(?<![\w./-])((?:{sections})\.\w+(?:\.\w+)?)\b(?!\()", "\n".join(code)))
    others = {
        "model.safetensors",
        "model.safetensors.index",
        "tokenizer.json",
        "optimizer.safetensors",
        "optimizer.lr",
        "evaluation.json",
    }
    entries = {
        name for name in named if name.rpartition(".")[0] in keys
    }  # of a mapping: evaluation.also.NAME
    assert sorted(named - keys - others - entries) == []


def test_every_key_has_a_line_of_help(generate: ModuleType) -> None:
    missing = [
        key.name
        for schema in generate.REFERENCES.values()
        for key in generate.keys_of(schema)
        if not key.help
    ]
    assert missing == []


def test_every_module_says_what_it_is(generate: ModuleType) -> None:
    files = [path for package in generate.PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert [str(path) for path in files if not generate.summary(path)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    named = set(
        re.findall(
            r"(?<![\w/])(?:configs|docs|benchmarks|demo)/[\w/.-]+\.(?:yaml|md|py)\b",
            document.read_text(encoding="utf-8"),
        )
    )
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_places_that_are_named_exist() -> None:
    """docs/architecture.md names a file of the code, and often what to look for in it."""
    document = (
        (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## The tree of files")[0]
    )
    named = re.findall(r"`((?:bert|pretrain|finetune|tests)/[\w/.]*)`(?:: `(\w+)`)?", document)
    assert len(named) > 30
    missing = [
        f"{path}: {name}"
        for path, name in named
        if not (ROOT / path).exists()
        or (
            name
            and not re.search(
                rf"^ *(?:def|class) {name}\b|^{name}\b.*=", (ROOT / path).read_text("utf-8"), re.M
            )
        )
    ]
    assert missing == []


def test_figures_are_used_and_small() -> None:
    folder = ROOT / "docs" / "images" / "how"
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "how-it-works").glob("*.md"))
    for path in folder.iterdir():
        assert path.stat().st_size < 60_000, path
        assert f"](../images/how/{path.name})" in text, f"{path.name} stands in no chapter"
