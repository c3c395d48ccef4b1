"""Evaluates a run's checkpoints: FID, KID and more, extrapolated to infinitely many images.

python -m launch.eval --workdir=runs/digits
python -m launch.eval --workdir=runs/cifar10 --features=inception_v3 --watch
python -m launch.eval --workdir=runs/digits --keep_best=kid

With --keep_best=METRIC the best checkpoint of each repetition by this metric is copied to
rep_XX/best, where training never removes it and other programs find it with --step=best.

Exit codes: 0 done (also when there was nothing to do), 1 no checkpoint could be
evaluated although there were some to evaluate, 2 bad input, 3 interrupted (the same command
continues).
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from . import evaluation_flags, program

if TYPE_CHECKING:
    from thermo_ebm.evaluation.trained import TrainedRun
    from thermo_ebm.run.best import Best


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    flags.DEFINE_string("workdir", None, "The run directory.", required=True)
    evaluation_flags.define()
    flags.DEFINE_bool("watch", False, "Wait for new checkpoints until training ends.")
    flags.DEFINE_bool(
        "newest_only", False, "Evaluate only the newest checkpoint of each repetition."
    )
    flags.DEFINE_string(
        "keep_best",
        None,
        "Metric, such as kid, fid or kid_inf, by which the best checkpoint of each repetition is "
        "kept in rep_XX/best.",
    )
    flags.DEFINE_integer("batch_size", 100, "Images per batch.")
    program.define_data_dir()
    program.define_poll_seconds(10.0, "With --watch, seconds between checks for new checkpoints.")


def main(argv: Sequence[str]) -> int:
    """Evaluates the checkpoints that have not been evaluated yet."""
    del argv
    try:
        return _evaluate(Path(flags.FLAGS.workdir))
    except KeyboardInterrupt:
        print("interrupted: the same command continues", file=sys.stderr)
        return 3


def _evaluate(workdir: Path) -> int:
    from thermo_ebm.evaluation import best, evaluate, trained

    values = flags.FLAGS
    settings = evaluation_flags.settings()._replace(
        batch_size=values.batch_size, data_dir=values.data_dir
    )
    evaluate.check(settings)
    if values.keep_best is not None:
        best.check(values.keep_best)
    # Errors are reported at once, before any waiting.
    program.check_devices()
    network = evaluate.choose_network(settings)
    _wait_for_run(workdir)
    run = trained.open_run(workdir)
    watch = _sleep if values.watch else None
    prepared, written, failed = None, 0, 0
    for one in evaluate.pending(run, settings, values.newest_only, watch):
        prepared = prepared or evaluate.prepare(run, settings, network)
        started = time.monotonic()
        summary = evaluate.evaluate(run, one, prepared)
        if summary is None:
            # A checkpoint that training has removed in the meantime is not a failure.
            failed += one.step in trained.checkpoint_steps(run, one.repetition)
        else:
            written += 1
            epoch, seconds = one.step // run.steps_per_epoch, time.monotonic() - started
            line = _line(summary.values)
            print(f"rep {one.repetition:02d} epoch {epoch}: {line} ({seconds:.0f} s)", flush=True)
            if values.keep_best:  # at once: training removes old checkpoints
                evaluate.keep_best(run, one.repetition, values.keep_best, settings)
    name = evaluate.label(settings)
    if prepared is None:
        print(f"{workdir}: nothing to do, every checkpoint has been evaluated with {name}")
    else:
        print(f"{written} checkpoints evaluated with {name}: {workdir}/rep_*/eval.csv")
    for repetition in trained.repetitions(run) if values.keep_best else ():
        kept = evaluate.keep_best(run, repetition, values.keep_best, settings)
        print(f"rep {repetition:02d} best: {_best_line(run, repetition, kept)}")
    return 1 if failed and not written else 0


def _wait_for_run(workdir: Path) -> None:
    """With --watch, waits for a run that has not begun."""
    if flags.FLAGS.watch and not (workdir / "config.json").exists():
        print(f"{workdir}: waiting for training to begin", file=sys.stderr, flush=True)
        while not (workdir / "config.json").exists():
            _sleep()


def _sleep() -> None:
    time.sleep(flags.FLAGS.poll_seconds)


def _best_line(run: "TrainedRun", repetition: int, kept: "Best | None") -> str:
    from thermo_ebm.run import layout

    if kept is None:
        return "no evaluated checkpoint is there"
    error = "" if kept.stderr is None else f" +- {kept.stderr:.2g}"
    folder = layout.repetition_dir(run.workdir, repetition) / layout.BEST
    return f"{kept.metric} {kept.value:.4g}{error} at step {kept.step}: {folder}"


def _line(values: dict[str, float]) -> str:
    return (
        f"fid_inf {values['fid_inf']:.4g} +- {values['fid_inf_stderr']:.2g}, "
        f"fid {values['fid']:.4g} +- {values['fid_stderr']:.2g}, "
        f"kid_inf {values['kid_inf']:.4g} +- {values['kid_inf_stderr']:.2g}, "
        f"kid {values['kid']:.4g} +- {values['kid_stderr']:.2g}, "
        f"precision {values['precision']:.3g}, recall {values['recall']:.3g}"
    )


if __name__ == "__main__":
    define_flags()
    program.run(main)
