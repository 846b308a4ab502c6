"""The fields of a recipe, section by section, with their defaults and the values that each may take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onebit.train.evaluation import LOSS_FUNCTIONS

LOSSES = tuple(LOSS_FUNCTIONS)
OPTIMIZERS = ("adam", "adamw", "sgd", "shift_adamax", "bop")
SCHEDULES = ("exponential", "cosine", "linear", "step", "constant")
PRECISIONS = ("float32", "bf16")

# field, what it is, whether that is allowed, what is needed instead
FieldRule = tuple[str, Any, bool, str]


@dataclass(frozen=True)
class DataRecipe:
    """Which data set, and how many training samples are held out to choose the best epoch."""

    name: str
    validation: int = 0
    image_size: int = 0  # pixels a side; 0: as they are
    channels: int = 0  # 1 or 3; 0: as they are
    sample_rate: int = 0  # Hz, of sounds; 0: 8,000
    samples: int = 0  # of a sound; 0: 8,000
    whiten: bool = False  # small images: float32, by global contrast normalization and ZCA
    extra: bool = False  # SVHN: train on the split "extra" too
    stream: bool = False  # images of any sizes, read and decoded when they are needed, not held in memory
    workers: int = -1  # processes a training process has to decode a stream; -1: as many as cores, up to 8

    def rules(self) -> Iterator[FieldRule]:
        yield "validation", self.validation, self.validation >= 0, "0 or more"
        yield "image_size", self.image_size, self.image_size >= 0, "0 or more"
        sized = self.image_size > 0 or not self.stream
        yield "image_size", self.image_size, sized, "1 or more, as in data.image_size=224, with data.stream"
        others = [
            f for f in ("sample_rate", "samples", "whiten", "extra") if self.stream and getattr(self, f)
        ]
        yield "stream", self.stream, not others, f"false, or no {' and no '.join(others)},"
        yield "workers", self.workers, self.workers >= -1, "-1 or more"
        yield "channels", self.channels, self.channels in (0, 1, 3), "0, 1 or 3"
        yield "sample_rate", self.sample_rate, self.sample_rate >= 0, "0 or more"
        yield "samples", self.samples, self.samples >= 0, "0 or more"


@dataclass(frozen=True)
class ModelRecipe:
    """A name that `onebit.models` knows and the options it is created with."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimizerRecipe:
    """The optimizer, its rate from epoch to epoch (`optimizers.learning_rate`), and what follows a step.

    `glorot` divides a latent weight's rate by its Glorot coefficient √(1.5 / (fan_in + fan_out))
    (BinaryConnect, arXiv 1511.00363, section 2.5), squared for SGD. After each step `center` brings the mean
    of a filter's latent weights to 0 (XNOR-Net, arXiv 1603.05279) and `clip` clips latent weights to [-1, 1].
    `betas` and `eps` belong to Adam, AdamW and shift-based AdaMax, `momentum` to SGD, `threshold` and `gamma`
    to Bop (arXiv 1906.02107), which flips the one-bit weights while Adam trains the other parameters.
    """

    name: str = "adam"
    lr: float = 3e-3
    lr_end: float = 3e-7
    schedule: str = "exponential"
    warmup_epochs: int = 0  # epochs in which the rate rises to `lr`
    step_epochs: int = 50  # schedule "step": every so many epochs …
    step_factor: float = 0.5  # … the rate is multiplied by this
    glorot: bool = True
    center: bool = False
    clip: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0
    threshold: float = 1e-8
    gamma: float = 1e-4

    def rules(self) -> Iterator[FieldRule]:
        yield "name", self.name, self.name in OPTIMIZERS, " or ".join(OPTIMIZERS)
        yield "lr", self.lr, 0 < self.lr < math.inf, "above 0"
        yield "lr_end", self.lr_end, 0 < self.lr_end < math.inf, "above 0"
        yield "schedule", self.schedule, self.schedule in SCHEDULES, " or ".join(SCHEDULES)
        yield "warmup_epochs", self.warmup_epochs, self.warmup_epochs >= 0, "0 or more"
        yield "step_epochs", self.step_epochs, self.step_epochs >= 1, "1 or more"
        yield "step_factor", self.step_factor, 0 < self.step_factor <= 1, "above 0 and up to 1"
        yield "betas", list(self.betas), all(0 <= b < 1 for b in self.betas), "from 0 to below 1"
        yield "eps", self.eps, self.eps > 0, "above 0"
        yield "momentum", self.momentum, 0 <= self.momentum < 1, "from 0 to below 1"
        yield "weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more"
        decays = self.name not in ("shift_adamax", "bop")
        yield "weight_decay", self.weight_decay, decays or self.weight_decay == 0, f"0 with {self.name}"
        yield "center", self.center, self.name != "bop" or not self.center, "false with bop"
        yield "threshold", self.threshold, 0 <= self.threshold < math.inf, "0 or more"
        yield "gamma", self.gamma, 0 < self.gamma <= 1, "above 0 and up to 1"


