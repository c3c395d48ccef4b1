"""InceptionV3 as FID uses it: the 2015 TensorFlow graph's variant.

Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", with the
differences of the graph behind FID (Heusel et al. 2017): average pools leave the padding out of
their mean, the last block pools by maximum, there are 1008 classes, the batch norms' epsilon is
1e-3. The layers have the names of the file of weights, `pt_inception-2015-12-05-6726825d.pth`.

Input is 299 x 299 in [-1, 1]; the features are the 2048 means after the last block.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from thermo_ebm.metrics.networks import download, fold
from thermo_ebm.metrics.networks.network import PublishedNetwork, features_and_logits
from thermo_ebm.metrics.networks.preprocess import Resize, Scale

WEIGHTS_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"  # 95 MB
)
INPUT_SIZE = 299
NUM_CLASSES = 1008

Kernel = int | tuple[int, int]


def _conv(x: jax.Array, name: str, channels: int, kernel: Kernel = 1, **options: Any) -> jax.Array:
    return jax.nn.relu(hk.Conv2D(channels, kernel, name=name, **options)(x))


def _valid(
    x: jax.Array, name: str, channels: int, kernel: Kernel = 3, stride: int = 2
) -> jax.Array:
    return _conv(x, name, channels, kernel, stride=stride, padding="VALID")


def _shrink(x: jax.Array) -> jax.Array:
    return hk.max_pool(x, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")


def _mean_pool(x: jax.Array) -> jax.Array:
    # Haiku divides by the number of pixels inside the image: the padding is excluded.
    return hk.avg_pool(x, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")


def _max_pool(x: jax.Array) -> jax.Array:
    return hk.max_pool(x, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")


def _block_a(x: jax.Array, pool_channels: int) -> jax.Array:
    """35 x 35: one 5 x 5 and one double 3 x 3 branch."""
    five = _conv(_conv(x, "branch5x5_1", 48), "branch5x5_2", 64, 5)
    three = _conv(_conv(x, "branch3x3dbl_1", 64), "branch3x3dbl_2", 96, 3)
    three = _conv(three, "branch3x3dbl_3", 96, 3)
    pool = _conv(_mean_pool(x), "branch_pool", pool_channels)
    return jnp.concatenate([_conv(x, "branch1x1", 64), five, three, pool], axis=-1)


def _block_b(x: jax.Array) -> jax.Array:
    """35 x 35 to 17 x 17."""
    three = _conv(_conv(x, "branch3x3dbl_1", 64), "branch3x3dbl_2", 96, 3)
    three = _valid(three, "branch3x3dbl_3", 96)
    return jnp.concatenate([_valid(x, "branch3x3", 384), three, _shrink(x)], axis=-1)


def _block_c(x: jax.Array, channels: int) -> jax.Array:
    """17 x 17: 7 x 7 convolutions split into rows and columns."""
    seven = _conv(x, "branch7x7_1", channels)
    seven = _conv(seven, "branch7x7_2", channels, (1, 7))
    seven = _conv(seven, "branch7x7_3", 192, (7, 1))
    double = _conv(x, "branch7x7dbl_1", channels)
    double = _conv(double, "branch7x7dbl_2", channels, (7, 1))
    double = _conv(double, "branch7x7dbl_3", channels, (1, 7))
    double = _conv(double, "branch7x7dbl_4", channels, (7, 1))
    double = _conv(double, "branch7x7dbl_5", 192, (1, 7))
    pool = _conv(_mean_pool(x), "branch_pool", 192)
    return jnp.concatenate([_conv(x, "branch1x1", 192), seven, double, pool], axis=-1)


def _block_d(x: jax.Array) -> jax.Array:
    """17 x 17 to 8 x 8."""
    three = _valid(_conv(x, "branch3x3_1", 192), "branch3x3_2", 320)
    seven = _conv(x, "branch7x7x3_1", 192)
    seven = _conv(seven, "branch7x7x3_2", 192, (1, 7))
    seven = _conv(seven, "branch7x7x3_3", 192, (7, 1))
    seven = _valid(seven, "branch7x7x3_4", 192)
    return jnp.concatenate([three, seven, _shrink(x)], axis=-1)


def _block_e(x: jax.Array, pool: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """8 x 8: branches that split into a row and a column."""
    three = _conv(x, "branch3x3_1", 384)
    double = _conv(_conv(x, "branch3x3dbl_1", 448), "branch3x3dbl_2", 384, 3)
    branches = [
        _conv(x, "branch1x1", 320),
        _conv(three, "branch3x3_2a", 384, (1, 3)),
        _conv(three, "branch3x3_2b", 384, (3, 1)),
        _conv(double, "branch3x3dbl_3a", 384, (1, 3)),
        _conv(double, "branch3x3dbl_3b", 384, (3, 1)),
        _conv(pool(x), "branch_pool", 192),
    ]
    return jnp.concatenate(branches, axis=-1)


_LAYERS: tuple[tuple[str, Callable[[jax.Array], jax.Array]], ...] = (
    ("Conv2d_1a_3x3", lambda x: _valid(x, "Conv2d_1a_3x3", 32)),
    ("Conv2d_2a_3x3", lambda x: _valid(x, "Conv2d_2a_3x3", 32, stride=1)),
    ("Conv2d_2b_3x3", lambda x: _conv(x, "Conv2d_2b_3x3", 64, 3)),
    ("maxpool1", _shrink),
    ("Conv2d_3b_1x1", lambda x: _valid(x, "Conv2d_3b_1x1", 80, 1, stride=1)),
    ("Conv2d_4a_3x3", lambda x: _valid(x, "Conv2d_4a_3x3", 192, stride=1)),
    ("maxpool2", _shrink),
    ("Mixed_5b", partial(_block_a, pool_channels=32)),
    ("Mixed_5c", partial(_block_a, pool_channels=64)),
    ("Mixed_5d", partial(_block_a, pool_channels=64)),
    ("Mixed_6a", _block_b),
    ("Mixed_6b", partial(_block_c, channels=128)),
    ("Mixed_6c", partial(_block_c, channels=160)),
    ("Mixed_6d", partial(_block_c, channels=160)),
    ("Mixed_6e", partial(_block_c, channels=192)),
    ("Mixed_7a", _block_d),
    ("Mixed_7b", partial(_block_e, pool=_mean_pool)),
    ("Mixed_7c", partial(_block_e, pool=_max_pool)),
)


def inception_v3(x: jax.Array) -> dict[str, jax.Array]:
    """The network, for `hk.transform`: images [num, 299, 299, 3] in [-1, 1] to every stage.

    Returns:
      The output of each layer and block by its name, in order, then `features` [num, 2048] and
      `logits` [num, 1008].
    """
    stages = {}
    for name, layer in _LAYERS:
        if name.startswith("Mixed"):
            with hk.name_scope(name):
                x = layer(x)
        else:
            x = layer(x)
        stages[name] = x
    stages["features"] = x.mean(axis=(1, 2))
    stages["logits"] = hk.Linear(NUM_CLASSES, name="fc")(stages["features"])
    return stages


def _torch_names(module: str) -> fold.TorchNames:
    name = module.replace("/", ".")
    return (
        fold.TorchNames("fc", "") if name == "fc" else fold.TorchNames(f"{name}.conv", f"{name}.bn")
    )


def params_from_torch(state_dict: Mapping[str, np.ndarray]) -> hk.Params:
    """Turns the FID weights into this network's parameters, with the batch norms folded in.

    Args:
      state_dict: arrays under the file's own names, such as `Conv2d_1a_3x3.conv.weight`,
        `Conv2d_1a_3x3.bn.running_mean`, `Mixed_5b.branch1x1.conv.weight`, `fc.weight`.

    Raises:
      ValueError: if an array is missing, has another shape than the network's, or is not finite.
    """
    shapes = fold.parameter_shapes(inception_v3, INPUT_SIZE)
    return fold.fold_state_dict(state_dict, shapes, _torch_names, epsilon=1e-3)


def stages(params: hk.Params, inputs: jax.Array) -> dict[str, jax.Array]:
    """Returns every stage of `inception_v3` for scaled images [num, 299, 299, 3]."""
    return hk.transform(inception_v3).apply(params, None, inputs)


def _outputs(params: hk.Params, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    outputs = stages(params, inputs)
    # The Inception Score's original code leaves the bias out of the logits.
    return outputs["features"], outputs["logits"] - params["fc"]["b"]


NETWORK = PublishedNetwork(
    name="inception_v3",
    num_features=2048,
    input_size=INPUT_SIZE,
    bilinear=Scale(127.5, 127.5),  # pytorch-fid: 2 x / 255 - 1
    others=Scale(128.0, 128.0),  # clean-fid, TensorFlow's graph
    params_from_torch=params_from_torch,
    outputs=_outputs,
    find_weights=partial(download.find_weights, WEIGHTS_URL),
    sha256=download.sha256_prefix(WEIGHTS_URL),
    url=WEIGHTS_URL,
)


def features(
    params: hk.Params,
    images: np.ndarray | jax.Array,
    batch_size: int = 50,
    resize: Resize = "bilinear",
) -> np.ndarray:
    """Returns the features [num, 2048] of uint8 images; see `network.features_and_logits`."""
    return features_and_logits(NETWORK, params, images, batch_size, resize).features
