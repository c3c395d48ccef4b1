"""Streaming of training images: threads of Grain read them shortly before they are needed.

The images of a step are known in advance (`TrainState.order` and `step`). The stream can therefore
start at any step, and a checkpoint need not hold any state of the stream.
"""

import os
from collections.abc import Iterator

import numpy as np

from thermo_ebm.data.images import Images, read


def stream(images: Images, numbers: np.ndarray, first: int, ahead: int) -> "Iterator[np.ndarray]":
    """Yields the images of each batch from `first` on, while images of later batches are read.

    Args:
      images: the chosen images.
      numbers: int [num_batches, count], the numbers of the images of each batch.
      first: the first batch wanted, in [0, num_batches].
      ahead: batches that are read before they are asked for, at least 1.

    Returns:
      An iterator over uint8 [count, size, size, channels]; its `close()` ends the threads.

    Raises:
      UserError: raised by the iterator at a batch with an image that cannot be read.
    """
    import grain  # takes three seconds to import; only streamed runs need it

    batches = grain.MapDataset.range(first, len(numbers)).map(
        lambda batch: read(images.take(numbers[batch]))
    )
    threads = min(ahead, os.cpu_count() or 1, 16)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(batches.to_iter_dataset(options))
