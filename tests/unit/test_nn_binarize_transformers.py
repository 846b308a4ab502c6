"""binarize on models of the transformers library, built small from their configurations: nothing is loaded.

Also timm's, where torchvision can be imported.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onebit import ops
from onebit.nn import BinaryLinear, binarize, binarize_report, reestimate_batch_norm_
from support import require

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}


@pytest.fixture(scope="module")
def library() -> Any:
    require(importlib.util.find_spec("transformers"), "the package transformers is not installed")
    import transformers

    return transformers


def words(count: int = 3) -> Tensor:
    return torch.randint(0, 50, (count, 7), generator=torch.Generator().manual_seed(1))


def pictures(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def names_of(model: nn.Module, *, binary: bool) -> list[str]:
    return [layer.name for layer in binarize_report(model).layers if layer.binary == binary]


def check_it_is_binary_and_trains(model: nn.Module, x: Tensor) -> None:
    """Every binary layer multiplies ±1 by ±1; every parameter that can have a gradient gets one; it packs."""
    layers = [m for m in model.modules() if isinstance(m, BinaryLinear)]
    assert len(layers) == len(names_of(model, binary=True))
    seen = []
    handles = [
        layer.input_quantizer.register_forward_hook(lambda m, inputs, output: seen.append(output))
        for layer in layers
    ]
    model.train()
    out = model(x)
    out[0].pow(2).sum().backward()
    assert len(seen) == len(layers)
    assert all(values.abs().eq(1).all() for values in seen)
    for layer in layers:
        assert layer.weight.grad is not None
        assert layer.weight.grad.isfinite().all()
    for handle in handles:
        handle.remove()
    model.eval()
    packed = ops.pack(model)
    assert sum(layer.packed for layer in ops.report(packed).layers) == len(layers)
    with torch.no_grad():
        torch.testing.assert_close(packed(x)[0], model(x)[0])


def test_bert(library: Any) -> None:
    torch.manual_seed(0)
    model = library.BertForSequenceClassification(library.BertConfig(vocab_size=50, **SIZES))
    binary = binarize(model, example=words())
    found = {layer.name: layer.reason for layer in binarize_report(binary).layers}
    block = "bert.encoder.layer.1."
    assert found[block + "attention.self.query"] == "weights and inputs"  # behind the block's LayerNorm
    assert found[block + "attention.self.value"] == "weights and inputs"
    assert found[block + "attention.output.dense"] == "weights and inputs, BatchNorm in front"
    assert found[block + "intermediate.dense"] == "weights and inputs"
    assert found[block + "output.dense"] == "weights and inputs, BatchNorm in front"
    assert found["classifier"] == "last layer"
    assert names_of(binary, binary=False) == [
        *(f"bert.embeddings.{kind}_embeddings" for kind in ("word", "position", "token_type")),
        "classifier",
    ]
    assert len(names_of(binary, binary=True)) == 2 * 6 + 1  # and the pooler's
    reestimate_batch_norm_(binary, [words(8), {"input_ids": words(8)}])
    check_it_is_binary_and_trains(binary, words())


def test_vit(library: Any) -> None:
    torch.manual_seed(0)
    model = library.ViTForImageClassification(library.ViTConfig(image_size=32, patch_size=8, **SIZES))
    binary = binarize(model, example=pictures())
    real = {layer.name: layer.reason for layer in binarize_report(binary).real}
    assert [reason for name, reason in real.items()] == ["first layer", "last layer"]
    assert next(iter(real)).endswith("projection")
    assert len(names_of(binary, binary=True)) == 2 * 6
    check_it_is_binary_and_trains(binary, pictures())


def test_llama_without_an_example(library: Any) -> None:
    torch.manual_seed(0)
    config = library.LlamaConfig(vocab_size=50, tie_word_embeddings=True, **SIZES)
    binary = binarize(library.LlamaForCausalLM(config))
    real = {layer.name: layer.reason for layer in binarize_report(binary).real}
    assert set(real) == {"model.embed_tokens", "lm_head"}
    assert "shared" in real["lm_head"]
    assert all("BatchNorm in front" in layer.reason for layer in binarize_report(binary).binary)
    check_it_is_binary_and_trains(binary, words())


def test_gpt2_has_no_dense_layers_of_torch(library: Any) -> None:
    config = library.GPT2Config(n_embd=64, n_layer=1, n_head=4, vocab_size=50)
    with pytest.raises(
        ValueError, match=r"(?s)no layer of this GPT2Model .*onebit has no binary form of Conv1D"
    ):
        binarize(library.GPT2Model(config))


def test_timm() -> None:
    """Not required under CI: timm imports torchvision, which does not load beside every build of torch."""
    try:
        import timm
    except Exception as error:  # torchvision fails with RuntimeError where its operators do not fit torch's
        pytest.skip(f"timm cannot be imported: {error}")
    torch.manual_seed(0)
    model = timm.create_model("resnet18", pretrained=False, num_classes=5)
    binary = binarize(model, example=pictures(), skip="*.downsample.*")
    assert len(names_of(binary, binary=True)) == 16
    assert binary(pictures()).shape == (3, 5)
