"""Model cards: what the hub reads in them, what they say of loading, and mistakes in what users give."""

import ast
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from tokenizers import normalizers

import bert
from bert import config as configuration
from bert.card import PLACE, CardConfig, hub_datasets, known_languages
from bert.errors import UserError
from bert.export import export_onnx
from bert.model.models import build
from bert.training.state import RunState
from finetune.config import KINDS, TaskConfig
from pretrain.card import model_card
from pretrain.config import PretrainConfig
from pretrain.evaluate import add_to_card
from tests.stores import write_documents

GIVEN = CardConfig(name="Klein", license="mit", language=["de"], base_model="owner/big", tags=["law"])
MEASURED = {"mlm_loss": 4.321, "perplexity": 75.26, "mlm_accuracy": 0.31, "unigram_loss": 6.5}


@pytest.fixture
def carded(folders: dict[str, Path], tmp_path: Path) -> Any:
    """Write the card of a pretrained model into its folder, RUN/model; returns the folder."""

    def write(
        name: str = "bert", state: RunState | None = None, normalizer: Any = None, **overrides: Any
    ) -> Path:
        model, tokenizer = bert.load(folders[name], overrides=overrides), bert.Tokenizer.load(folders[name])
        if normalizer is not None:
            tokenizer.backend.normalizer = normalizer
        store = write_documents(tmp_path / "store", [[[5, 6, 7]], [[8, 9]]])
        words = [
            "corpus.files=hf://datasets/allenai/c4/en/*.json.gz",
            f"run_dir={tmp_path}",
            "batch.max_length=32",
        ]
        config = replace(configuration.load(PretrainConfig, None, words), card=GIVEN)
        state = state or RunState(step=7, tokens=900, flops=3.2e15, seconds=7200.0, evaluation=MEASURED)
        card = model_card(config, model, tokenizer, store, "8 × NVIDIA H200", state)
        bert.save(model, tmp_path / "model", tokenizer, card=card)
        return tmp_path / "model"

    return write


def snippets(folder: Path) -> list[str]:
    text = (folder / "README.md").read_text(encoding="utf-8").replace("PATH OF THIS FOLDER", str(folder))
    return re.findall(r"```python\n(.*?)```", text, re.S)


def test_the_hub_reads_the_card(carded: Any) -> None:
    card = ModelCard.load(carded() / "README.md")
    data = card.data
    assert (data.license, data.language, data.base_model) == ("mit", ["de"], "owner/big")
    assert (data.library_name, data.pipeline_tag) == ("transformers", "fill-mask")
    assert data.datasets == ["allenai/c4"]
    assert data.tags == ["bert", "masked-language-modeling", "law"]
    assert data.model_name == "Klein"
    found = {result.metric_name: (result.metric_type, result.metric_value) for result in data.eval_results}
    assert found["perplexity of masked tokens"] == ("perplexity", 75.26)
    assert found["accuracy at masked tokens"] == ("accuracy", 0.31)
    assert "2 hours on 8 × NVIDIA H200, in bf16, 3.2e+15 floating-point operations" in card.text
    assert "sequences of up to 32 tokens; longer ones are untried" in card.text
    assert "It knows German, and no other language." in card.text


def test_what_the_card_says_of_loading_works(carded: Any) -> None:
    folder = carded()
    transformers, sentence_transformers, ours, onnx = snippets(folder)
    for text in (transformers, sentence_transformers, ours):
        exec(compile(text, "README.md", "exec"), {})
    ast.parse(onnx)
    assert all(len([line for line in text.splitlines() if line]) <= 4 for text in snippets(folder))


