"""Reads PyTorch's `.pth` files without torch and without executing anything in them.

A `.pth` file is a pickle, and unpickling runs whatever function the file names. This reader therefore does
not unpickle: it interprets the pickle's opcodes itself. A name in the file (``torch.FloatStorage``) stays a
name, compared with the short list below; a name outside the list ends the reading with
`UnsafePickleError`. No object is imported, built or called, so there is nothing that a file could run.

Two containers exist and both are read: the zip archive that torch writes since 1.6 (``data.pkl`` beside one
record per storage) and the older sequence of pickles followed by the raw storages. The layouts are those of
``torch/serialization.py``. The tar archive of 2016 (torch 0.1) is not read.
"""

import io
import math
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import UnsafePickleError, WeightsError

# torch/serialization.py: MAGIC_NUMBER and PROTOCOL_VERSION of the format before torch 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

# "bfloat16" is no numpy type; it is widened to float32 when read.
_STORAGE_DTYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
    "ComplexFloatStorage": "c8",
    "ComplexDoubleStorage": "c16",
}
_TENSORS = frozenset({"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"})
_PARAMETERS = frozenset({"torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter"})
_MAPPINGS = frozenset({"collections.OrderedDict", "collections.Counter"})
# What training scripts leave beside the weights; it is read over, not read.
_SKIPPED = frozenset({"argparse.Namespace", "torch.Size", "torch.device"})
_KNOWN = _TENSORS | _PARAMETERS | _MAPPINGS | _SKIPPED | frozenset(f"torch.{name}" for name in _STORAGE_DTYPES)

# Keys under which training scripts nest the weights: DETR and torchvision's references, Lightning, others.
_NESTED_UNDER = ("model", "state_dict", "model_state_dict", "model_ema")

# A tensor may repeat its storage (stride 0), so that a small file could ask for any amount of memory.
_MAX_EXPANDED_ELEMENTS = 2**28


