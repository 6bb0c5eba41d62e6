"""What a recipe is: everything about a training that is not the network, the data or the seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from convatlas.config import check_types
from convatlas.data.augment import Augment
from convatlas.training.recipes.schedules import Constant, OneCycle, Schedule, warmed_decay

Optimizer = Literal["sgd", "rmsprop", "adamw", "lbfgs"]
Loss = Literal["softmax", "hinge", "rbf"]

_RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (
        ("epochs", "batch_size", "accumulate", "patience"),
        lambda value: value >= 1,
        "a whole number of at least 1",
    ),
    (("lr", "eps", "clip_norm"), lambda value: 0.0 < value < math.inf, "a number above 0"),
    (
        ("weight_decay", "aux_weight", "l2_sp"),
        lambda value: 0.0 <= value < math.inf,
        "a number of at least 0",
    ),
    (("head_lr",), lambda value: 0.0 < value < math.inf, "a number above 0"),
    (("layer_decay",), lambda value: 0.0 < value <= 1.0, "a factor above 0, up to 1"),
    (("soup",), lambda value: value >= 0, "a whole number of at least 0"),
    (
        (
            *("warmup", "momentum", "rms_decay", "label_smoothing", "ema_decay", "drop_rate"),
            *("drop_path_rate", "head_first", "unfreeze", "validation"),
        ),
        lambda value: 0.0 <= value < 1.0,
        "a rate of at least 0 and below 1",
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    The learning rate, the averaging and the size are functions of the step, and places in the training are
    shares of it, so that nothing has a state and `epochs` can be changed alone.

    Attributes:
        epochs: passes over the training images.
        batch_size: images of one step, over all processes; the last batch of an epoch may be smaller.
        accumulate: parts in which a batch is computed one after the other, to save memory.
        optimizer: "sgd", "rmsprop" (as TensorFlow defines it), "adamw", or "lbfgs": a logistic regression on
            features that are computed once, for `freeze="backbone"`.
        lr: learning rate where the schedule's level is 1.
        schedule: what becomes of it; see `convatlas.training.recipes.schedules`.
        warmup: share of all steps over which the rate rises linearly from 0 to `lr`.
        momentum: share of the velocity that is kept, of "sgd" and "rmsprop".
        nesterov: whether "sgd" looks ahead.
        rms_decay: share of the mean square gradient that is kept, of "rmsprop".
        betas: shares of the mean gradient and of the mean square that are kept, of "adamw".
        eps: added to the mean square of "rmsprop", to its root of "adamw".
        weight_decay: times a parameter: added to its gradient, or with "adamw" times `lr` taken from it.
        decay_norm_and_bias: whether vectors (biases, and scales and shifts of norms) decay too.
        decay_depthwise: whether filters with one input channel decay too.
        clip_norm: largest length of the gradient of all parameters together; None for any.
        loss: "softmax" (cross-entropy), "hinge" (the multi-class SVM's), or "rbf" (the 1998 criterion for
            distances).
        label_smoothing: share of a target that is spread over all classes, of "softmax".
        aux_weight: weight of the loss of each auxiliary classifier; 0 leaves them untrained.
        class_weights: "balanced" weighs a class by the inverse of its frequency; None weighs all alike.
        ema_decay: share of the weights' moving average that is kept at each step; the average is what is
            evaluated and saved. None for no average.
        drop_rate: dropout before the classifier; None for the network's own.
        drop_path_rate: stochastic depth of the last block; None for the network's own.
        sizes: progressive resizing: pairs of a share of the training and the px to train at from there on;
            empty for one size.
        patience: epochs without a better accuracy after which training stops, on the validation images where
            there are some, else on the test images; None for never.
        validation: share of the training images, of each class, that is not learnt from but measured after
            each epoch; the weights of the epoch with the lowest loss on them are those that are kept.
        freeze: "backbone" trains the classifier alone; a number leaves that many of the first stages as they
            are, with the statistics of their norms; None trains all.
        head_start: "probe" begins with the classifier that logistic regression finds on the features of the
            network as it is; None with the one that the network has.
        head_first: share of the training in which the classifier learns alone, before all do.
        unfreeze: share of the training up to which stages begin to learn one after the other, the deepest
            first, from `head_first` on; 0 for all at once.
        head_lr: learning rate of the classifier; None for `lr`.
        layer_decay: factor of the learning rate from each stage to the one before it; the classifier is the
            last stage.
        freeze_norms: leave scale, shift and statistics of all norms as they are.
        l2_sp: pulls each weight toward its first value, the classifier's excepted: times the distance,
            added to the gradient, or with "adamw" times `lr` taken from it; see `weight_decay` for the pull
            to 0, which then is the classifier's alone.
        soup: the final weights are the mean of those after each of so many last epochs, or of all where there
            are fewer; 0 for those of the last. Where training ends early there is no mean.
        augment: what happens to the training images.
    """

    epochs: int
    batch_size: int
    accumulate: int = 1
    optimizer: Optimizer = "sgd"
    lr: float
    warmup: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    rms_decay: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay_norm_and_bias: bool = True
    decay_depthwise: bool = True
    clip_norm: float | None = None
    loss: Loss = "softmax"
    label_smoothing: float = 0.0
    aux_weight: float = 0.0
    class_weights: Literal["balanced"] | None = None
    ema_decay: float | None = None
    drop_rate: float | None = None
    drop_path_rate: float | None = None
    sizes: tuple[tuple[float, int], ...] = ()
    patience: int | None = None
    validation: float = 0.0
    freeze: Literal["backbone"] | int | None = None
    head_start: Literal["probe"] | None = None
    head_first: float = 0.0
    unfreeze: float = 0.0
    head_lr: float | None = None
    layer_decay: float = 1.0
    freeze_norms: bool = False
    l2_sp: float = 0.0
    soup: int = 0
    schedule: Schedule = dataclasses.field(default_factory=Constant)
    augment: Augment = dataclasses.field(default_factory=Augment)

    def __post_init__(self) -> None:
        """Checks the types and ranges, and that the parts fit together.

        Raises:
            ValueError: a value does not fit.
        """
        check_types(self)
        for names, fits, expected in _RANGES:
            for name in names:
                value = getattr(self, name)
                if value is not None and not fits(value):
                    raise ValueError(f"`{name}`={value!r}; expected {expected}")
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"`betas`={list(self.betas)}; expected two rates of at least 0 and below 1")
        if self.accumulate > self.batch_size:
            raise ValueError(f"`accumulate`={self.accumulate}; at most `batch_size`={self.batch_size}")
        self._check_sizes()
        self._check_parts()

    def _check_sizes(self) -> None:
        shares = [share for share, _ in self.sizes]
        rising = shares == sorted(set(shares)) and shares[:1] in ([], [0.0]) and all(s < 1.0 for s in shares)
        if not rising or not all(px >= 1 for _, px in self.sizes):
            raise ValueError(
                f"`sizes`={[list(pair) for pair in self.sizes]}; expected pairs of a share of the training "
                "and px, the shares rising from 0, for example [[0.0, 128], [0.5, 160]]"
            )

    def _check_parts(self) -> None:
        """Refuses options that have no meaning together."""
        if isinstance(self.schedule, OneCycle) and self.warmup > 0.0:
            raise ValueError(f"`warmup`={self.warmup!r}; a one_cycle schedule warms up by itself")
        if self.class_weights is not None and self.loss == "rbf":
            raise ValueError(f"`class_weights`={self.class_weights!r}; the loss 'rbf' takes none")
        soft = {"label_smoothing": self.label_smoothing, "augment.mixup": self.augment.mixup}
        for name, value in (soft | {"augment.cutmix": self.augment.cutmix}).items():
            if value > 0.0 and self.loss != "softmax":
                raise ValueError(f"`{name}`={value!r}; the loss {self.loss!r} needs it to be 0")
        self._check_tuning()

    def _check_tuning(self) -> None:
        """Refuses options of fine-tuning that have no meaning together."""
        if isinstance(self.freeze, int) and self.freeze < 1:
            raise ValueError(
                f"`freeze`={self.freeze}; expected 'backbone', a number of stages from 1, or none"
            )
        if self.soup and self.ema_decay is not None:
            raise ValueError(f"`soup`={self.soup} and `ema_decay`={self.ema_decay!r} both average; set one")
        if 0.0 < self.unfreeze <= self.head_first:
            raise ValueError(
                f"`unfreeze`={self.unfreeze!r}; expected more than `head_first`={self.head_first!r}, or 0"
            )
        if self.freeze == "backbone" and (self.unfreeze or self.head_first):
            raise ValueError(
                "`freeze`='backbone' leaves nothing to unfreeze: set `unfreeze` and `head_first` to 0"
            )
        if self.optimizer == "lbfgs":
            self._check_probe()

    def _check_probe(self) -> None:
        other = {"freeze": "backbone", "epochs": 1, "loss": "softmax", "augment": Augment()}
        for name, value in other.items():
            if getattr(self, name) != value:
                shown = "none" if name == "augment" else repr(value)
                raise ValueError(
                    f"`optimizer`='lbfgs' computes the features of images once; it needs `{name}`={shown}; "
                    f"received {getattr(self, name)!r}"
                )

    def lr_at(self, step: int, num_steps: int) -> float:
        """The learning rate of a step.

        Args:
            step: counted from 0.
            num_steps: of the whole training.
        """
        share = (step + 1) / num_steps
        if share < self.warmup:
            return self.lr * share / self.warmup
        return self.lr * self.schedule.level(step, num_steps, self.warmup)

    def size_at(self, step: int, num_steps: int) -> int | None:
        """Height and width in px to train a step at; None for the usual size. Arguments as `lr_at`."""
        reached = [px for share, px in self.sizes if step >= round(share * num_steps)]
        return reached[-1] if reached else None

    def ema_at(self, step: int) -> float:
        """Share of the moving average that is kept at a step, counted from 0; 0 without an average."""
        return 0.0 if self.ema_decay is None else warmed_decay(self.ema_decay, step)


class RecipeFields(TypedDict, total=False):
    """The fields of a `Recipe` as keywords of `train` and `resume`, so that a type checker knows them.

    A part (`schedule`, `augment`) may be given as its kind, such as "cosine", or as a mapping of its fields.
    """

    epochs: int
    batch_size: int
    accumulate: int
    optimizer: Optimizer
    lr: float | Literal["auto"]
    warmup: float
    momentum: float
    nesterov: bool
    rms_decay: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    decay_norm_and_bias: bool
    decay_depthwise: bool
    clip_norm: float | None
    loss: Loss
    label_smoothing: float
    aux_weight: float
    class_weights: Literal["balanced"] | None
    ema_decay: float | None
    drop_rate: float | None
    drop_path_rate: float | None
    sizes: Sequence[tuple[float, int]]
    patience: int | None
    validation: float
    freeze: Literal["backbone", "none"] | int | None
    head_start: Literal["probe", "none"] | None
    head_first: float
    unfreeze: float
    head_lr: float | None
    layer_decay: float
    freeze_norms: bool
    l2_sp: float
    soup: int
    schedule: Schedule | str | Mapping[str, Any]
    augment: Augment | Mapping[str, Any]
