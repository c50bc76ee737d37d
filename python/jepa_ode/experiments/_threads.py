"""One thread for matrices that are too small for more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep PyTorch, NumPy and scikit-learn to one thread inside the block.

    On matrices this small threads gain nothing, and where other processes want the same CPUs each operation waits for the
    slowest of them: on a busy machine with two, a run of 19 s took 374 s.
    """
    # Only libraries that are loaded are limited.
    import sklearn.linear_model  # noqa: F401
    import torch  # noqa: F401
    from threadpoolctl import threadpool_limits  # scikit-learn depends on it

    with threadpool_limits(limits=1):
        yield
