"""Vision transformers as feature networks: DINOv2 and CLIP (Dosovitskiy et al. 2021).

An image is cut into patches of 14 x 14 pixels, each a token; a class token, whose last state is the
feature vector, comes first. Blocks normalise before attention and before the two-layer network.

- DINOv2 (Oquab et al. 2023): each branch is multiplied by a learned scale, GELU, ImageNet's mean
  and standard deviation, input 224 x 224, positions for 37 x 37 patches that are interpolated to
  16 x 16. Files with register tokens (Darcet et al. 2024) are read too; these come after the class
  token.
- CLIP (Radford et al. 2021), ViT-L/14 at 336 pixels: a normalisation before the first block, the
  quick GELU x sigmoid(1.702 x), and a linear map to the 768 features that texts share.

Weights are read from the file of the model's release or of the package `transformers`; both name
the same arrays differently (`Layout`). Positions are interpolated when weights are read, as the
release does it: DINOv2's by cubic convolution (a = -0.75) whose scale has an offset of 0.1 patches,
those of files with registers by antialiased cubic convolution (a = -0.5).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from thermo_ebm.metrics.networks import download, fold
from thermo_ebm.metrics.networks.network import PublishedNetwork
from thermo_ebm.metrics.networks.preprocess import Scale

PATCH_SIZE = 14
_HEAD_SIZE = 64
RELEASE_OFFSET = 0.1  # patches, in the scale of DINOv2's positions


class Architecture(NamedTuple):
    """The shape of a transformer."""

    width: int  # features of a token
    depth: int  # blocks
    input_size: int  # height and width of an image
    num_registers: int = 0
    is_clip: bool = False
    num_outputs: int = 0  # of CLIP's last linear map

    @property
    def num_patches(self) -> int:
        """Along one side of an image."""
        return self.input_size // PATCH_SIZE


class Layout(NamedTuple):
    """The names of the arrays in a file; blocks and their arrays are joined by a dot."""

    class_token: str
    positions: str
    patch: str
    block: str  # prefix of block {}
    norms: tuple[str, str]
    attention: tuple[str, ...]  # the fused map of query, key and value, or the three
    output: str
    hidden: tuple[str, str]  # the two layers of the network in a block
    last_norm: str
    scales: tuple[str, str] | None = None
    first_norm: str = ""
    registers: str = ""
    projection: str = ""
    is_projection_transposed: bool = False


LAYOUTS = {
    "dinov2": Layout(
        class_token="cls_token",
        positions="pos_embed",
        patch="patch_embed.proj",
        block="blocks.{}",
        norms=("norm1", "norm2"),
        attention=("attn.qkv",),
        output="attn.proj",
        hidden=("mlp.fc1", "mlp.fc2"),
        last_norm="norm",
        scales=("ls1.gamma", "ls2.gamma"),
        registers="register_tokens",
    ),
    "dinov2_transformers": Layout(
        class_token="embeddings.cls_token",
        positions="embeddings.position_embeddings",
        patch="embeddings.patch_embeddings.projection",
        block="encoder.layer.{}",
        norms=("norm1", "norm2"),
        attention=tuple(f"attention.attention.{name}" for name in ("query", "key", "value")),
        output="attention.output.dense",
        hidden=("mlp.fc1", "mlp.fc2"),
        last_norm="layernorm",
        scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
        registers="embeddings.register_tokens",
    ),
    "clip": Layout(
        class_token="visual.class_embedding",
        positions="visual.positional_embedding",
        patch="visual.conv1",
        block="visual.transformer.resblocks.{}",
        norms=("ln_1", "ln_2"),
        attention=("attn.in_proj",),
        output="attn.out_proj",
        hidden=("mlp.c_fc", "mlp.c_proj"),
        last_norm="visual.ln_post",
        first_norm="visual.ln_pre",
        projection="visual.proj",
    ),
    "clip_transformers": Layout(
        class_token="vision_model.embeddings.class_embedding",
        positions="vision_model.embeddings.position_embedding.weight",
        patch="vision_model.embeddings.patch_embedding",
        block="vision_model.encoder.layers.{}",
        norms=("layer_norm1", "layer_norm2"),
        attention=tuple(f"self_attn.{name}_proj" for name in "qkv"),
        output="self_attn.out_proj",
        hidden=("mlp.fc1", "mlp.fc2"),
        last_norm="vision_model.post_layernorm",
        first_norm="vision_model.pre_layrnorm",
        projection="visual_projection.weight",
        is_projection_transposed=True,
    ),
}


def vision_transformer(images: jax.Array, architecture: Architecture) -> dict[str, jax.Array]:
    """The network, for `hk.transform`: scaled images [num, input_size, input_size, 3].

    Returns:
      The tokens after each block by its name, `pooled` [num, width] and `features`: the same, or
      CLIP's [num, num_outputs].
    """
    width, num = architecture.width, len(images)
    norm = partial(_norm, epsilon=1e-5 if architecture.is_clip else 1e-6)
    patches = hk.Conv2D(
        width,
        PATCH_SIZE,
        stride=PATCH_SIZE,
        padding="VALID",
        with_bias=not architecture.is_clip,
        name="patch",
    )(images)
    tokens = jnp.concatenate(
        [_tokens("class_token", 1, num, width), patches.reshape(num, -1, width)], axis=1
    )
    tokens += _parameter("positions", (architecture.num_patches**2 + 1, width))
    if architecture.num_registers:
        registers = _tokens("registers", architecture.num_registers, num, width)
        tokens = jnp.concatenate([tokens[:, :1], registers, tokens[:, 1:]], axis=1)
    if architecture.is_clip:
        tokens = norm("first_norm", tokens)
    stages = {}
    for number in range(architecture.depth):
        with hk.name_scope(f"block_{number}"):
            tokens += _scaled("scale_1", _attention(norm("norm_1", tokens)), architecture)
            tokens += _scaled(
                "scale_2", _hidden(norm("norm_2", tokens), architecture), architecture
            )
        stages[f"block_{number}"] = tokens
    pooled = norm("last_norm", tokens[:, 0])
    stages["pooled"] = stages["features"] = pooled
    if architecture.num_outputs:
        stages["features"] = hk.Linear(architecture.num_outputs, False, name="projection")(pooled)
    return stages


def _parameter(name: str, shape: tuple[int, ...]) -> jax.Array:
    return hk.get_parameter(name, shape, init=hk.initializers.Constant(0))


def _tokens(name: str, num_tokens: int, num_images: int, width: int) -> jax.Array:
    """Learned tokens, the same for each image."""
    tokens = _parameter(name, (num_tokens, width))
    return jnp.broadcast_to(tokens, (num_images, num_tokens, width))


def _norm(name: str, x: jax.Array, epsilon: float) -> jax.Array:
    return hk.LayerNorm(-1, create_scale=True, create_offset=True, eps=epsilon, name=name)(x)


def _scaled(name: str, branch: jax.Array, architecture: Architecture) -> jax.Array:
    """DINOv2's learned scale of a branch."""
    if architecture.is_clip:
        return branch
    return branch * _parameter(name, (architecture.width,))


