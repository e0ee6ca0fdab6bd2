"""Exported files compute what the bundle computes, at any batch size, and describe themselves."""

import dataclasses
import json
import sys
from functools import partial

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import pytest
from jax import export as jax_export

from ergl_jax import bundle as bundles
from ergl_jax.audio import log_mel
from ergl_jax.cli import main
from ergl_jax.config import ModelConfig
from ergl_jax.errors import InputError
from ergl_jax.inference import export
from ergl_jax.models.edges import EdgeLearning
from ergl_jax.models.gated_gcn import GatedGCNLayer


@pytest.fixture(params=["stablehlo", "onnx"])
def form(request):
    if request.param == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    return request.param


@pytest.fixture(scope="module")
def bundle(tiny):
    return dataclasses.replace(bundles.load(tiny.workdir / "bundle"), temperature=2.5)


@pytest.fixture(scope="module")
def written(bundle, tmp_path_factory):
    return export.write(bundle, tmp_path_factory.mktemp("export") / "new" / "deep")


def read(form, path):
    """An exported file as a function, by what its users have."""
    if form == "stablehlo":
        return jax_export.deserialize(bytearray(path.read_bytes())).call
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return lambda x: dict(zip(names, session.run(names, {"log_mel": x}), strict=True))


def features(bundle, batch):
    """Log-mel of noise, (batch, F, M)."""
    length = bundle.front_end.num_samples(bundle.clip_seconds)
    waveforms = np.random.default_rng(0).normal(0, 0.03, (batch, length)).astype(np.float32)
    return np.asarray(log_mel(waveforms, bundle.front_end))


def assert_computes(call, bundle, batch, atol):
    """`call` returns the probabilities of the bundle's module."""
    x, module = features(bundle, batch), bundle.build()
    output = jax.jit(lambda x: module.apply(bundle.variables, x, train=False))(x)
    expected = {}
    if bundle.scenes:
        expected["scene_probabilities"] = nn.softmax(output.scene_logits / bundle.temperature)
    if output.event_logits is not None:
        expected["event_probabilities"] = nn.sigmoid(output.event_logits)
    found = call(x)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=atol)


def test_the_file_and_its_description_are_enough_for_jax(bundle, written):
    about = json.loads(export.description_path(written.path).read_text())
    assert about == written.description
    exported = jax_export.deserialize(bytearray(written.path.read_bytes()))
    assert list(exported.platforms) == about["platforms"] == ["cpu", "cuda", "tpu"]
    for batch in (1, 4):
        assert_computes(exported.call, bundle, batch, 1e-5)
    assert about["input"] == {"log_mel": ["batch", 201, 64]}
    sizes = {"scene_probabilities": ["batch", 10], "event_probabilities": ["batch", 4]}
    assert about["outputs"] == sizes
    assert about["scenes"] == list(bundle.scenes) and about["events"] == list(bundle.events)
    assert about["front_end"] == dataclasses.asdict(bundle.front_end)
    assert (about["clip_seconds"], about["pad"], about["temperature"]) == (2.0, "zero", 2.5)


def test_only_a_faithful_export_replaces_an_older_one(bundle, tmp_path, monkeypatch, form):
    path, _, difference = export.write(bundle, tmp_path, form)
    assert difference <= export.TOLERANCES[form]
    assert_computes(read(form, path), bundle, 5, export.TOLERANCES[form])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == {f"model.{form}", f"model.{form}.json"}
    make, check = export._FORMATS[form]
    variables = jax.tree.map(np.copy, dict(bundle.variables))
    variables["params"]["head"]["scene"]["bias"][0] += 0.01
    spoiled = dataclasses.replace(bundle, variables=variables)
    monkeypatch.setitem(export._FORMATS, form, (lambda bundle: make(spoiled), check))
    with pytest.raises(InputError, match="would differ from the bundle by .*: not written"):
        export.write(bundle, tmp_path, form)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_wrong_targets_are_refused(tiny, bundle, tmp_path):
    (tmp_path / "clip.wav").write_text("mine")
    (tmp_path / "file").write_text("")
    for out, reason in (
        (tmp_path / "clip.wav", "clip.wav: name a file that ends in .stablehlo"),
        (tiny.workdir / "bundle", "outside of a bundle"),
        (tmp_path / "file" / "below", "can't be made"),
    ):
        with pytest.raises(InputError, match=reason):
            export.write(bundle, out)
    assert (tmp_path / "clip.wav").read_text() == "mine"


