"""The training step in PyTorch, as one would write it there: a peer for `benchmarks/step.py`.

All chains of all temperatures run in one batch, oneDNN computes the transposed convolutions, the
chains take gradients of the latents alone, and Adam is PyTorch's own. Numbers that are fixed before
training (temperatures, weights of the quadrature) come from the library; all else is independent of
it. From the same noise, loss and gradient equal those of `thermo_ebm.losses` up to rounding.

The peer covers both losses with unadjusted chains in float32 and gradients over fixed chains; see
`check`. It needs torch: `pip install torch==2.13.0`.
"""

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import Tensor

from benchmarks.torch_ratios import bennett, posterior_weights
from thermo_ebm.config.build import sampler_settings
from thermo_ebm.errors import UserError
from thermo_ebm.losses import VANILLA, LossSettings
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings
from thermo_ebm.thermo.integral import quadrature_weights
from thermo_ebm.thermo.schedule import make_schedule

# Values with which the peer computes the same step; further fields of the thermodynamic loss.
_COVERED: dict[str, tuple] = {
    "sampler.prior.kernel": ("ula",),
    "sampler.posterior.kernel": ("ula",),
    "sampler.precision": ("float32",),
    "optimizer.clip_norm": (0.0,),
    "gradient_noise.accumulate": (1,),
}
_COVERED_THERMODYNAMIC: dict[str, tuple] = {
    "sampler.exchange_every": (0,),
    "loss.prior_gradient": ("contrastive",),
    "loss.generator_gradient": ("reweighted", "posterior"),
    "loss.correction": ("ratio", "none"),
    "loss.kl_form": ("difference",),
}


class Params(NamedTuple):
    """Weights and bias of each layer."""

    alpha: list[tuple[Tensor, Tensor]]  # [out, in], [out]
    beta: list[tuple[Tensor, Tensor]]  # [in, out, k, k], [out]


class Noise(NamedTuple):
    """Standard normal numbers of the chains: those of z_0, then those of each step."""

    prior: Tensor  # [K_z + 1, M * num, latent_dim]
    posterior: Tensor  # [K + 1, N_t * M * num, latent_dim]; N_t = 1 for the vanilla loss


class Peer(NamedTuple):
    """Everything that is fixed before training."""

    tilt: Callable[[list, Tensor], Tensor]  # (alpha, z [num, latent_dim]) -> [num]
    generator: Callable[[list, Tensor], Tensor]  # (beta, z) -> [num, channels, size, size]
    sampler: SamplerSettings
    prior_sigma: float
    likelihood_sigma: float
    latent_dim: int
    temperatures: Tensor  # t_0 = 0 .. t_N = 1; 0 and 1 for the vanilla loss
    quadrature: Tensor  # weight of each E_i
    kl_weight: float  # eta; 0 without a correction
    vanilla: bool
    reweighted: bool  # the gradient's means are over the chains of t_1 .. t_N, not of t = 1 alone


def check(config: ConfigDict) -> None:
    """Refuses a configuration whose step the peer does not compute.

    Raises:
      UserError: the message names the field.
    """
    covered = dict(_COVERED)
    if LossSettings.from_config(config) != VANILLA:
        covered |= _COVERED_THERMODYNAMIC
    for field, values in covered.items():
        value = config
        for name in field.split("."):
            value = value[name]
        if value not in values:
            allowed = " or ".join(map(str, values))
            raise UserError(f"{field}={value}: the peer in PyTorch needs {allowed}")


def make_peer(config: ConfigDict) -> Peer:
    """The peer of the step that a configuration names.

    Raises:
      UserError: see `check`.
    """
    check(config)
    settings = LossSettings.from_config(config)
    schedule = make_schedule(settings.schedule, settings.num_temperatures, settings.power)
    return Peer(
        tilt=make_tilt(config.model.prior),
        generator=make_generator(config.model.generator),
        sampler=sampler_settings(config),
        prior_sigma=config.model.prior_sigma,
        likelihood_sigma=config.model.likelihood_sigma,
        latent_dim=config.model.latent_dim,
        temperatures=_tensor(schedule.temperatures),
        quadrature=_tensor(quadrature_weights(settings.quadrature, schedule)),
        kl_weight=settings.kl_weight if settings.correction == "ratio" else 0.0,
        vanilla=settings == VANILLA,
        reweighted=settings.generator_gradient == "reweighted",
    )


