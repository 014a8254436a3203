"""Minimal pairs: files of sentences of which one is better, and how often a model finds it the more probable."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bert.data.records import FileConfig, Row, RowFile
from bert.errors import UserError
from bert.progress import progress_bar

if TYPE_CHECKING:
    from bert.inference.common import ModelSource

CHUNK = 2048
"""questions that are scored together"""


@dataclass(frozen=True)
class Question:
    """Texts of which the first is the right one, and where they count."""

    place: str
    """file and line, for messages"""
    texts: tuple[str, ...]
    starts: tuple[int, ...]
    """the character of each text from which on it is scored; what stands before is only read"""
    paradigm: str
    phenomenon: str | None = None
    field: str | None = None


class Form(NamedTuple):
    """A form of lines of JSON."""

    columns: tuple[str, ...]
    """those by which it is known"""
    read: Callable[[Row, str], Question]
    """takes a row, and the name of its file without the ending"""
    hint: str


PAIRS = "minimal pairs are lines of JSON with sentence_good and sentence_bad"


def _blimp(row: Row, stem: str) -> Question:
    """BLiMP (Warstadt et al. 2020); its supplement by BabyLM has the two sentences alone."""
    texts = row.text("sentence_good", PAIRS), row.text("sentence_bad", PAIRS)
    paradigm, phenomenon, field = (
        row.text(column, PAIRS) if column in row.values else None
        for column in ("UID", "linguistics_term", "field")
    )
    field = field and field.replace("syntax_semantics", "syntax/semantics")  # BLiMP has both
    return Question(row.place, texts, (0, 0), paradigm or stem, phenomenon, field)


def _ewok(row: Row, stem: str) -> Question:
    """EWoK (Ivanova et al. 2024) as BabyLM scores it: the two targets after the first context."""
    context, right, wrong, domain = (
        row.text(column, FORMS["ewok"].hint) for column in ("Context1", "Target1", "Target2", "Domain")
    )
    texts = f"{context} {right}", f"{context} {wrong}"
    return Question(row.place, texts, (len(context), len(context)), domain)


def _comps(row: Row, stem: str) -> Question:
    """COMPS (Misra et al. 2023) as BabyLM scores it: the property after the right and after the wrong concept."""
    right, wrong, phrase = (row.text(column, FORMS["comps"].hint) for column in FORMS["comps"].columns)
    return Question(
        row.place, (f"{right} {phrase}", f"{wrong} {phrase}"), (len(right) + 1, len(wrong) + 1), stem
    )


def _entity_tracking(row: Row, stem: str) -> Question:
    """Entity tracking (Kim and Schuster 2023) as BabyLM scores it: the first of some endings is the right one."""
    form = FORMS["entity_tracking"]
    before, endings = row.text("input_prefix", form.hint), row.values["options"]
    if not isinstance(endings, list) or len(endings) < 2:
        raise UserError(f"{row.place}: 'options' is not a list of two texts or more; {form.hint}")
    texts = tuple(
        before + Row(row.place, {"options": ending}).text("options", form.hint) for ending in endings
    )
    paradigm = f"{stem}_{row.values['numops']}_ops"
    return Question(row.place, texts, (len(before),) * len(texts), paradigm, stem)


FORMS = {
    "blimp": Form(("sentence_good", "sentence_bad"), _blimp, PAIRS),
    "ewok": Form(
        ("Context1", "Target1", "Target2", "Domain"), _ewok, "EWoK has Context1, Target1, Target2, Domain"
    ),
    "comps": Form(
        ("prefix_acceptable", "prefix_unacceptable", "property_phrase"),
        _comps,
        "COMPS has prefix_acceptable, prefix_unacceptable, property_phrase",
    ),
    "entity_tracking": Form(
        ("input_prefix", "options", "numops"),
        _entity_tracking,
        "entity tracking has input_prefix, options, numops",
    ),
}


def form_of(file: Path) -> Form | None:
    """The form of a file's first line, if it is known."""
    with suppress(UserError):
        first = next(iter(RowFile(file, FileConfig(format="jsonl"))), None)
        if first is not None:
            return next((form for form in FORMS.values() if set(form.columns) <= first.values.keys()), None)
    return None


def read_questions(file: Path, form: Form) -> list[Question]:
    """The questions of a file, one at least; UserError with file and line if one is not of that form."""
    found = []
    for row in RowFile(file, FileConfig(format="jsonl")):
        for column in form.columns:
            if row.problem is not None or column not in row.values:
                row.text(column, form.hint)  # raises
        found.append(form.read(row, file.stem))
    if not found:
        raise UserError(f"{file}: has no rows; {form.hint}")
    return found


def are_right(
    source: "ModelSource", questions: Sequence[Question], scorer: str, budget: int
) -> Iterator[list[bool]]:
    """Whether the right text of each question scores higher than every other; a tie is wrong. Some at a time."""
    from bert.inference import score
    from bert.inference.common import TextError

    for first in range(0, len(questions), CHUNK):
        some = questions[first : first + CHUNK]
        texts = [text for question in some for text in question.texts]
        starts = [start for question in some for start in question.starts]
        owners = [question for question in some for _ in question.texts]
        try:
            scores = iter(score(source, texts, budget, scorer, starts))
        except TextError as error:
            raise UserError(f"{owners[error.index].place}: {error.why}") from None
        of_each = ([next(scores) for _ in question.texts] for question in some)
        yield [all(right > other for other in others) for right, *others in of_each]


