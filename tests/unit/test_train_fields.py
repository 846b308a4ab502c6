"""What the fields of a recipe do: schedules, optimizers, precision, teachers, earlier weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from onebit import models, optim
from onebit.nn import BinaryLinear, ScalePixels
from onebit.train import RecipeError, TrainError, load_model, load_recipe, train
from onebit.train.batches import MemorySource, load_splits
from onebit.train.distill import Teacher, distillation
from onebit.train.distributed import World
from onebit.train.evaluation import LOSS_FUNCTIONS
from onebit.train.fields import DataRecipe, DistillRecipe, ModelRecipe, OptimizerRecipe, Recipe
from onebit.train.optimizers import learning_rate, load_optimizer, make_optimizer, set_learning_rate
from onebit.train.precision import before_the_first_sign, mixed
from onebit.train.recipe import recipe_tree
from onebit.train.step import WARM_UP, EagerStep, ReplayedStep
from onebit.train.weights import start_from
from support import ROOT

SHORT = ["epochs=2", "model.hidden=[65, 33]", "threads=1"]


def short(*overrides: str) -> Any:
    return load_recipe("bnn-digits", [*SHORT, *overrides])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Layers this small gain nothing from a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run that others start from or learn from."""
    return train(short(), run_dir=tmp_path_factory.mktemp("runs") / "first", tensorboard=False)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("exponential", [1.0, 0.1**0.5, 0.1, 0.1**1.5]),
        ("cosine", [1.0, 0.8550178567, 0.505, 0.1549821433]),
        ("linear", [1.0, 0.7525, 0.505, 0.2575]),
        ("step", [1.0, 1.0, 0.5, 0.5]),
        ("constant", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    recipe = OptimizerRecipe(lr=1.0, lr_end=0.01, schedule=schedule, step_epochs=2, step_factor=0.5)
    assert [learning_rate(recipe, epoch, 4) for epoch in range(4)] == pytest.approx(expected)
    warmed = OptimizerRecipe(**{**vars(recipe), "warmup_epochs": 3})
    rates = [learning_rate(warmed, epoch, 7) for epoch in range(7)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, *expected])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.name=adamwx", ["'adamwx'", "adamw or sgd or shift_adamax or bop"]),
        ("optimizer.schedule=cosin", ["'cosin'", "cosine"]),
        ("optimizer.warmup_epochs=2", ["warmup_epochs = 2", "less than epochs (2)"]),
        ("augment.flop=true", ["'augment.flop'", "did you mean 'flip'?"]),
        ("augment.crop=-1", ["augment.crop = -1", "0 or more pixels"]),
        ("distill.temperature=0", ["distill.temperature = 0.0", "above 0"]),
        ("distill.options=3", ["distill.options = 3", "a table is needed"]),
        ("precision=fp16", ["precision = 'fp16'", "float32 or bf16"]),
        ("tf32=1", ["tf32 = 1", "true or false"]),
    ],
)
def test_wrong_values_are_refused_in_the_users_words(override: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        short(override)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optimizer.name=bop", "optimizer.weight_decay=0.1"], "weight_decay = 0.1: 0 with bop is needed"),
        (["optimizer.name=bop", "optimizer.center=true"], "center = True: false with bop is needed"),
        (["save_bits=true", "precision=bf16"], 'save_bits = True: precision = "float32"'),
    ],
)
def test_fields_that_exclude_one_another(overrides: list[str], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        short(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer.name=adamw", "optimizer.weight_decay=1e-4"],
        ["optimizer.name=sgd", "optimizer.lr=0.01", "optimizer.momentum=0.9"],
        ["optimizer.name=shift_adamax", "optimizer.lr=0.0078125", "optimizer.betas=[0.875, 0.999]"],
        ["optimizer.name=bop", "optimizer.gamma=1e-2", "optimizer.threshold=1e-6"],
        ["optimizer.center=true"],
        ["precision=bf16"],
        ["save_bits=true"],
        ["channels_last=true"],
    ],
    ids=lambda words: words[0],
)
def test_every_optimizer_and_precision_learns(overrides: list[str], tmp_path: Path) -> None:
    result = train(short(*overrides), run_dir=tmp_path / "run", tensorboard=False)
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert result.history[-1]["train_accuracy"] > 50, result.history  # chance is 10