def make_tilt(config: ConfigDict) -> Callable[[list, Tensor], Tensor]:
    """f_alpha of `config.model.prior`."""

    def activate(x: Tensor) -> Tensor:
        if config.activation == "gelu":
            return F.gelu(x, approximate="tanh")
        return F.leaky_relu(x, config.leak)

    def tilt(alpha: list, z: Tensor) -> Tensor:
        *hidden, last = alpha
        for weights, bias in hidden:
            z = activate(F.linear(z, weights, bias))
        return F.linear(z, *last)[:, 0]

    return tilt


def make_generator(config: ConfigDict) -> Callable[[list, Tensor], Tensor]:
    """g_beta of `config.model.generator`."""
    strides, leak = tuple(config.strides), config.leak

    def generator(beta: list, z: Tensor) -> Tensor:
        x = z[:, :, None, None]
        for i, ((weights, bias), stride) in enumerate(zip(beta, strides, strict=True)):
            x = F.leaky_relu(x, leak) if i else x
            excess = weights.shape[-1] - stride if i else 0
            x = F.conv_transpose2d(x, weights, bias, stride, padding=excess // 2)
            if excess % 2:  # one more pixel is cropped at the end than at the start
                x = x[:, :, :-1, :-1]
        return torch.tanh(x)

    return generator


def from_jax(params: Any) -> Params:
    """The library's parameters in PyTorch's layout, to be trained."""
    alpha, beta = params["prior"], params["generator"]
    dense = [alpha[name] for name in ("hidden_0", "hidden_1", "tilt")]
    layers = [beta[f"layer_{i}"] for i in range(len(beta))]
    return Params(
        [_trained(layer, (1, 0)) for layer in dense],
        [_trained(layer, (2, 3, 0, 1)) for layer in layers],
    )


def _trained(layer: Any, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    weights, bias = np.asarray(layer["w"]).transpose(axes), np.asarray(layer["b"])
    return _tensor(weights).requires_grad_(), _tensor(bias).requires_grad_()


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, order="C"))


def draw_noise(peer: Peer, num: int) -> Noise:
    """New noise for a batch of `num` images."""
    chains = peer.sampler.chains_per_image * num
    prior, posterior = peer.sampler.prior.num_steps, peer.sampler.posterior.num_steps
    hot = (len(peer.temperatures) - 1) * chains
    return Noise(
        torch.randn(prior + 1, chains, peer.latent_dim),
        torch.randn(posterior + 1, hot, peer.latent_dim),
    )


def log_prior(peer: Peer, alpha: list, z: Tensor) -> Tensor:
    """log p_alpha(z) up to a constant (eq. 1), [num]."""
    return peer.tilt(alpha, z) - z.square().sum(1) / (2 * peer.prior_sigma**2)


def log_likelihood(peer: Peer, beta: list, x: Tensor, z: Tensor) -> Tensor:
    """log p_beta(x | z) in nats (eq. 8), of images [num, channels, size, size]: [num]."""
    variance = peer.likelihood_sigma**2
    squared_error = (x - peer.generator(beta, z)).square().sum((1, 2, 3))
    constant = x[0].numel() / 2 * math.log(2 * math.pi * variance)
    return -squared_error / (2 * variance) - constant


def chain(
    log_density: Callable[[Tensor], Tensor], start: Tensor, noise: Tensor, settings: ChainSettings
) -> Tensor:
    """Unadjusted chains (eq. 9), one step for each entry of noise [K, num, latent_dim]."""
    z, scale = start, math.sqrt(2 * settings.step_size)
    for epsilon in noise:
        z = z.requires_grad_()
        (score,) = torch.autograd.grad(log_density(z).sum(), z)
        z = z.detach() + settings.step_size * score + scale * epsilon
    return z


