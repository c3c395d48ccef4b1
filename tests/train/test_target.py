"""A target of the gradient's noise, held by runs on the digits."""

import numpy as np
import pytest
import tiny_training as tiny

from thermo_ebm.gradients.amplification import WARM_UP
from thermo_ebm.train import programs, timing

STEPS = 60


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"loss__name": "vanilla", "optimizer__clip_norm": 5.0}, id="vanilla, clipped"),
        pytest.param({"gradient_noise__accumulate": 2}, id="thermodynamic, accumulated"),
    ],
)
def test_a_target_is_held_within_two_per_cent(changes):
    """Over the last half of a run, of two repetitions that train together, while noise moves."""
    common = {"num_repetitions": 2, "parallel_repetitions": 2, "data__num_train": 300}
    plain = noises(tiny.config(**common, **changes))
    target = 3 * float(plain.mean())
    noise = noises(tiny.config(**common, **changes, gradient_noise__target=target))
    late = noise[len(noise) // 2 :].mean(axis=0) / target
    print(changes, "unamplified", plain[:, 0], "held", noise[:, 0] / target)
    np.testing.assert_allclose(late, 1.0, atol=0.02)
    # There was something to hold: the unamplified noise is neither constant nor at the target.
    assert plain.std() > 0.02 * plain.mean()


def noises(config):
    """`train_update_noise` by stretches of steps after the warm-up, [stretches, repetitions]."""
    prepared = tiny.prepare(config, config.num_repetitions)
    images = timing.training_feed(prepared.task)
    state = timing.first_state(prepared, config.num_repetitions)
    state = timing.advance(prepared, images, state, WARM_UP)
    means = []
    for _ in range(6):
        before = programs.counters(state).sums
        state = timing.advance(prepared, images, state, STEPS // 6, begin_epochs=False)
        after = programs.counters(state)
        steps = after.sums.steps - before.steps
        total = after.sums.readings["train_update_noise"] - before.readings["train_update_noise"]
        means.append(total / steps)
        if (after.step % prepared.task.steps_per_epoch == 0).any():
            epochs = (after.step // prepared.task.steps_per_epoch).astype(np.int32)
            state = prepared.programs.begin_epoch(state, epochs, np.ones(len(epochs), bool))
    return np.array(means)
