"""How many pixels a transposed convolution with "same" padding crops off its stamped patches.

And, as a convolution of its input, pads.
"""


def crop(kernel_size: int, stride: int) -> tuple[int, int]:
    """Pixels cropped before and after, so that the output is stride times the input."""
    excess = kernel_size - stride
    if excess < 0:
        raise ValueError(f"kernel_size {kernel_size} must be at least the stride {stride}.")
    return excess // 2, excess - excess // 2


def padding(kernel_size: int, stride: int) -> tuple[int, int]:
    """Pixels by which the (dilated) input is padded before and after, to be convolved instead."""
    before, after = crop(kernel_size, stride)
    return kernel_size - 1 - before, kernel_size - 1 - after
