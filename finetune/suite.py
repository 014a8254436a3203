"""Many runs, one table: several seeds, tasks, shares of the training rows, and baselines that are trained.

    RUN/runs/TASK/seed-0/             a run each, with everything that a run has
    RUN/runs/TASK/scratch/seed-0/     the same encoder with random weights
    RUN/runs/TASK/share-0.1/seed-0/   a tenth of the training rows
    RUN/submission/seed-0.zip         the files for a leaderboard of all tasks, with `submission`
    RUN/runs/TASK/trials/0000/        the trials of a search, see `finetune.search`
    RUN/results.json, RUN/results.md  the table, renewed after each run

Every process carries out the same runs, one after the other. The same command continues: a run that has its results is
not repeated, and one that was interrupted goes on.
"""

import gc
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import bert.config as configuration
from bert.errors import Diverged, UserError
from bert.files import write_text
from bert.pages.renewal import Renewal
from bert.progress import duration
from bert.training.distributed import configure, from_main, make_accelerator
from bert.training.run_dir import alone, check_run, open_run
from finetune.baselines import Measured, check_baselines, tfidf
from finetune.config import KINDS, RESULTS, RUNS, SUBMISSION, FinetuneConfig
from finetune.data import load_task
from finetune.evaluate import IsHopeless
from finetune.search import Search, check_space, default_space, import_optuna
from finetune.submission import write_zip
from finetune.table import Table, TaskRuns, score_of
from finetune.tasks.kind import chosen_metric
from finetune.train import carry_out

if TYPE_CHECKING:
    from accelerate import Accelerator

FREE_KEYS = ("tasks", "seeds", "baselines", "search", "learning_curve")
"""Keys that may change when the same command is given again: runs are added."""
OF_THE_WHOLE = (*FREE_KEYS, "search_space", "from_tasks")
"""Keys that no single run has."""


def train_all(config: FinetuneConfig, given: Mapping[str, Any]) -> bool:
    """Carry out all runs of a configuration, or the rest of them; returns whether they were interrupted.

    `given`: the dotted keys that the user has given. With several tasks they override those of the recipes.
    """
    tasks = plan_tasks(config, given)
    for task in tasks.values():
        check_baselines(task.task, config.baselines)
    if config.search:
        import_optuna()
        for task in tasks.values():
            check_space(task, config.search_space)
    accelerator = make_accelerator(config.training)
    with alone(accelerator, config.run_dir):
        from_main(accelerator, lambda: _open(config))
        table = Table(Path(config.run_dir), [_task_runs(config, name, task) for name, task in tasks.items()])
        for runs in table.tasks:
            if config.search and not search_for(config, runs, accelerator):
                return True
            if "tfidf" in config.baselines:
                runs.baselines["tfidf"] = from_main(accelerator, partial(tfidf_of, config, runs))
            planned = list(plan_runs(config, runs))
            took: list[float] = []
            for number, (variant, one) in enumerate(planned, 1):
                if accelerator.is_main_process:
                    line = f"{runs.name}, run {number} of {len(planned)}: {variant} seed {one.seed}"
                    print(" ".join(line.split()) + _time_left(took, len(planned) - number + 1), flush=True)
                began = time.monotonic()
                try:
                    _check_start(one, runs, accelerator)
                    if carry_out_once(one, accelerator):
                        return True
                    from_main(accelerator, partial(runs.add, variant, one))
                except Diverged as error:
                    runs.diverged.append({"variant": variant, "seed": one.seed, "why": str(error)})
                from_main(accelerator, table.write)
                took.append(time.monotonic() - began)
        if config.submission:
            from_main(accelerator, lambda: _write_submissions(config, table))
        from_main(accelerator, lambda: print(table.write(finished=True), flush=True))
        from_main(accelerator, Renewal(config.run_dir, config.tracking).write)
        if accelerator.is_main_process:
            print(f"is it better than another? python -m finetune.compare {config.run_dir} OTHER", flush=True)
    return False


def _time_left(took: Sequence[float], number: int) -> str:
    """How long `number` runs will take, by those of the same table that were carried out just now."""
    new = [seconds for seconds in took if seconds > 1]  # a run that was finished before takes no time
    return f" · about {duration(mean(new) * number)} left" if new else ""


def _task_runs(config: FinetuneConfig, name: str, task: FinetuneConfig) -> TaskRuns:
    """The runs of a task before the first one. A search starts where the run of the first seed does."""
    if not config.from_tasks or task.task.from_task is None:
        return TaskRuns(name, task)
    start = _model_of(config, task.task.from_task, seeds_of(config)[0])
    return TaskRuns(name, _from(task, start), from_task=task.task.from_task)


def _model_of(config: FinetuneConfig, name: str, seed: int) -> str:
    return str(Path(config.run_dir, RUNS, name, f"seed-{seed}", "model"))


def _from(config: FinetuneConfig, start: str) -> FinetuneConfig:
    return replace(config, model=replace(config.model, from_=start))


def _check_start(one: FinetuneConfig, runs: TaskRuns, accelerator: "Accelerator") -> None:
    """Diverged if the run would start from a run that has."""
    if runs.from_task is None:
        return
    if not from_main(accelerator, lambda: Path(one.model.from_).is_dir() or is_finished(one)):
        raise Diverged(f"it would start from {one.model.from_}, which has no result")


