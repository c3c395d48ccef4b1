"""Figures of other programs for `test_references.py`: python make_reference_figures.py SOURCES

In an environment of its own with torch 2.13.0, torch-fidelity 0.4.0, clip-mmd 0.0.2, prdc 0.2 and
scikit-learn. SOURCES is a folder with authpct.py, fd.py and mmd.py of dgm-eval
(layer6ai-labs/dgm-eval, dgm_eval/metrics at d57a6d2) and metric_mind.py of torch-fidelity
(toshas/torch-fidelity, torch_fidelity at a51aa64, which no release has yet). MIND's directions are
drawn by torch: they are replaced by the rows of numpy's random numbers that the test uses.
torch-fidelity imports torchvision, of which nothing is used here: any stand-in will do.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, sys.argv[1])
import authpct
import fd
import metric_mind
import mmd
import prdc
from clip_mmd.calculation import mmd as clip_mmd
from reference_features import DIRECTIONS, GENERATED, REAL, TRAINING_LIKE
from torch_fidelity import metric_fid, metric_kid, metric_prc

real, generated = torch.from_numpy(REAL), torch.from_numpy(GENERATED)
statistics = [metric_fid.fid_features_to_statistics(features) for features in (generated, real)]
kid = metric_kid.kid_features_to_metric(
    generated, real, kid_subsets=1, kid_subset_size=len(REAL), rng_seed=0, verbose=False
)
prc = metric_prc.prc_features_to_metric(generated, real, prc_neighborhood=5, verbose=False)
torch.randn = lambda *arguments, **options: torch.from_numpy(DIRECTIONS.astype(np.float32))
mind = metric_mind.mind_features_to_metric(
    generated, real, mind_num_projections=len(DIRECTIONS), rng_seed=0, cuda=False, verbose=False
)
unit = [
    features / np.linalg.norm(features, axis=1, keepdims=True) for features in (REAL, GENERATED)
]
figures = {
    "torch_fidelity.fid": metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[
        "frechet_inception_distance"
    ],
    "torch_fidelity.kid": kid["kernel_inception_distance_mean"],
    "torch_fidelity.precision": prc["precision"],
    "torch_fidelity.recall": prc["recall"],
    "torch_fidelity.mind": mind["monge_inception_distance"],
    "clip_mmd": float(clip_mmd(*unit)),
    "dgm_eval.fd": float(fd.compute_efficient_FD_with_reps(REAL, GENERATED)),
    "dgm_eval.mmd": float(mmd.compute_polynomial_mmd(REAL, GENERATED)),
    "dgm_eval.authpct": authpct.compute_authpct(REAL, TRAINING_LIKE),
    **{
        f"prdc.{name}": float(value)
        for name, value in prdc.compute_prdc(REAL, GENERATED, nearest_k=5).items()
    },
}
path = Path(__file__).with_name("reference_figures.json")
path.write_text(json.dumps(figures, indent=2) + "\n")