@dataclass(frozen=True)
class AugmentRecipe:
    """Random changes of each training sample, drawn anew each epoch; see `augment`.

    All are for images. What comes in from outside is `fill`, in the units of the data: 0 … 255 for bytes.
    Of streamed images, which are larger than what the model sees, windows are cut (`onebit.data.crops`):
    they have `flip`, `resized_crop`, and `crop` and `crop_max` with a meaning of their own.
    """

    flip: bool = False  # left to right, every second time
    crop: int = (
        0  # pixels of padding around, from which a window of the image's size is cut; streamed: pixels
    )
    # that the shorter side has beyond image_size when a window is cut …
    crop_max: int = 0  # … streamed: at high, drawn from crop to this; 0: always `crop`
    resized_crop: float = 0.0  # streamed: cut a window of this part of the area at least, of any near shape
    cutout: int = 0  # side, in pixels, of a square that is filled (arXiv 1708.04552)
    fill: float = 0.0

    @property
    def any(self) -> bool:
        """True if there is anything to do to images that are held in memory."""
        return self.flip or self.crop > 0 or self.cutout > 0

    def rules(self) -> Iterator[FieldRule]:
        yield "crop", self.crop, self.crop >= 0, "0 or more pixels"
        high = self.crop_max
        yield (
            "crop_max",
            high,
            high == 0 or high >= self.crop,
            f"0, or crop ({self.crop}) or more pixels",
        )
        yield "resized_crop", self.resized_crop, 0 <= self.resized_crop <= 1, "a part of the area, 0 … 1"
        both = self.resized_crop > 0 and self.crop + high > 0
        yield "resized_crop", self.resized_crop, not both, "0 together with crop, or no crop,"
        yield "cutout", self.cutout, self.cutout >= 0, "0 or more pixels"
        yield "fill", self.fill, math.isfinite(self.fill), "a finite number"


@dataclass(frozen=True)
class DistillRecipe:
    """A trained network whose scores are learned beside the labels; see `distill`.

    `teacher` is a run folder, or a file of weights (a state_dict that torch.save wrote) for the registered
    model `model`, created with `options`. "" is none.
    """

    teacher: str = ""
    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    weight: float = 1.0  # of the teacher's part of the loss, 0 … 1; the labels' is the rest

    def rules(self) -> Iterator[FieldRule]:
        yield "temperature", self.temperature, 0 < self.temperature < math.inf, "above 0"
        yield "weight", self.weight, 0 < self.weight <= 1, "above 0 and up to 1"


@dataclass(frozen=True)
class Recipe:
    """One experiment. `batch_size` samples a step, of all processes together; a last, smaller batch of an
    epoch is left out."""

    name: str
    data: DataRecipe
    model: ModelRecipe
    optimizer: OptimizerRecipe
    epochs: int
    augment: AugmentRecipe = AugmentRecipe()
    distill: DistillRecipe = field(default_factory=DistillRecipe)
    batch_size: int = 100
    loss: str = "square_hinge"
    seed: int = 1
    init: str = ""  # a run folder, or a file of weights, to start from
    reestimate_batch_norm: int = 0  # batches on which the best model's statistics are measured anew
    threads: int = 0  # torch's on the CPU; the last bits depend on it; 0: as many as torch chooses
    tf32: bool = True  # CUDA: products of float32 in TF32, exact where the factors are ±1 or scaled pixels
    precision: str = "float32"  # bf16: mixed, see `precision`
    channels_last: bool = False  # the layout in which convolutions are fastest on GPUs
    diagnose: bool = False  # look at the binary layers after each epoch (nn.diagnose): metrics and a plot
    save_bits: bool = False  # keep bits and small integers for the backward pass (nn.save_bits_)
    compile: bool = False  # torch.compile; seldom faster on a CPU
    cuda_graph: bool = False  # CUDA: record a whole training step once and replay it
    sync_batch_norm: bool = False  # several processes: statistics of the whole batch
    checkpoint_seconds: float = 30.0  # how much work a kill may cost; 0: every step
    summary: str = ""
    source: str = ""

    def rules(self) -> Iterator[FieldRule]:
        yield "epochs", self.epochs, self.epochs >= 1, "1 or more"
        yield "batch_size", self.batch_size, self.batch_size >= 2, "2 or more (BatchNorm needs two images)"
        yield "loss", self.loss, self.loss in LOSSES, " or ".join(LOSSES)
        yield "seed", self.seed, 0 <= self.seed < 2**63, "0 or more"
        batches = self.reestimate_batch_norm
        yield "reestimate_batch_norm", batches, batches >= 0, "a number of batches, 0 or more"
        yield "threads", self.threads, self.threads >= 0, "0 or more"
        yield "precision", self.precision, self.precision in PRECISIONS, " or ".join(PRECISIONS)
        exact = self.precision == "float32" and not self.sync_batch_norm
        yield (
            "save_bits",
            self.save_bits,
            exact or not self.save_bits,
            ('precision = "float32" and no sync_batch_norm'),
        )
        yield "checkpoint_seconds", self.checkpoint_seconds, self.checkpoint_seconds >= 0, "0 or more"
        window = {"resized_crop": self.augment.resized_crop, "crop_max": self.augment.crop_max}
        for where, value in window.items():
            yield f"augment.{where}", value, self.data.stream or not value, "data.stream = true, or 0,"
        cutout = self.augment.cutout
        yield "augment.cutout", cutout, not (self.data.stream and cutout), "0 with data.stream"
        warmup = self.optimizer.warmup_epochs
        yield "optimizer.warmup_epochs", warmup, warmup < self.epochs, f"less than epochs ({self.epochs})"
