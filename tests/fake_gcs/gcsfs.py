"""Google Cloud Storage as fsspec sees it, over a directory: gs://bucket/a is $FAKE_GCS/bucket/a.

As there, nothing is a directory until something is in it, nothing is appended to or renamed.
"""

import os

from fsspec.implementations.local import LocalFileSystem


class GCSFileSystem(LocalFileSystem):
    protocol = ("gs", "gcs")
    cachable = False

    def __init__(self, **_):
        super().__init__()

    @classmethod
    def _strip_protocol(cls, path):
        path = os.fspath(path)
        for protocol in cls.protocol:
            if path.startswith(f"{protocol}://"):
                path = os.path.join(os.environ["FAKE_GCS"], path.split("://", 1)[1])
        return LocalFileSystem._strip_protocol(path)

    def open(self, path, mode="rb", **options):
        assert "a" not in mode and "+" not in mode
        if "w" in mode:
            os.makedirs(os.path.dirname(self._strip_protocol(path)), exist_ok=True)
        return super().open(path, mode, **options)

    def glob(self, path, **options):
        return [os.path.relpath(each, os.environ["FAKE_GCS"]) for each in super().glob(path)]

    def mkdir(self, path, create_parents=True, **_):
        pass

    def makedirs(self, path, exist_ok=False):
        pass

    def mv(self, *_, **__):
        raise NotImplementedError("objects have no names to change")

    mv_file = rename = move = mv
