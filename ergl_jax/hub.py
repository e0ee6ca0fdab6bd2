"""Bundles on the Hugging Face Hub: hf://OWNER/NAME, or hf://OWNER/NAME@REVISION.

huggingface_hub does the work: its cache, its login for private repositories, HF_ENDPOINT,
HF_HUB_OFFLINE. It is imported only for such an address.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import ergl_jax
from ergl_jax.errors import InputError, require, warn
from ergl_jax.pretrained import find

PREFIX = "hf://"
FORM = f"{PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION"
COMMIT = re.compile("[0-9a-f]{40}")
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def is_address(path: str | os.PathLike) -> bool:
    """Whether the path is an address on the Hub."""
    return os.fspath(path).startswith(PREFIX)


def bundle_path(text: str | os.PathLike) -> str | Path:
    """A bundle as a user names it, also the `type` of a command's flags: a path, an address, or the
    name of a model that comes with the package (`pretrained.find`).

    Raises InputError as `user_path`, and for an address of another form.
    """
    if not is_address(text):
        return find(text)
    _split(os.fspath(text))
    return os.fspath(text)


def fetch(address: str, name: str, commit: str | None = None) -> Path:
    """The local copy of a repository's file, downloaded unless huggingface_hub's cache has it.

    Its directory has the commit's name and the commit's other files that were fetched. `commit`
    takes the place of the address's revision. Where the Hub can't be reached, the copy in the cache
    may be older than the Hub's, with a warning. Raises InputError.
    """
    with _refusing(address, name):
        repository, revision = _split(address)
        from huggingface_hub import constants, try_to_load_from_cache

        api, revision = _api(), commit or revision
        cached = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(cached, str) and COMMIT.fullmatch(revision or ""):
            return Path(cached)
        if not commit:
            try:  # hf_hub_download alone tries for half a minute where there is no network
                api.model_info(repository, revision=revision)
            except Exception as error:
                if not isinstance(cached, str) or _status(error) in (400, 401, 403, 404):
                    raise
                if not constants.HF_HUB_OFFLINE:
                    warn(f"{address} {_reason(error, name)}; the copy in the cache is used")
                return Path(cached)
        return Path(api.hf_hub_download(repository, name, revision=revision))


def push(
    address: str,
    files: Mapping[str, bytes],
    *,
    message: str,
    private: bool = False,
    keep: Mapping[str, str] | None = None,
) -> tuple[str, list[str]]:
    """Commits files to a repository, and creates the repository and the branch if they don't exist.

    Args:
      address: its revision is a branch; "main" without one.
      files: name -> content.
      message: of the commit.
      private: of a new repository; InputError if there is one that is public.
      keep: name -> text: such a file is not replaced if the repository's lacks this text.

    Returns:
      The address of the commit, and the names of the files that were kept.

    Raises:
      InputError: as of `fetch`, or the login may not write there.
    """
    with _refusing(address):
        repository, branch = _split(address)
        if COMMIT.fullmatch(branch or ""):
            raise InputError(f"{address} is a commit, which can't be pushed to: name a branch")
        from huggingface_hub import CommitOperationAdd

        api = _api()
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise InputError(
                f"{address} is public, and only a new repository can be made private: change its "
                "settings on the Hub, or name another"
            )
        if branch and not branch.startswith("refs/"):  # a pull request's
            api.create_branch(repository, branch=branch, exist_ok=True)
        kept = []
        for name, text in (keep or {}).items():
            if api.file_exists(repository, name, revision=branch):
                path = api.hf_hub_download(repository, name, revision=branch)
                kept += [name] * (text not in Path(path).read_text("utf-8", "replace"))
        additions = [
            CommitOperationAdd(name, content) for name, content in files.items() if name not in kept
        ]
        commit = api.create_commit(repository, additions, commit_message=message, revision=branch)
    return f"{PREFIX}{repository}@{commit.oid}", kept


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(library_name="ergl_jax", library_version=ergl_jax.__version__)


def _split(address: str) -> tuple[str, str | None]:
    """OWNER/NAME and REVISION of an address, as huggingface_hub reads it, without a path."""
    match = re.fullmatch(r"hf://(?:models/)?([^/@]+/[^/@]+)(?:@(refs/.+|[^/]+))?/?", address)
    if not match:
        raise InputError(f"{address} is not {FORM}")
    require("huggingface_hub", "hub", f"{address}: ")
    return match[1], match[2] and unquote(match[2])


@contextlib.contextmanager
def _refusing(address: str, name: str = "") -> Iterator[None]:
    """Turns any error of huggingface_hub into an InputError; its HTTP library raises many kinds."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{address} {_reason(error, name)}") from error


def _reason(error: Exception, name: str) -> str:
    from huggingface_hub import errors

    wrapped = isinstance(error, errors.LocalEntryNotFoundError | RuntimeError)
    if wrapped and isinstance(error.__cause__, Exception):
        error = error.__cause__
    kinds = {
        errors.OfflineModeIsEnabled: "can't be reached while HF_HUB_OFFLINE is set",
        errors.HFValidationError: f"is not {FORM}: {_line(error)}",
        errors.GatedRepoError: f"is gated: accept its conditions on its page of the Hub; {LOGIN}",
        errors.RepositoryNotFoundError: f"does not exist or is private: check the name, or {LOGIN}",
        errors.RevisionNotFoundError: "can't be found: the repository has no such revision",
        errors.EntryNotFoundError: f"is not a bundle: it has no {name}",
    }
    for kind, reason in kinds.items():
        if isinstance(error, kind):
            return reason
    status = _status(error)
    if status in (401, 403):
        return f"is refused ({_line(error)}): {LOGIN}, with a token that has this permission"
    if status:
        return f"can't be used: the Hub answers {status}, {_line(error)}"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"can't be kept: {error.filename}: {error.strerror}; HF_HOME names another cache"
    return f"can't be reached: {_line(error)}; check the network"


def _status(error: Exception) -> int:
    """The HTTP status of an answer; 0 if there was none."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _line(error: Exception) -> str:
    """An error's message as a short line, the Hub's own if there is one."""
    text = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]
