"""The parts of a training step, as named scopes: compilers and profilers attribute work to them.

A scope only labels operations (`jax.named_scope`); it changes no computed value. Where scopes are
nested, work belongs to the innermost part.
"""

import re

PRIOR_CHAINS = "prior_chains"
POSTERIOR_CHAINS = "posterior_chains"
LOSS_AND_GRADIENT = "loss_and_gradient"
CORRECTION = "correction"  # divergences, ratios, and the weights that follow from them
UPDATE = "update"

PARTS = (PRIOR_CHAINS, POSTERIOR_CHAINS, LOSS_AND_GRADIENT, CORRECTION, UPDATE)


def part_of(path: str, default: str) -> str:
    """The part that an operation belongs to.

    >>> part_of("jit(f)/loss_and_gradient/transpose(jvp(posterior_chains))/while", "other")
    'posterior_chains'

    Args:
      path: the scopes of the operation, outermost first, with JAX's transformations among them.
      default: what to return for an operation outside of all parts.
    """
    parts = [name for name in re.findall(r"\w+", path) if name in PARTS]
    return parts[-1] if parts else default
