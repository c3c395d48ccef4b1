"""The command of a sweep over tiny cells."""

import trained_run

QUICK = {"num_repetitions": 1, "num_epochs": 1, "logging__pictures_every_epochs": 0}


def command(folder, experiment, *further, **changes):
    """Arguments of a sweep of tiny cells, whose folder is `folder / "runs"`."""
    (folder / "experiment.py").write_text(experiment)
    return [
        f"--experiment={folder}/experiment.py",
        f"--workdir={folder}/runs",
        "--num_sizes=3",
        "--poll_seconds=0.1",
        *trained_run.flags(**(QUICK | changes)),
        *further,
    ]
