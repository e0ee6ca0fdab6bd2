"""What is exported computes as the bundle does, at any batch, and says how to be used."""

import dataclasses
import itertools
import json
import sys

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import pytest
from jax import export as jax_export

from ergl_jax import bundle as bundles
from ergl_jax import registry
from ergl_jax.audio import FRONT_ENDS, log_mel
from ergl_jax.cli import main
from ergl_jax.errors import InputError
from ergl_jax.inference import export
from ergl_jax.models.edges import EdgeLearning
from ergl_jax.models.gated_gcn import GatedGCNLayer


@pytest.fixture
def onnx():
    pytest.importorskip("onnxruntime")
    return pytest.importorskip("onnx")


@pytest.fixture(params=["stablehlo", "onnx"])
def form(request):
    if request.param == "onnx":
        request.getfixturevalue("onnx")
    return request.param


@pytest.fixture(scope="module")
def bundle(tiny):
    return dataclasses.replace(bundles.load(tiny.workdir / "bundle"), temperature=2.5)


def features(bundle, batch, seed=0):
    """Log-mel of noise, (batch, F, M)."""
    length = bundle.front_end.num_samples(bundle.clip_seconds)
    waveforms = np.random.default_rng(seed).normal(0, 0.03, (batch, length)).astype(np.float32)
    return np.asarray(log_mel(waveforms, bundle.front_end))


def oracle(bundle, x):
    """Probabilities straight from the module's logits."""
    module = bundle.build()
    output = jax.jit(lambda x: module.apply(bundle.variables, x, train=False))(x)
    found = {}
    if bundle.scenes:
        found["scene_probabilities"] = nn.softmax(output.scene_logits / bundle.temperature)
    if output.event_logits is not None:
        found["event_probabilities"] = nn.sigmoid(output.event_logits)
    return found


def assert_equals(found, expected, atol):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=atol)


@pytest.fixture(scope="module")
def some_bundle():
    """Bundles of untrained models, their every number made to matter."""

    def some_bundle(**fields):
        config = {
            "name": "ergl",
            "compute_dtype": "float32",
            "encoder": {"architecture": "cnn6", "width_divisor": 32, "dropout": 0.0},
            "channels": 4,
            "tokens": "frame",
            "mel": True,
            "gcn": {"layers": 2, "gate": "sigmoid"},
            "dropout": 0.0,
            "init_from": "",
        }
        config = ml_collections.ConfigDict(config)
        config.update_from_flattened_dict({k.replace("__", "."): x for k, x in fields.items()})
        scenes = () if config.name == "pann" else ("a", "b", "c")
        events = () if config.name == "cnn" else ("d", "e", "f")
        model = registry.build(config, num_scenes=len(scenes), num_events=len(events))
        init = jax.jit(lambda key, x: model.init(key, x, train=False))
        variables = init(jax.random.key(0), np.zeros((1, 71, 64), np.float32))
        rng = np.random.default_rng(0)
        variables = jax.tree.map(
            lambda x: np.array(x + 0.1 * rng.random(x.shape), np.float32), dict(variables)
        )
        stats = variables["batch_stats"]["encoder"]["BatchNorm_0"]
        stats["mean"] -= 40
        stats["var"] *= 200
        front_end = FRONT_ENDS["panns_16k"]
        bundle = bundles.Bundle(
            config.to_dict(), variables, scenes, events, front_end, 0.7, "zero", "CC0", "none"
        )
        # Logits near 0, where a sigmoid or softmax hides no error.
        output = model.apply(variables, features(bundle, 1), train=False)
        params = variables["params"]
        if config.name == "ergl":
            params["head"]["event_classifier"]["kernel"] /= np.abs(output.event_logits).max()
        elif config.name == "pann":
            params["fc_audioset"]["kernel"] /= np.abs(output.event_logits).max()
        if not scenes:
            return bundle
        return dataclasses.replace(bundle, temperature=float(np.abs(output.scene_logits).max()))

    return some_bundle


def test_it_computes_as_the_bundle_at_any_batch(bundle, tmp_path, form):
    written = export.write(bundle, tmp_path / "new" / "deep", form)
    assert written.path == tmp_path / "new" / "deep" / f"model.{form}"
    assert written.difference <= export.TOLERANCES[form]
    call, description = export.load(written.path)
    assert description == written.description
    for batch in (1, 5):  # one that was checked, one that wasn't
        x = features(bundle, batch)
        assert_equals(call(x), oracle(bundle, x), export.TOLERANCES[form])


def test_the_file_alone_is_enough_for_jax(bundle, tmp_path):
    """As the module's docstring shows it."""
    path = export.write(bundle, tmp_path).path
    exported = jax_export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert [str(size) for size in exported.in_avals[0].shape] == ["batch", "201", "64"]
    x = features(bundle, 4)
    assert_equals(exported.call(x), oracle(bundle, x), 1e-5)
    with pytest.raises(ValueError, match="shape"):
        exported.call(x[:, :-1])


