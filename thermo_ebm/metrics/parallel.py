"""Independent pieces of linear algebra side by side, one core each."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import threadpoolctl

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_MAX_WORKERS = 8  # each holds a few matrices of 32 MB


def map_over_cores(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Returns `[function(item) for item in items]`, computed by several threads.

    BLAS itself is held to one thread meanwhile: eigenvalues wait for memory and not for
    arithmetic, so they gain little from its threads, which on a busy machine wait for each other.
    """
    items = list(items)
    workers = min(_MAX_WORKERS, _available_cores(), len(items))
    if workers <= 1:
        return [function(item) for item in items]
    with (
        threadpoolctl.threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(workers) as pool,
    ):
        return list(pool.map(function, items))


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
