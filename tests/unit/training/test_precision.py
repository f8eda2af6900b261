"""Which CPUs compute in bfloat16 by themselves, by what Linux says of them."""

import pytest

from ytrain.engine.device import bfloat16_units

CPUS = {
    "Xeon with AMX": ("GenuineIntel", "avx512f avx512_bf16 amx_bf16 amx_tile", True),
    "Xeon without AMX": ("GenuineIntel", "avx512f avx512_bf16", False),
    "EPYC with AVX512-BF16": ("AuthenticAMD", "avx512f avx512_bf16", True),
    "EPYC with AVX2": ("AuthenticAMD", "avx2 fma", False),
    "ARM": (None, "asimd bf16", False),
}


@pytest.mark.parametrize(("vendor", "flags", "expected"), CPUS.values(), ids=CPUS)
def test_bfloat16_where_it_is_faster(vendor: str | None, flags: str, expected: bool) -> None:
    lines = [f"vendor_id\t: {vendor}", f"flags\t\t: fpu {flags}"] if vendor else [f"Features\t: fp {flags}"]
    assert bfloat16_units("\n".join(["processor\t: 0", *lines])) == expected
