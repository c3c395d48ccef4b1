"""Small vision transformers of `transformers` (needs it, torch and safetensors)."""

import tempfile
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from thermo_ebm.metrics.networks.weights import read_state_dict

SIZES = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14}


def outputs(name, state_dict, images, num_patches):
    """The features of scaled images [num, size, size, 3].

    The weights go through a file, as the names of arrays in files are not always those of modules.
    """
    options = SIZES | {"image_size": 14 * num_patches}
    if name == "clip":
        config = CLIPVisionConfig(**options, intermediate_size=512, projection_dim=96)
        model_class = CLIPVisionModelWithProjection
    elif name == "registers":
        config = Dinov2WithRegistersConfig(**options, mlp_ratio=4, num_register_tokens=3)
        model_class = Dinov2WithRegistersModel
    else:
        config = Dinov2Config(**options, mlp_ratio=4)
        model_class = Dinov2Model
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        path = Path(folder) / "model.safetensors"
        safetensors.numpy.save_file(state_dict, path, metadata={"format": "pt"})
        model, loaded = model_class.from_pretrained(folder, output_loading_info=True)
        for key, array in read_state_dict(path).items():
            np.testing.assert_array_equal(array, state_dict[key])
    assert not loaded["unexpected_keys"], loaded
    assert all("mask_token" in key for key in loaded["missing_keys"]), loaded
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        result = model.eval()(pixels)
    features = result.image_embeds if name == "clip" else result.pooler_output
    return features.numpy()


def release_positions(positions, num_patches, offset, antialias):
    """Positions [1, num^2 + 1, width] as DINOv2's release interpolates them."""
    num = round((positions.shape[1] - 1) ** 0.5)
    grid = torch.from_numpy(positions[:, 1:]).reshape(1, num, num, -1).permute(0, 3, 1, 2)
    options = (
        {"scale_factor": ((num_patches + offset) / num,) * 2}
        if offset
        else {"size": (num_patches,) * 2}
    )
    patches = torch.nn.functional.interpolate(grid, mode="bicubic", antialias=antialias, **options)
    return patches.permute(0, 2, 3, 1).reshape(num_patches**2, -1).numpy()
