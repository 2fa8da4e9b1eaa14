"""The `.pth` reader: reads what torch writes, runs nothing, and names what is wrong."""

import collections
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from zoo.errors import UnsafePickleError, WeightsError
from zoo.pth import read_pth


class Exploit:
    """Unpickled, it would call `function(argument)`."""

    def __init__(self, function, argument):
        self.function, self.argument = function, argument

    def __reduce__(self):
        return self.function, (self.argument,)


@pytest.fixture
def two_tensors():
    return {
        "conv.weight": np.arange(24, dtype=np.float32).reshape(4, 3, 2),
        "conv.bias": np.array([0.5, -1.5], np.float32),
    }


# What torch itself writes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_read_pth_every_kind_of_tensor_equals_torch(tmp_path, zip_format):
    torch = pytest.importorskip("torch")
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    state = collections.OrderedDict(
        float32=base,
        float64=torch.tensor([1e300, -0.0], dtype=torch.float64),
        float16=torch.tensor([1.5, 65504.0], dtype=torch.float16),
        int64=torch.tensor(7, dtype=torch.int64),  # num_batches_tracked: no axes
        uint8=torch.tensor([0, 255], dtype=torch.uint8),
        boolean=torch.tensor([True, False]),
        view=base[1:, 1:3, ::2],  # an offset and three strides into the storage of "float32"
        transposed=base.permute(2, 0, 1),
        expanded=torch.tensor([3.0]).expand(2, 5),  # stride 0
        empty=torch.zeros((0, 4)),
        parameter=torch.nn.Parameter(torch.tensor([[2.0]])),
    )
    state._metadata = {"": {"version": 2}}
    path = tmp_path / "state.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zip_format)

    arrays = read_pth(path)

    assert list(arrays) == list(state)
    for name, tensor in state.items():
        expected = tensor.detach().numpy()
        assert arrays[name].dtype == expected.dtype, name
        assert arrays[name].flags.c_contiguous, name
        np.testing.assert_array_equal(arrays[name], expected, err_msg=name)


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_read_pth_bfloat16_becomes_float32(tmp_path, zip_format):
    torch = pytest.importorskip("torch")
    path = tmp_path / "state.pth"
    values = torch.tensor([[1.0, -2.5, 3.0e38], [0.0, 1 / 3, -1e-30]], dtype=torch.bfloat16)
    torch.save({"x": values.T}, path, _use_new_zipfile_serialization=zip_format)
    array = read_pth(path)["x"]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, values.T.float().numpy())


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_read_pth_training_checkpoint_gives_its_model(tmp_path, zip_format, protocol):
    torch = pytest.importorskip("torch")
    import argparse

    layer = torch.nn.Conv2d(2, 3, 1)
    # As SGD.state_dict() and MultiStepLR.state_dict() look.
    momentum = {index: {"momentum_buffer": torch.ones(1)} for index in range(2)}
    checkpoint = {
        "model": layer.state_dict(),
        "optimizer": {"state": momentum, "param_groups": [{"lr": 0.1, "nesterov": False, "params": [0, 1]}]},
        "lr_scheduler": {"milestones": collections.Counter([16, 22])},
        "args": argparse.Namespace(epochs=26, sizes=(1, 2), device=torch.device("cpu"), shape=torch.Size([1])),
        "epoch": 3,
        "big": 2**70,
        "nothing": None,
    }
    path = tmp_path / "checkpoint.pth"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zip_format, pickle_protocol=protocol)
    arrays = read_pth(path)
    assert list(arrays) == ["weight", "bias"]
    np.testing.assert_array_equal(arrays["weight"], layer.weight.detach().numpy())


