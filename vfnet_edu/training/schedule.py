"""Which parameter learns how fast, and when."""

import math

import torch
from torch import nn

from vfnet_edu.recipe import DataConfig, OptimConfig
from vfnet_edu.runtime.errors import UserError

NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict]:
    """Two groups: biases, which learn faster and do not decay, and all the rest.

    A bias of a norm, or of the predictor of DCN offsets, belongs to the rest: norms do decay (the authors' optimizer
    constructor, with `bias_lr_mult=2, bias_decay_mult=0`).  Each group's ``scale`` multiplies the learning rate.
    """
    biases, rest = [], []
    for path, module in model.named_modules():
        plain = not isinstance(module, NORMS) and "conv_offset" not in path
        for name, p in module.named_parameters(recurse=False):
            if p.requires_grad:
                (biases if name == "bias" and plain else rest).append(p)
    return [
        {"params": rest, "weight_decay": config.weight_decay, "scale": 1.0},
        {"params": biases, "weight_decay": config.bias_decay * config.weight_decay, "scale": config.bias_lr},
    ]


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD with momentum, as in every row of the tables, or AdamW; one fused operation for all parameters."""
    groups = parameter_groups(model, config)
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, config.lr, betas=config.betas, fused=fused)
    return torch.optim.SGD(groups, config.lr, momentum=config.momentum, fused=fused)


def batch_shape(config: DataConfig, world: int) -> tuple[int, int]:
    """(images per process and forward pass, passes per step) that make up one step of ``batch_size`` images.

    Raises:
        UserError: the batch does not divide.

    Explained in chapter 18.
    """
    per_gpu = max(min(config.images_per_gpu, config.batch_size // world), 1)
    passes, rest = divmod(config.batch_size, per_gpu * world)
    if rest or not passes:
        raise UserError(
            f"a batch of {config.batch_size} images does not divide into {world} process(es) x {per_gpu} images",
            remedy=f"set --data.batch-size to a multiple of {per_gpu * world}",
        )
    return per_gpu, passes


def warmup_steps(config: OptimConfig, total: int) -> int:
    """The recipe's, but at most a fifth of the run: 500 steps are half of all when there are 300 photographs."""
    return min(config.warmup_steps, total // 5)


def learning_rate(config: OptimConfig, base: float, step: int, epoch: int, total: int) -> float:
    """The rate of one step.

    Args:
        config: the recipe's.
        base: the rate for the batch at hand.
        step: optimizer steps done so far.
        epoch: epochs done so far.
        total: optimizer steps of the whole run.
    """
    done = min(step / total, 1.0)
    if config.schedule == "cosine":
        rate = base * 0.5 * (1 + math.cos(math.pi * done))
    elif config.schedule == "linear":
        rate = base * (1 - done)
    else:
        rate = base * 0.1 ** sum(epoch >= e for e in config.drop_at)
    warmup = warmup_steps(config, total)
    if step < warmup:
        rate *= 1 - (1 - step / warmup) * (1 - config.warmup_start)
    return rate


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
