"""A search for hyper-parameters by Optuna, on the validation texts alone.

    RUN/runs/TASK/search.journal   Optuna's own record of the trials; optuna-dashboard reads it
    RUN/runs/TASK/trials/0003/     a trial: its configuration and its results, without its weights

A trial is a run without a test file. What it tries depends on the seed, its number and the trials before it, so a
search that was interrupted ends like one that was not.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bert.config as configuration
from bert.errors import UserError
from finetune.config import KINDS, FinetuneConfig, Range

if TYPE_CHECKING:
    import optuna

JOURNAL = "search.journal"
TRIALS = "trials"
GIVEN_UP = "given_up"
PARTS = 10
"""scores of trials are compared after each of this many parts of their length"""
STARTUP_TRIALS = 5
"""trials that are drawn at random and are never given up"""
Space = Mapping[str, list[Any] | Range]


def default_space(config: FinetuneConfig) -> Space:
    """Learning rates around the configured one, and usual values of what else matters most for this kind of task."""
    rate = config.optimizer.learning_rate
    space: dict[str, list[Any] | Range] = {
        "optimizer.learning_rate": Range(rate / 5, rate * 5, log=True),
        "batch.sequences": [16, 32, 64],
        "schedule.warmup": [0, 0.1, 0.2],
        "model.dropout": [0.0, 0.1, 0.2],
    }
    if (epochs := config.training.epochs) is not None:
        space["training.epochs"] = sorted({max(1, round(epochs * factor)) for factor in (0.5, 1, 2)})
    return space | KINDS[config.task.kind].searched


@dataclass
class Search:
    """The trials of a task. Only the main process calls its methods."""

    folder: Path
    """of the task's runs"""
    config: FinetuneConfig
    """of a single run of the task"""
    space: Space
    num_trials: int

    def next(self) -> FinetuneConfig | None:
        """The configuration of the trial that was interrupted, or else of a new one; None if all are done."""
        from optuna.trial import Trial, TrialState

        study = self._study()
        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if trial.params.keys() == self.space.keys():
                self._trial = Trial(study, trial._trial_id)
                return self._config(trial.number, trial.params)
            study.tell(trial.number, state=TrialState.FAIL)  # killed while it was being drawn
        if len(self._ended(study)) >= self.num_trials:
            return None
        self._trial = study.ask({key: _distribution(values) for key, values in self.space.items()})
        return self._config(self._trial.number, self._trial.params)

    def is_hopeless(self, part: float, score: float) -> bool:
        """Whether to give up the present trial: its best score is below the median of the others at this part."""
        at = int(part * PARTS)
        if at in self._trial.study.trials[self._trial.number].intermediate_values:
            return self._trial.user_attrs.get(GIVEN_UP) == at / PARTS
        self._trial.report(score, at)
        if 0 < at < PARTS and self._trial.should_prune():
            self._trial.set_user_attr(GIVEN_UP, at / PARTS)
            return True
        return False

    def end(self, config: FinetuneConfig, score: float | None) -> None:
        """Record the score of the present trial, None if it diverged, and remove its weights."""
        from optuna.trial import TrialState

        for name in ("checkpoints", "model"):
            shutil.rmtree(Path(config.run_dir, name), ignore_errors=True)
        study = self._trial.study
        if score is None:
            study.tell(self._trial, state=TrialState.FAIL)
        elif GIVEN_UP in self._trial.user_attrs:
            study.tell(self._trial, state=TrialState.PRUNED)
        else:
            study.tell(self._trial, score)

    def found(self) -> tuple[FinetuneConfig, dict[str, Any]]:
        """The configuration with the best values, and what to say about the search."""
        from optuna.trial import TrialState

        study = self._study()
        trials = self._ended(study)
        if not any(trial.state == TrialState.COMPLETE for trial in trials):
            raise UserError(
                "search: none of its trials came to an end; give a search_space with lower learning rates"
            )
        best = study.best_trial
        pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
        values = ", ".join(f"{key}={_short(value)}" for key, value in best.params.items())
        report = {
            "trials": len(trials),
            "given_up": pruned,
            "diverged": sum(trial.state == TrialState.FAIL for trial in trials),
            "best_trial": best.number,
            "best_score": best.value,
            "values": best.params,
            "space": configuration.plain(self.space),
            "summary": f"search on the validation texts: {len(trials)} trials, {pruned} of them given up early; "
            f"best {best.value:.4f} with {values}",
        }
        return with_values(self.config, best.params), report

    def _config(self, number: int, values: Mapping[str, Any]) -> FinetuneConfig:
        run_dir = str(self.folder / TRIALS / f"{number:04d}")
        task = replace(self.config.task, test=None, other_tests={}, reported=[])  # no trial sees the test
        return replace(with_values(self.config, values), run_dir=run_dir, task=task, submission=False)

    def _ended(self, study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
        """All but those that were killed while they were being drawn."""
        trials = study.get_trials(deepcopy=False)
        return [one for one in trials if one.state.is_finished() and one.params.keys() == self.space.keys()]

    def _study(self) -> "optuna.Study":
        optuna = import_optuna()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.folder.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(self.folder / JOURNAL))),
            study_name=self.folder.name,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=1),
            load_if_exists=True,
        )
        seed = self.config.seed * 1_000_003 + len(study.get_trials(deepcopy=False))
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
        return study


def import_optuna() -> Any:
    """The library, or a UserError."""
    try:
        import optuna
    except ImportError:
        raise UserError("search: needs Optuna; pip install 'bert-pretraining[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def with_values(config: FinetuneConfig, values: Mapping[str, Any]) -> FinetuneConfig:
    """A configuration with other values of some dotted keys; UserError names a key that does not exist."""
    return configuration.from_dict(FinetuneConfig, {**configuration.to_dict(config), **values})


SEARCHED = ("model", "batch", "optimizer", "schedule", "training")
"""sections whose keys a search may vary: trials of other rows, metrics or seeds could not be compared"""


def check_space(config: FinetuneConfig, space: Space) -> None:
    """UserError if a key or a value does not exist, or if trials with other values could not be compared."""
    for key, values in space.items():
        if key.partition(".")[0] not in SEARCHED:
            sections = ", ".join(SEARCHED[:-1])
            raise UserError(
                f"search_space: {key} cannot be searched; vary keys of {sections} and {SEARCHED[-1]}"
            )
        if not values:
            raise UserError(f"search_space: {key}: has no values to choose from; give some")
        for value in _ends(values) if isinstance(values, Range) else values:
            try:
                with_values(config, {key: value})
            except UserError as error:
                hint = "; of whole numbers give a list" if isinstance(values, Range) else ""
                raise UserError(f"search_space: {error}{hint}") from None


def _ends(values: Range) -> list[float]:
    """Both ends of a range, and a number between them that is not whole."""
    return [values.low, math.nextafter(values.low, values.high), values.high]


def _distribution(values: list[Any] | Range) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(values, Range):
        return FloatDistribution(values.low, values.high, log=values.log)
    return CategoricalDistribution(values)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
