"""Huge memory pages, worth a quarter of a training step on CPU (docs/performance.md)."""

import os
import sys

VARIABLE, VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def use_huge_pages() -> None:
    """Starts this program again with a malloc that asks Linux for huge pages.

    XLA takes its working memory anew at each call, and the kernel hands it out page by page: 4 KiB
    at a time, or 2 MiB where malloc asks. glibc reads that wish from the environment only, when a
    program starts. Arguments and process id stay. Does nothing where GLIBC_TUNABLES is already set,
    to whatever value, and elsewhere than on Linux.
    """
    if sys.platform != "linux" or VARIABLE in os.environ or not sys.executable:
        return
    os.environ[VARIABLE] = VALUE
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
