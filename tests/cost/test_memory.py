"""The choice of the chunk of images: the rule, the estimate behind it, and what it bounds."""

import functools

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from configs import celeb_a_paper, cifar10_paper, digits_paper
from thermo_ebm.cost import memory, plan
from thermo_ebm.cost.flops import batch_jaxpr
from thermo_ebm.cost.memory import automatic_chunk, choose_chunk, peak_bytes
from thermo_ebm.models.conv_transpose import dilated
from thermo_ebm.models.latent_ebm import make_model
from thermo_ebm.types import make_batch

MIB = 2**20


def test_choose_chunk_by_hand():
    for num_images, fixed, per_image, available, expected in [
        (10, 0, 10, 100, 0),  # all ten fit
        (10, 0, 10, 99, 5),  # nine do: two halves
        (10, 0, 10, 50, 5),
        (10, 0, 10, 49, 4),  # three chunks: 4, 4, 2
        (10, 20, 10, 49, 2),
        (10, 0, 10, 10, 1),
        (10, 0, 10, 3, 1),  # none fits: one at a time
        (10, 50, 10, 3, 1),
        (30, 0, 10, 110, 10),  # the largest chunk that fits would be 11: three equal ones
        (1, 0, 10, 3, 0),
        (10, 0, 0, 0, 0),
    ]:
        case = (num_images, fixed, per_image, available)
        assert choose_chunk(*case) == expected, case