def test_the_description_tells_how_to_use_it(bundle, tmp_path):
    path = export.write(bundle, tmp_path / "scenes.stablehlo").path
    assert path == tmp_path / "scenes.stablehlo"
    about = json.loads((tmp_path / "scenes.stablehlo.json").read_text())
    assert about["scenes"] == list(bundle.scenes) and about["events"] == list(bundle.events)
    assert about["front_end"] == dataclasses.asdict(bundle.front_end)
    assert about["input"] == {"log_mel": ["batch", 201, 64]}
    assert about["outputs"] == {
        "scene_probabilities": ["batch", 10],
        "event_probabilities": ["batch", 4],
    }
    assert (about["clip_seconds"], about["pad"], about["temperature"]) == (2.0, "zero", 2.5)
    assert about["platforms"] == ["cpu", "cuda", "tpu"] and about["format"] == "stablehlo"
    assert about["licence"] == bundle.licence and set(about["versions"]) == {"ergl_jax", "jax"}


@pytest.mark.parametrize(
    "fields",
    [
        {"encoder__architecture": "cnn10", "gcn__gate": "softmax"},
        {"encoder__architecture": "cnn14", "tokens": "clip"},
        {"mel": False, "gcn__layers": 1},
        {"name": "cnn"},
        {"name": "pann"},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())),
)
def test_every_model_is_exported(some_bundle, tmp_path, fields, form):
    bundle = some_bundle(**fields)
    call, about = export.load(export.write(bundle, tmp_path, form).path)
    x = features(bundle, 3)
    expected = oracle(bundle, x)
    assert_equals(call(x), expected, export.TOLERANCES[form])
    assert about["outputs"] == {name: ["batch", y.shape[1]] for name, y in expected.items()}
    for probabilities in expected.values():
        assert 0.05 < np.min(probabilities) and np.max(probabilities) < 0.95


def test_bfloat16_is_exported_to_stablehlo(some_bundle, tmp_path):
    bundle = some_bundle(compute_dtype="bfloat16")
    call, _ = export.load(export.write(bundle, tmp_path).path)
    x = features(bundle, 2)
    assert_equals(call(x), oracle(bundle, x), 1e-5)


@pytest.mark.parametrize(
    "fields", [{"compute_dtype": "bfloat16"}, {"name": "dcase2018"}], ids=["bfloat16", "dcase2018"]
)
def test_what_onnx_lacks_is_told_and_leaves_nothing(some_bundle, tmp_path, fields):
    """With or without the packages."""
    ((field, value),) = fields.items()
    bundle = some_bundle()
    bundle = dataclasses.replace(bundle, model=bundle.model | fields)
    with pytest.raises(InputError, match=f"model.{field}='{value}': ONNX .* export StableHLO"):
        export.write(bundle, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_the_graph_is_one_that_onnx_accepts(some_bundle, tmp_path, onnx):
    path = export.write(some_bundle(), tmp_path, "onnx").path
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert not {"BatchNormalization", "Dropout"} & {node.op_type for node in model.graph.node}


def run_graph(onnx, make, **inputs):
    """The outputs of a graph that `make` makes of the names of `inputs`."""
    import onnxruntime

    from ergl_jax.inference import onnx_graph

    graph = onnx_graph._Graph()
    names = make(onnx_graph, graph)
    values = [
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in group]
        for group in (inputs, names)
    ]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "part", *values, graph.tensors),
        opset_imports=[onnx.helper.make_opsetid("", onnx_graph.OPSET)],
        ir_version=onnx_graph.IR_VERSION,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(list(names), inputs)


def test_edges_of_the_graph_are_mels(onnx):
    """By tokens that differ, which an untrained encoder doesn't give."""
    v = np.random.default_rng(0).normal(0, 2, (2, 3, 5, 4)).astype(np.float32)
    params = EdgeLearning().init(jax.random.key(0), v)["params"]
    (found,) = run_graph(onnx, lambda o, graph: [o._edges(graph, "v", params, (3, 5, 4))], v=v)
    expected = EdgeLearning().apply({"params": params}, v)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.abs(expected - expected.swapaxes(1, 2)).max() > 0.1