def test_read_pth_whole_module_is_refused_by_the_name_of_its_class(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "module.pth"
    torch.save(torch.nn.ReLU(), path)
    with pytest.raises(UnsafePickleError, match=r"torch\.nn\.modules\.activation\.ReLU.*state_dict"):
        read_pth(path)


# Without torch ----------------------------------------------------------------------------------------------


def test_read_pth_state_dict_gives_names_and_values(tmp_path, write_pth, two_tensors):
    arrays = read_pth(write_pth(tmp_path / "a.pth", two_tensors))
    assert list(arrays) == ["conv.weight", "conv.bias"]
    for name, expected in two_tensors.items():
        np.testing.assert_array_equal(arrays[name], expected)


def test_read_pth_data_parallel_prefix_is_dropped(tmp_path, write_pth, two_tensors):
    wrapped = {f"module.{name}": array for name, array in two_tensors.items()}
    assert list(read_pth(write_pth(tmp_path / "a.pth", wrapped))) == list(two_tensors)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("container", ["zip", "legacy", "bare"])
def test_read_pth_pickle_that_calls_os_system_is_refused_and_not_run(tmp_path, write_pickle, container, protocol):
    victim = tmp_path / "executed"
    payload = pickle.dumps(Exploit(os.system, f"touch {victim}"), protocol)
    path = tmp_path / "evil.pth"
    if container == "zip":
        write_pickle(path, payload)
    elif container == "legacy":
        header = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in header) + payload)
    else:
        path.write_bytes(payload)

    with pytest.raises(UnsafePickleError, match=rf"{os.name}\.system.*Nothing in the\s+file was executed"):
        read_pth(path)
    assert not victim.exists()
    pickle.loads(payload)  # the payload is real: pickle itself does run it
    assert victim.exists()


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (b"cposix\nsystem\n(S'touch executed'\ntR.", "posix.system"),  # protocol 0
        (b"(S'touch executed'\niposix\nsystem\n.", "posix.system"),  # INST
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x01x\x85R.", "posix.system"),  # STACK_GLOBAL
        (b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__.eval"),
        (b"ctorch.storage\n_load_from_bytes\n(S'1'\ntR.", "torch.storage._load_from_bytes"),
        (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.", "__globals__"),
        (b"\x82\x01.", "EXT1"),  # the extension registry
        (b"(S'a'\no.", "OBJ"),
        (b"Pname\n.", "PERSID"),
    ],
)
def test_read_pth_any_other_way_to_name_code_is_refused(tmp_path, write_pickle, payload, named):
    with pytest.raises(UnsafePickleError, match=named.replace(".", r"\.")):
        read_pth(write_pickle(tmp_path / "evil.pth", payload))


def test_read_pth_call_of_something_in_the_file_is_refused(tmp_path, write_pickle):
    with pytest.raises(UnsafePickleError, match="a call of a str"):
        read_pth(write_pickle(tmp_path / "evil.pth", b"\x80\x02X\x01\x00\x00\x00a)R."))


def test_read_pth_known_name_cannot_be_changed_by_build(tmp_path, write_pickle, write_pth, two_tensors):
    # BUILD with a state sets attributes of the object before it; here it is dropped.
    payload = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb."
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_pth(write_pickle(tmp_path / "evil.pth", payload))
    assert list(read_pth(write_pth(tmp_path / "good.pth", two_tensors))) == list(two_tensors)


def test_read_pth_truncated_zip_at_any_length_is_an_error_naming_the_file(tmp_path, write_pth, two_tensors):
    content = write_pth(tmp_path / "whole.pth", two_tensors).read_bytes()
    for length in [0, 1, 3, 4, 16, 100, *range(120, len(content), 29), len(content) - 1]:
        path = tmp_path / "cut.pth"
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"cut\.pth"):
            read_pth(path)


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_read_pth_truncated_torch_file_at_any_length_is_an_error(tmp_path, zip_format):
    torch = pytest.importorskip("torch")
    whole = tmp_path / "whole.pth"
    torch.save(torch.nn.Conv2d(2, 3, 3).state_dict(), whole, _use_new_zipfile_serialization=zip_format)
    content = whole.read_bytes()
    for length in [*range(0, len(content), 17), len(content) - 1]:
        path = tmp_path / "cut.pth"
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"cut\.pth"):
            read_pth(path)


