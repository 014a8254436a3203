"""The configuration of fine-tuning and of prediction."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt, Le, Lt

from bert.card import CardConfig
from bert.config import NonNegativeInt, PositiveInt, Probability, Table
from bert.data.records import FileConfig
from bert.training.config import OptimizerConfig, ScheduleConfig, TrackingConfig, TrainingConfig

KINDS = Table(
    single_label="finetune.tasks.texts:SINGLE_LABEL",
    multi_label="finetune.tasks.texts:MULTI_LABEL",
    regression="finetune.tasks.texts:REGRESSION",
    token_classification="finetune.tasks.tokens:TOKEN_CLASSIFICATION",
    question_answering="finetune.tasks.questions:QUESTION_ANSWERING",
    multiple_choice="finetune.tasks.choices:MULTIPLE_CHOICE",
)
"""The kinds of tasks."""
LONG_TEXTS = Table(
    cut="bert.data.windows:head",
    head_tail="bert.data.windows:head_and_tail",
    windows="bert.data.windows:windows",
)
"""What becomes of a text that is too long."""


RESULTS = "results.json"
PREDICTIONS = "predictions"
"""folder of the predictions for the validation and the test texts"""
SUBMISSION = "submission"
"""folder of the files for a leaderboard"""
RUNS = "runs"
"""folder of the runs of a table, in the folder of the whole"""


@dataclass(frozen=True)
class LocalConfig:
    """How the files of a benchmark differ from its data set on the hub."""

    train: str | None = None
    """file to train on, in task.folder"""
    validation: str | None = None
    """file that chooses the best checkpoint, in task.folder"""
    test: str | None = None
    """file with labels on which the finished model is measured, in task.folder"""
    other_tests: dict[str, str] | None = None
    """as task.other_tests, with files in task.folder"""
    unlabelled: dict[str, str] | None = None
    """as task.unlabelled, with files in task.folder"""
    text_column: str | None = None
    """column of the text"""
    pair_column: str | None = None
    """column of the second text"""
    label_column: str | None = None
    """column of the label"""
    columns: list[str] | None = None
    """names of the columns of files without a header line"""
    labels: dict[str, str] | None = None
    """label in the files → its name"""


@dataclass(frozen=True)
class TaskConfig(FileConfig):
    kind: Annotated[str, KINDS] = "single_label"
    """what is predicted: one label a text, any number of labels a text, a number a text, a label for each word, the
    answer to a question in a text, or one of several choices"""
    dataset: str | None = None
    """dataset of the Hugging Face hub, NAME or NAME:CONFIGURATION; train, validation, test name its splits"""
    train: str = "train"
    """file (or split) to train on"""
    validation: str | None = None
    """file (or split) that chooses the best checkpoint; without one, a share of train is held out"""
    test: str | None = None
    """file (or split) on which the finished model is measured, once"""
    other_tests: dict[str, str] = field(default_factory=dict)
    """further files (or splits) with labels, by the name that results give them; measured once, as the test"""
    unlabelled: dict[str, str] = field(default_factory=dict)
    """file of a submission, .tsv (GLUE) or .jsonl (SuperGLUE) → the file without labels (or split, or
    NAME:CONFIGURATION:SPLIT of the hub) whose predictions are in it; tables have a header line. See submission"""
    submission_labels: dict[str, int | str] = field(default_factory=dict)
    """name of a label → what a submission says for it; by default the name"""
    index_column: str | None = None
    """column of the number of an example in a submission; by default the place in its file, from 0"""
    folder: str | None = None
    """folder of the files; with it the values of local stand in for dataset and its columns"""
    local: LocalConfig | None = None
    """how the files in folder are called, and what differs in them from the data set of the hub"""
    validation_share: Annotated[float, Gt(0), Lt(1)] = 0.1
    """share of train that is held out if there is no validation file"""
    train_share: Annotated[float, Gt(0), Le(1)] = 1.0
    """share of the training rows that is used, after validation_share is held out; a larger share has all rows of a
    smaller one"""
    text_column: str = "text"
    """column of the text, or several in a text around them: "{word}: {sentence}"; {idx[question]} is the part of a
    column that has parts"""
    pair_column: str | None = None
    """column of the second text, for a task on pairs, or several, as in text_column"""
    label_column: str = "label"
    """column of the label"""
    token_column: int | str | None = None
    """token_classification: column of the words, by name or number, from 0; by default tokens, of a CoNLL file the
    first. Rows without one are texts, whose words are found by spaces and punctuation"""
    tag_column: int | str | None = None
    """token_classification: column of the words' tags, by name or number (-1 is the last); by default tags, of a
    CoNLL file the last one"""
    span_column: str = "spans"
    """token_classification of texts: column of the entities, a list of {start, end, label} in characters"""
    question_column: str = "question"
    """question_answering: column of the question"""
    context_column: str = "context"
    """question_answering: column of the text that has the answer"""
    answer_column: str = "answers"
    """question_answering: column of the answers, each a text and answer_start, where it begins in characters"""
    unanswerable: bool = False
    """question_answering: questions may have no answer (SQuAD 2.0), and the prediction may be empty"""
    choice_columns: list[str] = field(default_factory=lambda: ["choices"])
    """multiple_choice: columns of the choices, or one with a list of them; they stand behind pair_column, if given"""
    labels: list[str] | dict[str, str] | None = None
    """labels in order, or a mapping from the labels in the files to names; by default those of train, sorted"""
    label_separator: str = ","
    """separator between the labels of a multi_label text"""
    bad_rows: Literal["error", "skip"] = "error"
    """error: a row without text or without a valid label stops the run; skip: it is left out"""
    metric: str | None = None
    """metric that chooses the best checkpoint; the default is the first one. single_label: accuracy, macro_f1,
    matthews, with two classes also f1; multi_label: micro_f1, macro_f1, accuracy; regression: pearson, spearman;
    token_classification: f1, precision and recall of entities, accuracy of words, and where there are no entities
    macro_f1; question_answering: f1, exact_match; multiple_choice: accuracy; all: loss"""
    reported: list[str] = field(default_factory=list)
    """what of the task a table of many runs reports, and the mean of which is in the average: metrics, and those of
    other_tests as NAME.METRIC; by default metric"""
    group_column: str | None = None
    """single_label: column that says which rows belong together, e.g. all answers to a question, or several as in
    text_column; exact_match is then the share of groups with every row right"""
    from_task: str | None = None
    """with from_tasks: the task of the same table from whose finished model this one starts"""
    patience: NonNegativeInt = 0
    """early stopping: stop after this many evaluations in a row without a better one; 0 never stops early"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if taken := {"train", "validation", "test"} & self.other_tests.keys():
            raise ValueError(f"other_tests: {taken.pop()} is the name of another split; choose another name")
        if strange := [name for name in self.unlabelled if Path(name).suffix not in (".tsv", ".jsonl")]:
            raise ValueError(f"unlabelled: {strange[0]} does not end in .tsv or .jsonl")
        if self.folder is not None:
            self._locate(Path(self.folder))

    def _locate(self, folder: Path) -> None:
        """Become the same task on files in a folder, so that nothing else needs to know of folders."""
        if self.local is None and self.dataset is not None:
            raise ValueError(f"folder: local must say which files in it are those of {self.dataset}")
        values = (
            {}
            if self.local is None
            else {one.name: getattr(self.local, one.name) for one in fields(self.local)}
        )
        values = {name: value for name, value in values.items() if value is not None}
        for name in ("train", "validation", "test"):
            if (file := values.get(name, getattr(self, name))) is not None:
                values[name] = str(folder / file)
        for name in ("other_tests", "unlabelled"):
            files = values.get(name, getattr(self, name))
            values[name] = {key: str(folder / file) for key, file in files.items()}
        for name, value in {**values, "dataset": None, "folder": None, "local": None}.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class ModelConfig:
    from_: str
    """run folder or checkpoint folder to start from, ours or Hugging Face's"""
    pretrained: bool = True
    """start from its weights; false: same shape and tokenizer, but random weights (a baseline)"""
    dropout: Probability | None = None
    """dropout of the embeddings, the layers and the head; by default the checkpoint's own"""
    attention_dropout: Probability | None = None
    """dropout of the attention probabilities; by default the checkpoint's own"""
    frozen: bool = False
    """linear probing: train only the head; the encoder keeps its weights and has no dropout, unless dropout is given"""
    layer: PositiveInt | Literal["mix"] | None = None
    """layer that the head reads: a number, and the layers above it are left out; mix, a learnt mix of all layers, which
    only bert.load reads; by default the last"""
    pooling: Literal["cls", "mean"] | None = None
    """what a classifier of texts reads: the first token, or the mean of all tokens; by default the checkpoint's own"""


