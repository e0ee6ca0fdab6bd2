"""Bundles on the Hugging Face Hub, by its own client against a stand-in on this machine."""

import dataclasses
import importlib.util
import json
import shutil
import threading

import jax
import numpy as np
import pytest
from fake_hub import STRANGER, TOKEN, Hub, Repository
from programs import python

import ergl_jax
from ergl_jax import bundle as bundles
from ergl_jax.cli import main
from ergl_jax.errors import InputError
from ergl_jax.hub import bundle_path
from ergl_jax.inference import model_card
from ergl_jax.training import transfer

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
ADDRESS = "hf://me/scenes"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A `Hub`, where HF_TOKEN is that of its user, with an empty cache."""
    # huggingface_hub has read its variables when it was imported.
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,  # its storage has another protocol
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_STORED_TOKENS_PATH": str(tmp_path / "tokens"),
            "AGENT_HARNESSES_PATH": str(tmp_path / "harnesses"),
        }.items():
            monkeypatch.setattr(constants, name, value, raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def run(tiny, tmp_path):
    """A copy of the tiny run, to spoil."""
    return shutil.copytree(tiny.workdir, tmp_path / "run")


def push(*arguments):
    return main(["push", *map(str, arguments)])


def files(hub, revision="main"):
    found = hub.repositories["me/scenes"]
    return found.commits[found.sha(revision)]


def put(hub, directory, **fields):
    """A repository with the files of a directory."""
    made = hub.repositories["me/scenes"] = Repository(**fields)
    made.commit({path.name: path.read_bytes() for path in directory.iterdir()})
    return made


def are_same(one, other):
    for field in dataclasses.fields(one):
        if field.name not in ("variables", "known"):
            assert getattr(one, field.name) == getattr(other, field.name), field.name
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)
    jax.tree.map(np.testing.assert_array_equal, one.known.arrays(), other.known.arrays())


def refused(capsys, *reasons):
    line = capsys.readouterr().err.removeprefix("error: ")
    assert line.count("\n") == 1 and "Traceback" not in line
    for reason in reasons:
        assert reason in line
    return line


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


def test_a_revision_is_a_commit_or_a_branch(hub, run, tmp_path):
    assert push(run, ADDRESS) == 0
    first = hub.repositories["me/scenes"].branches["main"]
    old = bundles.load(run)
    new = dataclasses.replace(old, licence="CC0")
    new.save(tmp_path / "new")
    assert push(tmp_path / "new", ADDRESS + "@trial%2F2") == 0
    assert push(tmp_path / "new", ADDRESS + "@trial%2F2") == 0  # the branch is there now
    are_same(bundles.load(ADDRESS), old)
    are_same(bundles.load(ADDRESS + "@trial%2F2"), new)
    assert push(tmp_path / "new", ADDRESS) == 0
    are_same(bundles.load(ADDRESS), new)
    are_same(bundles.load(f"{ADDRESS}@{first}"), old)
    are_same(bundles.load(f"hf://models/me/scenes@{first}/"), old)


def test_config_and_weights_are_of_one_commit(hub, run, tmp_path, monkeypatch):
    """Though someone pushes between the two downloads."""
    made, parse = put(hub, run / "bundle"), bundles.parse
    old = bundles.load(run)
    dataclasses.replace(old, licence="CC0").save(tmp_path / "new")
    new = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}

    def slowly(text):
        made.commit(new)
        return parse(text)

    monkeypatch.setattr(bundles, "parse", slowly)
    are_same(bundles.load(ADDRESS), old)


def test_what_was_downloaded_is_loaded_offline(hub, run, monkeypatch, capsys):
    put(hub, run / "bundle")
    online = bundles.load(ADDRESS)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    are_same(bundles.load(ADDRESS), online)
    with pytest.raises(InputError, match="me/other can't be reached while HF_HUB_OFFLINE is set"):
        bundles.load("hf://me/other")
    assert push(run, ADDRESS) == 2
    refused(capsys, f"{ADDRESS} can't be reached while HF_HUB_OFFLINE is set")
    assert not hub.asked


def test_without_a_network_the_copy_in_the_cache_is_used_with_a_warning(
    hub, run, monkeypatch, capsys
):
    put(hub, run / "bundle")
    online = bundles.load(ADDRESS)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    are_same(bundles.load(ADDRESS), online)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"warning: {ADDRESS} can't be reached: ")
    assert line.endswith("the copy in the cache is used")


def test_a_second_load_downloads_nothing(hub, run):
    put(hub, run / "bundle")
    bundles.load(ADDRESS)
    hub.asked.clear()
    bundles.load(ADDRESS)
    assert [line.split()[0] for line in hub.asked] == ["GET", "HEAD"]  # the latest commit?
    hub.asked.clear()
    bundles.load(f"{ADDRESS}@{hub.repositories['me/scenes'].branches['main']}")
    assert not hub.asked


def test_a_private_repository_needs_its_login(hub, run, monkeypatch):
    assert push(run, ADDRESS, "--private") == 0
    assert hub.repositories["me/scenes"].private
    bundles.load(ADDRESS)
    for token in ("", STRANGER):
        monkeypatch.setenv("HF_TOKEN", token)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(run / "cache"))
        with pytest.raises(InputError, match="does not exist or is private: .* `hf auth login`"):
            bundles.load(ADDRESS)


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
    assert "kept" not in capsys.readouterr().out
    mine = "My model: écoute\n".encode("latin-1")
    hub.repositories["me/scenes"].commit({"README.md": mine, "config.json": b""})
    assert push(run, ADDRESS) == 0
    assert "README.md is kept" in capsys.readouterr().out
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


class TestUnusable:
    @pytest.mark.parametrize(
        ("address", "reason"),
        [
            ("hf://me/nothing", "does not exist or is private"),
            (ADDRESS + "@v9", "the repository has no such revision"),
            ("hf://me/--x", "is not hf://OWNER/NAME or hf://OWNER/NAME@REVISION: "),
        ],
    )
    def test_not_found(self, hub, run, address, reason):
        put(hub, run / "bundle")
        with pytest.raises(InputError, match=reason):
            bundles.load(address)

    @pytest.mark.parametrize(
        "address",
        ["hf://", "hf://scenes", "hf://me/scenes/bundle", "hf://datasets/me/scenes", ADDRESS + "@"],
    )
    def test_an_address_of_another_form(self, address):
        with pytest.raises(InputError, match="is not hf://OWNER/NAME or"):
            bundle_path(address)
        with pytest.raises(InputError, match="is not hf://OWNER/NAME or"):
            bundles.load(address)

    @pytest.mark.parametrize(
        "command",
        [
            "classify a.wav --bundle",
            "tag a.wav --bundle",
            "explain a.wav --out=b --bundle",
            "evaluate a",
            "export --out=b --bundle",
            "demo --bundle",
            "doctor --bundle",
            "train a --out=b --init-from",
            "train a --out=b --tagger",
        ],
    )
    def test_every_command_checks_an_address(self, command, capsys):
        words = command.split()
        at = 1 if words[0] == "evaluate" else len(words)
        assert main([*words[:at], "hf://me", *words[at:]]) == 2
        refused(capsys, "hf://me is not hf://OWNER/NAME or hf://OWNER/NAME@REVISION")

    def test_gated(self, hub, run, monkeypatch):
        put(hub, run / "bundle", gated=True)
        monkeypatch.setenv("HF_TOKEN", STRANGER)
        with pytest.raises(InputError, match="is gated: accept its conditions .* `hf auth login`"):
            bundles.load(ADDRESS)

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_missing_file(self, hub, run, name):
        (run / "bundle" / name).unlink()
        put(hub, run / "bundle")
        with pytest.raises(InputError, match=f"{ADDRESS} is not a bundle: it has no {name}"):
            bundles.load(ADDRESS)

    def test_weights_of_another_kind_of_model_are_not_downloaded(self, hub, run):
        (run / "bundle" / "config.json").write_text('{"model_type": "bert"}')
        put(hub, run / "bundle")
        with pytest.raises(InputError, match=f"{ADDRESS}/config.json is not a bundle's: format"):
            bundles.load(ADDRESS)
        assert not any("safetensors" in line for line in hub.asked)

    def test_a_config_of_other_weights(self, hub, run):
        path = run / "bundle" / "config.json"
        path.write_text(path.read_text().replace('"licence": "', '"licence": "not '))
        put(hub, run / "bundle")
        with pytest.raises(InputError, match=f"{ADDRESS}/config.json is not the one that model"):
            bundles.load(ADDRESS)

    def test_no_network(self, hub, run, monkeypatch):
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(InputError, match=f"{ADDRESS} can't be reached: "):
            bundles.load(ADDRESS)

    def test_a_broken_server(self, hub):
        hub.broken = 502
        with pytest.raises(InputError, match=f"{ADDRESS} can't be used: the Hub answers 502, the"):
            bundles.load(ADDRESS)

    def test_without_the_package(self, monkeypatch, tmp_path):
        find = importlib.util.find_spec
        absent = lambda name: None if name == "huggingface_hub" else find(name)  # noqa: E731
        monkeypatch.setattr(importlib.util, "find_spec", absent)
        with pytest.raises(InputError, match=rf'{ADDRESS}: .*pip install "\.\[hub\]"'):
            bundles.load(ADDRESS)

    def test_a_push_to_a_directory_or_a_commit(self, run, capsys):
        assert push(run, "elsewhere") == 2
        refused(capsys, "elsewhere is not hf://OWNER/NAME")
        assert push(run, f"{ADDRESS}@{'0' * 40}") == 2
        refused(capsys, "is a commit", "name a branch")


def test_an_encoder_begins_with_a_model_of_the_hub(hub, run, tiny):
    put(hub, run / "bundle")
    bundle = bundles.load(run)
    blank = jax.tree.map(np.zeros_like, bundle.variables)
    state = transfer.TrainState(np.int32(0), blank["params"], blank["batch_stats"], ())
    config = tiny.config(model__init_from=ADDRESS).model
    state, _ = transfer.start_pretrained(state, config, bundle.front_end)
    encoder = bundle.variables["params"]["encoder"]
    jax.tree.map(np.testing.assert_array_equal, state.params["encoder"], encoder)


@pytest.mark.slow
def test_the_environment_names_the_hub_and_the_cache(hub, run, tmp_path):
    """HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE, in programs of their own."""
    put(hub, run / "bundle")
    program = f"import ergl_jax; print(ergl_jax.load('{ADDRESS}'))"
    for offline in ("0", "1"):
        done = python(
            *("-c", program),
            HF_ENDPOINT=hub.url,
            HF_HOME=str(tmp_path / "home"),
            HF_HUB_OFFLINE=offline,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == repr(ergl_jax.load(run))
        hub.repositories.clear()
