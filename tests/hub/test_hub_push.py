"""What `ergl push` uploads to the Hugging Face Hub, and what it refuses."""

import json
import shutil

import pytest
from fake_hub import STRANGER, TOKEN, Repository
from made_hub import ADDRESS, are_same, files, push, refused

import ergl_jax
from ergl_jax import bundle as bundles
from ergl_jax.inference import model_card

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.mark.parametrize("lfs", [(), ("model.safetensors",)])
@pytest.mark.filterwarnings("ignore:Use 'content=")  # huggingface_hub's, of its HTTP library
def test_what_is_pushed_is_loaded(hub, run, capsys, lfs):
    hub.lfs = lfs
    assert push(run, ADDRESS, "--message", "The first") == 0
    commit = hub.repositories["me/scenes"].branches["main"]
    assert f"Uploaded: {ADDRESS}@{commit}" in capsys.readouterr().out
    assert hub.repositories["me/scenes"].messages[-1] == "The first"
    names = {"config.json", "model.safetensors", "README.md", "confusion.png", ".gitattributes"}
    assert files(hub).keys() == names
    assert files(hub)["confusion.png"] == (run / "confusion.png").read_bytes()
    model = ergl_jax.load(ADDRESS)
    are_same(model.bundle, bundles.load(run))
    assert any("/lfs/" in line for line in hub.asked) == bool(lfs)


def test_the_card_has_the_results_and_loads_the_model(hub, run):
    assert push(run / "bundle", ADDRESS) == 0
    text = files(hub)["README.md"].decode()
    card, bundle = huggingface_hub.ModelCard(text), bundles.load(run)
    results = json.loads((run / "results.json").read_text())["test"]
    found = {x.metric_name: x.metric_value for x in card.data.eval_results}
    for field, (_, name) in model_card.SCORES.items():
        assert found.get(name) == pytest.approx(results.get(field), abs=5e-5)
    assert card.data.pipeline_tag == "audio-classification"
    assert card.data.library_name == "ergl_jax"
    assert {x.dataset_name for x in card.data.eval_results} == {bundle.dataset}
    for part in (*bundle.scenes, bundle.licence, bundle.about_probabilities, "confusion.png"):
        assert part in card.text
    program = text.split("```python\n")[1].split("```")[0]
    scope = {}
    exec(program.split("result =")[0], scope)  # noqa: S102
    assert scope["model"].scenes == bundle.scenes


def test_a_bundle_without_its_run_has_a_card_without_results(hub, run, tmp_path):
    alone = shutil.copytree(run / "bundle", tmp_path / "alone")
    assert push(alone, ADDRESS) == 0
    card = huggingface_hub.ModelCard(files(hub)["README.md"].decode())
    assert card.data.eval_results is None and "Results" not in card.text
    assert "confusion.png" not in files(hub)


def test_a_private_push_never_goes_to_a_public_repository(hub, run, capsys):
    made = hub.repositories["me/scenes"] = Repository()
    made.commit({})
    assert push(run, ADDRESS, "--private") == 2
    refused(capsys, f"{ADDRESS} is public")
    assert files(hub) == {}


def test_a_card_of_ones_own_is_kept(hub, run, capsys):
    assert push(run, ADDRESS) == 0
    written = files(hub)["README.md"]
    assert push(run / "bundle", ADDRESS) == 0 and files(hub)["README.md"] == written
    assert "unchanged" not in capsys.readouterr().out
    mine = "My model: écoute\n".encode("latin-1")
    hub.repositories["me/scenes"].commit({"README.md": mine, "config.json": b""})
    assert push(run, ADDRESS) == 0
    assert "README.md on the Hub is unchanged" in capsys.readouterr().out
    assert files(hub)["README.md"] == mine
    are_same(bundles.load(ADDRESS), bundles.load(run))


@pytest.mark.parametrize(
    ("token", "address", "reasons"),
    [
        ("", ADDRESS, ["refused", "Invalid username", "hf auth login"]),
        (STRANGER, ADDRESS, ["refused", "don't have the rights", "HF_TOKEN"]),
        (TOKEN, "hf://them/scenes", ["refused", "don't have the rights"]),
    ],
)
def test_a_push_without_the_right_login_is_refused(
    hub, run, capsys, monkeypatch, token, address, reasons
):
    monkeypatch.setenv("HF_TOKEN", token)
    assert push(run, address) == 2
    refused(capsys, address, *reasons)
    assert not hub.repositories


def test_a_push_to_a_directory_or_a_commit(run, capsys):
    assert push(run, "elsewhere") == 2
    refused(capsys, "elsewhere is not hf://OWNER/NAME")
    assert push(run, f"{ADDRESS}@{'0' * 40}") == 2
    refused(capsys, "is a commit", "name a branch")