@dataclass(frozen=True)
class BatchConfig:
    sequences: PositiveInt = 32
    """batch size: texts (or pairs) of one optimizer step, over all processes"""
    max_length: PositiveInt = 128
    """longest sequence in tokens; of a pair the longer text is cut first"""
    long_texts: Annotated[str, LONG_TEXTS] = "cut"
    """what becomes of longer texts: cut, their end is left out; head_tail, a quarter is their head and the rest their
    tail; windows, each is read in several sequences, whose predictions are pooled. Of a pair, head_tail and windows
    divide the second text"""
    overlap: NonNegativeInt = 64
    """tokens that a window shares with the one before (stride in transformers), at most half of it"""
    micro_tokens: PositiveInt = 4096
    """most tokens of a micro-batch on one process; the steps of gradient accumulation follow from it"""
    layout: Literal["packed", "padded"] = "packed"
    """packed: sequence packing, without padding; padded: a sequence a row, padded to the longest"""


@dataclass(frozen=True)
class Range:
    """Numbers that a search draws from."""

    low: float
    """smallest value"""
    high: float
    """largest value"""
    log: bool = False
    """draw evenly on a logarithmic scale"""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError("high: must be larger than low")
        if self.log and self.low <= 0:
            raise ValueError("low: must be above 0 on a logarithmic scale")


