"""What both feature networks share: from a state dict and uint8 images to features and logits."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import haiku as hk
import jax
import numpy as np

from thermo_ebm.metrics.networks import fold, preprocess


class Architecture(NamedTuple):
    """A network for `hk.transform` and the conventions of its published weights."""

    name: str
    network: Callable[[jax.Array], dict[str, jax.Array]]  # scaled images to every stage by name
    input_size: int  # height and width
    num_features: int
    num_classes: int
    bilinear: preprocess.Scale  # of [0, 255] after bilinear resizing
    antialias: preprocess.Scale  # after antialiased resizing
    source: Callable[[str], fold.Source]  # where a Haiku module's weights are in the state dict
    epsilon: float  # of the batch norms
    logits_have_bias: bool  # whether the logits contain the last layer's bias


def params_from_torch(
    architecture: Architecture, state_dict: Mapping[str, np.ndarray]
) -> hk.Params:
    """Returns the network's parameters with the batch norms folded; see `fold.fold_state_dict`.

    Raises:
      ValueError: if an array is missing, has another shape than the network's, or is not finite.
    """
    shapes = fold.parameter_shapes(architecture.network, architecture.input_size)
    return fold.fold_state_dict(state_dict, shapes, architecture.source, architecture.epsilon)


def stages(
    architecture: Architecture, params: hk.Params, inputs: jax.Array
) -> dict[str, jax.Array]:
    """Applies the network to scaled images [num, input_size, input_size, 3]: every stage's output.

    The last two are `features` [num, num_features] and `logits` [num, num_classes] with bias.
    """
    return hk.transform(architecture.network).apply(params, None, inputs)


@partial(jax.jit, static_argnames=("architecture", "resize"))
def _apply(
    params: hk.Params, images: jax.Array, architecture: Architecture, resize: preprocess.Resize
) -> tuple[jax.Array, jax.Array]:
    scale = architecture.bilinear if resize == "bilinear" else architecture.antialias
    resized = preprocess.resize(images, architecture.input_size, resize)
    # Without this an accelerator multiplies in fewer digits than a metric can bear.
    with jax.default_matmul_precision("highest"):
        outputs = stages(architecture, params, (resized - scale.centre) / scale.width)
    bias = 0.0 if architecture.logits_have_bias else params["fc"]["b"]
    return outputs["features"], outputs["logits"] - bias


def features_and_logits(
    architecture: Architecture,
    params: hk.Params,
    images: np.ndarray | jax.Array,
    batch_size: int = 50,
    resize: preprocess.Resize = "bilinear",
) -> tuple[np.ndarray, np.ndarray]:
    """Returns features [num, num_features] and logits [num, num_classes] of uint8 images.

    Args:
      architecture: the network.
      params: from `params_from_torch`.
      images: uint8 [num, height, width, 3] of any size.
      batch_size: images at once.
      resize: how images get to the input size; see `preprocess`.

    Raises:
      ValueError: if the images have another type or shape, or `resize` is unknown.
    """
    preprocess.check_images(images)
    preprocess.check_resize(resize)
    apply = partial(_apply, params, architecture=architecture, resize=resize)
    features, logits = preprocess.in_batches(apply, np.asarray(images), batch_size)
    return features, logits