def test_choose_chunk_fits_with_as_few_chunks_as_possible():
    for num_images in range(2, 31):
        for fits in range(1, num_images):
            chunk = choose_chunk(num_images, 7, 10, 7 + 10 * fits)
            assert 1 <= chunk <= fits
            assert -(-num_images // chunk) == -(-num_images // fits)


def test_peak_memory_of_straight_code():
    x = jnp.ones((1024,))  # 4 KiB

    def fn(x):
        a = x + 1  # x, a
        b = jnp.concatenate([a, a])  # x, a, b: 4 arrays of x's size
        return b.sum() + x[0]

    peak = peak_bytes(jax.make_jaxpr(fn)(x).jaxpr)
    assert 4 * 4096 <= peak <= 4 * 4096 + 64


def test_peak_memory_of_a_loop_counts_its_body_once():
    x = jnp.ones((1024,))

    def loop(times):
        def fn(x):
            return jax.lax.scan(lambda c, _: (jnp.sin(c) * 2, None), x, None, length=times)[0]

        return peak_bytes(jax.make_jaxpr(fn)(x).jaxpr)

    assert loop(3) == loop(300) < 6 * 4096


def small_config(num_temperatures: int = 6, **loss: str) -> ConfigDict:
    config = digits_paper.get_config()
    config.model.generator.features = 8
    config.loss.num_temperatures = num_temperatures
    config.sampler.posterior.num_steps = 3
    config.loss.update(loss)
    return config


def gradient_at(config: ConfigDict, chunk: int):
    copy = ConfigDict(config.to_dict())
    copy.sampler.image_chunk = chunk
    return plan.gradient_of(copy, make_model(config.model, 1), halves_together=True)


def peaks(num_images: int):
    """The estimated memory of a step of the small configuration, by chunk."""
    config = small_config()
    model = make_model(config.model, 1)

    @functools.cache
    def peak(chunk: int) -> int:
        return memory.step_bytes(gradient_at(config, chunk), model, num_images, (8, 8, 1))

    return peak


@pytest.mark.slow
def test_automatic_chunk_shrinks_with_the_memory_and_not_with_more_images():
    few, many = peaks(16), peaks(32)
    chunks = [automatic_chunk(few, 16, int(mib * MIB)) for mib in (1000, 3, 1.5, 0.5, 0)]
    assert chunks[0] == 0
    assert chunks[-1] == 1
    shrinking = [chunk or 16 for chunk in chunks]
    assert shrinking == sorted(shrinking, reverse=True)
    assert len(set(chunks)) > 2
    chunk = automatic_chunk(few, 16, 4 * MIB)
    assert 2 <= chunk < 16
    assert abs(automatic_chunk(many, 32, 4 * MIB) - chunk) <= 1  # chunks are of nearly one size


@pytest.mark.parametrize("gradient", ["detached", pytest.param("langevin", marks=pytest.mark.slow)])
def test_estimate_is_near_the_memory_that_the_compiler_plans(gradient):
    config = small_config(generator_gradient=gradient)
    model = make_model(config.model, 1)
    gradient = gradient_at(config, 0)
    estimated = peak_bytes(batch_jaxpr(gradient, model, 16, (8, 8, 1)))
    assert 0.5 < estimated / planned_bytes(gradient, model) < 2


def planned_bytes(gradient, model, num_images: int = 16) -> int:
    batch = make_batch(jnp.zeros((num_images, 8, 8, 1)))
    params = jax.eval_shape(model.init, jax.random.key(0))
    compiled = jax.jit(gradient).lower(params, batch, jax.random.key(0)).compile()
    planned = compiled.memory_analysis()
    return sum(getattr(planned, f"{kind}_size_in_bytes") for kind in ("argument", "output", "temp"))


@pytest.mark.slow
def test_planned_memory_stays_with_more_images_under_a_chunk():
    config = small_config()
    model = make_model(config.model, 1)
    few, many = (planned_bytes(gradient_at(config, 2), model, number) for number in (6, 18))
    assert many < 1.5 * few
    assert planned_bytes(gradient_at(config, 0), model, 18) > 1.5 * many


class FakeDevice:
    def __init__(self, statistics):
        self.platform = "gpu"
        self._statistics = statistics

    def memory_stats(self):
        return self._statistics


def test_usable_bytes_of_an_accelerator_is_a_share_of_its_limit():
    limit = 60 * 2**30
    usable = memory.usable_bytes(FakeDevice({"bytes_limit": limit, "bytes_in_use": 123}))
    assert usable == int(memory.USABLE["default"] * limit)
    assert memory.usable_bytes(FakeDevice(None)) > 0
    # A step and the images together may take all of it.
    assert usable + memory.data_bytes(FakeDevice({"bytes_limit": limit})) == limit
    assert memory.usable_of("tpu", limit) == memory.usable_of("gpu", limit) == usable


def cgroups(folder, membership, limits):
    """What Linux shows of a process in control groups, in a folder of files."""
    (folder / "self").write_text(membership)
    for path, limit in limits.items():
        (folder / "cgroup" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup" / path).write_text(f"{limit}\n")
    return folder / "self", folder / "cgroup"


def test_limits_of_all_control_groups_around_the_process(tmp_path):
    for number, (membership, limits, expected) in enumerate(
        [
            # A container: its group looks like the root.
            ("0::/\n", {"memory.max": 5 * MIB}, [5 * MIB]),
            ("0::/\n", {"memory.max": "max"}, []),
            # A SLURM job, whose limit is of a group around that of the process.
            (
                "9:cpu,cpuacct:/other\n0::/slurm/uid_0/job_7/step_0/task_0\n",
                {
                    "slurm/uid_0/job_7/memory.max": 3 * MIB,
                    "slurm/uid_0/job_7/step_0/task_0/memory.max": "max",
                    "slurm/memory.max": 9 * MIB,
                    "slurm/uid_0/job_8/memory.max": 1,  # of another job
                },
                [3 * MIB, 9 * MIB],
            ),
            # A path outside what a container sees, and files without a number.
            ("0::/../..\nodd\n", {"memory.max": 4 * MIB}, [4 * MIB]),
            ("", {"memory.max": "odd"}, []),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert sorted(memory.cgroup_limits(*cgroups(folder, membership, limits))) == expected


def test_usable_bytes_of_a_cpu_keeps_to_the_process_limit(tmp_path, monkeypatch):
    device = jax.devices("cpu")[0]
    nowhere = cgroups(tmp_path, "", {})
    monkeypatch.setattr(memory, "_MEMBERSHIP", nowhere[0])
    monkeypatch.setattr(memory, "_CGROUPS", nowhere[1])
    unlimited = memory.usable_bytes(device)
    assert 0 < unlimited == memory.usable_bytes(device)
    cgroups(tmp_path, "0::/job/step\n", {"job/memory.max": MIB})
    share = MIB // jax.local_device_count("cpu")
    assert memory.usable_bytes(device) == int(memory.USABLE["cpu"] * share)
    cgroups(tmp_path, "0::/job/step\n", {"job/memory.max": 2**62})
    assert memory.usable_bytes(device) == unlimited


@pytest.mark.slow
def test_memory_is_planned_for_the_repetitions_that_train_together(monkeypatch):
    """More of them leave less for images; what a configuration may ask for does not count."""
    config = digits_paper.get_config()
    config.parallel_repetitions = 40
    of_two = plan.device_bytes(config, 2)
    monkeypatch.setattr(plan, "usable_bytes", lambda device: of_two)
    chunks = [plan.with_chunk(config, size).sampler.image_chunk for size in (1, 2, 8)]
    assert chunks[:2] == [0, 0]
    assert 1 <= chunks[2] < config.batch_size


def test_activations_fit_half_of_vmem_on_a_tpu():
    """Half of 128 MiB, by hand."""
    for module, precision, chunk in [
        (celeb_a_paper, "bfloat16", 128),  # 64 x 64 x 64 places
        (celeb_a_paper, "float32", 64),
        (cifar10_paper, "bfloat16", 256),  # 32 x 32 x 128 places
        (cifar10_paper, "float32", 128),
    ]:
        config = module.get_config()
        config.sampler.precision, config.sampler.image_chunk = precision, 4
        model = make_model(config.model, 3, dilated)
        target = plan.PlanTarget(model, 4, 2**40, memory.VMEM_BYTES["TPU v5 lite"])
        for repetitions in (1, 4):
            sampler = plan.with_chunk(config, repetitions, target).sampler
            assert (sampler.image_chunk, sampler.chain_chunk) == (4, chunk // repetitions)


def test_chains_that_are_differentiated_are_evaluated_at_once():
    """In chunks, the backward pass would keep the activations of all chunks."""
    config = digits_paper.get_config()
    config.loss.generator_gradient = "langevin"
    target = plan.PlanTarget(make_model(config.model, 1), 1, 2**40, 2**20)
    assert plan.with_chunk(config, 1, target).sampler.chain_chunk == 0


def test_memory_of_repetitions_is_that_of_all_their_images():
    together, apart = digits_paper.get_config(), digits_paper.get_config()
    sampler = {"image_chunk": 4, "chain_chunk": 6}
    together.update({"batch_size": 16, "sampler": sampler})
    apart.update({"batch_size": 8, "sampler": {name: n // 2 for name, n in sampler.items()}})
    assert plan.device_bytes(apart, 2) == plan.device_bytes(together, 1)


def test_a_chunk_divides_the_images_if_its_size_is_at_most_halved():
    cases = {(128, 43): 32, (128, 64): 64, (19, 10): 10, (10, 4): 4}
    assert {case: memory.even_chunk(*case) for case in cases} == cases


@pytest.mark.slow
def test_chains_run_in_chunks_of_what_the_memory_holds():
    config = digits_paper.get_config()
    model = make_model(config.model, 1)
    tight = plan.device_bytes(config, 1) // 2
    plain, wide, narrow = (
        plan.with_chunk(config, 1, plan.PlanTarget(model, 1, tight, vmem)).sampler
        for vmem in (0, 2**40, 2**20)
    )
    assert 0 < plain.image_chunk == wide.image_chunk == narrow.image_chunk
    chains = config.loss.num_temperatures * config.sampler.chains_per_image * plain.image_chunk
    assert plain.chain_chunk == 0
    assert 0 < narrow.chain_chunk < chains < wide.chain_chunk
