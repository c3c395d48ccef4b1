"""The paper's networks in plain numpy loops, sharing no code with the library."""

import numpy as np


def conv_transpose(x, weights, stride):
    """Every input pixel stamps its k x k patch on the output; what hangs over is cropped."""
    num, height, width, _ = x.shape
    k, c_out = weights.shape[0], weights.shape[-1]
    canvas = np.zeros((num, stride * height + k, stride * width + k, c_out))
    for i in range(height):
        for j in range(width):
            patch = np.einsum("nc,abcd->nabd", x[:, i, j], weights)
            canvas[:, stride * i : stride * i + k, stride * j : stride * j + k] += patch
    crop = (k - stride) // 2
    return canvas[:, crop : crop + stride * height, crop : crop + stride * width]


def conv_transpose_gradients(x, weights, stride, cotangent):
    """The gradient of sum(cotangent * conv_transpose(x, weights)), pixel by pixel."""
    num, height, width, _ = x.shape
    k, c_out = weights.shape[0], weights.shape[-1]
    crop = (k - stride) // 2
    canvas = np.zeros((num, stride * height + k, stride * width + k, c_out))
    canvas[:, crop : crop + stride * height, crop : crop + stride * width] = cotangent
    grad_x, grad_weights = np.zeros(x.shape), np.zeros(weights.shape)
    for i in range(height):
        for j in range(width):
            patch = canvas[:, stride * i : stride * i + k, stride * j : stride * j + k]
            grad_x[:, i, j] = np.einsum("nabd,abcd->nc", patch, weights)
            grad_weights += np.einsum("nabd,nc->abcd", patch, x[:, i, j])
    return grad_x, grad_weights


def leaky_relu(x, leak):
    return np.where(x > 0, x, leak * x)


def tilt(alpha, z, leak):
    """f_alpha from Haiku's parameters."""
    for name in ("hidden_0", "hidden_1"):
        z = leaky_relu(z @ alpha[name]["w"] + alpha[name]["b"], leak)
    return (z @ alpha["tilt"]["w"] + alpha["tilt"]["b"])[:, 0]


def generator(layers, z, strides, leak):
    """g_beta from [(weights, bias)] of each layer."""
    (weights, bias), *rest = layers
    x = np.einsum("nc,abcd->nabd", z, weights) + bias
    for (weights, bias), stride in zip(rest, strides[1:], strict=True):
        x = conv_transpose(leaky_relu(x, leak), weights, stride) + bias
    return np.tanh(x)
