"""Evaluates a run's checkpoints: FID, KID and more, extrapolated to infinitely many images.

python -m launch.eval --workdir=runs/digits
python -m launch.eval --workdir=runs/cifar10 --features=inception_v3 --watch

Exit codes: 0 done (also when there was nothing to do), 1 there are checkpoints to evaluate but none
can be, 2 bad input, 3 interrupted (the same command goes on).
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from launch import program

if TYPE_CHECKING:
    from thermo_ebm.evaluation import evaluate

_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
_FEATURES = flags.DEFINE_string(
    "features",
    "efficientnet_lite0",
    "The network: efficientnet_lite0, inception_v3, or your own as MODULE:FUNCTION.",
)
_RESIZE = flags.DEFINE_string(
    "resize", "bilinear", "bilinear is the field's reference; antialias is clean-FID's manner."
)
_WEIGHTS = flags.DEFINE_string("inception_weights", None, "File of InceptionV3's FID weights.")
_CACHE = flags.DEFINE_string("cache_dir", None, "Folder for weights and real images' features.")
_WATCH = flags.DEFINE_bool("watch", False, "Go on with each new checkpoint until training ends.")
_NEWEST = flags.DEFINE_bool("newest_only", False, "Only each repetition's newest checkpoint.")
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images",
    0,
    "Images generated, and real ones used; 0 is all validation images, 4500 at most.",
)
_NUM_SIZES = flags.DEFINE_integer("num_sizes", 10, "Sizes of the extrapolation's subsets.")
_BATCH = flags.DEFINE_integer("batch_size", 100, "Images at once.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the data are now; the run's by default.")
_POLL = program.define_poll_seconds(10.0, "With --watch: how often to look.")


def main(argv: Sequence[str]) -> int:
    """Evaluates what is not yet evaluated."""
    del argv
    try:
        return _evaluate(Path(_WORKDIR.value))
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 3


def _evaluate(workdir: Path) -> int:
    from thermo_ebm.evaluation import evaluate, trained

    settings = _settings()
    evaluate.check(settings)
    # Before any waiting: what cannot work is said at once.
    network = evaluate.choose_network(settings)
    _wait_for_run(workdir)
    run = trained.open_run(workdir)
    watch = _sleep if _WATCH.value else None
    prepared, written, failed = None, 0, 0
    for one in evaluate.pending(run, settings, _NEWEST.value, watch):
        prepared = prepared or evaluate.prepare(run, settings, network)
        started = time.monotonic()
        summary = evaluate.evaluate(run, one, prepared)
        if summary is None:
            # One that training removed meanwhile is no failure.
            failed += one.step in trained.checkpoint_steps(run, one.repetition)
        else:
            written += 1
            epoch, seconds = one.step // run.steps_per_epoch, time.monotonic() - started
            line = _line(summary.values)
            print(f"rep {one.repetition:02d} epoch {epoch}: {line} ({seconds:.0f} s)", flush=True)
    name = evaluate.label(settings)
    if prepared is None:
        print(f"{workdir}: nothing to evaluate that has not been with {name}")
    else:
        print(f"{written} checkpoints evaluated with {name}: {workdir}/rep_*/eval.csv")
    return 1 if failed and not written else 0


def _wait_for_run(workdir: Path) -> None:
    """With --watch, a run that has not begun is waited for."""
    if _WATCH.value and not (workdir / "config.json").exists():
        print(f"{workdir}: waiting for training to begin", file=sys.stderr, flush=True)
        while not (workdir / "config.json").exists():
            _sleep()


def _sleep() -> None:
    time.sleep(_POLL.value)


def _settings() -> "evaluate.Settings":
    from thermo_ebm.evaluation import evaluate

    return evaluate.Settings(
        features=_FEATURES.value,
        resize=_RESIZE.value,
        inception_weights=_WEIGHTS.value,
        cache_dir=_CACHE.value,
        num_images=_NUM_IMAGES.value,
        num_sizes=_NUM_SIZES.value,
        batch_size=_BATCH.value,
        data_dir=_DATA_DIR.value,
    )


def _line(values: dict[str, float]) -> str:
    return (
        f"fid_inf {values['fid_inf']:.4g} +- {values['fid_inf_stderr']:.2g}, "
        f"fid {values['fid']:.4g} +- {values['fid_stderr']:.2g}, "
        f"kid_inf {values['kid_inf']:.4g} +- {values['kid_inf_stderr']:.2g}, "
        f"kid {values['kid']:.4g} +- {values['kid_stderr']:.2g}, "
        f"precision {values['precision']:.3g}, recall {values['recall']:.3g}"
    )


if __name__ == "__main__":
    program.run(main)