def _write_submissions(config: FinetuneConfig, table: Table) -> None:
    """An archive for each seed."""
    for seed in seeds_of(config):
        runs = [Path(config.run_dir, RUNS, task.name, f"seed-{seed}") for task in table.tasks]
        write_zip(Path(config.run_dir, SUBMISSION, f"seed-{seed}.zip"), runs)


def _open(config: FinetuneConfig) -> None:
    """Save the configuration. UserError if the folder is that of a single run, or of other runs."""
    free = FREE_KEYS if Path(config.run_dir, RUNS).exists() else ()
    open_run(config, free, {RUNS: ("*",)})


def plan_tasks(config: FinetuneConfig, given: Mapping[str, Any]) -> dict[str, FinetuneConfig]:
    """The tasks by name, each with the configuration of a single run."""
    if not config.tasks:
        return {Path(config.run_dir).resolve().name: _single(config)}
    if found := {"task.train", "task.dataset"} & given.keys():
        raise UserError(
            f"tasks: cannot stand beside {found.pop()}, which would be that of each task; give one of them"
        )
    words = [
        f"{key}={configuration.yaml12.dump_inline(value)}"
        for key, value in given.items()
        if key.partition(".")[0] not in OF_THE_WHOLE
    ]
    tasks: dict[str, FinetuneConfig] = {}
    for word in config.tasks:
        if (name := Path(word).stem) in tasks:
            raise UserError(f"tasks: two of them are called {name}; rename one of the files")
        tasks[name] = _single(configuration.load(FinetuneConfig, word, words))
    return _in_order(tasks) if config.from_tasks else tasks


def _in_order(tasks: dict[str, FinetuneConfig]) -> dict[str, FinetuneConfig]:
    """Tasks that start from another one behind the others."""
    ordered = dict(sorted(tasks.items(), key=lambda item: item[1].task.from_task is not None))
    names = list(ordered)
    for name, task in ordered.items():
        if (source := task.task.from_task) and source not in names[: names.index(name)]:
            raise UserError(
                f"from_tasks: {name} starts from {source}, which is not among the tasks before it"
            )
    return ordered


def _single(config: FinetuneConfig) -> FinetuneConfig:
    """The configuration of a single run, without the keys that are about several."""
    return replace(
        config,
        tasks=[],
        seeds=None,
        baselines=[],
        search=None,
        search_space={},
        learning_curve=[],
        from_tasks=False,
    )


def plan_runs(config: FinetuneConfig, runs: TaskRuns) -> Iterator[tuple[str, FinetuneConfig]]:
    """The runs of a task, with the name of the variant: empty for those of the main column."""
    variants = {"": runs.config}
    if "scratch" in config.baselines:
        variants["scratch"] = replace(runs.config, model=replace(runs.config.model, pretrained=False))
    for share in config.learning_curve:
        if share < 1:
            variants[f"share-{share:g}"] = replace(
                runs.config, task=replace(runs.config.task, train_share=share)
            )
    for variant, one in variants.items():
        folder = Path(config.run_dir, RUNS, runs.name, variant)
        for seed in seeds_of(config):
            if runs.from_task:
                one = _from(one, _model_of(config, runs.from_task, seed))
            yield variant, replace(one, seed=seed, run_dir=str(folder / f"seed-{seed}"))


def seeds_of(config: FinetuneConfig) -> list[int]:
    """The seeds of the runs."""
    if config.seeds is None:
        return [config.seed]
    return list(range(config.seeds)) if isinstance(config.seeds, int) else list(dict.fromkeys(config.seeds))


def tfidf_of(config: FinetuneConfig, runs: TaskRuns) -> Measured:
    """The metrics of TF-IDF for a task, which are computed once and then kept beside its runs."""
    path = Path(config.run_dir, RUNS, runs.name, "tfidf.json")
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    data = load_task(runs.config.task)
    metric = chosen_metric(KINDS[runs.config.task.kind], runs.config.task, data.labels)
    measured = tfidf(runs.config.task, metric, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(measured))
    return measured


def search_for(config: FinetuneConfig, runs: TaskRuns, accelerator: "Accelerator") -> bool:
    """Search the hyper-parameters of a task, and give its runs the best; returns whether that came to an end."""
    assert config.search is not None
    space = config.search_space or default_space(runs.config)
    search = Search(Path(config.run_dir, RUNS, runs.name), runs.config, space, config.search)
    while (trial := from_main(accelerator, search.next)) is not None:
        try:
            if carry_out_once(trial, accelerator, search.is_hopeless):
                return False
            end = partial(search.end, trial, from_main(accelerator, partial(score_of, trial)))
        except Diverged as error:
            if accelerator.is_main_process:
                print(f"{trial.run_dir}: {error}", flush=True)
            end = partial(search.end, trial, None)
        from_main(accelerator, end)
    runs.config, runs.search = from_main(accelerator, search.found)
    return True


def carry_out_once(
    config: FinetuneConfig, accelerator: "Accelerator", is_hopeless: IsHopeless | None = None
) -> bool:
    """Carry out a run, or the rest of it, unless it is finished; returns whether to stop here."""
    if from_main(accelerator, lambda: is_finished(config)):
        return False
    configure(accelerator, config.training)
    try:
        with alone(accelerator, config.run_dir):
            return carry_out(config, accelerator, is_hopeless).stopping
    finally:
        accelerator.free_memory()
        gc.collect()


def is_finished(config: FinetuneConfig) -> bool:
    """Whether a run has its results. UserError if they are those of another configuration."""
    check_run(config)
    return (Path(config.run_dir) / RESULTS).is_file()
