"""Numbers of a configuration that follow from the images: how many, the layers, the batch size."""

import contextlib

import numpy as np
import pytest

from thermo_ebm.config import checks
from thermo_ebm.config.sizes import with_images
from thermo_ebm.configs import celeb_a, digits, folder
from thermo_ebm.data import count
from thermo_ebm.data.images import Images
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.fields import flatten
from thermo_ebm.models.generator import check_layers, image_size, layers_of
from thermo_ebm.train import sizes


def source(num, num_held_out=None):
    images = Images("here", lambda indices: [], np.arange(num))
    if num_held_out is None:
        return images, None
    return images, images._replace(indices=np.arange(num_held_out))


@pytest.mark.parametrize(
    ("num", "held_out", "asked", "expected"),
    [
        (59, None, (0, 0.1), (47, 12)),  # enough for the metrics
        (20, None, (0, 0.1), (10, 10)),  # or half of all
        (100_000, None, (0, 0.1), (90_000, 10_000)),
        (2, None, (0, 0.1), (1, 1)),  # at least one is held out
        (59, None, (0, 4), (55, 4)),
        (59, None, (30, 0.5), (30, 30)),  # which `select` refuses
        (59, None, (50, 9), (50, 9)),
        (59, 20, (0, 0.1), (59, 10)),
        (59, 200, (0, 0.1), (59, 20)),
        (59, 20, (7, 20), (7, 20)),
    ],
)
def test_images_are_counted(num, held_out, asked, expected):
    assert count(source(num, held_out), *asked) == expected


def test_images_to_train_on_must_be_left():
    for num, num_val in ((1, 0.1), (59, 59), (59, 60)):
        with pytest.raises(UserError, match=rf"^data.num_val={num_val}: holds out .* in here and"):
            count(source(num), 0, num_val)


def test_layers_make_most_sizes():
    possible = []
    for size in range(1, 129):
        with contextlib.suppress(ValueError):
            first_size, strides, widths = layers_of(size)
            possible.append(size)
            check_layers(widths, strides, 4)
            assert image_size(strides, first_size) == size
            assert widths[-1] == 1
    assert {8, 16, 24, 28, 30, 32, 36, 48, 60, 64, 96, 104, 112, 128} <= {*possible}
    assert not {17, 34, 50, 100} & {*possible}
    with pytest.raises(ValueError, match=r"halving 100 does not come .*: choose 96 or 104"):
        layers_of(100)


def test_layers_of_64_pixels_are_the_papers():
    generator = celeb_a.get_config().model.generator
    assert layers_of(64) == (generator.kernel_size, generator.strides, generator.widths)


def test_a_batch_is_reduced_only_if_the_images_were_not_counted():
    config = folder.get_config()
    completed = with_images(config, 53, 6, "here")
    assert completed.config.batch_size == 53
    assert completed.notes == [
        "data        here: 53 images to train on, 6 held out",
        "batch_size  53 instead of 75: there are 53 training images",
    ]
    checks.check(completed.config)
    assert with_images(config, 75, 6, "here").config.batch_size == 75
    config.data.num_train = 53
    with pytest.raises(UserError, match=r"batch_size=75: larger than the training set"):
        checks.check(with_images(config, 53, 6, "here").config)
    config.data.num_train, config.gradient_noise.accumulate = 0, 4
    assert with_images(config, 53, 6, "here").config.batch_size == 13


def test_configurations_that_leave_nothing_open_are_unchanged():
    config = digits.get_config().lock()
    completed = sizes.complete(config)
    assert completed.config is config
    assert completed.notes == []


def test_the_digits_by_a_fraction_and_at_another_size():
    config = digits.get_config()
    config.data.num_train, config.data.num_val = 0, 0.1
    config.data.image_size, config.model.generator.strides = 16, ()
    completed, notes = sizes.complete(config)
    changed = {k: v for k, v in flatten(completed).items() if v != flatten(config)[k]}
    assert changed == {
        "data.num_train": 1617,
        "data.num_val": 180,
        "model.generator.strides": (1, 2, 2, 1),
        "model.generator.widths": (4, 2, 1),
    }
    assert (
        notes[-1]
        == "generator   from 4 to 16 pixels with strides (1, 2, 2, 1) and widths (4, 2, 1)"
    )
    checks.check(completed)
    config.data.image_size = 28
    assert sizes.complete(config).config.model.generator.first_size == 7
    config.data.image_size = 100
    with pytest.raises(UserError, match=r"^data.image_size=100: halving 100 does"):
        sizes.complete(config)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "data.num_val=1.5: must be a number of images, at least 1, or a fraction"),
        (0.0, "data.num_val=0.0: must be a number of images"),
        (0, "data.num_val=0: must be a number of images"),
        ("all", "config.data.num_val='all': must be int or float, not str"),
    ],
)
def test_a_number_of_validation_images_that_is_none(value, message):
    config = digits.get_config()
    config.data.num_val = value
    with pytest.raises(UserError, match=f"^{message}"):
        sizes.complete(config)


def test_a_configuration_that_leaves_numbers_open_is_not_checked():
    for config in (folder.get_config(), digits.get_config()):
        config.model.generator.strides = () if config.data.num_train else (1, 2)
        with pytest.raises(UserError, match=r"leave numbers open, which .*sizes.complete"):
            checks.check(config)


def test_a_fraction_is_enough_for_the_metrics():
    number = count(source(59), 0, 0.1)[1]
    assert len(MetricSettings().subset_sizes(number, "here")) == MetricSettings().num_sizes
    with pytest.raises(UserError):
        MetricSettings().subset_sizes(number - 2, "here")