def _attention(x: jax.Array) -> jax.Array:
    num, num_tokens, width = x.shape
    query, key, value = (
        hk.Linear(width, name=name)(x).reshape(num, num_tokens, -1, _HEAD_SIZE)
        for name in ("query", "key", "value")
    )
    weights = jax.nn.softmax(jnp.einsum("nihd,njhd->nhij", query, key) / _HEAD_SIZE**0.5)
    mixed = jnp.einsum("nhij,njhd->nihd", weights, value).reshape(num, num_tokens, width)
    return hk.Linear(width, name="output")(mixed)


def _hidden(x: jax.Array, architecture: Architecture) -> jax.Array:
    x = hk.Linear(4 * architecture.width, name="hidden_1")(x)
    if architecture.is_clip:
        x = x * jax.nn.sigmoid(1.702 * x)
    else:
        x = jax.nn.gelu(x, approximate=False)
    return hk.Linear(architecture.width, name="hidden_2")(x)


def params_from_torch(
    state_dict: Mapping[str, np.ndarray],
    architecture: Architecture,
    offset: float = RELEASE_OFFSET,
) -> hk.Params:
    """Turns a file's arrays into this network's parameters, positions interpolated.

    Args:
      state_dict: arrays under the names of one of `LAYOUTS`; others are ignored.
      architecture: the network; register tokens in the file are added to it.
      offset: in the scale of DINOv2's interpolation; `transformers` has none.

    Raises:
      ValueError: if an array is missing, has another shape than the network's, or is not finite.
    """
    arrays, layout = _recognised(state_dict, architecture)
    has_registers = bool(layout.registers) and layout.registers in arrays
    if has_registers:
        shape = arrays[layout.registers].shape
        architecture = architecture._replace(num_registers=shape[-2] if len(shape) > 1 else 0)
    entries = _entries(arrays, layout, architecture)
    positions = entries["~"]["positions"]
    if not architecture.is_clip:
        kernel = _antialiased if has_registers else partial(_cubic, offset=offset)
        entries["~"]["positions"] = _interpolated(positions, architecture.num_patches, kernel)
    network = partial(vision_transformer, architecture=architecture)
    shapes = fold.parameter_shapes(network, architecture.input_size)
    params = {}
    for module, expected in shapes.items():
        params[module] = {
            name: _checked(entries[module][name], shape.shape, f"{module}/{name}")
            for name, shape in expected.items()
        }
    return params


