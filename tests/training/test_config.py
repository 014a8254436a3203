"""The configuration system: filled from files and words, refused in one line, explained by its schema."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert import config
from bert.config import NonNegativeInt, PositiveFloat, PositiveInt, Probability, yaml12
from bert.errors import UserError, run_command


@dataclass(frozen=True)
class Ramp:
    start: Probability
    """value at the first step"""
    end: Probability
    """value at the last step"""


@dataclass(frozen=True)
class Shape:
    layers: PositiveInt = 2
    """number of layers"""
    dropout: Probability = 0.1
    """share of activations
    set to zero"""


@dataclass(frozen=True)
class Model(Shape):
    from_: str | None = None
    """checkpoint to go on from"""


@dataclass(frozen=True)
class Schedule:
    name: Literal["linear", "cosine", "constant"] = "linear"
    """shape"""
    warmup: PositiveFloat = 0.1
    """share of the run"""
    cooldown: PositiveFloat = 0.1
    """share of the run"""

    def __post_init__(self) -> None:
        if self.warmup + self.cooldown > 1:
            raise ValueError("cooldown: exceeds the run; shorten it")


@dataclass(frozen=True)
class Source:
    files: list[str]
    """files of the source"""
    weight: PositiveFloat = 1.0
    """share in the mixture"""


@dataclass(frozen=True)
class Run:
    run_dir: str
    """folder of the run"""
    seed: NonNegativeInt = 0
    """seed"""
    rate: PositiveFloat = 1e-3
    """learning rate"""
    tracker: Literal["auto", "off"] = "auto"
    """tracker"""
    compile: bool = False
    """compile the model"""
    cache: Path | None = None
    """cache folder"""
    betas: tuple[float, float] = (0.9, 0.999)
    """decays"""
    masking: Probability | Ramp = 0.15
    """a constant or a ramp"""
    factors: dict[str, PositiveFloat] = field(default_factory=dict)
    """factors by name"""
    model: Model = field(default_factory=Model)
    """the encoder"""
    schedule: Schedule = field(default_factory=lambda: Schedule(warmup=0.5))
    """the rate over the run"""
    sources: list[Source] = field(default_factory=list)
    """a mixture"""


def run(*words: str, file: Path | None = None) -> Run:
    return config.load(Run, file, ["run_dir=r", *words])


def refusal(*words: str, file: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        run(*words, file=file)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return Path(name)

    return write


# ---------------------------------------------------- values


@pytest.mark.parametrize(("text", "value"), [("5e-4", 5e-4), ("1E6", 1e6), ("1", 1), (".5", 0.5), ("2.", 2)])
def test_numbers_are_numbers(text: str, value: float) -> None:
    assert run(f"rate={text}").rate == value


def test_a_count_may_be_written_with_an_exponent() -> None:
    seed = run("seed=1e6").seed
    assert seed == 1_000_000
    assert isinstance(seed, int)


def test_off_is_a_word_and_only_true_and_false_are_booleans() -> None:
    assert run("tracker=off").tracker == "off"
    assert run("compile=true").compile is True
    assert yaml12.load("[yes, no, on, off, true, FALSE]") == ["yes", "no", "on", "off", True, False]


@pytest.mark.parametrize("text", ["*.txt", "a: b", "{x", "[MASK] it", "@home", "%d", "what #1"])
def test_words_of_the_command_line_are_text_unless_they_open_a_list_or_a_mapping(text: str) -> None:
    if text[0] in "[{":
        assert "run_dir" in refusal(f"run_dir={text}")
    else:
        assert run(f"run_dir={text}").run_dir == text


def test_a_number_given_for_text_is_text() -> None:
    assert run("run_dir=2024").run_dir == "2024"


def test_octal_looking_numbers_are_decimal() -> None:
    assert yaml12.load("a: 010\nb: 0x10\nc: 0o10") == {"a": 10, "b": 16, "c": 8}


def test_lists_mappings_and_paths() -> None:
    loaded = run("betas=[0.9, 0.98]", "cache=some/where", "factors={a: 0.5}", "factors.b=2")
    assert loaded.betas == (0.9, 0.98)
    assert loaded.cache == Path("some/where")
    assert loaded.factors == {"a": 0.5, "b": 2.0}
    assert run("cache=").cache is None


def test_one_value_stands_for_a_list_of_one() -> None:
    assert run("sources={files: a.txt, weight: 2}").sources == [Source(["a.txt"], 2.0)]


def test_a_trailing_underscore_is_not_written() -> None:
    assert run("model.from=some/checkpoint").model.from_ == "some/checkpoint"
    assert config.to_dict(run())["model"]["from"] is None
    assert "unknown key" in refusal("model.from_=x")


# ---------------------------------------------------- files and sections


def test_a_file_then_words(write) -> None:
    file = write("run.yaml", "seed: 7\nmodel:\n  layers: 3\nmodel.dropout: 0\n")
    loaded = run("model.layers=4", file=file)
    assert (loaded.seed, loaded.model) == (7, Model(layers=4, dropout=0.0))


def test_a_section_may_name_a_file_beside_it_or_below_the_current_folder(write) -> None:
    write("models/big.yaml", "layers: 24\n")
    write("configs/small.yaml", "layers: 1\n")
    file = write("configs/run.yaml", "model: small.yaml\n")
    assert run(file=file).model.layers == 1
    assert run("model=models/big.yaml", file=file).model.layers == 24


def test_words_apply_on_top_of_a_named_file_whatever_their_order(write) -> None:
    write("big.yaml", "layers: 24\ndropout: 0.2\n")
    words = ["model.dropout=0", "model=big.yaml"]
    assert run(*words).model == run(*reversed(words)).model == Model(layers=24, dropout=0.0)
    assert run("seed=1", "seed=2").seed == 2


def test_a_section_starts_from_its_own_default() -> None:
    assert run("schedule.name=cosine").schedule == Schedule("cosine", warmup=0.5)
    assert config.from_dict(Run, {"run_dir": "r", "schedule": {"name": "cosine"}}).schedule.warmup == 0.5


def test_an_empty_file_and_an_empty_section_are_defaults(write) -> None:
    assert run(file=write("empty.yaml", "")) == run()
    assert run(file=write("section.yaml", "model:\n")) == run()


def test_a_union_of_a_value_and_a_section() -> None:
    assert run("masking=0.3").masking == 0.3
    assert run("masking.start=0.3", "masking.end=0.15").masking == Ramp(0.3, 0.15)
    assert run("masking={start: 0.3, end: 0.1}").masking == Ramp(0.3, 0.1)


# ---------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("sed=1", ["command line: sed: unknown key", "did you mean seed?"]),
        ("model.layer=1", ["model.layer: unknown key", "did you mean model.layers?"]),
        ("layers=1", ["layers: unknown key", "did you mean model.layers?"]),
        ("zzz=1", ["zzz: unknown key", "known here: run_dir, seed"]),
        ("output_dir=x", ["output_dir: unknown key; here it is run_dir"]),
        ("model.num_hidden_layers=1", ["model.num_hidden_layers: unknown key", "known here: layers"]),
        ("seed.x=1", ["seed.x: unknown key", "seed has no keys below it"]),
        ("rate=fast", ["rate: fast is not allowed", "float > 0"]),
        ("rate=0", ["rate: 0 is not allowed", "float > 0"]),
        ("rate=.inf", ["rate:", "is not allowed"]),
        ("model.layers=1.5", ["model.layers: 1.5 is not allowed", "int > 0"]),
        ("model.dropout=1.5", ["model.dropout: 1.5 is not allowed", "float 0..1"]),
        ("schedule.name=linaer", ["linaer is not allowed", "linear|cosine|constant", "did you mean linear?"]),
        ("compile=maybe", ["compile: maybe is not allowed", "true|false"]),
        ("betas=[0.9, much]", ["betas", "[float, float]"]),
        ("masking=2", ["masking: 2 is not allowed", "float 0..1 or {start, end}"]),
        ("masking.start=2", ["masking.start: 2 is not allowed", "float 0..1"]),
        ("masking={start: 0.2}", ["masking.end: is required"]),
        ("sources=[{weight: 2}]", ["sources.0.files: is required"]),
        ("sources=[{files: [a], weight: 0}]", ["sources.0.weight: 0 is not allowed"]),
        ("schedule.cooldown=0.9", ["command line: schedule.cooldown: exceeds the run; shorten it"]),
        ("model=nowhere.yaml", ["model: no file nowhere.yaml"]),
        ("model=3", ["model: 3 is not allowed", "{layers, dropout, from}"]),
        ("betas=[0.9", ["betas: '[0.9' is not a value", "line 1"]),
    ],
)
def test_a_refusal_names_key_and_source_and_what_is_allowed(word: str, parts: list[str]) -> None:
    message = refusal(word)
    assert all(part in message for part in parts), message


def test_a_refusal_names_the_file_that_the_key_came_from(write) -> None:
    write("big.yaml", "layers: none\n")
    file = write("run.yaml", "model: big.yaml\nrate: -1\n")
    assert refusal("rate=1", file=file).startswith("big.yaml: model.layers: none is not allowed")
    assert refusal("model.layers=1", file=file).startswith("run.yaml: rate: -1 is not allowed")
    write("big.yaml", "layer: 1\n")
    assert refusal(file=file).startswith("big.yaml: model.layer: unknown key")


def test_a_missing_key_is_named(write) -> None:
    with pytest.raises(UserError, match=r"run\.yaml: run_dir: is required.*run_dir=…"):
        config.load(Run, write("run.yaml", "seed: 1"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [1\n", "line 2"),
        ("seed: 1\nseed: 2\n", "line 2, column 1: seed is given twice"),
        ("- seed\n", "mapping of keys to values"),
        ("*.txt\n", "line 1"),
    ],
)
def test_a_file_that_is_no_configuration(write, text: str, part: str) -> None:
    message = refusal(file=write("bad.yaml", text))
    assert message.startswith("bad.yaml: ")
    assert part in message


def test_files_that_cannot_be_read(write, tmp_path: Path) -> None:
    write("configs/mini.yaml", "")
    assert refusal(file=Path("configs/mimi.yaml")).endswith("no such file (did you mean configs/mini.yaml?)")
    assert "cannot be read" in refusal(file=tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refusal(file=Path("binary.yaml"))


# ---------------------------------------------------- commands and help


def test_a_command_reads_a_file_and_words(write) -> None:
    file = write("run.yaml", "seed: 3")
    assert config.parse_command(Run, ["rate=1", str(file), "run_dir=r"], "usage").seed == 3
    assert config.parse_command(Run, ["run_dir=r"], "usage").seed == 0


@pytest.mark.parametrize("argv", [[], ["a.yaml", "b.yaml"], ["a.yaml", "--seed=1"], ["a.yaml", "--force"]])
def test_a_command_refuses_other_words(argv: list[str]) -> None:
    for usage in ("python -m x CONFIG\n\nDoes x.", "usage: python -m x CONFIG\n"):
        with pytest.raises(UserError, match="; usage: python -m x CONFIG"):
            config.parse_command(Run, argv, usage)


def test_help_lists_every_key_with_type_default_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        config.parse_command(Run, ["--help"], "python -m x CONFIG")
    assert not left.value.code
    text = capsys.readouterr().out
    assert text.startswith("python -m x CONFIG\n")
    for entry in (
        "run_dir=REQUIRED  (text)\n      folder of the run\n",
        "rate=0.001  (float > 0)\n      learning rate\n",
        "model.dropout=0.1  (float 0..1)\n      share of activations set to zero\n",  # from a base class
        "model.from=null  (text or none)\n      checkpoint to go on from\n",
        "schedule.warmup=0.5  (float > 0)",  # the section's own default, not its class's
        "schedule.name=linear  (linear|cosine|constant)",
        "masking=0.15  (float 0..1 or {start, end})",
        "masking.start=REQUIRED  (float 0..1)\n      value at the first step\n",
        "sources[].weight=1.0  (float > 0)\n      share in the mixture",
        "betas=[0.9, 0.999]  ([float, float])",
        "\nmodel: the encoder\n",
    ):
        assert entry in text, entry


def test_a_user_error_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(argv) -> None:
        raise UserError(f"{argv[0]}: no such thing")

    assert run_command(command, ["x"]) == 2
    assert capsys.readouterr().err == "error: x: no such thing\n"
    monkeypatch.setenv("RANK", "1")  # the other processes of a launch keep quiet
    assert run_command(command, ["x"]) == 2
    assert capsys.readouterr().err == ""
    assert run_command(lambda argv: None, []) == 0


# ---------------------------------------------------- there and back


def test_difference_names_what_changed() -> None:
    assert config.difference(run(), run()) == []
    changed = run("seed=1", "model.layers=4", "masking.start=0.3", "masking.end=0.1", "factors.a=2")
    assert config.difference(run(), changed) == [
        "seed: 0 → 1",
        "masking: 0.15 → (none)",
        "factors: {} → (none)",
        "model.layers: 2 → 4",
        "masking.start: (none) → 0.3",
        "masking.end: (none) → 0.1",
        "factors.a: (none) → 2.0",
    ]


def configs() -> st.SearchStrategy[Run]:
    text = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12)
    rate = st.floats(min_value=1e-300, max_value=1e300)
    share = st.floats(min_value=0, max_value=1)
    words = text | st.sampled_from(
        ["1e6", "off", "null", "~", "true", "010", "1_000", "2024-01-01", "a: b", " x "]
    )
    return st.builds(
        Run,
        run_dir=words,
        seed=st.integers(min_value=0, max_value=2**63),
        rate=rate,
        tracker=st.sampled_from(["auto", "off"]),
        compile=st.booleans(),
        cache=st.none() | st.sampled_from([Path("a/b"), Path("1e5")]),
        betas=st.tuples(share, share),
        masking=share | st.builds(Ramp, share, share),
        factors=st.dictionaries(text, rate, max_size=3),
        model=st.builds(Model, st.integers(1, 99), share, st.none() | words),
        sources=st.lists(st.builds(Source, st.lists(words, max_size=2), rate), max_size=2),
    )


@given(configs())
def test_what_is_dumped_loads_back_equal(value: Run) -> None:
    assert config.from_dict(Run, yaml12.load(config.dump(value))) == value
    assert config.from_dict(Run, config.to_dict(value)) == value


def test_what_is_saved_loads_back_equal(tmp_path: Path) -> None:
    value = run("model.from=off", "rate=1e-12", "masking.start=1", "masking.end=0.5", "cache=x")
    (tmp_path / "config.yaml").write_text(config.dump(value))
    assert config.load(Run, tmp_path / "config.yaml") == value


@given(st.sampled_from([f.name for f in dataclasses.fields(Shape)]), st.text(min_size=1, max_size=8))
def test_any_word_is_taken_or_refused_in_one_line(name: str, text: str) -> None:
    try:
        taken = run(f"model.{name}={text}").model
    except UserError as error:
        message = str(error)
    else:
        message = f"model.{name}: {getattr(taken, name)}"
    assert f"model.{name}: " in message
    assert len(message.splitlines()) == 1