@pytest.mark.parametrize("gate", ["sigmoid", "softmax"])
def test_a_layer_of_the_graph_is_the_gated_gcns(onnx, gate):
    rng = np.random.default_rng(0)
    h = rng.normal(size=(2, 3, 4)).astype(np.float32)
    e = rng.normal(size=(2, 3, 3, 4)).astype(np.float32)
    layer = GatedGCNLayer(gate)
    variables = layer.init(jax.random.key(0), h, e, train=False)
    variables = jax.tree.map(lambda x: np.array(x + rng.random(x.shape), np.float32), variables)
    params, stats = variables["params"], variables["batch_stats"]
    found = run_graph(
        onnx, lambda o, graph: o._gated_gcn(graph, "h", "e", params, stats, gate, 3), h=h, e=e
    )
    for one, expected in zip(found, layer.apply(variables, h, e, train=False)[:2], strict=True):
        np.testing.assert_allclose(one, expected, rtol=0, atol=2e-5)


def spoiled_somewhere(bundle):
    """The bundle with one weight changed, which an export must not pass for."""
    variables = jax.tree.map(np.copy, dict(bundle.variables))
    variables["params"]["head"]["scene"]["bias"][0] += 0.01
    return dataclasses.replace(bundle, variables=variables)


def test_an_export_that_differs_is_not_written(bundle, tmp_path, monkeypatch, form):
    export.write(bundle, tmp_path, form)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    name = "_onnx" if form == "onnx" else "_stablehlo"
    make = getattr(export, name)
    monkeypatch.setattr(export, name, lambda bundle: make(spoiled_somewhere(bundle)))
    with pytest.raises(InputError, match="would differ from the bundle by .*: not written"):
        export.write(bundle, tmp_path, form)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_export_replaces_an_older_one(bundle, tmp_path):
    first = export.write(bundle, tmp_path)
    again = export.write(dataclasses.replace(bundle, temperature=1.0), tmp_path)
    assert again.path == first.path
    assert export.load(again.path)[1]["temperature"] == 1.0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.stablehlo",
        "model.stablehlo.json",
    ]


def test_what_is_damaged_is_refused(bundle, tmp_path):
    path = export.write(bundle, tmp_path).path
    about, content = export.beside(path), path.read_bytes()
    for at, spoiled in itertools.product((100, -100), (b"\x55", b"\xaa")):
        path.write_bytes(content[:at] + spoiled + content[at:])
        with pytest.raises(InputError, match="model.stablehlo is damaged, or not what"):
            export.load(path)
    path.write_bytes(content)
    text = about.read_text()
    for wrong in ("", "{", "[]", "{}", text.replace('"stablehlo"', '"other"')):
        about.write_text(wrong)
        with pytest.raises(InputError, match="model.stablehlo.json describes no export"):
            export.load(path)
    about.unlink()
    with pytest.raises(InputError, match="model.stablehlo.json: can't be read: No such file"):
        export.load(path)


def test_wrong_targets_are_lines(bundle, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "a.stablehlo.json").mkdir()
    for out, reason in (
        (tmp_path / "file", "is a file: name a directory"),
        (tmp_path / "file" / "below", "can't be made"),
        (tmp_path / "a.stablehlo", "a.stablehlo.json is a directory"),
    ):
        with pytest.raises(InputError, match=reason):
            export.write(bundle, out)
    with pytest.raises(InputError, match="format 'tflite' is not one of: stablehlo, onnx"):
        export.write(bundle, tmp_path, "tflite")


def test_a_missing_extra_is_a_line(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    arguments = ["--bundle", str(tiny.workdir / "bundle"), "--out", str(tmp_path / "out")]
    assert main(["export", *arguments, "--format", "onnx"]) == 2
    assert capsys.readouterr().err == (
        'error: onnx is not installed: pip install "ergl_jax[onnx]", or in a checkout '
        '"pip install .[onnx]"\n'
    )


@pytest.mark.parametrize("name", ["clip.wav", "model.onnx"])
def test_only_a_file_of_its_own_kind_is_replaced(bundle, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} does not end in .stablehlo: name such a file"):
        export.write(bundle, tmp_path / name)
    assert (tmp_path / name).read_text() == "mine"


def test_nothing_is_written_into_a_bundle(tiny, bundle):
    with pytest.raises(InputError, match="is a bundle, which holds nothing else"):
        export.write(bundle, tiny.workdir / "bundle")


def test_the_command_tells_what_it_wrote(tiny, tmp_path, capsys):
    bundle = str(tiny.workdir / "bundle")
    assert main(["export", "--bundle", bundle, "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    path = tmp_path / "out" / "model.stablehlo"
    assert lines[0].startswith(f"{path}, ")
    assert lines[1:5] == [
        "  log_mel (batch, 201, 64)",
        "  scene_probabilities (batch, 10)",
        "  event_probabilities (batch, 4)",
        "  platforms: cpu, cuda, tpu",
    ]
    difference = float(lines[5].split(" by ")[1].split()[0])
    assert 0 <= difference <= 1e-5
    assert path.is_file() and lines[6] == f"  described in {path}.json"
    assert main(["export", "--bundle", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "is not a bundle" in capsys.readouterr().err
