"""The notebooks run from top to bottom, with a small configuration."""

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


@pytest.fixture
def run(monkeypatch):
    """Runs a notebook in its folder; returns its text and its number of pictures."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")

    def run(name, **environment):
        for variable, value in environment.items():
            monkeypatch.setenv(f"ERGL_NOTEBOOK_{variable}", str(value))
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        client = nbclient.NotebookClient(
            notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}}
        )
        outputs = [out for cell in client.execute().cells for out in cell.get("outputs", [])]
        text = "".join(out.get("text", "") for out in outputs)
        return text, sum("image/png" in out.get("data", {}) for out in outputs)

    return run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")
def test_the_colab_notebook(run, tiny, tmp_path):
    flags = f"--config=configs/test.py --config.data.data_dir={tiny.data_dir}"
    text, pictures = run("ergl_colab.ipynb", FLAGS=flags, WORKDIR=tmp_path / "run")
    assert '"class_mean_accuracy"' in text and "classified as" in text
    assert pictures == 3 and (tmp_path / "run" / "bundle" / "config.json").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")
def test_the_notebook_that_explains(run, tiny):
    text, pictures = run("explain.ipynb", BUNDLE=tiny.workdir / "bundle")
    assert "by chance:" in text and "together:" in text
    assert pictures == 4


def test_notebooks_are_small():
    for path in NOTEBOOKS.glob("*.ipynb"):
        assert path.stat().st_size < 200_000, path
