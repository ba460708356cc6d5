"""The fused kernels in machine code, compiled here without a GPU: no spills, within the limits, on tensor cores.

Triton's wheel brings its own assembler and disassembler. It cannot compile in a process where its interpreter is on, so
this file is also a script: `python test_star_compile.py CAPABILITY [PRODUCT ...]` prints what it found as json, and
`python test_star_compile.py launches` how many kernels the operator compiles for some calls.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SHARED_MEMORY = {80: 166_912, 89: 101_376, 90: 232_448, 100: 232_448, 120: 101_376}  # bytes a block may ask for
TENSOR_CORES = {80: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTCHMMA|HMMA", 120: "HMMA"}
ALL = ("16 bit", "tf32", "bf16x6")


def tools() -> Path | None:
    """The folder of the assembler and disassembler in Triton's wheel, if they run here."""
    try:
        import triton

        folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
        subprocess.run([folder / "nvdisasm", "--version"], check=True, capture_output=True)
    except (ImportError, OSError, subprocess.CalledProcessError):
        return None
    return folder


@pytest.mark.skipif(tools() is None, reason="no Triton, or no assembler for this machine in it")
@pytest.mark.parametrize(
    "capability, products",
    [(80, ALL), (89, ALL[:1]), (90, ALL), (100, ALL[:1]), (120, ALL[:1])],
)
def test_machine_code(capability, products, tmp_path):
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, __file__, str(capability), *products]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert len(found) == 3 * len(products)
    for kernel, f in found.items():
        assert f["stack"] == 0, f"{kernel}: {f['stack']} bytes of registers spilled to memory"
        assert f["registers"] * 256 <= 65_536, kernel  # 8 warps share the registers of a multiprocessor
        assert f["shared"] <= SHARED_MEMORY[capability], kernel
        assert f["tensor_cores"] > 0, f"{kernel} multiplies without tensor cores"
        assert f["async_copies"] > 0, f"{kernel} has no asynchronous copy of 128 bits"
        if capability >= 90 and "backward_input" in kernel:
            assert f["wide_atomics"] > 0, f"{kernel} adds its gradients one by one, not four at once"


@pytest.mark.skipif(tools() is None, reason="no Triton, or no assembler for this machine in it")
def test_one_kernel_serves_all_sizes(tmp_path):
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, __file__, "launches"], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    # the input's gradient is made by one kernel with atomic additions, and by another without
    kernels = {"star_forward": 1, "star_backward_input": 2, "star_backward_weight": 1, "star_gather_gradient": 1}
    assert json.loads(result.stdout) == kernels


def compile_launches() -> dict:
    """How many different kernels the calls of the operator lead to, compiled as for a launch on an H200."""
    import torch
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    from vfnet_edu.ops.star import triton as star_triton

    class Driver:
        get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
        get_current_device = staticmethod(lambda: 0)
        get_current_stream = staticmethod(lambda device=None: 0)

    found = {}

    def launch(kernel, grid, on, *arguments, **options):
        arguments = [tuple(a) if isinstance(a, list) else a for a in arguments]
        compiled = kernel.warmup(*arguments, grid=grid, **options)
        found.setdefault(kernel.fn.__name__, set()).add(compiled.hash)

    driver.set_active(Driver())
    star_triton._launch = launch
    for batch, size in (1, (16, 32)), (2, (10, 17)), (3, (13, 16)):
        sizes = [size, (size[0] // 2, size[1] // 2), (1, 1)]
        shapes = [(batch, 64, *hw) for hw in sizes] * 2, [(batch, 4, *hw) for hw in sizes], [(64, 64, 3, 3)] * 2
        maps = [[torch.rand(shape).contiguous(memory_format=torch.channels_last) for shape in part] for part in shapes]
        xs, ltrbs, weights = [m.bfloat16() for m in maps[0]], maps[1], [m.bfloat16() for m in maps[2]]
        star_triton.star_conv(xs, ltrbs, weights, [8, 16, 32])
        for ordered in False, True:
            torch.use_deterministic_algorithms(ordered)
            star_triton.star_conv_backward(xs, xs, ltrbs, weights, [8, 16, 32])
    return {name: len(hashes) for name, hashes in found.items()}


def compile_all(capability: int, products: list[str]) -> dict:
    """Figures of every kernel at the size of VFNet's head: 256 channels, five levels."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from vfnet_edu.ops.star import triton_kernels

    levels, branches = 5, 2
    maps = {"xs": levels * branches, "outs": levels * branches, "grads": levels * branches, "weights": branches}
    wide = {"ltrbs": levels, "dltrbs": levels, "dxs": levels * branches}  # float32 always
    fixed = {name: ("*fp32",) * n for name, n in wide.items()}
    fixed |= {"part_ptr": "*fp32", "levels": ("i64",) * levels, "batch": "i32", "tiles": "i32"}
    found = {}
    for kernel, product in triton_kernels.TILES:
        if product not in products:
            continue
        function = getattr(triton_kernels, f"star_{kernel}")
        options = triton_kernels.launch_options(kernel, product, 256, 256, divmod(capability, 10))
        constants = {"C": 256, "OUT": 256} | ({"ATOMIC": True} if kernel == "backward_input" else {})
        constants |= {name: options.pop(name) for name in ("M", "N", "K", "PRECISION", "WIDEN")}
        features = "*bf16" if product == "16 bit" else "*fp32"
        names = function.arg_names
        types = fixed | {name: (features,) * n for name, n in maps.items()} | dict.fromkeys(constants, "constexpr")
        types = {name: types[name] for name in names}
        # what a launch finds out for itself: pointers are multiples of 16 bytes
        tuples = {(i, j): t for i, n in enumerate(names) if type(types[n]) is tuple for j, t in enumerate(types[n])}
        single = {(i,): types[n] for i, n in enumerate(names) if type(types[n]) is str}
        aligned = {at: [["tt.divisibility", 16]] for at, t in (tuples | single).items() if t.startswith("*")}
        source = ASTSource(function, signature=types, constexprs=constants, attrs=aligned)
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        found[f"{kernel} {product}"] = figures(compiled, TENSOR_CORES[capability])
    return found


def figures(compiled, tensor_cores: str) -> dict:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()

        def read(tool, option):
            command = [tools() / tool, option, file.name]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        usage, code = read("cuobjdump", "-res-usage"), read("nvdisasm", "-c")
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
    return {
        "registers": registers,
        "stack": stack,
        "shared": compiled.metadata.shared,
        "tensor_cores": len(re.findall(tensor_cores, code)),
        "async_copies": len(re.findall(r"LDGSTS\S*\.128", code)),
        "wide_atomics": len(re.findall(r"RED\S*\.F32x4", code)),
    }


if __name__ == "__main__":
    if sys.argv[1:] == ["launches"]:
        print(json.dumps(compile_launches()))
        sys.exit()
    print(json.dumps(compile_all(int(sys.argv[1]), sys.argv[2:] or list(ALL)), indent=1))
