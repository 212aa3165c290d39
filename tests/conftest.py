"""For every test: nothing reaches the network; annotations are checked with the newest packages."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from jaxtyping import install_import_hook

# One thread: tiny models compute for microseconds, and threads that wait for each other on a busy
# machine took six times as long. pytest-xdist is the way to use several cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_MODE": "disabled"}

# Shapes and types of every annotated function of mmlens, before anything of it is imported. They
# say the same with all packages, and cost a third of the time: the lowest are asked without.
LOWEST = os.environ.get("MMLENS_RESOLUTION") == "lowest"
if not LOWEST:
    install_import_hook("mmlens", "beartype.beartype")

# What reads our own texts, or the sentences that refuse bad arguments, says the same with all
# packages: .ci/run asks it with the newest alone (docs/decisions/dependencies.md).
if LOWEST:
    collect_ignore = [
        "test_adding.py", "test_docs.py", "test_floors.py", "test_house.py", "test_notebooks.py",
        "test_public_calls.py", "test_readme.py", "test_vocabulary.py", "test_writing.py",
    ]  # fmt: skip

_HERE = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "", None}


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Fail a test that connects to, or looks up, any machine but this one.

    `pytest.fail` is no `Exception`, so a library that falls back when offline cannot hide it.
    """

    def guard(name: str, place: Any) -> Any:
        real = getattr(place, name)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            address = args[1] if place is socket.socket else args[0]  # a method has `self` first
            host = address[0] if isinstance(address, tuple) else address
            is_unix_socket = place is socket.socket and not isinstance(address, tuple)
            if not is_unix_socket and host not in _HERE:
                pytest.fail(
                    f"A test reached for the network ({name} {address!r}): tests run offline."
                )
            return real(*args, **kwargs)

        return guarded

    with pytest.MonkeyPatch.context() as patch:
        for place, name in (
            (socket.socket, "connect"),
            (socket.socket, "connect_ex"),
            (socket, "getaddrinfo"),
        ):
            patch.setattr(place, name, guard(name, place))
        yield


@pytest.fixture(autouse=True)
def what_is_global() -> Iterator[None]:
    """A test leaves torch's default dtype as it was; the theme of figures is set back."""
    yield
    if "torch" in sys.modules:
        assert sys.modules["torch"].get_default_dtype() == sys.modules["torch"].float32
    if "mmlens.view.style.theme" in sys.modules:
        sys.modules["mmlens.view.style.theme"].use_theme("auto")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium; the tests skip where there is none."""
    sync = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync.sync_playwright() as play:
        try:
            opened = play.chromium.launch(
                executable_path=path, args=["--no-sandbox", "--disable-gpu"]
            )
        except sync.Error:
            pytest.skip("there is no Chromium")
        yield opened
        opened.close()