@pytest.mark.parametrize("quantizer", ["approx_sign", "swish_sign", "libra", "recu"])
def test_bop_is_refused_where_no_weight_would_flip(quantizer: str, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"bop': 'linear1' has the weight quantizer .*'ste_sign' does"):
        train(short("optimizer.name=bop", f"model.weight_quantizer={quantizer}"), run_dir=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_bop_leaves_weights_of_one_bit_and_center_leaves_no_mean(tmp_path: Path) -> None:
    bop = train(short("optimizer.name=bop", "epochs=1"), run_dir=tmp_path / "bop", tensorboard=False)
    centred = train(
        short("optimizer.center=true", "optimizer.clip=false", "epochs=1"),
        run_dir=tmp_path / "centred",
        tensorboard=False,
    )
    for _, weight in optim.latent_parameters(bop.model):
        assert set(weight.unique().tolist()) == {-1.0, 1.0}
    for _, weight in optim.latent_parameters(centred.model):
        assert weight.mean(dim=1).abs().max() < 1e-6 < weight.abs().max()


def test_saved_bits_train_to_the_same_bits(run: Any, tmp_path: Path) -> None:
    saved = train(short("save_bits=true"), run_dir=tmp_path / "run", tensorboard=False)
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, saved.model.state_dict()[name]), name
    assert {type(m) for m in saved.model.modules()} == {type(m) for m in run.model.modules()}


def test_what_runs_before_the_first_sign() -> None:
    expected = {
        "bnn_mlp": {"linear1", "norm1"},  # the sign is a module of its own
        "binaryconnect_mlp": {"linear1", "norm1", "linear2", "norm2", "linear3", "norm3"},  # no sign at all
        "reactnet_a": {"conv", "norm"},  # the sign is a layer's input quantizer
    }
    for name, wanted in expected.items():
        model = models.create_small(name).train()
        state = {key: value.clone() for key, value in model.state_dict().items()}
        found = {id(module) for module in before_the_first_sign(model, models.example_input(model))}
        assert {key for key, module in model.named_modules() if id(module) in found} == wanted, name
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        assert all(module.training for module in model.modules())


