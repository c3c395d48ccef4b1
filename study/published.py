"""Reads the published study's own CSV files as if they were runs.

Layouts: ``logs/<dataset>/p=<power>/batch=<size>/experiment<r>.csv`` and
``extra_logs/<dataset>/<change>/p=<power>/batch=<size>/experiment<r>.csv``; p = 0 is the vanilla
model. Fields that the paths do not give are those of the paper's tables 4 and 5.
"""

import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from study.cells import THERMODYNAMIC, VANILLA
from study.titles import PUBLISHED_NETWORK
from thermo_ebm.errors import UserError
from thermo_ebm.run.tables import check_epochs, read_columns

COLUMNS = {
    "Epoch": "epoch",
    "Train Loss": "train_loss",
    "Train Grad": "train_grad_mean",
    "Train Grad Var": "train_grad_var",
    "Val Loss": "val_loss",
    "FID_inf": f"{PUBLISHED_NETWORK}_fid_inf",
    "MIFID_inf": f"{PUBLISHED_NETWORK}_mifid_inf",
    "KID_inf": f"{PUBLISHED_NETWORK}_kid_inf",
    "IS_inf": f"{PUBLISHED_NETWORK}_is_inf",
}
DATASETS = {"CelebA": "celeb_a", "CIFAR10": "cifar10", "SVHN": "svhn_cropped"}
# Tables 4 and 5; the paper has no table for SVHN, so its steps stay unknown.
STEPS = {
    "celeb_a": {"sampler.posterior.num_steps": 20.0, "sampler.prior.num_steps": 60.0},
    "cifar10": {"sampler.posterior.num_steps": 40.0, "sampler.prior.num_steps": 60.0},
}
# The gradients are the ones that the published code used in effect.
FORM = {
    "loss.schedule": "power",
    "loss.num_temperatures": 10.0,
    "loss.kl_weight": 1.0,
    "loss.kl_form": "sum",
    "loss.quadrature": "trapezium",
    "loss.prior_gradient": "none",
    "loss.generator_gradient": "detached",
}
CHANGES = {
    "temps": "loss.num_temperatures",
    "posterior_mcmc": "sampler.posterior.num_steps",
    "prior_mcmc": "sampler.prior.num_steps",
    "beta": "loss.kl_weight",
}


def load_published(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reads the published readings under `folder`.

    Returns:
      The readings, one row per epoch (from 1), and the configurations: the data set and the fields
      of each ``run``.

    Raises:
      UserError: naming the file (and line), for a folder without readings, a path of another
        layout, or a malformed file.
    """
    if not folder.is_dir():
        raise UserError(f"readings={folder}: no such folder")
    paths = sorted(folder.resolve().rglob("*.csv"))
    if not paths:
        raise UserError(f"readings={folder}: holds no CSV file; expected logs/<dataset>/p=.../")
    frames, configurations = [], {}
    for path in paths:
        configuration, repetition = parse_path(path)
        configurations[str(path.parent)] = configuration
        readings = read_columns(path, tuple(COLUMNS))
        check_epochs(path, readings, "Epoch", first=0)
        frame = pd.DataFrame({new: readings.columns[old] for old, new in COLUMNS.items()})
        frame["epoch"] += 1
        frames.append(frame.assign(run=str(path.parent), repetition=repetition, seed=math.nan))
    readings = pd.concat(frames, ignore_index=True)
    return readings, pd.DataFrame.from_dict(configurations, orient="index")


def parse_path(path: Path) -> tuple[dict[str, Any], int]:
    """Returns the data set and fields, and the repetition, that a published file's path names."""
    layout = re.fullmatch(
        r".*/(?P<dataset>[^/=]+)(/(?P<change>[a-z_]+)=(?P<value>[^/]+))?"
        r"/p=(?P<p>[^/]+)/batch=(?P<batch>[^/]+)/experiment(?P<repetition>\d+)\.csv",
        path.as_posix(),
    )
    if layout is None:
        raise _layout_error(path)
    dataset = DATASETS.get(layout["dataset"], layout["dataset"].lower())
    power = _number(path, "p", layout["p"])
    fields: dict[str, Any] = {
        "dataset": dataset,
        "loss.name": THERMODYNAMIC if power else VANILLA,
        "batch_size": _number(path, "batch", layout["batch"]),
        **STEPS.get(dataset, {}),
    }
    if power:
        fields |= {"loss.power": power, **FORM}
    if layout["change"]:
        if layout["change"] not in CHANGES:
            raise UserError(
                f"{path}: the change {layout['change']!r} is not one of {', '.join(CHANGES)}"
            )
        fields[CHANGES[layout["change"]]] = _number(path, layout["change"], layout["value"])
    return fields, int(layout["repetition"])


def _number(path: Path, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _layout_error(path) from None
    can_be_zero = name == "p"  # p = 0 stands for the vanilla model
    if not math.isfinite(value) or value < 0 or (value == 0 and not can_be_zero):
        least = "at least 0" if can_be_zero else "positive"
        raise UserError(f"{path}: {name} is {text}, must be finite and {least}")
    return value


def _layout_error(path: Path) -> UserError:
    return UserError(
        f"{path}: not laid out as <dataset>/[<change>=<value>/]p=<power>/batch=<size>/"
        "experiment<r>.csv; move it or name another folder"
    )
