"""The native library: loaded once, its version checked once.

`_native` is written by maturin at build time: the declarations (from client-py/src/capi/) and the shared library.
"""

from __future__ import annotations

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from .errors import MoltError

try:
    from ._native import ffi, lib
except ModuleNotFoundError as missing:
    raise ImportError(
        "molt_accel was imported from its source tree, where the native library is not built. "
        "hint: pip install ./client-py"
    ) from missing

ABI = 8
"""The C ABI that this package speaks."""

if lib.molt_abi_version() != ABI:
    raise ImportError(
        f"molt_accel speaks ABI {ABI}, its native library speaks {lib.molt_abi_version()}. "
        "hint: the installation mixes two versions; reinstall molt_accel"
    )

NULL = ffi.NULL
ERROR_BYTES = 1024
"""Room for the message of a constructor that fails; the library cuts longer ones."""


class Failure:
    """Where a constructor of the C ABI writes why it failed: `lib.f(..., *failure.args)`, then `failure.error()`."""

    __slots__ = ("_outcome", "_text", "args")

    def __init__(self) -> None:
        self._outcome = ffi.new("int32_t *")
        self._text = ffi.new("char[]", ERROR_BYTES)
        self.args = (self._outcome, self._text, ERROR_BYTES)

    def error(self, entry: str | None = None) -> MoltError:
        """The exception for what the library wrote."""
        from .errors import error

        return error(self._outcome[0], ffi.string(self._text).decode("utf-8", "replace"), entry=entry)
