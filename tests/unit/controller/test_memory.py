"""What a burst took is given back, and threads share heaps: in processes of their own, for it cannot be undone."""

import ctypes
import subprocess
import sys

import pytest

from controller import memory

_BEGIN = """
import ctypes, os, sys, tempfile, threading
from controller import memory

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = libc.fclose.argtypes = [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]

def resident_kib():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
"""
_HEAPS = """
if sys.argv[1] == "limited":
    memory.limit_arenas()
all_have = threading.Barrier(7)

def take():
    libc.malloc(1000)
    all_have.wait(30)

threads = [threading.Thread(target=take) for _ in range(6)]
for thread in threads:
    thread.start()
all_have.wait(30)
for thread in threads:
    thread.join()
with tempfile.TemporaryFile() as file:
    stream = libc.fdopen(os.dup(file.fileno()), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    file.seek(0)
    print(file.read().count(b"<heap nr="))
"""
# Blocks of 64 KiB come from the heap; the last one, which stays, keeps it from shrinking by itself.
_BURST = """
memory.limit_arenas()
blocks = [libc.malloc(64 * 1024) for _ in range(1000)]
for block in blocks:
    ctypes.memset(block, 1, 64 * 1024)
for block in blocks[:-1]:
    libc.free(block)
before = resident_kib()
memory.give_back()
print(before - resident_kib())
"""


def run(program: str, *arguments: str) -> int:
    argv = [sys.executable, "-c", _BEGIN + program, *arguments]
    return int(subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout)


def test_threads_share_two_heaps() -> None:
    assert run(_HEAPS, "unlimited") > 2
    assert run(_HEAPS, "limited") == 2


def test_what_was_freed_inside_of_a_heap_is_given_back() -> None:
    assert run(_BURST) > 50_000  # of 64,000 KiB


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    memory.limit_arenas()
    memory.give_back()