def test_read_pth_flipped_byte_of_a_record_is_an_error(tmp_path, write_pth, two_tensors):
    path = write_pth(tmp_path / "flipped.pth", two_tensors)
    content = bytearray(path.read_bytes())
    position = content.index(np.float32(23).tobytes())  # the last weight
    content[position + 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged.*CRC"):
        read_pth(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"<!DOCTYPE html><html>not found", "web page"),
        (b"\x89PNG\r\n\x1a\n", "neither a zip archive nor a pickle"),
        (pickle.dumps({"a": 1}), "not one that torch.save wrote"),
    ],
)
def test_read_pth_other_file_says_what_it_looks_like(tmp_path, content, said):
    path = tmp_path / "odd.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"odd\.pth.*{said}"):
        read_pth(path)


def test_read_pth_other_zip_says_so(tmp_path):
    path = tmp_path / "other.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match=r"other\.pth is a zip archive without data\.pkl"):
        read_pth(path)


def test_read_pth_missing_file_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        read_pth(tmp_path / "none.pth")


def test_read_pth_dict_without_tensors_lists_its_keys(tmp_path, write_pickle):
    path = write_pickle(tmp_path / "a.pth", pickle.dumps({"epoch": 3, "args": {}}, 2))
    with pytest.raises(WeightsError, match=r"no state dict but a dict with keys \['epoch', 'args'\]"):
        read_pth(path)


# Hostile sizes ----------------------------------------------------------------------------------------------


def _replaced(pickled_state_dict, write_pickle, tmp_path, old, new):
    """Write a file of one tensor (2, 3) whose pickle has `new` for `old`."""
    array = np.zeros((2, 3), np.float32)
    pickled = pickled_state_dict({"x": array})
    assert pickled.count(old) == 1
    return write_pickle(tmp_path / "odd.pth", pickled.replace(old, new), [array])


def _shape(*values):
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (_shape(2, 3), _shape(2, 4), "reaches element 6 of a storage of 6"),
        (_shape(2, 3), _shape(2, -3), "has size"),
        (_shape(3, 1), _shape(3, -1), "has size"),
        (_shape(3, 1), _shape(1), "has size"),
        (_shape(2, 3) + _shape(3, 1), _shape(2**30, 2**30) + _shape(0, 0), "repeats 6 stored numbers"),
        (b"J" + struct.pack("<i", 6), b"J" + struct.pack("<i", 2**31 - 1), "has 24 bytes, not 8589934588"),
        (b"J" + struct.pack("<i", 6), b"J" + struct.pack("<i", -6), "no known type"),
        (b"FloatStorage", b"LongStorage", "has 24 bytes, not 48"),
    ],
)
def test_read_pth_tensor_outside_its_storage_is_an_error(tmp_path, write_pickle, pickled_state_dict, old, new, said):
    with pytest.raises(WeightsError, match=f"truncated or damaged.*{said}"):
        read_pth(_replaced(pickled_state_dict, write_pickle, tmp_path, old, new))


def test_read_pth_compressed_record_is_refused(tmp_path, write_pth, two_tensors):
    source, path = write_pth(tmp_path / "a.pth", two_tensors), tmp_path / "bomb.pth"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(WeightsError, match="is compressed"):
        read_pth(path)


def test_read_pth_nested_tuples_as_a_key_end_at_once(tmp_path, write_pickle):
    # Each level holds the one below twice: hashing or printing 64 levels would take 2^64 steps.
    payload = b"\x80\x02}" + b"K\x01\x85" + b"2\x86" * 64 + b"K\x01s."
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_pth(write_pickle(tmp_path / "nested.pth", payload))


def test_read_pth_random_damage_never_raises_anything_else(tmp_path, write_pickle, pickled_state_dict, two_tensors):
    pickled = pickled_state_dict(two_tensors)
    generator = np.random.default_rng(0)
    damaged = 0
    for _ in range(400):
        content = bytearray(pickled)
        for position in generator.integers(2, len(content), size=generator.integers(1, 4)):
            content[position] = generator.integers(256)
        path = write_pickle(tmp_path / "fuzzed.pth", bytes(content), two_tensors.values())
        try:
            read_pth(path)
        except WeightsError:
            damaged += 1
    assert damaged > 200
