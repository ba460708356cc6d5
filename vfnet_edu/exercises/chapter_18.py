"""Exercises of chapter 18: the learning rate for a batch, that of a step, and a log that tells what went wrong."""

from vfnet_edu.exercises.engine import Exercise
from vfnet_edu.recipe import OptimConfig
from vfnet_edu.training import schedule

CONFIG = OptimConfig()  # of the 1x recipes: 0.01 for 16 images, 500 steps of warm-up from a tenth, drops after 8 and 11


def _of_batch(images: float) -> float:
    return CONFIG.lr * images / CONFIG.lr_batch


rate = Exercise(
    name="rate",
    reference=lambda gpus, images, passes: _of_batch(gpus * images * passes),
    cases=[(8, 2, 1), (1, 2, 8), (1, 2, 1), (4, 4, 2), (16, 2, 1), (2, 8, 4)],
    mistakes=[
        (
            lambda gpus, images, passes: _of_batch(gpus * images),
            "You count the images of one pass. Accumulated passes are part of the same step: the weights move once, "
            "by the mean over all of them.",
        ),
        (
            lambda gpus, images, passes: CONFIG.lr * gpus / 8,
            "You scale with the number of GPUs alone. The rate was tuned for 16 images, and 8 GPUs are 16 images only "
            "as long as each takes 2, in one pass.",
        ),
        (
            lambda gpus, images, passes: CONFIG.lr * (gpus * images * passes / CONFIG.lr_batch) ** 0.5,
            "That is the square-root rule, which keeps the noise of one step as it was. The recipes follow the linear "
            "rule: twice the images, half the steps, so each step goes twice as far.",
        ),
        (
            lambda gpus, images, passes: _of_batch(gpus * images / passes),
            "You divide by the passes. The losses are already divided by them (the step takes the mean), so more "
            "passes mean a larger batch and a larger rate.",
        ),
        (
            lambda gpus, images, passes: CONFIG.lr * gpus * images * passes,
            "You multiply by the number of images. 0.01 is the rate of 16 images, not of one: divide by 16.",
        ),
        (
            lambda gpus, images, passes: CONFIG.lr * CONFIG.lr_batch / (gpus * images * passes),
            "Upside down: a larger batch takes a larger rate, because it has fewer steps to get as far.",
        ),
        (
            lambda gpus, images, passes: _of_batch(gpus + images + passes),
            "You add up GPUs, images and passes. The images of a step are their product.",
        ),
        (
            lambda gpus, images, passes: _of_batch(passes),
            "You count passes. What counts is the images in all passes of all GPUs.",
        ),
        (
            lambda gpus, images, passes: CONFIG.lr,
            "That is right for 16 images. For another batch the rate changes with the number of images.",
        ),
        (
            lambda gpus, images, passes: _of_batch(images * passes),
            "The GPUs are missing: each of them brings its own images to the step.",
        ),
        (
            lambda gpus, images, passes: CONFIG.lr * gpus * passes / 8,
            "You count GPUs and passes, as if each always took 2 images. Count the images.",
        ),
        (
            lambda gpus, images, passes: _of_batch(images),
            "Those are the images of one GPU in one pass. A step has those of all GPUs and all passes.",
        ),
    ],
    right="The rate is 0.01 for 16 images, and in proportion to the images of a step, wherever they are computed.",
    hint="Count the images of one step over all GPUs and passes; 16 of them earn a rate of 0.01.",
)


def _of_step(step: int, steps_per_epoch: int, config: OptimConfig = CONFIG, epoch: int | None = None) -> float:
    epoch = step // steps_per_epoch if epoch is None else epoch
    return schedule.learning_rate(config, config.lr, step, epoch, config.epochs * steps_per_epoch)


def _changed(**changes) -> OptimConfig:
    return OptimConfig(**changes)


