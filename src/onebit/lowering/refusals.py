"""What to tell a user whose model holds an operation without a lowering rule."""

from __future__ import annotations

_ADVICE: tuple[tuple[str, str, str], ...] = (
    ("aten.sign.", "torch.sign gives 0 at 0, which is not one bit",
     "use onebit.nn.ste_sign or torch.where(x >= 0, 1.0, -1.0): +1 at 0"),
    ("aten.sgn.", "torch.sgn gives 0 at 0, which is not one bit", "use onebit.nn.ste_sign: +1 at 0"),
    ("aten._softmax", "softmax is not an operation of a Program",
     "leave it out of the model (it does not change the order of the scores) and apply it to the engine's output"),
    ("aten.softmax", "softmax is not an operation of a Program",
     "leave it out of the model (it does not change the order of the scores) and apply it to the engine's output"),
    ("aten._log_softmax", "log_softmax is not an operation of a Program",
     "leave it out of the model (it does not change the order of the scores) and apply it to the engine's output"),
    ("aten.log_softmax", "log_softmax is not an operation of a Program",
     "leave it out of the model (it does not change the order of the scores) and apply it to the engine's output"),
    ("aten.argmax", "argmax is not an operation of a Program", "return the scores and take np.argmax of the engine's output"),
    ("aten.conv", "convolutions cannot be converted yet", "use dense layers, or leave this part in PyTorch"),
    ("aten.max_pool", "pooling cannot be converted yet", "leave this part in PyTorch"),
    ("aten.avg_pool", "pooling cannot be converted yet", "leave this part in PyTorch"),
    ("aten.dropout", "dropout is active", "call model.eval() and do not force training=True"),
    ("aten.native_dropout", "dropout is active", "call model.eval() and do not force training=True"),
    ("aten._native_batch_norm_legit", "this BatchNorm normalizes with the statistics of the batch at hand",
     "give it running statistics (track_running_stats=True) and call model.eval()"),
    ("aten.native_batch_norm", "this BatchNorm normalizes with the statistics of the batch at hand",
     "give it running statistics (track_running_stats=True) and call model.eval()"),
    ("aten.native_layer_norm", "LayerNorm is not an operation of a Program", "use BatchNorm1d, which becomes thresholds"),
    ("aten.layer_norm", "LayerNorm is not an operation of a Program", "use BatchNorm1d, which becomes thresholds"),
    ("getitem", "it uses more than the first result of an operation", "use the first result only"),
)  # fmt: skip

_SUPPORTED = "use Linear, BinaryLinear, BatchNorm1d, ReLU, LeakyReLU, PReLU, Hardtanh, clamp, Flatten, view, and + − × ÷"


def advice(op: str) -> tuple[str, str]:
    """(why, what to do) for a PyTorch operation that has no rule."""
    for prefix, why, fix in _ADVICE:
        if op.startswith(prefix):
            return why, fix
    return f"the operation {op} has no counterpart in a Program", _SUPPORTED
