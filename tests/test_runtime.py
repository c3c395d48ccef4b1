"""What is set before JAX starts."""

import pytest

from thermo_ebm import runtime


@pytest.mark.parametrize(
    ("chip", "before", "after"),
    [
        ("v6e-8", None, "--xla_tpu_scoped_vmem_limit_kib=65536"),
        ("v5litepod-4", "--xla_a=1", "--xla_a=1 --xla_tpu_scoped_vmem_limit_kib=40960"),
        ("v6e-8", "--xla_tpu_scoped_vmem_limit_kib=98304", "--xla_tpu_scoped_vmem_limit_kib=98304"),
        ("v4-8", "--xla_a=1", "--xla_a=1"),
        (None, None, None),
    ],
)
def test_windows_of_a_tpu_are_widened_where_the_chip_has_the_memory(
    chip, before, after, monkeypatch
):
    # Set before it is taken away, so that what the function sets is undone after the test.
    for name, value in (("TPU_ACCELERATOR_TYPE", chip), ("LIBTPU_INIT_ARGS", before)):
        monkeypatch.setenv(name, value or "")
        if value is None:
            monkeypatch.delenv(name)
    runtime.widen_tpu_windows()
    assert runtime.os.environ.get("LIBTPU_INIT_ARGS") == after