def _recognised(
    state_dict: Mapping[str, np.ndarray], architecture: Architecture
) -> tuple[dict[str, np.ndarray], Layout]:
    """The arrays without the prefix of a larger model, and the names that they have."""
    kind = "clip" if architecture.is_clip else "dinov2"
    for name in (kind, f"{kind}_transformers"):
        for prefix in ("", "dinov2.", "dinov2_with_registers.", "clip."):
            if f"{prefix}{LAYOUTS[name].class_token}" in state_dict:
                arrays = {
                    key.removeprefix(prefix): np.asarray(array) for key, array in state_dict.items()
                }
                return arrays, LAYOUTS[name]
    raise ValueError(
        f"the weights lack {LAYOUTS[kind].class_token}: not the file of a {kind} model"
    )


def _entries(
    arrays: Mapping[str, np.ndarray], layout: Layout, architecture: Architecture
) -> dict[str, dict[str, np.ndarray]]:
    """The parameters by Haiku's modules and names."""
    width = architecture.width

    def get(name: str) -> np.ndarray:
        if name not in arrays:
            raise ValueError(f"the weights lack {name}")
        return np.asarray(arrays[name], np.float32)

    def linear(name: str) -> dict[str, np.ndarray]:
        return {"w": get(f"{name}.weight").T, "b": get(f"{name}.bias")}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {"scale": get(f"{name}.weight"), "offset": get(f"{name}.bias")}

    patch = {"w": get(f"{layout.patch}.weight").transpose(2, 3, 1, 0)}
    if not architecture.is_clip:
        patch["b"] = get(f"{layout.patch}.bias")
    outer = {
        "class_token": get(layout.class_token).reshape(1, -1),
        "positions": get(layout.positions).reshape(-1, width),
    }
    if architecture.num_registers:
        outer["registers"] = get(layout.registers).reshape(-1, width)
    entries = {"~": outer, "patch": patch, "last_norm": norm(layout.last_norm)}
    if layout.first_norm:
        entries["first_norm"] = norm(layout.first_norm)
    if architecture.num_outputs:
        projection = get(layout.projection)
        entries["projection"] = {
            "w": projection.T if layout.is_projection_transposed else projection
        }
    for number in range(architecture.depth):
        torch_block, block = layout.block.format(number), f"block_{number}"
        names = [f"{torch_block}.{name}" for name in layout.attention]
        if len(names) == 1:
            fused = "_" if names[0].endswith("in_proj") else "."  # torch's own attention
            weights = np.split(get(f"{names[0]}{fused}weight"), 3)
            biases = np.split(get(f"{names[0]}{fused}bias"), 3)
            maps = [
                {"w": weight.T, "b": bias} for weight, bias in zip(weights, biases, strict=True)
            ]
        else:
            maps = [linear(name) for name in names]
        for name, parameters in zip(("query", "key", "value"), maps, strict=True):
            entries[f"{block}/{name}"] = parameters
        entries[f"{block}/output"] = linear(f"{torch_block}.{layout.output}")
        for i in (0, 1):
            entries[f"{block}/norm_{i + 1}"] = norm(f"{torch_block}.{layout.norms[i]}")
            entries[f"{block}/hidden_{i + 1}"] = linear(f"{torch_block}.{layout.hidden[i]}")
        if layout.scales:
            entries[block] = {
                f"scale_{i + 1}": get(f"{torch_block}.{layout.scales[i]}") for i in (0, 1)
            }
    return entries


