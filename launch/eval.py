"""Evaluates a run's checkpoints: FID, KID and more, extrapolated to infinitely many images.

python -m launch.eval --workdir=runs/digits
python -m launch.eval --workdir=runs/cifar10 --features=inception_v3 --watch
python -m launch.eval --workdir=runs/digits --keep_best=kid
python -m launch.eval --workdir=runs/digits --keep_best=log_marginal_likelihood
python -m launch.eval --workdir=runs/b --against_run=runs/a   # is b better than a?

With --keep_best=METRIC the best checkpoint of each repetition by this metric is copied to
rep_XX/best, where training never removes it and other programs find it with --step=best. For
log_marginal_likelihood the program estimates log p(x) of held-out images instead of image metrics.
With --against_run=RUN[:REPETITION[:STEP]] nothing is written: the newest checkpoint of each
repetition is compared with that checkpoint, metric by metric, with intervals and verdicts.

Exit codes: 0 done (also when there was nothing to do), 1 no checkpoint could be
evaluated although there were some to evaluate, 2 bad input, 3 interrupted (the same command
continues).
"""

from __future__ import annotations

if not __package__:
    __import__("not_a_script")

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from thermo_ebm.errors import UserError, counted, printable

from . import evaluation_flags, program
from .path_flags import DEFINE_path

if not program.HELP_ONLY:
    from thermo_ebm.evaluation import best, evaluate, warm_start
    from thermo_ebm.evaluation.likelihood import held_out
    from thermo_ebm.evaluation.run import Run, load_run
    from thermo_ebm.metrics import paired
    from thermo_ebm.run import layout
    from thermo_ebm.run.records import Best


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    DEFINE_path("workdir", None, "The run directory.", required=True)
    evaluation_flags.define()
    evaluation_flags.define_batch_size()
    flags.DEFINE_bool("watch", False, "Wait for new checkpoints until training ends.")
    flags.DEFINE_bool(
        "newest_only", False, "Evaluate only the newest checkpoint of each repetition."
    )
    flags.DEFINE_string(
        "keep_best",
        None,
        "Metric, such as kid, fid_inf or log_marginal_likelihood, by which the best checkpoint of "
        "each repetition is kept in rep_XX/best; metrics of images choose by one half of the images"
        " and report the other.",
    )
    flags.DEFINE_bool(
        "memorization",
        False,
        "Also compare with the training images: authenticity, exact copies and MIFID.",
    )
    flags.DEFINE_string(
        "against_run",
        None,
        "RUN[:REPETITION[:STEP]], a checkpoint (STEP a number or best; the newest) that the newest "
        "checkpoint of each repetition is compared with.",
    )
    program.define_parameters()
    program.define_against_parameters()
    program.define_data_dir()
    program.define_poll_seconds(10.0, "With --watch, seconds between checks for new checkpoints.")


def main(argv: Sequence[str]) -> int:
    """Evaluates the checkpoints that have not been evaluated yet."""
    del argv
    program.continue_without_output()
    try:
        return _evaluate(Path(flags.FLAGS.workdir))
    except KeyboardInterrupt:
        print("interrupted: the same command continues", file=sys.stderr)
        return 3


def _evaluate(workdir: Path) -> int:

    values, metric = flags.FLAGS, flags.FLAGS.keep_best
    metrics = (*paired.LOWER_IS_BETTER, *best.HIGHER_IS_BETTER)
    if metric is not None and metric not in metrics:
        raise UserError(f"keep_best={metric}: must be one of {', '.join(metrics)}")
    # Errors are reported at once, before any waiting.
    program.check_devices()
    evaluator = _HeldOut() if metric == held_out.METRIC else _Metrics()
    if values.watch:
        _wait_for_run(workdir)
    run = load_run(workdir, values.parameters)
    if values.against_run is not None:
        return _compare_runs(run, _Metrics().evaluation(run))
    settings, is_prepared, num_evaluated, failed = evaluator.settings, False, 0, 0
    watch = _sleep if values.watch else None
    for checkpoint in evaluate.pending(run, settings, values.newest_only, watch):
        if not is_prepared:
            evaluator.prepare(run)
            if note := evaluate.other_rows(run, settings):
                print(f"note: {note}", flush=True)
            is_prepared = True
        started = time.monotonic()
        line = evaluator.evaluate(run, checkpoint)
        repetition, step = checkpoint
        if line is None:
            # A checkpoint that training has removed in the meantime is not a failure.
            failed += step in run.checkpoint_steps(repetition)
            continue
        num_evaluated += 1
        epoch, seconds = step // run.steps_per_epoch, time.monotonic() - started
        print(f"rep {repetition:02d} epoch {epoch}: {line} ({seconds:.0f} s)", flush=True)
        for note in evaluator.notes() if num_evaluated == 1 else ():
            print(f"note: {note}", flush=True)
        if metric:  # at once: training removes old checkpoints
            evaluate.keep_best(run, repetition, metric, settings)
    label = evaluate.extent_of(run, settings).network
    if not is_prepared:
        print(f"{workdir}: nothing to do, every checkpoint has been evaluated with {label}")
    else:
        number = counted(num_evaluated, "checkpoint")
        folder = layout.repetition_dir(workdir, 0).parent
        print(f"{number} evaluated with {label}: {folder}/rep_*/eval.csv")
    for repetition in run.repetitions() if metric else ():
        record = evaluate.keep_best(run, repetition, metric, settings)
        print(f"rep {repetition:02d} best: {_best_line(run, repetition, record)}")
    return 1 if failed and not num_evaluated else 0