@pytest.mark.parametrize("pair_column", [None, "other"])
@pytest.mark.parametrize("name", KINDS)
def test_what_the_cards_of_tasks_say_of_loading_works(
    name: str, pair_column: str | None, folders: dict[str, Path], tmp_path: Path
) -> None:
    kind, task = KINDS[name], TaskConfig(kind=name, pair_column=pair_column)
    names = {"token_classification": ("O", "B-X"), "regression": ("score",), "multiple_choice": ()}
    problem = name if name in ("multi_label", "regression") else "single_label"
    labels = bert.Labels(names.get(name, ("no", "yes")), problem)
    encoder = bert.load(folders["bert"]).config
    model = build(encoder, kind.architecture, None if name == "question_answering" else labels)
    bert.save(model, tmp_path, bert.Tokenizer.load(folders["bert"]))
    for lines in (kind.in_transformers(task), f"import bert\n{kind.in_ours(task)}"):
        exec(compile(lines.replace(PLACE, str(tmp_path)), "README.md", "exec"), {})


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([], ""),
        ([normalizers.NFC()], ""),
        ([normalizers.Lowercase()], "It does not tell upper from lower case."),
        (
            [normalizers.NFD(), normalizers.StripAccents()],
            "It does not tell letters with accents from those without.",
        ),
        (
            [normalizers.BertNormalizer()],
            "It does not tell upper from lower case, nor letters with accents from those without.",
        ),
    ],
)
def test_the_card_says_what_the_tokenizer_does_not_tell_apart(
    carded: Any, steps: list[Any], said: str
) -> None:
    text = (carded(normalizer=normalizers.Sequence(steps)) / "README.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if "does not tell" in line] == [f"- {said}"] * bool(said)


@pytest.mark.slow
def test_what_the_card_says_of_onnx_works(carded: Any) -> None:
    folder = carded()
    *_, onnx = snippets(folder)
    exported = folder.parent / "exported"
    export_onnx(folder, exported)
    namespace: dict[str, Any] = {}
    exec(compile(onnx.replace("PATH OF THE ONNX FOLDER", str(exported)), "README.md", "exec"), namespace)
    assert namespace["session"].get_outputs()[0].name == "logits"


def test_a_model_that_transformers_cannot_compute_is_loaded_by_this_package(carded: Any) -> None:
    folder = carded("modernbert", norm_eps=1e-3, activation="relu", positions="sinusoidal")
    assert (
        "transformers has no architecture that computes the same: unlike "
        in (folder / "README.md").read_text()
    )
    (only,) = snippets(folder)
    exec(compile(only, "README.md", "exec"), {})
    assert ModelCard.load(folder / "README.md").data.library_name == "bert-pretraining"


def test_minimal_pairs_enter_the_card_once_and_name_their_scorer(carded: Any) -> None:
    folder = carded()
    blimp = {"accuracy": 0.6, "chance": 0.5, "phenomena": {"npi": 0.7}, "paradigms": {"npi_1": 0.7}}
    ewok = {"accuracy": 0.5, "chance": 0.5, "phenomena": {}, "paradigms": {"social": 0.5}}
    for share, scorer in ((0.5, "original"), (0.75, "within_word_l2r")):
        result: dict[str, Any] = {"scorer": scorer, "pairs": {"cats": share, "mean": share}}
        result["suite"] = {"sets": {"blimp": blimp, "ewok": ewok}}
        assert add_to_card(folder.parent, {"checkpoint": str(folder), **result})
    card = ModelCard.load(folder / "README.md")
    pairs = [result for result in card.data.eval_results if result.task_type == "minimal-pairs"]
    assert [(result.dataset_config, result.metric_value) for result in pairs] == [
        ("cats", 0.75),
        ("mean", 0.75),
        ("blimp", 0.6),
        ("blimp: npi", 0.7),
        ("ewok", 0.5),
        ("ewok: social", 0.5),
    ]
    assert all("(within_word_l2r), each token masked with" in result.metric_name for result in pairs)
    assert len(card.data.eval_results) == 6 + len(MEASURED) - 1
    assert card.text.count("## Minimal pairs") == card.text.count("## Recipe") == 1
    assert "| cats | 0.7500 | 0.5000 |" in card.text
    assert not add_to_card(
        folder.parent, {"checkpoint": str(folder.parent / "other"), "pairs": {"mean": 1.0}}
    )
    (folder / "README.md").write_text("# A card of the user\n", encoding="utf-8")
    assert not add_to_card(folder.parent, {"checkpoint": str(folder), **result})


def test_a_run_of_an_earlier_version_counted_no_operations(carded: Any) -> None:
    saved = asdict(RunState(step=7, tokens=900, seconds=3600.0))
    del saved["flops"]
    text = (carded(state=RunState.restored(saved)) / "README.md").read_text(encoding="utf-8")
    assert "Training took 1 hours on 8 × NVIDIA H200, in bf16.\n" in text
    assert "model-index" not in text


@pytest.mark.parametrize(
    ("word", "error"),
    [
        (
            "card.license=Apache-2",
            "card.license: 'Apache-2' is no license that the Hugging Face hub knows (did you mean",
        ),
        ("card.license=mine", "name another as license=other license_name=…"),
        ("card.license=other", "card.license: other needs a name; give it as license_name=…"),
        ("card.license_name=Mine", "card.license_name: is only for license=other; leave it out"),
        ("card.language=German", "card.language: 'German' is no code of ISO 639 (did you mean de?)"),
        ("card.language=[en, xx]", "card.language: 'xx' is no code of ISO 639; give codes such as en, de"),
        ("card.datasets=[my texts]", "card.datasets: 'my texts' is no name on the Hugging Face hub"),
        ("card.base_model=/data/big", "card.base_model: '/data/big' is no name on the Hugging Face hub"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_would_do(word: str, error: str) -> None:
    with pytest.raises(UserError) as refusal:
        configuration.load(PretrainConfig, None, [word])
    assert error in str(refusal.value)


def test_languages_and_datasets_that_the_hub_knows() -> None:
    assert known_languages().keys() > {"en", "eng", "de", "ger", "deu", "yue", "zh", "code", "multilingual"}
    assert known_languages()["zh"] == "Chinese"
    CardConfig(
        license="other", license_name="mine", language=["yue", "multilingual"], datasets=["squad", "a/b.c"]
    )
    places = [
        "hf://datasets/a/b/x.txt",
        "hf://datasets/a/b@main/y.txt",
        "my/files/*.txt",
        "https://a.org/datasets/a",
    ]
    assert hub_datasets(places) == ["a/b"]
