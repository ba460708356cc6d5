"""Is this machine ready?  `python -m vfnet_edu.doctor` prints versions and devices and tests itself in five seconds.

It must run where nothing else does, so it imports torch and torchvision itself and reads what goes wrong.
"""

import importlib.metadata
import os
import platform
import shutil
import time

from vfnet_edu.runtime.errors import Exit, UserError, cli

FLOORS = {"torch": (2, 11), "torchvision": (0, 26), "triton": (3, 6)}
PACKAGES = (
    "torch", "torchvision", "triton", "numpy", "pillow", "opencv-python-headless", "pycocotools", "faster-coco-eval",
    "matplotlib", "safetensors", "tyro", "tensorboard", "jupyterlab", "ipywidgets",
)  # fmt: skip


def main(args: list[str]) -> None:
    if args:
        raise UserError(f"doctor takes no arguments, got {' '.join(args)}")
    print(f"python        {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in PACKAGES:
        print(f"{package:<24} {version(package) or '-'}")
    problems = old_packages()
    torch = import_pair()
    print(f"processors    {os.cpu_count()}, {torch.get_num_threads()} used by torch")
    if memory := installed_memory():
        print(f"memory        {memory / 1e9:.0f} GB")
    if os.path.isdir("/dev/shm"):  # Linux; elsewhere nothing limits it
        shared = shutil.disk_usage("/dev/shm").free / 1e9
        print(f"shared memory {shared:.1f} GB free (data-loading processes use it)")
        if shared < 0.5:
            problems.append("little shared memory: use --data.workers 0, or docker run --shm-size 8g")
    print(f"disk here     {shutil.disk_usage('.').free / 1e9:.0f} GB free")
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        memory, capability = f"{gpu.total_memory / 1e9:.0f} GB", f"{gpu.major}.{gpu.minor}"
        print(f"GPU {i}         {gpu.name}, {memory}, compute capability {capability}")
    if not torch.cuda.is_available():
        print("GPU           none: everything runs on the CPU, the small recipe in minutes")
    print(f"self-test     {self_test(torch)}")
    for problem in problems:
        print(f"! {problem}")
    print("all is well" if not problems else f"{len(problems)} thing(s) to fix")


def installed_memory() -> int | None:
    """In bytes; None where the system does not say, as on Windows."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def version(package: str) -> str | None:
    """The version of an installed package; None where it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def old_packages() -> list[str]:
    """Packages older than the versions that this one is tested with, as advice."""
    problems = []
    for package, floor in FLOORS.items():
        found = version(package)
        if found and tuple(int(n) for n in found.split("+")[0].split(".")[:2]) < floor:
            problems.append(f"{package} {found} is old: pip install -U '{package}>={'.'.join(map(str, floor))}'")
    return problems


def import_pair():
    """torch, after torchvision has agreed to work with it.

    Raises:
        UserError: each was built for a different version of the other.
    """
    try:
        import torch
        import torchvision
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise UserError(
            f"torch {version('torch')} and torchvision {version('torchvision')} do not match: "
            + str(error).strip().splitlines()[0],
            remedy="pip install --force-reinstall torch torchvision   (both in one command, from one index)",
            code=Exit.USAGE,
        ) from error
    assert torchvision
    return torch


def self_test(torch) -> str:
    """One training step and one detection of a small VFNet, and the star engines against each other."""
    from dataclasses import replace

    from vfnet_edu import recipes
    from vfnet_edu.losses import total
    from vfnet_edu.models.detector import build
    from vfnet_edu.ops.star.operator import choose_engine, star_conv2d

    began = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = build(replace(recipes.by_name("vfnet_small"), seed=0), ("a", "b")).to(device)
    images = [torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8) for _ in range(2)]
    target = {"boxes": torch.tensor([[20.0, 20.0, 90.0, 70.0]]), "labels": torch.tensor([1])}
    loss = total(model(images, [target, target]))
    loss.backward()
    with torch.no_grad():
        model.eval()(images)
    x, ltrb, w = torch.rand(1, 8, 6, 6), torch.rand(1, 4, 6, 6) * 30, torch.rand(8, 8, 3, 3)
    x, ltrb, w = x.to(device), ltrb.to(device), w.to(device)
    engine = choose_engine(x.device, x.dtype)
    apart = (star_conv2d(x, ltrb, w, 8) - star_conv2d(x, ltrb, w, 8, engine="reference")).abs().max().item()
    if not loss.isfinite() or apart > 1e-2:
        raise UserError(
            f"the self-test failed: loss {loss.item()}, star engine {engine} is {apart:.1e} off its definition",
            remedy="set VFNET_EDU_STAR=reference and report this with the lines above",
            code=Exit.DIVERGED,
        )
    seconds = time.perf_counter() - began
    return f"a training step, a detection and the {engine} star on {device}: fine, {seconds:.1f} s"


if __name__ == "__main__":
    cli(main)
