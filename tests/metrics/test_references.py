"""Each distance equals that of other programs on the same features.

`data/reference_figures.json` was written by those programs (`data/make_reference_figures.py`).
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from thermo_ebm.metrics import cmmd, fid, kid, manifold, memorization, mind

DATA = Path(__file__).parent / "data"
sys.path.insert(0, str(DATA))
from reference_features import DIRECTIONS, GENERATED, REAL, TRAINING_LIKE  # noqa: E402

FIGURES = json.loads((DATA / "reference_figures.json").read_text())
UNIT = DIRECTIONS / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)


def test_every_figure_has_its_distance():
    manifolds = manifold.manifold_metrics(REAL, GENERATED)
    measured = {
        "torch_fidelity.fid": fid.frechet_distance(REAL, GENERATED),
        "dgm_eval.fd": fid.frechet_distance(REAL, GENERATED),
        "torch_fidelity.kid": kid.kernel_distance(REAL, GENERATED),
        "dgm_eval.mmd": kid.kernel_distance(REAL, GENERATED),
        "torch_fidelity.mind": mind.monge_distance(REAL, GENERATED, UNIT),
        "clip_mmd": cmmd.clip_mmd(REAL, GENERATED, "published"),
        "dgm_eval.authpct": 100 * memorization.authenticity(REAL, TRAINING_LIKE).share,
        "torch_fidelity.precision": manifolds.precision,
        "torch_fidelity.recall": manifolds.recall,
        **{f"prdc.{name}": value for name, value in manifolds._asdict().items()},
    }
    assert measured.keys() == FIGURES.keys()
    for name, value in measured.items():
        # MIND's reference and the shares of torch are of single precision.
        rel = 1e-6 if name.startswith("torch_fidelity") or "auth" in name else 1e-9
        assert value == pytest.approx(FIGURES[name], rel=rel), name


def test_unbiased_cmmd_is_the_published_one_without_an_image_and_itself():
    num = len(REAL)
    published = cmmd.clip_mmd(REAL, GENERATED, "published")
    unit = [features / np.linalg.norm(features, axis=1)[:, None] for features in (REAL, GENERATED)]
    kernels = [
        np.exp(-np.sum((x[:, None] - y) ** 2, axis=-1) / 200)
        for x, y in ((unit[0], unit[0]), (unit[1], unit[1]), (unit[0], unit[1]))
    ]
    within = sum((kernel.sum() - num) / (num * (num - 1)) for kernel in kernels[:2])
    expected = 1000 * (within - 2 * kernels[2].mean())
    assert cmmd.clip_mmd(REAL, GENERATED) == pytest.approx(expected, rel=1e-6)
    assert cmmd.clip_mmd(REAL, GENERATED) < published
    with pytest.raises(ValueError, match="form must be"):
        cmmd.clip_mmd(REAL, GENERATED, "biased")