@dataclass(frozen=True)
class _Global:
    """A name in the pickle, never looked up."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """A typed, flat block of numbers held elsewhere in the file; `offset` and `numel` in elements."""

    key: str
    dtype: str
    numel: int
    offset: int = 0


@dataclass(frozen=True)
class _Tensor:
    """A strided window on a storage; `offset` and `stride` in elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Skipped:
    """The place of a value that is no tensor and that nobody needs."""


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    }
)
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_MALFORMED = (
    ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, EOFError, struct.error,
    UnicodeDecodeError, RuntimeError, OSError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_pth(path: str | Path) -> dict[str, np.ndarray]:
    """Read the tensors of a PyTorch checkpoint.

    Args:
        path: A file written by ``torch.save``: a state dict, or a dict that holds one under ``"model"``,
            ``"state_dict"``, ``"model_state_dict"`` or ``"model_ema"``. Entries of the state dict that are
            no tensors are left out; a ``module.`` before every name (``DataParallel``) is dropped.

    Returns:
        Name -> array in the file's order and types; bfloat16 becomes float32.

    Raises:
        FileNotFoundError: No such file.
        UnsafePickleError: The pickle names anything but tensors and plain containers.
        WeightsError: Truncated, damaged, no PyTorch file, or without a state dict.
    """
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(16)
    try:
        if head.startswith(b"PK\x03\x04"):
            return _read_zip(path)
        if head.startswith(b"\x80"):
            return _read_legacy(path)
    except WeightsError:
        raise
    except _MALFORMED as error:
        reason = str(error) or type(error).__name__
        raise WeightsError(f"{path} is truncated or damaged ({reason}); download or save it again") from error
    raise WeightsError(f"{path} is no PyTorch file: it {_first_bytes(path, head)}")


def _first_bytes(path: Path, head: bytes) -> str:
    """Say what the file looks like instead."""
    if not head:
        return "is empty"
    if head.startswith(b"version https://"):
        return "is a Git LFS pointer; fetch the file itself with `git lfs pull`"
    if head.lstrip().lower().startswith((b"<!doc", b"<html")):
        return "is a web page, perhaps the server's error message; download it again"
    with path.open("rb") as file:
        file.seek(257)
        if file.read(5) == b"ustar":
            return "is a tar archive, as torch 0.1 wrote them; load and save it again with a newer torch"
    return f"begins with {head[:8]!r}, neither a zip archive nor a pickle"


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        pickles = [n for n in archive.namelist() if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightsError(f"{path} is a zip archive without data.pkl, so not one that torch.save wrote")
        prefix = pickles[0].removesuffix("data.pkl")
        names = set(archive.namelist())
        big = f"{prefix}byteorder" in names and archive.read(f"{prefix}byteorder").strip() == b"big"
        top = _Interpreter(path).run(io.BytesIO(archive.read(pickles[0])))

        def storage_bytes(storage: _Storage, nbytes: int) -> bytes:
            record = archive.getinfo(f"{prefix}data/{storage.key}")
            if record.compress_type != zipfile.ZIP_STORED:  # torch never compresses; a zip bomb does
                raise ValueError(f"record {record.filename} is compressed")
            if record.file_size != nbytes:
                raise ValueError(f"record {record.filename} has {record.file_size} bytes, not {nbytes}")
            return archive.read(record)

        return _materialise(_state_dict(top, path), storage_bytes, big_endian=big)


def _read_legacy(path: Path) -> dict[str, np.ndarray]:
    content = path.read_bytes()
    stream = io.BytesIO(content)
    if _Interpreter(path).run(stream) != _LEGACY_MAGIC:
        raise WeightsError(f"{path} is a pickle, but not one that torch.save wrote")
    if _Interpreter(path).run(stream) != _LEGACY_PROTOCOL:
        raise WeightsError(f"{path} has another protocol version than {_LEGACY_PROTOCOL}")
    system = _Interpreter(path).run(stream)
    big = isinstance(system, dict) and system.get("little_endian") is False
    interpreter = _Interpreter(path)
    top = interpreter.run(stream)
    keys = _Interpreter(path).run(stream)

    # After the pickles: for each storage in the order of `keys`, its int64 count of elements, its elements.
    where: dict[str, tuple[int, int]] = {}
    position = stream.tell()
    for key in keys:
        itemsize = _itemsize(interpreter.dtypes[_text(key)])
        (numel,) = struct.unpack_from(">q" if big else "<q", content, position)
        begin, end = position + 8, position + 8 + numel * itemsize
        if numel < 0 or end > len(content):
            raise ValueError(f"storage {key} ends at byte {end} of {len(content)}")
        where[key] = begin, end
        position = end

    def storage_bytes(storage: _Storage, nbytes: int) -> memoryview:
        begin, end = where[storage.key]
        if end - begin != nbytes:
            raise ValueError(f"storage {storage.key} has {end - begin} bytes, not {nbytes}")
        return memoryview(content)[begin:end]

    return _materialise(_state_dict(top, path), storage_bytes, big_endian=big)


def _integer(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected an integer, found a {type(value).__name__}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, found a {type(value).__name__}")
    return value


def _key(value: Any) -> Any:
    """Return a dict key that hashes at once; nested tuples may never end, and no weight has such a key."""
    return value if isinstance(value, (str, int, float, bytes, type(None))) else _Skipped()


def _pairs(keys: Any, values: Any) -> dict:
    return {_key(key): value for key, value in zip(keys, values, strict=True)}


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _state_dict(top: Any, path: Path) -> dict[str, _Tensor]:
    """Find the dict of tensors, which may be nested one level down."""
    keys = []
    if isinstance(top, Mapping):
        keys = [str(key) for key in top]
        for candidate in [top, *(top.get(key) for key in _NESTED_UNDER)]:
            if not isinstance(candidate, Mapping):
                continue
            tensors = {str(name): value for name, value in candidate.items() if isinstance(value, _Tensor)}
            if tensors:
                if all(name.startswith("module.") for name in tensors):
                    tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
                return tensors
    found = f"a dict with keys {keys[:8]}" if keys else f"a {type(top).__name__.lstrip('_')}"
    raise WeightsError(
        f"{path} holds no state dict but {found}; save `model.state_dict()`, alone or under the key 'model'"
    )


def _materialise(tensors: Mapping[str, _Tensor], storage_bytes: Callable, *, big_endian: bool) -> dict[str, np.ndarray]:
    """Cut every tensor out of its storage, each storage read once.

    Args:
        tensors: Name -> window.
        storage_bytes: ``(storage, expected number of bytes) -> bytes``.
        big_endian: Byte order of the file.
    """
    storages: dict[str, np.ndarray] = {}
    arrays = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        if storage.key not in storages:
            dtype = np.dtype("u2" if storage.dtype == "bfloat16" else storage.dtype)
            raw = storage_bytes(storage, storage.numel * dtype.itemsize)
            flat = np.frombuffer(raw, dtype.newbyteorder(">" if big_endian else "<"))
            storages[storage.key] = flat.astype(dtype.newbyteorder("="), copy=False)
        arrays[name] = _window(name, storages[storage.key], tensor)
    return arrays


def _window(name: str, flat: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """Return a contiguous copy of the tensor's window on `flat`, after checking that it lies inside."""
    size, stride = tensor.size, tensor.stride
    begin = tensor.storage.offset + tensor.offset
    if len(size) != len(stride) or min((0, begin, *size, *stride)) < 0:
        raise ValueError(f"tensor {name} has size {size}, stride {stride} and offset {begin}")
    elements = math.prod(size)
    if elements:
        last = begin + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if last >= len(flat):
            raise ValueError(f"tensor {name} reaches element {last} of a storage of {len(flat)}")
    if elements > max(len(flat), _MAX_EXPANDED_ELEMENTS):
        raise ValueError(f"tensor {name} repeats {len(flat)} stored numbers {elements} times")
    if elements == 0:
        window = np.zeros(size, flat.dtype)
    else:
        steps = [step * flat.itemsize for step in stride]
        window = np.lib.stride_tricks.as_strided(flat[begin:], size, steps, writeable=False)
    if tensor.storage.dtype == "bfloat16":  # the upper half of a float32
        return np.ascontiguousarray((window.astype(np.uint32) << 16).view(np.float32)).reshape(size)
    return np.array(window, order="C")


class _Interpreter:
    """A pickle machine that knows containers, literals and tensors, and nothing that could act."""

    def __init__(self, path: Path):
        self.path = path
        self.dtypes: dict[str, str] = {}  # storage key -> dtype, for the legacy container
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> Any:
        """Interpret one pickle and leave the stream behind its end."""
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return self.stack.pop()
            self._step(opcode.name, argument)
        raise EOFError("the pickle has no end")

    def _step(self, name: str, argument: Any) -> None:
        stack, memo = self.stack, self.memo
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _PUTS:
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in _GETS:
            stack.append(memo[argument])
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._pop_to_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "GLOBAL":
            stack.append(self._global(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            qualified, module = stack.pop(), stack.pop()
            stack.append(self._global(module, qualified))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, callee = stack.pop(), stack.pop()
            stack.append(self._reduce(callee, arguments))
        elif name == "BUILD":
            stack.pop()  # the attributes of an object: a state dict's version numbers, a namespace's content
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        else:
            self._container(name, argument)

    def _container(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name == "EMPTY_SET":
            stack.append(_Skipped())
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            if len(stack) < count:
                raise IndexError("pickle stack is empty")
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            stack.append(tuple(self._pop_to_mark()))
        elif name == "LIST":
            stack.append(self._pop_to_mark())
        elif name == "DICT":
            items = self._pop_to_mark()
            stack.append(_pairs(items[::2], items[1::2]))
        elif name == "APPEND":
            value = stack.pop()
            self._list().append(value)
        elif name == "APPENDS":
            values = self._pop_to_mark()
            self._list().extend(values)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self._dict()[_key(key)] = value
        elif name == "SETITEMS":
            items = self._pop_to_mark()
            self._dict().update(_pairs(items[::2], items[1::2]))
        elif name in ("ADDITEMS", "FROZENSET"):
            self._pop_to_mark()
            if name == "FROZENSET":
                stack.append(_Skipped())
        else:
            what = f"`{str(argument).replace(' ', '.')}`" if name == "INST" else f"the opcode {name}"
            raise UnsafePickleError(self._refusal(what))

    def _pop_to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise IndexError("pickle mark is missing")

    def _list(self) -> list:
        if not isinstance(self.stack[-1], list):
            raise TypeError(f"cannot append to a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def _dict(self) -> dict:
        if not isinstance(self.stack[-1], dict):
            raise TypeError(f"cannot set items of a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def _global(self, module: Any, qualified: Any) -> _Global:
        name = f"{module}.{qualified}"
        if name not in _KNOWN:
            raise UnsafePickleError(self._refusal(f"`{name}`"))
        return _Global(name)

    def _refusal(self, what: str) -> str:
        return (
            f"{self.path} was refused: its pickle asks for {what}, which weights do not need. Nothing in the "
            "file was executed. If you trust its source, load it with torch and save `model.state_dict()`"
        )

    def _reduce(self, callee: Any, arguments: Any) -> Any:
        """Return what a call of a known name stands for, without a call."""
        if not isinstance(callee, _Global) or not isinstance(arguments, tuple):
            raise UnsafePickleError(self._refusal(f"a call of a {type(callee).__name__}"))
        if callee.name in _TENSORS:
            storage, offset, size, stride = arguments[:4]
            if not isinstance(storage, _Storage):
                raise TypeError(f"a tensor of a {type(storage).__name__}")
            return _Tensor(storage, _integer(offset), tuple(map(_integer, size)), tuple(map(_integer, stride)))
        if callee.name in _PARAMETERS:
            if not isinstance(arguments[0], _Tensor):
                raise TypeError(f"a parameter of a {type(arguments[0]).__name__}")
            return arguments[0]
        if callee.name in _MAPPINGS:
            return self._mapping(arguments)
        if callee.name in _SKIPPED:
            return _Skipped()
        raise UnsafePickleError(self._refusal(f"a call of `{callee.name}`"))

    def _mapping(self, arguments: tuple) -> dict:
        """Return a dict from nothing, a dict, or a list of pairs (as Python 2 pickled an OrderedDict)."""
        if not arguments:
            return {}
        if isinstance(arguments[0], dict):
            return dict(arguments[0])
        return _pairs([pair[0] for pair in arguments[0]], [pair[1] for pair in arguments[0]])

    def _storage(self, identifier: Any) -> _Storage:
        """Read ("storage", type, key, device, number of elements[, view])."""
        if not isinstance(identifier, tuple) or len(identifier) < 5 or identifier[0] != "storage":
            raise UnsafePickleError(self._refusal("a reference that is no storage"))
        kind, key, numel = identifier[1], _text(identifier[2]), _integer(identifier[4])
        dtype = _STORAGE_DTYPES.get(kind.name.removeprefix("torch.")) if isinstance(kind, _Global) else None
        if dtype is None or numel < 0:
            raise TypeError(f"storage {key} of {numel} elements has no known type")
        if self.dtypes.setdefault(key, dtype) != dtype:
            raise TypeError(f"storage {key} has two types")
        offset = _integer(identifier[5][1]) if len(identifier) > 5 and identifier[5] is not None else 0
        return _Storage(key, dtype, numel, offset)
