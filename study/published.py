"""Reads the published study's own CSV files as if they were runs.

Layouts: ``logs/<dataset>/p=<power>/batch=<size>/experiment<r>.csv`` and
``extra_logs/<dataset>/<change>/p=<power>/batch=<size>/experiment<r>.csv``; p = 0 is the vanilla
model. Settings that the paths do not give are those of the paper's tables 4 and 5.
"""

import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from study.names import PUBLISHED_NETWORK
from study.settings import PUBLISHED, THERMODYNAMIC, VANILLA, Settings, cell_key
from thermo_ebm.errors import UserError
from thermo_ebm.run.csvfile import check_epochs, read_csv

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
# K of tables 4 and 5; the paper has no table for SVHN, so its K stays unknown.
POSTERIOR_STEPS = {"celeb_a": 20.0, "cifar10": 40.0}
PRIOR_STEPS = {"celeb_a": 60.0, "cifar10": 60.0}
CHANGES = {
    "temps": "num_temperatures",
    "posterior_mcmc": "posterior_steps",
    "prior_mcmc": "prior_steps",
    "beta": "kl_weight",
}


def load_published(folder: Path) -> pd.DataFrame:
    """Returns the published readings under `folder`, one row per epoch (from 1).

    Raises:
      UserError: naming the file (and line), for a folder without readings, a path of another
        layout, or a malformed file.
    """
    if not folder.is_dir():
        raise UserError(f"readings={folder}: no such folder")
    paths = sorted(folder.resolve().rglob("*.csv"))
    if not paths:
        raise UserError(f"readings={folder}: holds no CSV file; expected logs/<dataset>/p=.../")
    return pd.concat([_load_file(path) for path in paths], ignore_index=True)


def _load_file(path: Path) -> pd.DataFrame:
    settings, repetition = parse_path(path)
    readings = read_csv(path, tuple(COLUMNS))
    check_epochs(path, readings, "Epoch", first=0)
    frame = pd.DataFrame({new: readings.columns[old] for old, new in COLUMNS.items()})
    frame["epoch"] += 1
    for name, value in settings._asdict().items():
        frame[name] = value
    return frame.assign(
        cell=cell_key(settings),
        run=str(path.parent),
        repetition=repetition,
        seed=float("nan"),
        num_epochs=float("nan"),
    )


def parse_path(path: Path) -> tuple[Settings, int]:
    """Returns the settings and the repetition that a published file's path stands for."""
    parts = path.parts
    experiment = re.fullmatch(r"experiment(\d+)\.csv", parts[-1])
    if experiment is None or len(parts) < 5:
        raise _layout_error(path)
    batch_size = _tagged(path, parts[-2], "batch")
    power = _tagged(path, parts[-3], "p")
    change = re.fullmatch(r"([a-z_]+)=(.+)", parts[-4])
    name = parts[-5] if change else parts[-4]
    settings = _settings(DATASETS.get(name, name.lower()), batch_size, power)
    if change:
        settings = settings._replace(**_change(path, change.group(1), change.group(2)))
    return settings, int(experiment.group(1))


def _settings(dataset: str, batch_size: float, power: float) -> Settings:
    """The paper's settings; the gradients are the ones that the published code used in effect."""
    common: dict[str, Any] = {
        "dataset": dataset,
        "origin": PUBLISHED,
        "batch_size": batch_size,
        "posterior_steps": POSTERIOR_STEPS.get(dataset),
        "prior_steps": PRIOR_STEPS.get(dataset),
    }
    if power == 0:
        return Settings(loss=VANILLA, **common)
    return Settings(
        loss=THERMODYNAMIC,
        power=power,
        schedule="power",
        num_temperatures=10.0,
        kl_weight=1.0,
        kl_form="sum",
        quadrature="trapezium",
        prior_gradient="none",
        generator_gradient="detached",
        **common,
    )


def _change(path: Path, name: str, value: str) -> dict[str, Any]:
    if name not in CHANGES:
        raise UserError(f"{path}: the change {name!r} is not one of {', '.join(CHANGES)}")
    return {CHANGES[name]: _float(path, name, value)}


def _tagged(path: Path, part: str, name: str) -> float:
    prefix, _, value = part.partition("=")
    if prefix != name or not value:
        raise _layout_error(path)
    return _float(path, name, value)


def _float(path: Path, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _layout_error(path) from None
    zero = name == "p"  # p = 0 stands for the vanilla model
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        least = "at least 0" if zero else "positive"
        raise UserError(f"{path}: {name} is {text}, must be finite and {least}")
    return value


def _layout_error(path: Path) -> UserError:
    return UserError(
        f"{path}: not laid out as <dataset>/[<change>=<value>/]p=<power>/batch=<size>/"
        "experiment<r>.csv; move it or name another folder"
    )
