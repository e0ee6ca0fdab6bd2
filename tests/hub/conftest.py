"""A Hub on this machine, for huggingface_hub's own client."""

import shutil
import threading

import pytest
from fake_hub import TOKEN, Hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A `Hub`, where HF_TOKEN is that of its user, with an empty cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
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
