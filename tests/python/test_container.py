"""The container file: round trips, every malformed byte, saving in one step."""

import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wiesel.program import container as c

ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "scalar": np.array(3.0),
    "labels": np.array([1, -2, 3], np.int32),
    "picture": np.arange(5, dtype=np.uint8),
    "q": np.array([[-1]], np.int8),
}
META = {"classes": ["Katze", 'Hund "}'], "nested": [[{"a": None}]], "ä": 1.5}


def example() -> bytes:
    return c.write_container({"META": c.pack_json(META), "WGHT": c.pack_arrays(ARRAYS), "PROG": b"program"})


def read_all(data: bytes) -> None:
    sections = c.read_container(data, "net.wsl")
    c.unpack_json(sections.get("META", b"{}"), "net.wsl")
    c.unpack_arrays(sections.get("WGHT", b"\0" * 8), "net.wsl")


def test_round_trip():
    sections = c.read_container(example())
    assert list(sections) == ["META", "WGHT", "PROG"]
    assert c.unpack_json(sections["META"]) == META
    assert bytes(sections["PROG"]) == b"program"
    found = c.unpack_arrays(sections["WGHT"])
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        assert not found[name].flags.writeable


def test_empty_sections_and_transposed_arrays():
    a = np.arange(6, dtype=np.float32).reshape(2, 3).T
    data = c.write_container({"WGHT": c.pack_arrays({"a": a}), "PROG": b""})
    np.testing.assert_array_equal(c.unpack_arrays(c.read_container(data)["WGHT"])["a"], a)
    assert c.unpack_arrays(c.pack_arrays({})) == {}


def test_every_truncation_is_refused():
    data = example()
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"^net\.wsl: (offset|section)"):
            read_all(data[:length])
    with pytest.raises(ValueError, match="the file has"):
        read_all(data + b"\0")


def test_every_flipped_bit_of_the_file_is_noticed():
    data = example()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(ValueError, match=r"^net\.wsl: (offset|section)"):
            read_all(bytes(damaged))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damage_behind_a_right_checksum_is_a_value_error_or_harmless(data):
    payload = bytearray(c.pack_arrays(ARRAYS))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = c.unpack_arrays(bytes(payload[: data.draw(st.integers(0, len(payload)))]), "f")
    except ValueError as error:
        message = str(error)
    else:
        message = "f: section WGHT, offset"
        for array in found.values():
            array.sum()
    assert message.startswith("f: section WGHT, offset")


def test_tables_with_right_checksums_but_wrong_contents():
    def with_entry(entry: bytes, count: int = 1) -> bytes:
        body = b"\0" * 64
        size = 64 + len(body)
        return struct.pack("<8sIIQII", c.MAGIC, 0, count, size, zlib.crc32(entry), 0) + entry + body

    crc = zlib.crc32(b"\0" * 64)
    good = struct.pack("<4sIQQQ", b"META", crc, 64, 64, 0)
    assert set(c.read_container(with_entry(good))) == {"META"}
    for entry, what in (
        (struct.pack("<4sIQQQ", b"XXXX", crc, 64, 64, 0), "unknown section"),
        (struct.pack("<4sIQQQ", b"META", crc, 65, 63, 0), "unaligned"),
        (struct.pack("<4sIQQQ", b"META", crc, 64, 65, 0), "outside"),
        (struct.pack("<4sIQQQ", b"META", crc, 2**64 - 64, 128, 0), "outside"),
        (struct.pack("<4sIQQQ", b"META", crc, 64, 64, 7), "reserved"),
        (struct.pack("<4sIQQQ", b"META", crc ^ 1, 64, 64, 0), "checksum"),
        (struct.pack("<4sIQQQ", b"META", zlib.crc32(b""), 64, 0, 0), None),
    ):
        if what is None:
            c.read_container(with_entry(entry))
        else:
            with pytest.raises(ValueError, match=what):
                c.read_container(with_entry(entry))
    with pytest.raises(ValueError, match="17 sections"):
        c.read_container(with_entry(good, 17))


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"[" * 65 + b"]" * 65, "deeper"),
        (b"{", "not valid"),
        (b"\xff", "not valid"),
        (b"NaN", "not valid"),
        (b" " * (c.MAX_JSON_BYTES + 1), "at most"),
    ],
)
def test_json_limits(raw, what):
    with pytest.raises(ValueError, match=what):
        c.unpack_json(raw, "net.wsl")


def test_what_cannot_be_written_is_refused():
    with pytest.raises(ValueError, match="unknown section"):
        c.write_container({"ABCD": b""})
    with pytest.raises(TypeError, match="complex"):
        c.pack_arrays({"z": np.zeros(2, complex)})
    with pytest.raises(ValueError, match="none of them empty"):
        c.pack_arrays({"z": np.zeros((2, 0), np.float32)})
    with pytest.raises(ValueError, match="the name"):
        c.pack_arrays({"": np.zeros(2, np.float32)})
    nested: list = []
    for _ in range(70):
        nested = [nested]
    with pytest.raises(ValueError, match="deeper"):
        c.pack_json(nested)
    with pytest.raises(ValueError, match="not JSON compliant"):
        c.pack_json(float("nan"))


def test_save_replaces_in_one_step_and_load_reads(tmp_path):
    path = tmp_path / "net.wsl"
    c.save(path, example())
    c.save(path, c.write_container({"PROG": b"new"}))
    assert bytes(c.load(path)["PROG"]) == b"new"
    assert os.listdir(tmp_path) == ["net.wsl"]


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, failing):
    path = tmp_path / "net.wsl"
    c.save(path, example())

    def full(*_):
        raise OSError(28, "No space left on device")

    if failing == "write":
        import builtins

        real = builtins.open

        def opened(file, mode="r", *args, **options):
            handle = real(file, mode, *args, **options)
            if "w" not in mode:
                return handle
            handle.close()
            return real("/dev/full", mode, *args, **options)

        if not os.path.exists("/dev/full"):
            pytest.skip("this system has no /dev/full")
        monkeypatch.setattr(builtins, "open", opened)
    else:
        monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left"):
        c.save(path, b"x" * 100_000)
    monkeypatch.undo()
    read_all(path.read_bytes())
    assert os.listdir(tmp_path) == ["net.wsl"]