class _Metrics:
    """Image metrics, with the flags' network."""

    def __init__(self) -> None:
        self.settings = evaluation_flags.settings()
        self._network = self.settings.choose_network()

    def evaluation(self, run: Run) -> evaluate.Evaluation:
        return evaluate.prepare(run, self.settings, self._network, flags.FLAGS.data_dir)

    def prepare(self, run: Run) -> None:
        self._evaluation = self.evaluation(run)
        _print_remarks(run)

    def evaluate(self, run: Run, checkpoint: evaluate.Checkpoint) -> str | None:
        summary = evaluate.evaluate(run, checkpoint, self._evaluation)
        return None if summary is None else _metrics_line(summary.values)

    def notes(self) -> list[str]:
        return evaluate.notes(self._evaluation)


class _HeldOut:
    """Held-out log p(x)."""

    def __init__(self) -> None:
        self.settings = held_out.HeldOut()

    def prepare(self, run: Run) -> None:
        self._images = run.validation_images(flags.FLAGS.data_dir)
        _print_remarks(run)

    def evaluate(self, run: Run, checkpoint: evaluate.Checkpoint) -> str | None:
        result = held_out.evaluate(run, checkpoint, self._images)
        return None if result is None else result.summary()

    def notes(self) -> list[str]:
        return []


def _print_remarks(run: Run) -> None:

    for remark in run.validation_set(flags.FLAGS.data_dir).remarks:
        print(printable(f"data: {remark}"), file=sys.stderr, flush=True)


def _compare_runs(run: Run, evaluation: evaluate.Evaluation) -> int:
    """Compares the newest checkpoint of each repetition with that of --against_run."""

    source = warm_start.parse(flags.FLAGS.against_run, "against_run")
    other_run = load_run(source.run, program.against_parameters())
    other = other_run.load(source.repetition, source.step)
    repetitions = run.repetitions()
    for repetition in repetitions:
        loaded = run.load(repetition)
        checkpoint = evaluate.Checkpoint(repetition, loaded.step)
        result = evaluate.compare_checkpoints(run, checkpoint, (other_run, other), evaluation)
        print(printable(f"A: {run.workdir}, {loaded.title()}"))
        print(printable(f"B: {other_run.workdir}, {other.title()}"))
        print(f"features: {evaluation.label}, {evaluation.num_images} images each\n")
        print(result.table(), flush=True)
        for note in evaluate.notes(evaluation):
            print(f"note: {note}")
        if repetition != repetitions[-1]:
            print()
    return 0


def _wait_for_run(workdir: Path) -> None:

    config = workdir / layout.CONFIG
    if not config.exists():
        print(f"{workdir}: waiting for training to begin", file=sys.stderr, flush=True)
    while not config.exists():
        _sleep()


def _sleep() -> None:
    time.sleep(flags.FLAGS.poll_seconds)


def _best_line(run: Run, repetition: int, record: Best | None) -> str:

    if record is None:
        return "no evaluated checkpoint is there"
    folder = layout.repetition_dir(run.workdir, repetition) / layout.BEST
    chosen_by = f"{record.metric} {_with_error(record.value, record.stderr)}"
    if record.reported is None:
        return f"{chosen_by} at step {record.step}: {folder}"
    reported = _with_error(record.reported, record.reported_stderr)
    return (
        f"{record.metric} {reported} at step {record.step} (of one half of the images; chosen by "
        f"the other half's {chosen_by}): {folder}"
    )


def _with_error(value: float, stderr: float | None) -> str:
    error = "" if stderr is None else f" +- {stderr:.2g}"
    return f"{value:.4g}{error}"


def _metrics_line(values: dict[str, float]) -> str:
    parts = []
    for name in ("fid_inf", "fid", "kid_inf", "kid"):
        if name in values:
            parts.append(f"{name} {values[name]:.4g} +- {values[f'{name}_stderr']:.2g}")
    for name in ("precision", "recall", "authenticity", "mifid_training"):
        if name in values:
            parts.append(f"{name} {values[name]:.3g}")
    if "training_copies" in values:
        parts.append(f"copies of training images {values['training_copies']}")
    return ", ".join(parts)


if __name__ == "__main__":
    program.run(main, define_flags)
