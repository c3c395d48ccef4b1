"""How many pixels a transposed convolution with "same" padding crops off its stamped patches."""


def crop(kernel_size: int, stride: int) -> tuple[int, int]:
    """Pixels cropped before and after, so that the output is stride times the input."""
    excess = kernel_size - stride
    if excess < 0:
        raise ValueError(f"kernel_size {kernel_size} must be at least the stride {stride}.")
    return excess // 2, excess - excess // 2