def draw(peer: Peer, params: Params, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """The chains' ends: of the prior [M * num, D], and of all other temperatures in one batch.

    Args:
      peer: the step.
      params: alpha and beta.
      x: images [num, channels, size, size].
      noise: of these chains.

    Returns:
      [M * num, latent_dim] and [N_t * M * num, latent_dim].
    """
    prior, posterior = peer.sampler.prior, peer.sampler.posterior
    start, hot_start = peer.prior_sigma * noise.prior[0], peer.prior_sigma * noise.posterior[0]
    cold = chain(lambda z: log_prior(peer, params.alpha, z), start, noise.prior[1:], prior)
    t = peer.temperatures[1:].repeat_interleave(len(cold))
    images = x.repeat(len(t) // len(x), 1, 1, 1)

    def log_density(z: Tensor) -> Tensor:
        likelihood = log_likelihood(peer, params.beta, images, z)
        return t * likelihood + log_prior(peer, params.alpha, z)

    return cold, chain(log_density, hot_start, noise.posterior[1:], posterior)


def loss(peer: Peer, params: Params, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """The loss in nats per image, and the surrogate whose gradient is the loss's.

    Args:
      peer: the step.
      params: alpha and beta.
      x: images [num, channels, size, size] in [-1, 1].
      noise: of the chains.

    Returns:
      Two scalars.
    """
    cold, hot = draw(peer, params, x, noise)
    per_image, num = peer.sampler.chains_per_image, len(x)
    if peer.vanilla:
        likelihood = log_likelihood(peer, params.beta, x.repeat(per_image, 1, 1, 1), hot)
        difference = peer.tilt(params.alpha, hot).mean() - peer.tilt(params.alpha, cold).mean()
        value = -(likelihood.mean() + difference)
        return value.detach(), value
    # The gradient uses the chains from temperature `first` on; of the others only l is needed.
    steps = len(peer.temperatures) - 1
    first = 1 if peer.reweighted else steps
    z = torch.cat([cold, hot])
    images = x.repeat((steps + 1) * per_image, 1, 1, 1)
    split = first * per_image * num
    with torch.no_grad():
        fixed = log_likelihood(peer, params.beta, images[:split], z[:split])
    used = log_likelihood(peer, params.beta, images[split:], z[split:])
    of_chains = torch.cat([fixed, used.detach()]).reshape(steps + 1, per_image, num)
    if peer.reweighted:
        weights = posterior_weights(peer.temperatures[1:], of_chains[1:])
    else:
        weights = torch.full((1, per_image, num), 1 / per_image)
    summed = used + peer.tilt(params.alpha, z[split:])
    surrogate = peer.tilt(params.alpha, cold).mean() - (weights.flatten() * summed).sum() / num
    return thermodynamic_value(peer, of_chains), surrogate


def thermodynamic_value(peer: Peer, likelihood: Tensor) -> Tensor:
    """Minus the corrected quadrature, from l of every chain [N_t + 1, M, num].

    With the divergences of Bennett's ratios c_i, the corrected quadrature is the sum of c_i,
    whatever the quadrature; kl_weight = eta is the share of the correction that is added.
    """
    quadrature = peer.quadrature @ likelihood.mean((1, 2))
    if not peer.kl_weight:
        return -quadrature
    ratios = bennett(peer.temperatures, likelihood.double()).sum(0).mean()
    return -(quadrature + peer.kl_weight * (ratios.to(quadrature.dtype) - quadrature))


def make_step(config: ConfigDict, params: Any, images: Any) -> Callable[[], None]:
    """The training step on one batch, to be called repeatedly: it trains its own copy.

    From this call on, PyTorch uses as many threads as there are cores.

    Args:
      config: the configuration.
      params: the library's parameters, from which the peer starts.
      images: [num, height, width, channels] in [-1, 1].

    Raises:
      UserError: see `check`.
    """
    torch.set_num_threads(os.cpu_count() or 1)
    peer, trained = make_peer(config), from_jax(params)
    adam, x = make_adam(config, trained), images_from_jax(images)

    def step() -> None:
        update(peer, trained, adam, x, draw_noise(peer, len(x)))

    return step


def images_from_jax(images: Any) -> Tensor:
    """[num, height, width, channels] -> [num, channels, height, width]."""
    return _tensor(np.asarray(images).transpose(0, 3, 1, 2))


def make_adam(config: ConfigDict, params: Params) -> torch.optim.Adam:
    """Adam with the first learning rates of `config.optimizer`."""
    groups = []
    for name, layers in (("prior", params.alpha), ("generator", params.beta)):
        adam = config.optimizer[name]
        tensors = [tensor for layer in layers for tensor in layer]
        groups.append(
            {"params": tensors, "lr": adam.learning_rate, "betas": (adam.b1, adam.b2), "eps": 1e-8}
        )
    return torch.optim.Adam(groups)


def update(peer: Peer, params: Params, adam: torch.optim.Adam, x: Tensor, noise: Noise) -> Tensor:
    """One step: chains, loss, gradient, update in place. Returns the loss."""
    value, surrogate = loss(peer, params, x, noise)
    adam.zero_grad()
    surrogate.backward()
    adam.step()
    return value
