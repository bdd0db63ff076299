"""What root sees of another process, as gcore would write it down: every mapping, read through /proc/PID/mem and again by
process_vm_readv(2), and the registers, vector registers too (ptrace). The process stands still meanwhile.

    with Snapshot(pid) as snapshot:
        for place in snapshot.find([Secret("the key", secret)]): ...

A secret is found when eight consecutive bytes of it are, at any address: what a compiler spills or a hash buffers is rarely the whole.
"""

import base64
import ctypes
import os
import pathlib
import re

PTRACE_ATTACH, PTRACE_DETACH, PTRACE_GETREGSET = 16, 17, 0x4204
NT_PRSTATUS, NT_X86_XSTATE = 1, 0x202
WALL = 0x40000000
CHUNK = 1 << 20
PAGE = os.sysconf("SC_PAGESIZE")
PIECE = 8
LARGEST = 1 << 30  # of a mapping: what is larger is a sanitizer's shadow

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
libc.process_vm_readv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
libc.process_vm_readv.restype = ctypes.c_ssize_t


class NotPermitted(Exception):
    """Nobody may look into processes here: a container without CAP_SYS_PTRACE, a hardened kernel."""


class IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Secret:
    """Bytes that must not be found, and how: raw in pieces of eight, and whole as hex or base64."""

    def __init__(self, name, value, text=False):
        assert len(value) >= PIECE, name
        self.name, self.value = name, bytes(value)
        self.needles = {self.value[at:at + PIECE] for at in range(0, len(value) - PIECE + 1, PIECE)} | {self.value[-PIECE:]}
        if not text:
            # Base64 without what hangs on the bytes behind it.
            self.needles |= {self.value.hex().encode()[:24], self.value.hex().upper().encode()[:24],
                             base64.b64encode(self.value[:len(value) // 3 * 3])[:24]}

    def within(self, data):
        return any(needle in data for needle in self.needles)


class Mapping:
    def __init__(self, line):
        match = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)", line)
        self.start, self.end = int(match[1], 16), int(match[2], 16)
        self.mode, self.name = match[3], match[4].strip()

    def __str__(self):
        return f"{self.start:x}-{self.end:x} {self.mode} {self.name or 'anonymous'}"


def memory_of(pid):
    """All that root can read of a process that goes on meanwhile, in pieces that overlap a little."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for mapping in map(Mapping, maps):
            size = mapping.end - mapping.start
            if not mapping.mode.startswith("r") or mapping.name in ("[vvar]", "[vsyscall]") or size > LARGEST:
                continue
            for at in range(mapping.start, mapping.end, CHUNK):
                try:
                    memory.seek(at)
                    yield memory.read(min(CHUNK, mapping.end - at) + 256)
                except (OSError, ValueError):
                    break


def holds(pid, patterns):
    return any(pattern in piece for piece in memory_of(pid) for pattern in patterns)


def without_zero_pages(data):
    """Neighbours stay neighbours: nothing is found across a gap that isn't there."""
    empty = bytes(PAGE)
    pages = (data[at:at + PAGE] for at in range(0, len(data), PAGE))
    return b"".join(page if page != empty else empty[:2 * PIECE] for page in pages)


class Snapshot:
    def __init__(self, pid):
        self.pid = pid

    def __enter__(self):
        if libc.ptrace(PTRACE_ATTACH, self.pid, None, None) != 0:
            raise NotPermitted(f"ptrace: {os.strerror(ctypes.get_errno())}")
        try:
            os.waitpid(self.pid, WALL)
            self.registers = b"".join(self._registers(kind) for kind in (NT_PRSTATUS, NT_X86_XSTATE))
            lines = pathlib.Path(f"/proc/{self.pid}/maps").read_text().splitlines()
            all_mappings = [Mapping(line) for line in lines if "[vsyscall]" not in line]  # that one is the kernel's
            self.mappings = [mapping for mapping in all_mappings if mapping.end - mapping.start <= LARGEST]
            self.pieces, self.unreadable, self.size = [], [], 0
            with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
                readers = {"/proc/PID/mem": lambda at, size: os.pread(memory.fileno(), size, at), "process_vm_readv": self._read}
                for mapping in self.mappings:
                    dumps = {how: self._dump(mapping, read) for how, read in readers.items()}
                    self._keep(mapping, dumps)
        except PermissionError as error:
            self.__exit__()
            raise NotPermitted(str(error)) from None
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        libc.ptrace(PTRACE_DETACH, self.pid, None, None)

    def _registers(self, kind):
        room = ctypes.create_string_buffer(1 << 14)
        vector = IoVec(ctypes.addressof(room), len(room))
        if libc.ptrace(PTRACE_GETREGSET, self.pid, ctypes.c_void_p(kind), ctypes.addressof(vector)) != 0:
            return b""  # not this architecture
        return room.raw[:vector.length]

    def _read(self, at, size):
        room = ctypes.create_string_buffer(size)
        local, remote = IoVec(ctypes.addressof(room), size), IoVec(at, size)
        got = libc.process_vm_readv(self.pid, ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0)
        if got < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return room.raw[:got]

    @staticmethod
    def _dump(mapping, read):
        """Its readable pages that hold anything; None if none of it can be read."""
        whole, read_any = bytearray(), False
        for at in range(mapping.start, mapping.end, CHUNK):
            end = min(at + CHUNK, mapping.end)
            while at < end:
                try:
                    data = read(at, end - at)
                    read_any = read_any or bool(data)
                except OSError:
                    data = b""
                at += len(data) or PAGE  # an unreadable page: guard, file beyond its end, secret memory
                whole += data
        return bytes(whole) if read_any else None

    def _keep(self, mapping, dumps):
        for how, data in dumps.items():
            if data is None:
                self.unreadable.append((how, mapping))
        read = {how: data for how, data in dumps.items() if data is not None}
        self.size += max((len(data) for data in read.values()), default=0)
        if len(set(read.values())) == 1:  # as it should be: the process stands still
            read = {" and ".join(read): next(iter(read.values()))}
        for how, data in read.items():
            self.pieces.append((f"{how}: {mapping}", without_zero_pages(data)))

    def find(self, secrets):
        """[(name of the secret, where)], each place once."""
        found = []
        for where, data in [*self.pieces, ("registers", self.registers)]:
            for secret in secrets:
                at = next((data.find(needle) for needle in secret.needles if needle in data), None)
                if at is not None:
                    found.append((secret.name, f"{where} | {data[max(at - 32, 0):at + 48].hex()}"))
        return found
