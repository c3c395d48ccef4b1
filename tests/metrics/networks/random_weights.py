"""State dicts of the two feature networks with random weights, the same from a seed everywhere.

Batch-norm statistics are far from 0 and 1, so that a wrong epsilon, order or sign shows.
"""

import zlib
from collections.abc import Mapping

import numpy as np

from thermo_ebm.metrics.networks import efficientnet, fold, inception_v3, vision_transformer


def inception_state_dict(seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays under the FID weight file's names."""
    shapes = fold.parameter_shapes(inception_v3.inception_v3, inception_v3.INPUT_SIZE)
    state = {}
    for module, arrays in shapes.items():
        name = module.replace("/", ".")
        if name == "fc":
            state |= _linear(name, arrays["w"].shape, seed)
        else:
            state |= _convolution(f"{name}.conv", arrays["w"].shape, seed)
            state |= _batch_norm(f"{name}.bn", arrays["w"].shape[-1], seed)
    return state


def efficientnet_state_dict(seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays under the names of the package's file."""
    shapes = fold.parameter_shapes(efficientnet.efficientnet_lite0, efficientnet.INPUT_SIZE)
    norms = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
    state = {}
    for module, arrays in shapes.items():
        shape = arrays["w"].shape
        if module == "fc":
            state |= _linear("_fc", shape, seed)
        elif "/" not in module:
            state |= _convolution(f"_conv_{module}", shape, seed)
            state |= _batch_norm({"stem": "_bn0", "head": "_bn1"}[module], shape[-1], seed)
        else:
            block, layer = module.removeprefix("block_").split("/")
            state |= _convolution(f"_blocks.{block}._{layer}_conv", shape, seed)
            state |= _batch_norm(f"_blocks.{block}.{norms[layer]}", shape[-1], seed)
    return state


def transformer_state_dict(
    architecture: vision_transformer.Architecture, layout_name: str, num_patches: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Arrays under the names of `transformers`, with positions for num_patches^2 patches."""
    layout, width = vision_transformer.LAYOUTS[layout_name], architecture.width
    shapes: dict[str, tuple[int, ...]] = {
        f"{layout.patch}.weight": (width, 3, 14, 14),
        layout.positions: (num_patches**2 + 1, width),
        layout.class_token: (width,),
    }
    if not architecture.is_clip:
        shapes |= {
            f"{layout.patch}.bias": (width,),
            layout.positions: (1, num_patches**2 + 1, width),
            layout.class_token: (1, 1, width),
        }
    if architecture.num_registers:
        shapes[layout.registers] = (1, architecture.num_registers, width)
    if layout.projection:
        shapes[layout.projection] = (architecture.num_outputs, width)
    norms = [name for name in (layout.first_norm, layout.last_norm) if name]
    for number in range(architecture.depth):
        block = layout.block.format(number)
        norms += [f"{block}.{name}" for name in layout.norms]
        sides = [(name, width, width) for name in (*layout.attention, layout.output)]
        sides += [(layout.hidden[0], 4 * width, width), (layout.hidden[1], width, 4 * width)]
        for name, num_out, num_in in sides:
            shapes[f"{block}.{name}.weight"] = (num_out, num_in)
            shapes[f"{block}.{name}.bias"] = (num_out,)
        shapes |= {f"{block}.{name}": (width,) for name in layout.scales or ()}
    for name in norms:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    state = {}
    for name, shape in shapes.items():
        values = _rng(name, seed).standard_normal(shape)
        spread = shape[-1] ** -0.5 if len(shape) == 2 else 0.3
        state[name] = (spread * values + (name.endswith("weight") and len(shape) == 1)).astype(
            np.float32
        )
    return state


def random_images(num: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth random uint8 images [num, height, width, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (num, -(-height // 8), -(-width // 8), 3))
    fine = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return np.clip(fine + rng.normal(0, 20, fine.shape), 0, 255).astype(np.uint8)


def _rng(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _convolution(name: str, shape: tuple[int, ...], seed: int) -> Mapping[str, np.ndarray]:
    height, width, channels, out = shape
    scale = np.sqrt(2.0 / (height * width * channels))
    weight = scale * _rng(name, seed).standard_normal((out, channels, height, width))
    return {f"{name}.weight": weight.astype(np.float32)}


def _batch_norm(name: str, channels: int, seed: int) -> Mapping[str, np.ndarray]:
    rng = _rng(name, seed)
    arrays = {
        "weight": rng.uniform(0.5, 1.5, channels),
        "bias": rng.normal(0, 0.3, channels),
        "running_mean": rng.normal(0, 0.3, channels),
        "running_var": rng.uniform(0.3, 3.0, channels),
    }
    return {f"{name}.{key}": array.astype(np.float32) for key, array in arrays.items()}


def _linear(name: str, shape: tuple[int, ...], seed: int) -> Mapping[str, np.ndarray]:
    rng = _rng(name, seed)
    return {
        f"{name}.weight": (rng.standard_normal(shape[::-1]) / shape[0] ** 0.5).astype(np.float32),
        f"{name}.bias": rng.normal(0, 0.3, shape[1]).astype(np.float32),
    }
