"""What `benchmarks.scale` counts in a program's text, and its arithmetic on large data sets."""

import math

import pytest
import tiny_training as tiny

from benchmarks import scale
from thermo_ebm.cost import plan

TEXT = """
  %ar = (f32[3]{0}, /*index=1*/bf16[2,2]{1,0:T(8,128)}) all-reduce(%a, %b), channel_id=1
  %get-tuple-element.3 = f32[3]{0} get-tuple-element(%ar), index=0
  ROOT %all-gather.1 = (f32[4]{0}, f32[8]{0}) all-gather-start(%c), channel_id=2
  %done = f32[8]{0} all-gather-done(%all-gather.1)
  %m = pred[] all-reduce(%d), channel_id=3
"""


def test_every_collective_is_counted_once_with_its_bytes():
    # The start of an asynchronous operation has its operand beside its result.
    assert scale.collective_sizes(TEXT) == [3 * 4 + 4 * 2, 4 * 4 + 8 * 4, 1]


@pytest.mark.slow
def test_estimates_are_the_arithmetic_of_their_parts():
    config = tiny.config(batch_size=12, loss__name="vanilla")
    operations = plan.step_flops(config)
    cost = scale.step_cost(config)
    one, few, many = (scale.estimate(cost, "CelebA", n, 1e9) for n in (1, 4, 24))
    assert math.isclose(one.step_s, operations / 1e9)
    assert math.isclose(few.step_s, one.step_s / 4)
    # More devices than images: each has one image, and the batch grows.
    assert (many.batch_size, few.batch_size) == (24, 12)
    assert math.isclose(many.step_s, one.step_s / 12)
    assert math.isclose(many.epoch_s, (scale.DATA_SETS["CelebA"] // 24) * many.step_s)
    assert one.host_bytes == scale.DATA_SETS["CelebA"] * config.data.image_size**2
    # The epoch's order is a part of the state: four bytes an image.
    larger = scale.estimate(cost, "ImageNet", 1, 1e9)
    difference = scale.DATA_SETS["ImageNet"] - scale.DATA_SETS["CelebA"]
    assert larger.checkpoint_bytes - one.checkpoint_bytes == 4 * difference
