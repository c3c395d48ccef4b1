"""Bennett's ratio and MBAR's weights in PyTorch and float64, for `benchmarks/torch_peer.py`.

The densities at two temperatures differ only by a multiple of l = log p_beta(x | z): see
`thermo_ebm/thermo/ratios.py`, which computes the same in JAX.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_BISECTIONS = 60
_NEWTON_STEPS = 6
_STEP_LENGTHS = (1.0, 0.25, 0.05, 0.01, 0.0)  # of Newton's direction


def bennett(temperatures: Tensor, likelihood: Tensor) -> Tensor:
    """log Z_(i+1) / Z_i of each image (Bennett 1976): l [T, M, num] -> [T - 1, num]."""
    step = temperatures.diff().to(likelihood.dtype)[:, None, None]
    a, r = step * likelihood[:-1], step * likelihood[1:]
    both = torch.cat([a, r], dim=1)
    low, high = both.amin(1) - 50, both.amax(1) + 50
    for _ in range(_BISECTIONS):
        c = (low + high) / 2
        excess = torch.sigmoid(a - c[:, None]) - torch.sigmoid(c[:, None] - r)
        above = excess.sum(1) > 0
        low, high = torch.where(above, c, low), torch.where(above, high, c)
    return (low + high) / 2


def posterior_weights(temperatures: Tensor, likelihood: Tensor) -> Tensor:
    """The weight of every chain as a sample of the posterior at t = 1, by MBAR in float64.

    Args:
      temperatures: t_1 .. t_N.
      likelihood: l of their chains [N_t, M, num].

    Returns:
      [N_t, M, num]; the weights of an image add up to 1.
    """
    t, centred = temperatures.double(), likelihood.double()
    centred = centred - centred.mean((0, 1))
    start = torch.cat([torch.zeros_like(centred[:1, 0]), bennett(t, centred).cumsum(0)])
    samples = centred.flatten(0, 1).T  # [num, samples]
    logits = samples[..., None] * t  # [num, samples, N_t]
    c = _minimise(logits, start.T, likelihood.shape[1])
    log_weights = samples - torch.logsumexp(logits - c[:, None], dim=2)
    return log_weights.softmax(1).T.reshape(likelihood.shape).to(likelihood.dtype)


def _minimise(logits: Tensor, c: Tensor, count: int) -> Tensor:
    """MBAR's c [num, T] with c_0 = 0 (Shirts & Chodera 2008), by Newton's method from a start.

    Args:
      logits: t_k l_n, [num, samples, T].
      c: the start, [num, T].
      count: samples at each temperature.
    """

    def objective(c: Tensor) -> Tensor:
        return torch.logsumexp(logits - c[..., None, :], dim=-1).sum(-1) + count * c.sum(-1)

    unit = torch.eye(c.shape[1] - 1, dtype=c.dtype)
    lengths = torch.tensor(_STEP_LENGTHS, dtype=c.dtype)[:, None, None]
    for _ in range(_NEWTON_STEPS if c.shape[1] > 1 else 0):
        shares = (logits - c[:, None]).softmax(2)[..., 1:]
        total = shares.sum(1)
        hessian = torch.diag_embed(total) - shares.mT @ shares + 1e-6 * count * unit
        direction = torch.linalg.solve(hessian, count - total)
        candidates = c - lengths * F.pad(direction, (1, 0))
        best = objective(candidates).argmin(0)
        c = candidates[best, torch.arange(len(c))]
    return c
