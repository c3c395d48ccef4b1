"""What is set before JAX starts."""

import os

from thermo_ebm import runtime


def test_vmem_limit_is_raised_on_chips_with_the_memory(monkeypatch):
    limit = "--xla_tpu_scoped_vmem_limit_kib"
    for chip, before, after in [
        ("v6e-8", None, f"{limit}=65536"),
        ("v5litepod-4", "--xla_a=1", f"--xla_a=1 {limit}=40960"),
        ("v6e-8", f"{limit}=98304", f"{limit}=98304"),
        ("v4-8", "--xla_a=1", "--xla_a=1"),
        (None, None, None),
    ]:
        # Set before it is deleted, so that what the function sets is undone after the test.
        for name, value in (("TPU_ACCELERATOR_TYPE", chip), ("LIBTPU_INIT_ARGS", before)):
            monkeypatch.setenv(name, value or "")
            if value is None:
                monkeypatch.delenv(name)
        runtime.raise_vmem_limit()
        assert os.environ.get("LIBTPU_INIT_ARGS") == after