@dataclass(frozen=True)
class FinetuneConfig:
    RECIPES = "finetune"

    run_dir: str
    """folder of the run: configuration, metrics, checkpoints and the finished model; of several runs: their folders
    and one table"""
    model: ModelConfig
    """what to start from"""
    task: TaskConfig = field(default_factory=TaskConfig)
    """what to learn"""
    tasks: list[str] = field(default_factory=list)
    """several tasks in one table: recipes of fine-tuning, by name or by path; each keeps its own
    settings, but for the keys that are given beside this one"""
    from_tasks: bool = False
    """a task with task.from_task starts, seed by seed, from the finished model of that task (STILTs, Phang et al.
    2018)"""
    submission: bool = False
    """predict the texts of task.unlabelled, too, and write RUN/submission as the leaderboard takes it"""
    seed: NonNegativeInt = 0
    """seed of the new head, the order of the texts and dropout"""
    seeds: PositiveInt | list[NonNegativeInt] | None = None
    """several runs in one table: their number (seeds 0, 1, …) or a list of seeds"""
    baselines: list[Literal["tfidf", "scratch"]] = field(default_factory=list)
    """what to compare with, beside the majority class: tfidf (words and pairs of words, logistic regression), scratch
    (the same encoder with random weights, trained the same way)"""
    calibrate: bool = False
    """temperature scaling: divide the logits by what makes the probabilities right on the validation texts; it is done
    in the finished model's last layer, so that every reader has it"""
    leakage: str | None = None
    """store of the pretraining text, in which the validation and test texts are looked for"""
    search: PositiveInt | None = None
    """search hyper-parameters by this many trials on the validation texts (Optuna), before the runs of the table"""
    search_space: dict[str, list[int | float | str] | Range] = field(default_factory=dict)
    """keys that the search varies: values to choose from, or {low, high, log}; by default learning rate, epochs, batch
    size, warm-up and dropout, and the overlap of windows for question_answering"""
    learning_curve: list[Annotated[float, Gt(0), Le(1)]] = field(default_factory=list)
    """shares of the training rows, e.g. [0.1, 0.3, 1.0]; each is trained on, with every seed"""
    resume: str = "auto"
    """auto: continue the run in run_dir; never: refuse if there is one; a path: go back to that checkpoint of this
    run, or start a new run from another run's checkpoint"""
    batch: BatchConfig = field(default_factory=BatchConfig)
    """what one optimizer step trains on: batch size, sequence packing, gradient accumulation"""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=5e-5))
    """optimizer, learning rate, weight decay, gradient clipping"""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """learning rate schedule: warm-up, shape, cool-down"""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(epochs=3, save_every=500, evaluate_every=100)
    )
    """length of the run, mixed precision, checkpoints"""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """what is logged and where"""
    card: CardConfig = field(default_factory=CardConfig)
    """what the model card says beside the measured: license, languages, datasets"""

    def __post_init__(self) -> None:
        if not self.tasks and self.task == TaskConfig():
            raise ValueError("task: is required; write it into the file or give task.train=… or tasks=[…]")
        if self.from_tasks and not self.tasks:
            raise ValueError("from_tasks: needs tasks=[…]; a single task starts from model.from")
        if self.submission and not self.tasks and not self.task.unlabelled:
            raise ValueError(
                "submission: task.unlabelled names no files without labels; name one for each file"
            )
        if self.seeds == []:
            raise ValueError("seeds: is an empty list; give some, or their number")

    @property
    def is_several(self) -> bool:
        """Whether the configuration is of several runs, which make one table."""
        return bool(
            self.tasks
            or self.seeds is not None
            or self.search
            or self.learning_curve
            or "scratch" in self.baselines
        )


@dataclass(frozen=True)
class PredictConfig(FileConfig):
    output: str | None = None
    """.jsonl, .csv or .tsv file for the predictions, JSON lines on stdout by default; if the input has a column
    prediction, ours is called prediction (2)"""
    text_column: str | None = None
    """column of the text; by default the one the model was fine-tuned on"""
    pair_column: str | None = None
    """column of the second text; by default the one the model was fine-tuned on"""
    micro_tokens: PositiveInt = 8192
    """most tokens of a batch"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 …; auto takes the GPU if there is one"""
