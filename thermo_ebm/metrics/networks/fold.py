"""From a PyTorch network's state dict to Haiku parameters with the batch norms folded in.

Evaluation's batch norm is an affine map of each channel, so it goes into the convolution before it:
w' = w * gamma / sqrt(var + epsilon), b' = beta - mean * gamma / sqrt(var + epsilon).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np


class TorchNames(NamedTuple):
    """The names in the state dict from which a Haiku module's parameters come."""

    layer: str  # prefix of the convolution's or linear layer's arrays
    norm: str  # prefix of the batch norm's arrays; "" if none follows


def parameter_shapes(
    network: Callable[[jax.Array], object], input_size: int
) -> Mapping[str, Mapping[str, jax.ShapeDtypeStruct]]:
    """Returns the shapes of a Haiku network's parameters; nothing is computed.

    Args:
      network: a function for `hk.transform`, of images [num, input_size, input_size, 3].
      input_size: height and width of its input.
    """
    images = jax.ShapeDtypeStruct((1, input_size, input_size, 3), jnp.float32)
    init = hk.transform(network).init
    return jax.eval_shape(init, jax.random.key(0), images)


def fold_state_dict(
    state_dict: Mapping[str, np.ndarray],
    shapes: Mapping[str, Mapping[str, jax.ShapeDtypeStruct]],
    torch_names: Callable[[str], TorchNames],
    epsilon: float,
) -> dict[str, dict[str, jax.Array]]:
    """Builds Haiku parameters (float32) from a PyTorch state dict.

    Args:
      state_dict: the arrays by PyTorch's names; arrays that the network does not need are ignored.
      shapes: what the Haiku network expects, from `parameter_shapes`.
      torch_names: gives the names in the state dict for a Haiku module's name.
      epsilon: epsilon of the batch norms.

    Raises:
      ValueError: if an array is missing, has another shape than the network's, or is not finite.
    """
    params = {}
    for module, expected in shapes.items():
        names = torch_names(module)
        folded = _fold(state_dict, names, epsilon)
        for name, shape in expected.items():
            if folded[name].shape != shape.shape:
                raise ValueError(
                    f"{names.layer} has the shape {folded[name].shape} where the network"
                    f" has {shape.shape} (as {module}/{name})"
                )
            if not np.isfinite(folded[name]).all():
                raise ValueError(f"{names.layer} has values that are not finite")
        params[module] = {name: jnp.asarray(folded[name], jnp.float32) for name in expected}
    return params


def _fold(
    state_dict: Mapping[str, np.ndarray], names: TorchNames, epsilon: float
) -> dict[str, np.ndarray]:
    weight = _get(state_dict, f"{names.layer}.weight")
    # PyTorch: [out, in, height, width] and [out, in]; Haiku: [height, width, in, out], [in, out].
    weight = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
    if not names.norm:
        return {"w": weight, "b": _get(state_dict, f"{names.layer}.bias")}
    gamma, beta, mean, variance = (
        _get(state_dict, f"{names.norm}.{name}")
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    if not gamma.shape == beta.shape == mean.shape == variance.shape == weight.shape[-1:]:
        raise ValueError(f"{names.norm} and {names.layer} differ in their number of channels")
    if not (variance >= 0).all():
        raise ValueError(f"{names.norm}.running_var has negative values")
    scale = gamma / np.sqrt(variance + epsilon)
    return {"w": weight * scale, "b": beta - mean * scale}


def _get(state_dict: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in state_dict:
        raise ValueError(f"the weights lack {name}")
    return np.asarray(state_dict[name], np.float64)