def test_models_that_onnx_lacks_are_refused(bundle, tmp_path):
    for group, field, value in (
        ("", "compute_dtype", "bfloat16"),
        ("", "name", "dcase2018"),
        ("", "variant", "decision_level_max"),
        ("encoder.", "architecture", "resnet22"),
    ):
        model = bundle.model
        if group:
            model = dataclasses.replace(
                model, encoder=dataclasses.replace(model.encoder, **{field: value})
            )
        else:
            model = dataclasses.replace(model, **{field: value})
        other = dataclasses.replace(bundle, model=model)
        with pytest.raises(InputError, match=f"model.{group}{field}='{value}': ONNX .* StableHLO"):
            export.write(other, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_the_command(tiny, tmp_path, monkeypatch, capsys):
    arguments = [f"--bundle={tiny.workdir / 'bundle'}", f"--out={tmp_path / 'out'}"]
    assert main(["export", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    path = tmp_path / "out" / "model.stablehlo"
    assert path.is_file() and lines[0].startswith(f"{path}, ")
    assert lines[1:3] == ["  log_mel (batch, 201, 64)", "  scene_probabilities (batch, 10)"]
    assert lines[-1] == f"  described in {path}.json"
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", *arguments, "--format=onnx"]) == 2
    assert 'onnx is not installed: pip install ".[onnx]"' in capsys.readouterr().err


def untrained(bundle, **fields):
    """Another model, all of whose parameters matter to outputs far from 0 and 1."""
    config = ml_collections.ConfigDict(bundle.model.to_dict())
    config.update_from_flattened_dict({k.replace("__", "."): x for k, x in fields.items()})
    config = ModelConfig.from_saved(config.to_dict())
    scenes = () if config.name == "pann" else bundle.scenes
    events = () if config.name == "cnn" else bundle.events
    bundle = dataclasses.replace(bundle, model=config, scenes=scenes, events=events)
    module, x, rng = bundle.build(), features(bundle, 1), np.random.default_rng(0)
    variables = dict(jax.jit(lambda: module.init(jax.random.key(0), x, train=False))())
    variables = jax.tree.map(
        lambda x: np.array(x + rng.random(x.shape) / 10, np.float32), variables
    )
    stats, params = variables["batch_stats"]["encoder"]["BatchNorm_0"], variables["params"]
    stats["mean"] -= 40
    stats["var"] *= 200
    output = jax.jit(partial(module.apply, train=False))(variables, x)
    temperature = 1.0 if not scenes else float(np.abs(output.scene_logits).max())
    if events:
        layer = {
            "pann": lambda: params["fc_audioset"],
            "ergl": lambda: params["head"]["event_classifier"],
            "ergl_dynamic": lambda: params["activity"]["events"],
        }[config.name]()
        logits = output.event_logits_by_frame if "activity" in params else output.event_logits
        layer["kernel"] /= np.abs(logits).max()
    return dataclasses.replace(bundle, variables=variables, temperature=temperature)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"encoder__architecture": "cnn10", "gcn__gate": "softmax"},
        {"encoder__architecture": "cnn14", "tokens": "clip"},
        {"mel": False, "gcn__layers": 1},
        {"name": "cnn"},
        {"name": "pann"},
        {"encoder__time_pools": 2},
        {"name": "ergl_dynamic", "variant": "relations", "encoder__time_pools": 2},
        {"name": "ergl_dynamic", "variant": "relations", "mel": False, "pooling": "linear"},
        {"compute_dtype": "bfloat16"},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())),
)
def test_every_model_is_exported(bundle, tmp_path, fields, form):
    if form == "onnx" and "compute_dtype" in fields:
        pytest.skip("ONNX graphs are float32")
    bundle = untrained(bundle, **fields)
    call = read(form, export.write(bundle, tmp_path, form).path)
    assert_computes(call, bundle, 3, export.TOLERANCES[form])
    for probabilities in call(features(bundle, 3)).values():
        assert 0.01 < np.min(probabilities) and np.max(probabilities) < 0.95


@pytest.mark.parametrize("gate", ["sigmoid", "softmax"])
def test_onnx_graphs_follow_mel_and_gated_gcn(gate):
    """For tokens that differ, as those of an untrained encoder don't."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from ergl_jax.inference import onnx_graph

    rng = np.random.default_rng(0)
    v = rng.normal(0, 2, (2, 3, 5, 4)).astype(np.float32)
    h = rng.normal(size=(2, 3, 4)).astype(np.float32)
    mel, gcn = EdgeLearning(), GatedGCNLayer(gate)
    mel_params = mel.init(jax.random.key(0), v)["params"]
    e = mel.apply({"params": mel_params}, v)
    assert np.abs(e - e.swapaxes(1, 2)).max() > 0.1
    variables = gcn.init(jax.random.key(0), h, e, train=False)
    variables = jax.tree.map(lambda x: np.array(x + rng.random(x.shape), np.float32), variables)
    expected = [e, *gcn.apply(variables, h, e, train=False)[:2]]

    def value(name):
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)

    graph = onnx.GraphProto(name="part", input=[value("v"), value("h")])
    edges = onnx_graph._edges(onnx_graph._Tensor(graph, "v"), mel_params, 3, 5, 4)
    nodes = onnx_graph._Tensor(graph, "h")
    layer = variables["params"], variables["batch_stats"], gate, 3
    outputs = [edges, *onnx_graph._gated_gcn(nodes, edges, *layer)]
    graph.output.extend(value(x.name) for x in outputs)
    opset = onnx.helper.make_opsetid("", onnx_graph.OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=onnx_graph.IR_VERSION)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for found, want in zip(session.run(None, {"v": v, "h": h}), expected, strict=True):
        np.testing.assert_allclose(found, want, rtol=0, atol=2e-5)