def minimal_pairs(source: "ModelSource", files: Sequence[Path], scorer: str, budget: int) -> dict[str, float]:
    """For each file, and as their mean, the share of pairs whose good sentence has the higher
    pseudo-log-likelihood; 0.5 is chance."""
    questions = {name: read_questions(file, FORMS["blimp"]) for name, file in names_of(files).items()}
    shares = {
        name: mean(right for part in are_right(source, some, scorer, budget) for right in part)
        for name, some in questions.items()
    }
    return {**shares, "mean": mean(shares.values())}


class Suite(NamedTuple):
    """A folder of files of questions, as BLiMP and BabyLM's evaluation are."""

    files: dict[str, dict[str, list[Question]]]
    """set, a folder → file → questions"""
    left_out: dict[str, str]
    """file → why it is not measured"""


def read_suite(folder: Path) -> Suite:
    """Every jsonl file below a folder. UserError if there is none of a known form."""
    if not folder.is_dir():
        raise UserError(f"suite: {folder} is no folder; give one with jsonl files as BLiMP's")
    files: dict[str, dict[str, list[Question]]] = defaultdict(dict)
    left_out: dict[str, str] = {}
    for file in sorted(folder.rglob("*.jsonl")):
        name = file.relative_to(folder)
        if form := form_of(file):
            of = folder.resolve().name if name.parent == Path(".") else name.parent.as_posix()
            files[of][name.as_posix()] = read_questions(file, form)
        else:
            left_out[name.as_posix()] = "its lines are of no known form"
    if not files:
        known = "; ".join(form.hint for form in FORMS.values())
        raise UserError(f"suite: {folder} has no jsonl file of a known form; {known}")
    return Suite(files, left_out)


def measure_suite(source: "ModelSource", suite: Suite, scorer: str, budget: int) -> dict[str, Any]:
    """`sets`: for each folder what `averages` gives; `left_out`: for each file that was not measured why.

    A file with a text that the model cannot read as a whole is left out."""
    sets: dict[str, dict[str, Any]] = {}
    left_out = dict(suite.left_out)
    total = sum(len(questions) for files in suite.files.values() for questions in files.values())
    with progress_bar("minimal pairs", total, "questions") as bar:
        for name, files in suite.files.items():
            answered: list[tuple[Question, bool]] = []
            for file, questions in files.items():
                bar.describe(Path(file).stem)
                answers: list[bool] = []
                try:
                    for some in are_right(source, questions, scorer, budget):
                        answers += some
                        bar.advance(len(some))
                except UserError as error:
                    left_out[file] = str(error)
                    bar.advance(len(questions) - len(answers))
                else:
                    answered += zip(questions, answers, strict=True)
            if answered:
                sets[name] = averages(answered)
    return {"sets": sets, "left_out": left_out}


def averages(answered: Sequence[tuple[Question, bool]]) -> dict[str, Any]:
    """The share of right answers by paradigm; the mean over paradigms of each phenomenon, of each field, and of all.

    `chance` is what guessing gives. Where questions name no phenomenon or field, there are no such shares.
    """
    by_paradigm: dict[str, list[tuple[Question, bool]]] = defaultdict(list)
    for question, right in answered:
        by_paradigm[question.paradigm].append((question, right))
    paradigms = {name: mean(right for _, right in some) for name, some in by_paradigm.items()}
    guessed = {
        name: mean(1 / len(question.texts) for question, _ in some) for name, some in by_paradigm.items()
    }
    first = {name: some[0][0] for name, some in by_paradigm.items()}
    return {
        "accuracy": mean(paradigms.values()),
        "chance": mean(guessed.values()),
        "questions": len(answered),
        "fields": _means({name: question.field for name, question in first.items()}, paradigms),
        "phenomena": _means({name: question.phenomenon for name, question in first.items()}, paradigms),
        "paradigms": paradigms,
    }


def _means(groups: Mapping[str, str | None], paradigms: Mapping[str, float]) -> dict[str, float]:
    """For each group the mean over its paradigms."""
    return {
        group: mean(share for name, share in paradigms.items() if groups[name] == group)
        for group in sorted({group for group in groups.values() if group is not None})
    }


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def names_of(files: Sequence[Path]) -> dict[str, Path]:
    """A name of its own for each file: that before its first dot, or else with more of its name and folders.

    Of a/cats.jsonl, b/cats.jsonl and b/dogs.jsonl they are a/cats, b/cats and dogs. `mean` is another result.
    """

    def candidates(file: Path) -> list[str]:
        *folders, name = file.absolute().parts
        ends = (name.partition(".")[0], name)
        return ["/".join([*folders[first:], end]) for first in range(len(folders), -1, -1) for end in ends]

    unique = {file.resolve(): file for file in files}.values()
    counts = Counter(name for file in unique for name in set(candidates(file)))
    return {next(n for n in candidates(file) if counts[n] == 1 and n != "mean"): file for file in unique}


def expand(patterns: Sequence[str]) -> list[Path]:
    """The files that names and globs stand for."""
    files = []
    for pattern in patterns:
        path = Path(pattern)
        found = (
            [path] if path.is_file() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        )
        if not any(one.is_file() for one in found):
            raise UserError(f"pairs: no file {pattern}; give jsonl files with sentence_good and sentence_bad")
        files += [one for one in found if one.is_file()]
    return files
