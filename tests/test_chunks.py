"""Pieces that fit: into the memory of the machine, and into that of a container."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import mmlens as mm
from mmlens.datasets import Sample, Samples
from mmlens.explore.many import read_one
from mmlens.families import toy
from mmlens.runtime import chunks
from mmlens.runtime.chunks import fitting, times
from mmlens.runtime.memory import free_memory
from mmlens.sweep import sweep

GB = 1 << 30


def machine(root: Path, files: dict[str, str]) -> Path:
    """A tree of /proc and /sys of a machine with 64 GB free."""
    told = {"proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {64 * GB // 1024} kB\n", **files}
    for name, text in told.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def v2(path: str, most: object, used: int, inactive: int = 0) -> dict[str, str]:
    at = f"sys/fs/cgroup/{path}".rstrip("/")
    return {f"{at}/memory.max": f"{most}\n", f"{at}/memory.current": f"{used}\n",
            f"{at}/memory.stat": f"anon 5\ninactive_file {inactive}\n"}  # fmt: skip


OUTSIDE = {"proc/self/cgroup": "0::/\n"}
DEEP = {"proc/self/cgroup": "0::/jobs/one\n"}


@pytest.mark.parametrize(
    "files, free",
    [
        ({}, 64 * GB),
        ({**OUTSIDE, **v2("", "max", GB)}, 64 * GB),
        ({**OUTSIDE, **v2("", 3 * GB, GB)}, 2 * GB),
        ({**OUTSIDE, **v2("", 3 * GB, 2 * GB, inactive=GB)}, 2 * GB),
        ({**DEEP, **v2("jobs/one", "max", GB), **v2("jobs", 4 * GB, GB)}, 3 * GB),
        ({**DEEP, **v2("jobs/one", 2 * GB, GB), **v2("jobs", 4 * GB, GB)}, GB),
        ({**DEEP, **v2("", 3 * GB, GB)}, 2 * GB),  # the path is the one outside of the container
        ({**OUTSIDE, **v2("", 3 * GB, 4 * GB)}, 0),
        ({**OUTSIDE, **v2("", 900 * GB, GB)}, 64 * GB),
    ],
)
def test_the_limit_of_a_container_counts_as_the_machine_does(tmp_path, files, free):
    assert free_memory(machine(tmp_path, files)) == free


def test_version_1_of_the_limits_is_read_too(tmp_path):
    at = "sys/fs/cgroup/memory/docker/abc"
    files = {
        "proc/self/cgroup": "12:cpu,cpuacct:/docker/abc\n9:memory:/docker/abc\n0::/\n",
        f"{at}/memory.limit_in_bytes": f"{3 * GB}\n",
        f"{at}/memory.usage_in_bytes": f"{2 * GB}\n",
        f"{at}/memory.stat": f"cache 1\ntotal_inactive_file {GB // 2}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
    }
    assert free_memory(machine(tmp_path, files)) == GB + GB // 2


def test_pieces_are_counted_by_the_memory_that_is_left(monkeypatch):
    monkeypatch.setattr(chunks, "free_memory", lambda: 2 * GB)
    cpu = torch.device("cpu")
    assert fitting(GB / 8, cpu) == 8 and fitting(GB * 9.0, cpu) == 1 and fitting(1.0, cpu) == 256


def test_pieces_fit_into_a_container_of_a_large_machine(tmp_path, monkeypatch):
    tree = machine(tmp_path, {**OUTSIDE, **v2("", 3 * GB, GB)})
    read = Path.read_text

    def within(path: Path, *args: Any, **options: Any) -> str:
        inside = str(path).startswith(("/proc/", "/sys/"))
        return read(tree / str(path)[1:] if inside else path, *args, **options)

    monkeypatch.setattr(Path, "read_text", within)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_AVPHYS_PAGES": 64 * GB}.__getitem__)
    assert fitting(GB / 8, torch.device("cpu")) == 8  # half of the 2 GB that are left


def test_this_machine_tells_something():
    assert 0 <= free_memory() < 1 << 50


@pytest.mark.parametrize("d, n", [(32, 67), (192, 2001)])
def test_a_product_in_pieces_is_the_same_to_the_bit_however_it_was_cut(d, n):
    draw = torch.Generator().manual_seed(0)
    rows, table = torch.randn(70, d, generator=draw), torch.randn(d, n, generator=draw)
    whole = times(rows, table)
    torch.testing.assert_close(whole, rows @ table, rtol=1e-5, atol=1e-4)
    for size in (1, 2, 7, 33, 70):
        assert torch.equal(torch.cat([times(part, table) for part in rows.split(size)]), whole)
    assert times(rows[:0], table).shape == (0, n)


def test_what_a_neuron_says_does_not_depend_on_the_neurons_beside_it():
    neurons = [mm.Neuron(layer, unit) for layer in range(3) for unit in range(0, 64, 3)]
    together, alone = mm.load("toy-gptj"), mm.load("toy-gptj")
    said = mm.decode(together, neurons)
    for i, neuron in enumerate(neurons):
        assert mm.decode(alone, neuron).probs[0] == said.probs[i]


def test_what_was_read_in_two_goes_is_what_was_read_in_one(tmp_path):
    samples = Samples("toys", [f"p{i}" for i in range(2)],
                      lambda i: Sample(f"p{i}", toy.picture((i, 1), seed=i)), "toys 2")  # fmt: skip
    how: dict[str, Any] = {"options": {"prompt": "A picture of", "k": 5, "lens": 1, "firing": 2}}
    how |= {"chunk": 1, "progress": False}
    whole = sweep(read_one, mm.load("toy-gptj"), samples, tmp_path / "one", **how)
    sweep(read_one, mm.load("toy-gptj"), samples, tmp_path / "two", **how)
    (tmp_path / "two" / "chunks" / "00001.json").unlink()
    again = sweep(read_one, mm.load("toy-gptj"), samples, tmp_path / "two", **how)
    for name in ("table", "decoded", "firing", "lens"):
        pd.testing.assert_frame_equal(again.table(name), whole.table(name), check_exact=True)


def test_what_is_read_of_a_picture_does_not_depend_on_those_read_before_it():
    samples = [Sample(f"p{i}", toy.picture((i, 1), seed=i)) for i in range(3)]
    how = {"prompt": "A picture of", "k": 3, "lens": 2, "firing": 2}
    before, fresh = mm.load("toy-gptj"), mm.load("toy-gptj")
    for sample in samples:
        later = read_one(before, sample, **how)
    alone = read_one(fresh, samples[-1], **how)
    for name, part in alone.items():
        if isinstance(part, pd.DataFrame):
            pd.testing.assert_frame_equal(part, later[name], check_exact=True)
        elif part is not None:
            assert torch.equal(part.values, later[name].values), name