def _checked(array: np.ndarray, shape: tuple[int, ...], name: str) -> jax.Array:
    if array.shape != shape:
        raise ValueError(f"{name} has the shape {array.shape} where the network has {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has values that are not finite")
    return jnp.asarray(array)


def _interpolated(
    positions: np.ndarray, num_patches: int, kernel: Callable[[int, int], np.ndarray]
) -> np.ndarray:
    """Positions of the class token and of num_patches^2 patches, from those of another square."""
    num = round((len(positions) - 1) ** 0.5)
    if num**2 + 1 != len(positions):
        raise ValueError(f"positions are of {len(positions) - 1} patches, which are no square")
    if num == num_patches:
        return positions
    weights = kernel(num, num_patches)
    grid = positions[1:].reshape(num, num, -1).astype(np.float64)
    grid = np.einsum("iy,jx,yxd->ijd", weights, weights, grid)
    patches = grid.reshape(num_patches**2, -1).astype(np.float32)
    return np.concatenate([positions[:1], patches])


def _cubic(num: int, num_new: int, offset: float) -> np.ndarray:
    """The weights of cubic convolution (a = -0.75) at new points, [num_new, num], as in torch."""
    centres = (np.arange(num_new) + 0.5) * num / (num_new + offset) - 0.5
    first = np.floor(centres).astype(int)
    weights = np.zeros((num_new, num))
    for shift in range(-1, 3):
        values = _keys(centres - (first + shift), a=-0.75)
        np.add.at(weights, (np.arange(num_new), np.clip(first + shift, 0, num - 1)), values)
    return weights


def _antialiased(num: int, num_new: int) -> np.ndarray:
    """The same (a = -0.5) with the kernel widened where there are fewer new points."""
    ratio = num / num_new
    centres = (np.arange(num_new) + 0.5) * ratio - 0.5
    weights = _keys((np.arange(num) - centres[:, None]) / max(ratio, 1.0), a=-0.5)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _keys(x: np.ndarray, a: float) -> np.ndarray:
    """The cubic kernel of Keys 1981."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


_IMAGENET = Scale((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_CLIP = Scale(
    (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255),
    (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255),
)


def outputs(
    params: hk.Params, inputs: jax.Array, architecture: Architecture
) -> tuple[jax.Array, jax.Array]:
    """The features, and no logits; register tokens are those of the parameters."""
    registers = params["~"].get("registers")
    num_registers = 0 if registers is None else len(registers)
    architecture = architecture._replace(num_registers=num_registers)
    network = hk.transform(partial(vision_transformer, architecture=architecture))
    features = network.apply(params, None, inputs)["features"]
    return features, jnp.zeros((len(inputs), 0))


def _network(name: str, architecture: Architecture, url: str) -> PublishedNetwork:
    scale = _CLIP if architecture.is_clip else _IMAGENET
    return PublishedNetwork(
        name=name,
        num_features=architecture.num_outputs or architecture.width,
        input_size=architecture.input_size,
        bilinear=scale,
        others=scale,
        params_from_torch=partial(params_from_torch, architecture=architecture),
        outputs=partial(outputs, architecture=architecture),
        find_weights=partial(download.find_weights, url, network=name),
        default_resize="antialias" if architecture.is_clip else "pillow",
        url=url,
    )


_DINOV2 = "https://dl.fbaipublicfiles.com/dinov2/dinov2_{0}/dinov2_{0}_pretrain.pth"
NETWORKS = (
    _network("dinov2_vits14", Architecture(384, 12, 224), _DINOV2.format("vits14")),
    _network("dinov2_vitb14", Architecture(768, 12, 224), _DINOV2.format("vitb14")),
    _network("dinov2_vitl14", Architecture(1024, 24, 224), _DINOV2.format("vitl14")),
    _network(
        "clip_vitl14_336",
        Architecture(1024, 24, 336, is_clip=True, num_outputs=768),
        "https://huggingface.co/openai/clip-vit-large-patch14-336/resolve/main/pytorch_model.bin",
    ),
)
