"""What to tell a user whose model holds an operation without a lowering rule."""

from __future__ import annotations

_LAST = "leave it out of the model (it keeps the order of the scores) and apply it to the engine's output"
_STATISTICS = "give it running statistics (track_running_stats=True) and call model.eval()"
_ADVICE: dict[tuple[str, ...], tuple[str, str]] = {
    ("aten.sign.", "aten.sgn."): (
        "torch.sign gives 0 at 0, which is not one bit",
        "use onebit.nn.ste_sign or torch.where(x >= 0, 1.0, -1.0), which give +1 at 0",
    ),
    ("aten._softmax", "aten.softmax", "aten._log_softmax", "aten.log_softmax"): (
        "softmax is not an operation of a Program",
        _LAST,
    ),
    ("aten.sigmoid", "aten.tanh"): (
        "it is not an operation of a Program",
        f"inside the network use Hardtanh or ReLU; at its end {_LAST}",
    ),
    ("aten.argmax", "aten.max.", "aten.topk"): (
        "it is not an operation of a Program",
        "return the scores and take np.argmax of the engine's output",
    ),
    ("aten.conv3d", "aten.max_pool3d", "aten.avg_pool3d", "aten.adaptive_avg_pool3d"): (
        "a Program has images of one or two axes only",
        "leave this part in PyTorch",
    ),
    ("aten.conv_transpose", "aten.convolution"): (
        "a transposed convolution is not an operation of a Program",
        "leave this part in PyTorch",
    ),
    ("aten.slice", "aten.split", "aten.chunk", "aten.select", "aten.narrow"): (
        "it takes a part of a value, and a Program has no operation for that",
        "give the layers before it outputs of their own, one for each part",
    ),
    ("aten.dropout", "aten.native_dropout"): (
        "dropout is active",
        "call model.eval() and do not force training=True",
    ),
    ("aten._native_batch_norm_legit", "aten.native_batch_norm", "aten.batch_norm"): (
        "this BatchNorm normalizes with the statistics of the batch at hand",
        _STATISTICS,
    ),
    ("aten.native_layer_norm", "aten.layer_norm"): (
        "LayerNorm is not an operation of a Program",
        "use BatchNorm, which becomes thresholds",
    ),
    ("getitem",): ("it uses more than the first result of an operation", "use the first result only"),
}
SUPPORTED = (
    "use Linear, Conv1d, Conv2d and their Binary forms, BatchNorm, max and average pools, mean, cat, ReLU, "
    "LeakyReLU, PReLU, Hardtanh, clamp, abs, Flatten, view, permute, + − × ÷"
)


RANDOM = (
    "it draws random numbers in eval mode, and a Program is deterministic",
    "draw them in training mode only (if self.training: ...)",
)
FROM_DATA = (
    "it reads a number out of a tensor (int(), float(), .item()), and a Program keeps all numbers in tensors",
    "keep it a tensor, or make it a parameter or buffer",
)
FROM_BATCH_SIZE = (
    "it computes with the number of samples, and one sample's result may not depend on the others",
    "use a stored number",
)


def advice(op: str) -> tuple[str, str]:
    """(why, what to do) for a PyTorch operation that has no rule."""
    for prefixes, why_and_fix in _ADVICE.items():
        if op.startswith(prefixes):
            return why_and_fix
    return f"the operation {op} has no counterpart in a Program", SUPPORTED


def padded_elsewhere(fill: float) -> tuple[str, str]:
    """(why, what to do) where something else than a convolution meets a padded value."""
    return (
        f"it takes a value padded with {fill:g}, and only convolutions take padding in",
        "pad directly before a convolution or its sign, or use the padding= of a layer",
    )