COCO = 7330
rate_at = Exercise(
    name="rate_at",
    reference=_of_step,
    cases=[
        (0, COCO), (250, COCO), (499, COCO), (500, COCO), (7 * COCO, COCO), (8 * COCO - 1, COCO), (8 * COCO, COCO),
        (9 * COCO, COCO), (11 * COCO - 1, COCO), (11 * COCO, COCO), (12 * COCO - 1, COCO), (8 * 1000, 1000),
    ],
    mistakes=[
        (
            lambda step, per_epoch: _of_step(step, per_epoch, _changed(warmup_start=0.0)),
            "Your warm-up starts from 0: the first step would do nothing. It starts from a tenth of the rate.",
        ),
        (
            lambda step, per_epoch: _of_step(step, per_epoch, _changed(warmup_steps=0)),
            "The drops are right; the warm-up is missing. The first 500 steps climb from 0.001 to 0.01.",
        ),
        (
            lambda step, per_epoch: _of_step(step, per_epoch, epoch=step // per_epoch + 1),
            "Your drops come an epoch early. Count the epochs that are done: step // steps_per_epoch, from 0.",
        ),
        (
            lambda step, per_epoch: _of_step(step, per_epoch, epoch=step // per_epoch - 1),
            "Your drops come an epoch late. After 8 epochs means: as soon as 8 are done, so >= and not >.",
        ),
        (
            lambda step, per_epoch: _of_step(step, per_epoch, epoch=step),
            "You compare the step with 8 and 11. Those are epochs: divide the step by steps_per_epoch first.",
        ),
        (
            lambda step, per_epoch: _of_step(step, per_epoch, _changed(drop_at=(8,))),
            "The second drop is missing: after 11 epochs the rate is divided by ten again, to a hundredth.",
        ),
        (
            lambda step, per_epoch: _of_step(step, per_epoch, _changed(drop_at=())),
            "The warm-up is right; the drops are missing: divide by ten after 8 epochs, and again after 11.",
        ),
        (
            lambda step, per_epoch: CONFIG.lr,
            "That is the rate in the middle. The warm-up is missing, and so are the two drops.",
        ),
        (
            lambda step, per_epoch: _of_step(step, per_epoch, _changed(drop_at=tuple(range(8, 12)))),
            "Your rate falls in every epoch from the eighth on. There are two drops only: after 8 and after 11 epochs.",
        ),
        (
            lambda step, per_epoch: _of_step(step, per_epoch, _changed(drop_at=(11,))),
            "The first drop is missing: after 8 epochs the rate is a tenth.",
        ),
        (
            lambda step, per_epoch: _of_step(step, per_epoch) * (10 if step // per_epoch in (9, 10) else 1),
            "You drop the rate in one epoch and lift it again. A drop stays to the end: >= and not ==.",
        ),
        (
            lambda step, per_epoch: _of_step(step, per_epoch, _changed(warmup_start=0.9)),
            "Your warm-up starts at nine tenths. In the formula (1 - 0.1) is multiplied, and that is 0.9.",
        ),
        (
            lambda step, per_epoch: _of_step(max(step, 1) - 1 if step % per_epoch == 0 and step else step, per_epoch),
            "Your drops come one step late: with step / steps_per_epoch it is >= 8, not > 8.",
        ),
        (
            lambda step, per_epoch: _of_step(step, per_epoch) * (1 - (1 - step / 500) * 0.9 if step >= 500 else 1),
            "Your warm-up never ends: its factor holds in the first 500 steps only, and is 1 from then on.",
        ),
    ],
    right="Half a thousand careful steps, eight epochs at full rate, three at a tenth, one at a hundredth.",
    hint="Three factors: 0.01, then a tenth for each drop that is past, then in the first 500 steps "
    "1 - (1 - step / 500) * (1 - 0.1).",
)  # fmt: skip

# The tests compute what the rates of such a run would be; the speeds are invented.
LOG = """\
12 epochs of 7330 steps of 16 images
  = 8 process(es) x 2 images x 1 pass(es) on cuda:0, fp32
learning rate 0.01 x 16/16 images = 0.01, after 500 warm-up steps

  step   epoch       lr  images/s  data_share
    10    0.00  0.00116      96.2        0.02
   510    0.07  0.01000      97.0        0.01
 58640    8.00  0.01000      96.8        0.01
 58650    8.00  0.01000      97.1        0.01
 80630   11.00  0.01000      96.9        0.02
 87960   12.00  0.01000      97.0        0.01"""

wrong_option = Exercise(
    name="wrong_option",
    reference=lambda: "--optim.drop-at",
    cases=[()],
    mistakes=[
        (
            lambda: "--optim.lr",
            "0.01 for 16 images is what the recipe says, and the log's line `learning rate` shows it.",
        ),
        (
            lambda: "--optim.warmup-steps",
            "At step 10 the rate is still near a tenth, at step 510 it is full: the warm-up is as it should be.",
        ),
        (
            lambda: "--optim.epochs",
            "12 epochs were asked for, and the last line is step 87960 = 12 x 7330: all of them were run.",
        ),
        (
            lambda: "--data.batch-size",
            "8 processes x 2 images x 1 pass are 16 images, the published batch; the rate is not scaled.",
        ),
        (lambda: "optim.drop-at", "You have found it. Write it as it is typed, with its two dashes."),
        (
            lambda: "--data.workers",
            "Too few workers would show as a large data_share. Here 1 or 2 % of the time is spent waiting for images.",
        ),
        (lambda: "--optim.drop_at", "You have found it. Its name has a hyphen: copy it from the list."),
        (lambda: "drop-at", "You have found it. Write the whole option, as it stands in the list."),
    ],
    right="The rate never drops: somebody gave steps (58640 80630) where the option takes epochs (8 11). Such a run "
    "ends without an error; only the curve of the rate gives it away.",
    hint="Answer with one of the six options, copied as text.",
    describe=lambda case: "a call without arguments",
)
