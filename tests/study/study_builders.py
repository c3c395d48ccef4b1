"""Synthetic readings: frames, run folders and published files, all seeded."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from study.cells import SYMBOLS, THERMODYNAMIC, VANILLA
from study.readings import RUNS, Readings, label_configurations, sections

NETWORK = "efficientnet_lite0"
KID = f"{NETWORK}_kid_inf"
HEADER = "Epoch,Train Loss,Train Grad,Train Grad Var,Val Loss,FID_inf,MIFID_inf,KID_inf,IS_inf"


def vanilla_cell(batch_size, **further):
    """Configuration fields of a cell of the vanilla loss."""
    fields = {"loss.name": VANILLA, "batch_size": float(batch_size)}
    return fields | {"sampler.posterior.num_steps": 20.0, "sampler.prior.num_steps": 60.0} | further


def tempered_cell(power, **further):
    """Configuration fields of a cell of the thermodynamic loss."""
    fields = {
        "loss.name": THERMODYNAMIC,
        "batch_size": 75.0,
        "loss.power": power,
        "loss.schedule": "power",
        "loss.num_temperatures": 10.0,
        "sampler.posterior.num_steps": 20.0,
        "sampler.prior.num_steps": 60.0,
        "loss.kl_weight": 1.0,
        "loss.kl_form": "difference",
        "loss.quadrature": "trapezium",
        "loss.prior_gradient": "contrastive",
        "loss.generator_gradient": "detached",
    }
    return fields | further


def cell_frame(cell, variance, kid, repetitions=5, epochs=3, seed=0, spread=0.02):
    """Readings of one cell whose last epoch has about the variance and KID given."""
    generator = np.random.default_rng([seed, round(1e6 * variance)])
    rows = []
    for repetition in range(repetitions):
        factors = np.exp(spread * generator.normal(size=2))
        for epoch in range(1, epochs + 1):
            early = 1.0 + (epochs - epoch)
            row = {
                "epoch": float(epoch),
                "step": 10.0 * epoch,
                "train_loss": 100.0 * early + generator.normal(),
                "train_grad_var": variance * factors[0] * early,
                "seconds": 3.6,
                "flops_per_step": 1e9,
                KID: kid * factors[1] * early,
                f"{NETWORK}_fid_inf": 1000.0 * kid * factors[1] * early,
            }
            row |= {"run": json.dumps(cell), "repetition": repetition, "seed": float(repetition)}
            rows.append(row | cell)
    return pd.DataFrame(rows).assign(dataset="digits", origin=RUNS)


def make_section(*frames):
    """The readings of one data set from those of its cells."""
    frame = pd.concat(frames, ignore_index=True)
    fields = list(dict.fromkeys([*SYMBOLS, *(name for name in frame if "." in name)]))
    frame = frame.reindex(columns=list(dict.fromkeys([*frame.columns, *fields])))
    runs = frame.drop_duplicates("run").set_index("run")[["dataset", "origin", *fields]]
    frame["cell"] = frame["run"].map(label_configurations(runs)["cell"])
    (section,) = sections(Readings(frame, fields, pd.DataFrame(), [], []))
    return section


def study_frames(**further):
    """A complete study as the paper claims it: batch sizes, powers, and changes at p = 0.1."""
    batches = {25: (0.9, 0.036), 50: (0.62, 0.033), 75: (0.52, 0.037), 150: (0.27, 0.044)}
    powers = {0.1: (0.78, 0.077), 0.3: (0.47, 0.071), 1.0: (0.21, 0.062), 2.0: (0.28, 0.053)}
    powers |= {3.0: (0.32, 0.047), 6.0: (0.34, 0.043), 10.0: (0.38, 0.049)}
    parts = [cell_frame(vanilla_cell(b), *at, spread=0.05) for b, at in batches.items()]
    parts += [cell_frame(tempered_cell(p, **further), *at, spread=0.01) for p, at in powers.items()]
    changes = {
        "loss.num_temperatures": (30.0, 0.6, 0.07),
        "sampler.posterior.num_steps": (40.0, 0.7, 0.08),
    }
    changes["loss.kl_weight"] = (2.0, 0.7, 0.074)
    for name, (value, *at) in changes.items():
        parts.append(cell_frame(tempered_cell(0.1, **{name: value, **further}), *at, spread=0.01))
    return parts


def study_section(**further):
    """The same as a section."""
    return make_section(*study_frames(**further))


def config(loss="thermodynamic", **fields):
    """A run's config; `fields` are dotted names with double underscores for dots."""
    tree = {
        "seed": 0,
        "num_epochs": 2,
        "batch_size": 75,
        "data": {"name": "digits", "data_dir": ""},
        "sampler": {"prior": {"num_steps": 60}, "posterior": {"num_steps": 20}},
        "loss": {
            "name": loss,
            "power": 6.0,
            "schedule": "power",
            "num_temperatures": 2,
            "kl_weight": 1.0,
            "kl_form": "difference",
            "quadrature": "trapezium",
            "prior_gradient": "contrastive",
            "generator_gradient": "detached",
        },
        "model": {"latent_dim": 32, "generator": {"widths": [16, 8]}},
    }
    for name, value in fields.items():
        *parents, last = name.split("__")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = value
    return tree


def write_run(folder: Path, tree=None, repetitions=2, variance=0.3, kid=0.04) -> Path:
    """Writes a run folder as the trainer and the evaluation program leave it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(tree or config(), indent=1))
    for repetition in range(repetitions):
        rep = folder / f"rep_{repetition:02d}"
        (rep / "samples").mkdir(parents=True)
        grown = 1.0 + 0.01 * repetition
        (rep / "readings.csv").write_text(
            "epoch,step,train_loss,train_grad_mean,train_grad_var,val_loss,grad_noise,"
            "flops_per_step,seconds\n"
            f"1,10,200.5,0.0,{2 * variance * grown},201.0,,1e9,4.0\n"
            f"2,20,{100.0 + repetition},0.0,{variance * grown},101.0,0.1,1e9,3.2\n"
        )
        (rep / "eval.csv").write_text(
            f"epoch,step,{KID},{KID}_stderr,{NETWORK}_fid_inf\n"
            f"2,20,{kid * grown},0.001,{1000 * kid * grown}\n"
        )
        (rep / "temperatures.csv").write_text(
            "epoch,index,temperature,expected_log_likelihood,kl_forward,kl_backward\n"
            "2,0,0.0,-30.0,4.0,2.0\n2,1,0.25,-14.0,3.0,2.0\n2,2,1.0,-10.0,,\n"
        )
        image = np.full((8, 8, 3), 40 * repetition, np.uint8)
        Image.fromarray(image).save(rep / "samples" / "epoch_0002.png")
    return folder


def write_published(path: Path, kid=0.04, header=HEADER, rows=None) -> Path:
    """Writes one of the study's own files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = rows or [
        f"0,250.5,0.001,4.5,251.0,400.0,900.0,{2 * kid},1e6",
        f"1,120.5,0.001,0.5,121.0,300.0,700.0,{kid},5e5",
    ]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path
