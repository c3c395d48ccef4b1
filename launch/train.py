"""Trains the repetitions of a configuration.

python -m launch.train --config=configs/digits.py --workdir=runs/digits --config.num_epochs=20

Exit codes: 0 done, 2 bad input, 3 interrupted with checkpoints written, 4 diverged for good.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from launch import program

_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/digits.py", "The configuration; --config.any.field=value changes a field."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder, made if need be.", required=True)
_ALLOW = flags.DEFINE_list(
    "allow_config_change", [], "Fields that may differ from the run that the folder holds."
)


def main(argv: Sequence[str]) -> int:
    """Checks everything that can be checked, then trains; returns the exit code."""
    del argv
    import jax

    from configs import base
    from thermo_ebm import config as configuration
    from thermo_ebm.train import loop, rundir

    config, workdir = _CONFIG.value, Path(_WORKDIR.value)
    config.lock()
    configuration.check(config, base.get_config())
    with rundir.hold(workdir):
        for change in rundir.check_config(workdir, config, _ALLOW.value):
            logging.info("config.%s: %s was %s", change.field, change.new, change.old)
        device = jax.devices()[0]
        for change in rundir.write_versions(workdir, device.platform, device.device_kind):
            logging.warning("%s was %s, is %s", change.field, change.old, change.new)
        outcome = loop.train(config, workdir)
    print(_summary(workdir, outcome.name.lower()))
    return outcome.value


def _summary(workdir: Path, outcome: str) -> str:
    """Names what was written."""
    lines = [f"{outcome}: {workdir}"]
    for folder in sorted(workdir.glob("rep_*")):
        pictures = sorted(folder.glob("samples/epoch_*.png"))
        lines += [
            f"  checkpoints  {folder / 'checkpoints'}",
            f"  readings     {folder / 'readings.csv'}",
        ]
        lines += [f"  samples      {pictures[-1]}"] if pictures else []
    return "\n".join(lines)


if __name__ == "__main__":
    program.run(main)