def test_mixed_precision_keeps_the_layers_it_says_in_float32() -> None:
    class Real(nn.Linear):
        """Looks at what it gets and gives."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            self.seen = (x.dtype, y.dtype)
            return y

    model = nn.Sequential(Real(6, 8), nn.BatchNorm1d(8), BinaryLinear(8, 7), nn.BatchNorm1d(7), Real(7, 3))
    x = torch.randn(5, 6)
    with mixed(model, "bf16", x), torch.autocast("cpu", dtype=torch.bfloat16):
        model(x)
        assert model[0].seen == (torch.float32, torch.float32)
        assert model[2](torch.randn(5, 8)).dtype == torch.bfloat16
        assert model[3](torch.randn(5, 7).bfloat16()).dtype == torch.float32
        assert model[4].seen == (torch.float32, torch.bfloat16)
    assert not any("forward" in vars(module) for module in model.modules())


def test_distillation_is_the_cross_entropy_with_softened_labels() -> None:
    generator = torch.Generator().manual_seed(5)
    scores, taught = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    temperature = 3.0
    p = (taught / temperature).exp() / (taught / temperature).exp().sum(1, keepdim=True)
    q = (scores / temperature).exp() / (scores / temperature).exp().sum(1, keepdim=True)
    expected = temperature**2 * (p * (p / q).log()).sum(1).mean()
    assert float(distillation(scores, taught, temperature)) == pytest.approx(float(expected))
    assert float(distillation(taught, taught, temperature)) == pytest.approx(0, abs=1e-12)
    teacher = Teacher(nn.Identity(), DistillRecipe(temperature=temperature, weight=0.25))
    mixed_loss = teacher.loss(F.cross_entropy, scores, labels, taught)
    hard = -torch.log_softmax(scores, 1)[torch.arange(6), labels].mean()
    assert float(mixed_loss) == pytest.approx(float(0.75 * hard + 0.25 * expected))


def test_a_student_learns_from_a_run_and_from_its_weights(run: Any, tmp_path: Path) -> None:
    from_run = short(f"distill.teacher={run.run_dir}", "distill.weight=0.9", "loss=cross_entropy")
    from_file = short(
        f"distill.teacher={run.run_dir / 'model.pt'}",
        "distill.model=bnn_mlp",
        "distill.options={hidden = [65, 33]}",
        "distill.weight=0.9",
        "loss=cross_entropy",
    )
    a = train(from_run, run_dir=tmp_path / "a", tensorboard=False)
    b = train(from_file, run_dir=tmp_path / "b", tensorboard=False)
    plain = train(short("loss=cross_entropy"), run_dir=tmp_path / "c", tensorboard=False)
    weights = [result.model.state_dict()["linear1.weight"] for result in (a, b, plain)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert a.test_accuracy > 50


def test_a_teacher_that_does_not_suit_is_named(run: Any, tmp_path: Path) -> None:
    weights = run.run_dir / "model.pt"
    for overrides, words in [
        ([f"distill.teacher={weights}"], "is no run folder; if it is a file of weights, name"),
        ([f"distill.teacher={weights}", "distill.model=bnn_mlp"], "does not fit distill.model = 'bnn_mlp'"),
        ([f"distill.teacher={weights}", "distill.model=bnn_mpl"], "'bnn_mpl' cannot be made: .*'bnn_mlp'"),
        ([f"distill.teacher={tmp_path}", "distill.model=bnn_mlp"], "no weights in"),
        (["distill.teacher=runs/none"], "'runs/none' does not exist: train the teacher first"),
    ]:
        if "does not fit" in words:
            overrides.append("distill.options={hidden = [64]}")
        with pytest.raises(TrainError, match=words):
            train(short(*overrides), run_dir=tmp_path / "x", tensorboard=False)
    assert not (tmp_path / "x").exists()


def test_init_starts_from_the_weights_of_a_run(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = short(f"init={run.run_dir}", "epochs=1", "optimizer.lr=1e-9", "model.hidden=[65, 32]")
    result = train(recipe, run_dir=tmp_path / "run", tensorboard=False)
    said = capsys.readouterr().err
    assert f"init = {str(run.run_dir)!r}: " in said
    assert "of another shape, so as drawn: linear2.weight (33, 65) → (32, 65)" in said
    own, before = result.model.state_dict(), run.model.state_dict()
    torch.testing.assert_close(own["linear1.weight"], before["linear1.weight"], atol=1e-5, rtol=0)
    with pytest.raises(TrainError, match="no weights in"):
        train(short(f"init={tmp_path / 'none.pt'}"), run_dir=tmp_path / "x")


def test_two_step_training_takes_real_weights_over_into_one_bit_layers(tmp_path: Path) -> None:
    """Step 1 of ReActNet trains real weights behind binary activations: the same names and shapes."""

    def network(weight_quantizer: str | None) -> nn.Sequential:
        return nn.Sequential(
            ScalePixels(),
            nn.Flatten(),
            BinaryLinear(64, 9, input_quantizer=None, weight_quantizer=weight_quantizer),
            nn.BatchNorm1d(9),
        )

    first, second = network(None), network("ste_sign")
    torch.save(first.state_dict(), tmp_path / "first.pt")
    taken = start_from(second, str(tmp_path / "first.pt"))
    assert set(taken.taken) == set(second.state_dict())
    assert (taken.missing, taken.unused, taken.other_shape) == ((), (), {})
    assert torch.equal(second[2].weight, first[2].weight)


def test_init_says_what_did_not_match(tmp_path: Path) -> None:
    model, path = nn.Linear(3, 2), tmp_path / "weights.pt"
    state = {"module.weight": torch.full((2, 3), 7.0), "other": torch.zeros(1)}
    torch.save({"state_dict": state, "epoch": 3}, path)
    started = start_from(model, str(path))
    assert (started.taken, started.missing, started.unused) == (("weight",), ("bias",), ("other",))
    assert model.weight.eq(7).all()
    torch.save({"other": torch.zeros(1)}, path)
    with pytest.raises(TrainError, match="no tensor there fits the model; it has other, the model weight"):
        start_from(model, str(path))


def test_reestimated_statistics_are_those_of_the_training_samples(tmp_path: Path) -> None:
    recipe = short("reestimate_batch_norm=26", "epochs=1", "model.hidden=[]")
    result = train(recipe, run_dir=tmp_path / "run", tensorboard=False)
    splits = load_splits(recipe.data, None)
    images = splits.train.images[: 26 * 50]
    outputs = result.model.linear1(result.model.flatten(result.model.pixels(images))).double()
    batches = outputs.detach().view(26, 50, -1)
    norm = load_model(result.run_dir).norm1
    torch.testing.assert_close(norm.running_mean.double(), batches.mean((0, 1)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var.double(), batches.var(1).mean(0), rtol=1e-4, atol=1e-4)


def test_reestimation_without_batch_norm_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    monkeypatch.setattr("onebit.train.loop.build_model", lambda recipe: plain)
    with pytest.raises(TrainError, match="reestimate_batch_norm = 3: the model 'bnn_mlp' has no BatchNorm"):
        train(short("reestimate_batch_norm=3"), run_dir=tmp_path / "x")


class TestReplay:
    """The parts of `cuda_graph` that need no GPU: a capture that just runs the work stands in for one."""

    def train(
        self, optimizer: str, *, replayed: bool, capturable: bool = True
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        recipe = short(f"optimizer.name={optimizer}")
        torch.manual_seed(1)
        model = models.create("bnn_mlp", input_shape=(1, 8, 8), hidden=(33,), dropout_hidden=0.3)
        trainer = make_optimizer(model, recipe.optimizer, capturable=capturable)
        sums = torch.zeros(3, dtype=torch.float64)
        eager = EagerStep(model, model, trainer, LOSS_FUNCTIONS["square_hinge"], recipe, sums)
        self.captured = 0

        def capture(work: Any) -> Any:
            self.captured += 1
            return work

        step = ReplayedStep(eager, capture) if replayed else eager
        source = MemorySource(load_splits(recipe.data, None), recipe, torch.device("cpu"), World())
        for epoch in range(2):
            set_learning_rate(trainer, recipe.optimizer, epoch, 2)
            for inputs, labels in source.train.iterate():
                step(inputs, labels)
        return model.state_dict(), sums

    @pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "bop"])
    def test_a_replayed_step_trains_like_an_eager_one(self, optimizer: str) -> None:
        eager, eager_sums = self.train(optimizer, replayed=False)
        replayed, sums = self.train(optimizer, replayed=True)
        assert self.captured == 1
        assert torch.equal(sums, eager_sums)
        for name, value in eager.items():
            assert torch.equal(replayed[name], value), name
        # Rates that are tensors are rounded to float32: close to an ordinary optimizer, not equal.
        _, ordinary = self.train(optimizer, replayed=False, capturable=False)
        torch.testing.assert_close(sums, ordinary, rtol=0.02, atol=0)

    def test_capture_runs_after_the_warm_up_on_places_that_stay(self) -> None:
        batches: list[tuple[int, float]] = []
        captured: list[int] = []

        def step(inputs: torch.Tensor, labels: torch.Tensor) -> None:
            batches.append((inputs.data_ptr(), float(inputs.sum())))

        def capture(work: Any) -> Any:
            captured.append(len(batches))
            return work

        replayed = ReplayedStep(step, capture)
        for i in range(WARM_UP + 3):
            replayed(torch.full((2, 2), float(i)), torch.zeros(2, dtype=torch.int64))
        assert captured == [WARM_UP]
        assert [total for _, total in batches] == [4.0 * i for i in range(WARM_UP + 3)]
        assert len({place for place, _ in batches[WARM_UP:]}) == 1

    def test_rates_that_are_tensors_keep_their_place_and_their_value(self) -> None:
        model = models.create("bnn_mlp", input_shape=(1, 8, 8), hidden=(33,))
        recipe = short("optimizer.lr_end=3e-5").optimizer
        trainer = make_optimizer(model, recipe, capturable=True)
        rates = [group["lr"] for group in trainer.param_groups]
        saved = trainer.state_dict()
        set_learning_rate(trainer, recipe, 1, 2)
        for group, rate in zip(trainer.param_groups, rates, strict=True):
            assert group["lr"] is rate
            assert math.isclose(float(rate), group["initial_lr"] * 0.1, rel_tol=1e-6)
        load_optimizer(trainer, saved)
        assert all(group["lr"] is rate for group, rate in zip(trainer.param_groups, rates, strict=True))

    def test_without_a_gpu_the_field_says_that_it_does_nothing(
        self, run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        result = train(short("cuda_graph=true"), run_dir=tmp_path / "run", device="cpu", tensorboard=False)
        assert "cuda_graph = true has no effect on cpu" in capsys.readouterr().err
        assert torch.equal(result.model.linear1.weight, run.model.linear1.weight)


def test_the_page_on_training_has_every_field_with_its_default() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    told = {name.strip(" `"): row[2].strip(" `") for row in rows for name in row[1].split(",")}
    tree = recipe_tree(Recipe("", DataRecipe(""), ModelRecipe(""), OptimizerRecipe(), 0))
    fields: dict[str, Any] = {}
    for key, value in tree.items():
        inner = value if isinstance(value, dict) else {"": value}
        fields |= {f"{key}.{name}".rstrip("."): part for name, part in inner.items()}
    required = {"name", "summary", "source", "epochs", "data.name", "model.name"}
    assert set(told) == set(fields)
    assert {name for name, default in told.items() if not default} == required
    for name in set(fields) - required:
        assert json.loads(told[name]) == fields[name], name
