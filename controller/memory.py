"""The memory of a process that runs for months: the C library is made to give back what a burst took."""

import ctypes

# malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_ARENAS = 2
_THRESHOLD_BYTES = 128 * 1024


def limit_arenas() -> None:
    """Before threads are started: two arenas for all of them, where glibc gives each its own, and thresholds that do
    not grow with the largest block that was ever freed. Another C library than glibc is left as it is."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    libc.mallopt(_M_ARENA_MAX, _ARENAS)
    libc.mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
    libc.mallopt(_M_TRIM_THRESHOLD, _THRESHOLD_BYTES)


def give_back() -> None:
    """Return free pages inside of the heaps to the system; takes milliseconds."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
