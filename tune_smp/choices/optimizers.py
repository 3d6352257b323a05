"""The optimizers of torch and what each takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Optimizer:
    """One optimizer of ``torch.optim``.

    The defaults are ours, chosen for training segmentation models in mini-batches; where torch's differ, torch's are
    for full batches or for training from nothing. ``needs_closure``: evaluates the loss several times per step.
    ``sparse_gradients``: takes gradients only in sparse form.
    """

    name: str
    summary: str
    default_learning_rate: float
    has_momentum: bool = False
    default_momentum: float = 0.0
    has_weight_decay: bool = True
    default_weight_decay: float = 0.0
    needs_closure: bool = False
    sparse_gradients: bool = False


_ROWS = (
    Optimizer("Adadelta", "adapts its step from past updates; learning rate 1 is its neutral value", 1.0),
    Optimizer("Adagrad", "divides by the sum of all squared gradients; slows down for ever", 1e-2),
    Optimizer("Adam", "the sturdy default", 1e-3),
    Optimizer("AdamW", "Adam with decoupled weight decay", 1e-3, default_weight_decay=1e-2),
    Optimizer(
        "SparseAdam",
        "Adam for sparse gradients; on dense ones it is a slower Adam",
        1e-3,
        has_weight_decay=False,
        sparse_gradients=True,
    ),
    Optimizer("Adamax", "Adam with the infinity norm", 2e-3),
    Optimizer("ASGD", "averaged stochastic gradient descent", 1e-2),
    Optimizer(
        "LBFGS",
        "quasi-Newton; several evaluations per step, noisy on mini-batches",
        1.0,
        has_weight_decay=False,
        needs_closure=True,
    ),
    Optimizer("RMSprop", "divides by a running mean of squared gradients", 1e-3, has_momentum=True),
    Optimizer("Rprop", "looks at signs of gradients only; meant for full batches", 1e-3, has_weight_decay=False),
    Optimizer(
        "SGD",
        "stochastic gradient descent with momentum; often best in the end, wants a good learning rate",
        1e-2,
        has_momentum=True,
        default_momentum=0.9,
        default_weight_decay=1e-4,
    ),
)

OPTIMIZERS: Mapping[str, Optimizer] = MappingProxyType({row.name: row for row in _ROWS})
