"""The training loop of pretraining and fine-tuning, from the first or the last saved step to the end.

accelerator = make_accelerator(config.training)
from_main(accelerator, lambda: open_run(config))
start = find_start(accelerator, config)                     # a checkpoint, or None
model = ...                                                 # with the weights of the checkpoint
trainer = Trainer(config, accelerator, model, source, steps=…, tokenizer=…, card=…, evaluate=…, start=start)
result = trainer.train()
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.fsdp import FSDPModule

from bert.checkpoint.gather import load_optimizer
from bert.checkpoint.run import Checkpoint, Checkpoints, Saver
from bert.data.batch import StepData
from bert.errors import RunFailed, UserError
from bert.model.models import Model
from bert.progress import duration
from bert.training import deepspeed, optimizers, schedules
from bert.training.averaging import WeightAverage
from bert.training.clock import Clock, Pace, Pause
from bert.training.config import RunConfig
from bert.training.distributed import StopRequest, from_main
from bert.training.loader import StepSource, batches, resolve_workers
from bert.training.logging import Reporter
from bert.training.state import Evaluate, EvaluationStopped, Result, RunState
from bert.training.step import Stepper, StepResult
from bert.training.tracking import Console

if TYPE_CHECKING:
    from accelerate import Accelerator


def find_start(accelerator: "Accelerator", config: RunConfig) -> Checkpoint | None:
    """The checkpoint that a run continues from, the same on every process; see `resume` in the configuration."""
    checkpoints = Checkpoints(Path(config.run_dir), Console(True).say)
    return from_main(accelerator, lambda: checkpoints.choose(config.resume))


@dataclass
class Started:
    """A step that the device may still be working on."""

    result: Callable[[], StepResult]
    """waits for it"""
    data: StepData
    learning_rate: float
    waited: float
    """seconds, for its data"""


class Trainer:
    """Puts the parts of a run together; `train` may be called once."""

    def __init__(
        self,
        config: RunConfig,
        accelerator: "Accelerator",
        model: Model,
        source: StepSource,
        *,
        steps: int | None,
        tokenizer: Any,
        card: Callable[[RunState], str],
        evaluate: Evaluate | None = None,
        start: Checkpoint | None = None,
        origin: Mapping[str, Any] | None = None,
        parent: Checkpoint | None = None,
        evaluated: Callable[[], None] = lambda: None,
    ) -> None:
        """`steps` is the length of the run in steps, or None if only tokens or hours limit it
        (`schedules.num_steps`). `model` already has the weights of `start`. `card` writes the model card.
        `evaluate` is called on every process, with the model in evaluation mode, without gradients, in the
        run's precision. A new run whose weights come from another one has an `origin`, which is recorded, and is
        evaluated before its first step; from `parent` it also takes the optimizer state. `evaluated` is called on
        the main process after each evaluation."""
        self.config, self.accelerator, self.source = config, accelerator, source
        self.steps, self.tokenizer, self.card, self.evaluate = steps, tokenizer, card, evaluate
        run_dir, training = Path(config.run_dir), config.training
        self.state = RunState.restored(start.state["run"]) if start else _first_state(origin, parent)
        self.state.owes_evaluation &= evaluate is not None
        self.clock = Clock(training, config.schedule, evaluate is not None) if training.hours else None
        self.schedule = schedules.build(config.schedule, steps, self.clock is not None)
        if self.state.pace is not None:
            self._follow(self.state.pace)
        self.reporter = Reporter(accelerator, run_dir, model.config, config.tracking, evaluated)
        self.checkpoints = Checkpoints(
            run_dir, self.reporter.console.say, training.keep_last, training.keep_best
        )
        if (
            start is not None
            and self._ended
            and start.path.resolve().parent != self.checkpoints.folder.resolve()
        ):
            raise UserError(
                f"resume: {start.path} is of step {start.step}, where this run has already ended; make the run longer "
                "(training.steps, .tokens, .hours or .epochs), or start from an earlier checkpoint"
            )
        self._stopping = False
        self._pause: Pause = "none"
        self._has_new_pace = False
        """save at once, so that a kill does not lose the measurement"""
        self._started: deque[Started] = deque()
        """steps that are started and whose result is not read yet; `state` does not know of them"""
        self._prepare(model, start or parent)

    def _prepare(self, model: Model, given: Checkpoint | None) -> None:
        """`given` has the optimizer state to begin with."""
        # FSDP shards the model layer by layer, unless its configuration says otherwise.
        model._no_split_modules = sorted({type(layer).__name__ for layer in model.encoder.layers})  # type: ignore
        optimizer = optimizers.build(model, self.config.optimizer)
        if self.config.training.compile:
            model.compile()
        under_zero = self.accelerator.distributed_type == "DEEPSPEED"
        if under_zero:
            self.model, self.optimizer = deepspeed.prepare(self.accelerator, model, optimizer, self.config)
        else:
            self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.bare = self.accelerator.unwrap_model(self.model)
        self.saver = Saver(self.accelerator, self.bare, self.optimizer, self.tokenizer, self.checkpoints)
        if given is not None:
            load_optimizer(self.bare, self.optimizer, given.optimizer)
        self.average = WeightAverage(self.optimizer, goes_on=self.state.averaged > 0)
        self.stepper = (deepspeed.ZeroStepper if under_zero else Stepper)(
            self.accelerator,
            self.model,
            self.optimizer,
            seed=self.config.seed,
            precision=self.config.training.precision,
            max_grad_norm=self.config.optimizer.max_grad_norm,
            scale=self.state.scale,
        )

    def train(self) -> Result:
        """Train to the end of the run or to a signal; RunFailed if the run cannot continue."""
        with StopRequest() as self._request, self._reporting():
            self._run()
            best = from_main(self.accelerator, self._best_saved)
        state = self.state
        interrupted = self._stopping and (state.owes_evaluation or not self._ended)
        if interrupted:
            done = (
                f"stopped and saved after step {state.step}"
                if state.step
                else "stopped before the first step"
            )
            self.reporter.console.say(f"{done}; the same command continues the run")
        return Result(
            state.step,
            state.tokens,
            state.seconds,
            state.evaluation,
            interrupted,
            self._stopping,
            best,
        )

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        self.reporter.open(self.config, self.state)
        self._began = time.monotonic() - self.state.seconds
        try:
            yield
        except BaseException as error:
            # After a RunFailed the other processes still live, and write their shards of the last checkpoint.
            if not isinstance(error, RunFailed):
                self.saver.confirmations.abandon()
            if self.accelerator.num_processes > 1 and _is_lost_connection(error):
                raise RunFailed(
                    f"another process of this run ended after step {self.state.step}; "
                    "the same command continues from the last checkpoint"
                ) from error
            raise
        finally:
            self.checkpoints.wait()
            self.reporter.close()

    def _run(self) -> None:
        training, state = self.config.training, self.state
        device = self.accelerator.device.type
        num_workers = resolve_workers(training.num_workers, device, torch.get_num_threads())
        source = None
        # The source changes once: when a run measured in hours knows its number of steps.
        while source is not self.source:
            source = self.source
            with closing(batches(source, state.step, num_workers, device == "cuda")) as steps:
                if state.owes_evaluation:
                    self._after_step()
                while source is self.source and not (self._ended or self._stopping):
                    self._step(*next(steps))
                    if self._started:
                        continue
                    due = self._progress >= 1.0 or _due(state.step, training.evaluate_every)
                    state.owes_evaluation = (due or self._is_timed_next) and self.evaluate is not None
                    self._after_step()

    def _after_step(self) -> None:
        """Evaluate and save, if due."""
        state, improved = self.state, False
        self._pause = "none"
        if self.evaluate and state.owes_evaluation:
            self._pause = "evaluation"
            self.reporter.console.doing("evaluating")
            improved = self._evaluate(self.evaluate)
        due = improved or self._has_new_pace or _due(state.step, self.config.training.save_every)
        if state.step and (self._ended or self._stopping or due):
            self._pause = "saving" if self._pause == "none" else self._pause
            record = {
                "step": state.step,
                "score": state.score,
                "optimizer": self.config.optimizer.name,
                "run": asdict(state),
            }
            with self.average.applied():
                self.saver.save(record, partial(self.card, state))

    @property
    def _progress(self) -> float:
        return self._progress_at(self.state.step, self.state.tokens)

    def _progress_at(self, step: int, tokens: int) -> float:
        training, state = self.config.training, self.state
        return schedules.progress(training, self.steps, step, tokens, state.seconds, state.pace)

    @property
    def _ended(self) -> bool:
        return self.state.ended or self._progress >= 1.0

    def _step(self, data: StepData, waited: float) -> None:
        """Start a step; finish it too, unless the device works while the next step is prepared."""
        state, main = self.state, self.accelerator.is_main_process
        step = state.step + len(self._started)
        tokens = state.tokens + sum(started.data.counts["tokens"] for started in self._started)
        factor = self.schedule.factor(self._progress_at(step, tokens), step)
        rate = self.config.optimizer.learning_rate * factor
        seconds = time.monotonic() - self._began if main else 0.0
        to_sum = {"stop": float(self._request.signal is not None), "seconds": seconds}
        result = self.stepper.start(step, data, rate, to_sum)
        self._started.append(Started(result, data, rate, waited))
        waits = self._waits_for(step + 1, tokens + data.counts["tokens"])
        while self._started and (waits or self._stopping or len(self._started) > 1):
            self._finish(self._started.popleft())

    def _waits_for(self, step: int, tokens: int) -> bool:
        """Whether something must be done after a step and before the next one."""
        training, progress = self.config.training, self._progress_at(step, tokens)
        due = _due(step, training.save_every) or _due(step, training.evaluate_every) or progress >= 1.0
        by_the_clock = self.clock is not None
        return due or by_the_clock or self.schedule.averages(progress) or not self.stepper.runs_ahead

    def _finish(self, started: Started) -> None:
        state, result, data = self.state, started.result(), started.data
        state.step += 1
        state.tokens += data.counts["tokens"]
        state.seconds = result.sums["seconds"]
        state.score = None
        if self.schedule.averages(self._progress):
            state.averaged += 1
            self.average.add(state.averaged)
        self._stopping = result.sums["stop"] > 0
        if self.clock is not None:
            self._keep_time(self.clock)
        message = state.loss_monitor.check(
            state.step,
            result.loss,
            result.grad_norm,
            result.finite,
            data.digest,
            self.config.training.max_skipped,
        )
        if message:
            self.reporter.console.say(message)
        self.reporter.step(state, self._progress, result, data, started.learning_rate, started.waited)

    def _keep_time(self, clock: Clock) -> None:
        """Fix the number of steps when the speed of the machine is known; later, make sure that the run ends on
        time."""
        state, hours, before = self.state, duration(clock.total), self.state.pace
        clock.tick(state.seconds, self._pause)
        if state.pace is None:
            if clock.is_measured and not clock.asks_for_evaluation(state.step):
                state.pace = clock.fix(state.step, self.steps)
                self._follow(state.pace)
                seconds, steps = clock.seconds_per_step, state.pace.steps
                length = duration(seconds * steps) if steps == self.steps else hours
                self.reporter.console.say(
                    f"this machine makes {seconds:.2g} s a step: {steps:,} steps in {length}"
                )
        elif (late := clock.late(state.step, state.pace, self.schedule.cooldown)) is not None:
            if state.pace.from_step == 0:
                self.reporter.console.say(
                    f"this machine has become slower: the last part of the schedule begins after step "
                    f"{state.step:,} and takes {late.length:,} steps, to end after {hours}"
                )
            state.pace = late
        self._has_new_pace = state.pace is not before

    def _follow(self, pace: Pace) -> None:
        """Tell the schedule and the source the number of steps of the run."""
        self.schedule = schedules.build(self.config.schedule, pace.steps)
        self.source = self.source.lasting(pace.steps)

    @property
    def _is_timed_next(self) -> bool:
        """Whether to time an evaluation now, so that the number of steps includes the time of evaluations."""
        clock, state = self.clock, self.state
        return clock is not None and state.pace is None and clock.asks_for_evaluation(state.step)

    def _evaluate(self, evaluate: Evaluate) -> bool:
        """Evaluate; returns whether to keep the model as the best so far."""
        began, state = time.perf_counter(), self.state
        try:
            with self.average.applied(), self._evaluating():
                evaluation = evaluate(self.bare, self._should_stop)
        except EvaluationStopped:
            self._stopping = True
            return False
        state.owes_evaluation = False
        improved = state.step > 0 and (state.best_score is None or evaluation.score > state.best_score)
        if state.step:
            state.score, state.evaluation, state.ended = (
                evaluation.score,
                evaluation.recorded,
                evaluation.stop,
            )
        else:
            state.before = evaluation.recorded
        state.best_score = evaluation.score if improved else state.best_score
        self.reporter.evaluation(state, evaluation, time.perf_counter() - began)
        # A signal that came during the evaluation need not wait for another step.
        self._stopping = self._should_stop()
        return improved and self.config.training.keep_best

    def _should_stop(self) -> bool:
        """Whether any process was told to stop; every process must ask."""
        return self.stepper.sum_over_processes([float(self._request.signal is not None)]).item() > 0

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """No gradients, no dropout; under FSDP the weights outside the layers are whole, for any reader."""
        self.bare.eval()
        if isinstance(self.bare, FSDPModule):
            self.bare.unshard()
        try:
            with torch.no_grad(), self.stepper.autocast():
                yield
        finally:
            if isinstance(self.bare, FSDPModule):
                self.bare.reshard()
            self.bare.train()

    def _best_saved(self) -> Checkpoint | None:
        """The best checkpoint; RunFailed if the last one could not be written."""
        self.checkpoints.wait()
        if self.checkpoints.failure:
            raise RunFailed(f"{self.checkpoints.failure}; free some space and start the same command again")
        return self.checkpoints.best()


def _first_state(origin: Mapping[str, Any] | None, parent: Checkpoint | None) -> RunState:
    """The state of a new run. One that continues another model owes the evaluation of that model."""
    state = RunState() if origin is None else RunState(origin=dict(origin), owes_evaluation=True)
    if parent is not None:
        state.scale = RunState.restored(parent.state["run"]).scale
    return state


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _is_lost_connection(error: BaseException) -> bool:
    lost = isinstance(error, torch.distributed.DistError)
    return lost or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())
