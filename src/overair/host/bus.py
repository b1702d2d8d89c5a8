"""One question to the system bus of a Linux machine (D-Bus specification, sections "Authentication Protocol" and
"Message Protocol").

The bytes are put together and taken apart by jeepney; the socket is ours, because no step may wait for longer than
the question as a whole may take.
"""

import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jeepney import Message

LIMIT_S: Final = 1.0
MAX_ANSWER_BYTES: Final = 65_536
_HELLO: Final = 1
_QUESTION: Final = 2
_SILENT: Final = "the system bus gave no answer within {:g} s"
_ABSENT: Final = frozenset({"ServiceUnknown", "NameHasNoOwner"})


@dataclass(frozen=True, slots=True)
class Property:
    """A property of a service on the bus; `who` is the name of the service for people."""

    who: str
    service: str
    path: str
    interface: str
    name: str


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Nobody told; `why` is half a sentence for people."""

    why: str


def ask(wanted: Property, *, limit_s: float = LIMIT_S) -> bool | int | NoAnswer:
    """The value of a property that is a truth or a number.

    No service is started for it. The bus is the one that DBUS_SYSTEM_BUS_ADDRESS names, or the machine's own.

    Args:
        wanted: Which property of which service.
        limit_s: The longest that everything may take, in seconds.
    """
    if sys.platform != "linux":
        system = {"win32": "Windows", "darwin": "macOS"}.get(sys.platform, sys.platform)
        return NoAnswer(f"Overair cannot ask {system}")
    try:
        return _read(wanted, _exchange(wanted, time.monotonic() + limit_s))
    except TimeoutError:
        return NoAnswer(_SILENT.format(limit_s))
    except (FileNotFoundError, ConnectionRefusedError):
        return NoAnswer("no system bus runs here")
    except OSError as error:
        return NoAnswer(f"the system bus does not answer: {error.strerror or error}")
    except Exception:  # noqa: BLE001 - for damaged bytes jeepney raises whatever it stumbles over
        return NoAnswer("what the system bus says cannot be read")


def _exchange(wanted: Property, deadline: float) -> "Message":
    from jeepney import DBusAddress, MessageFlag, find_system_bus, message_bus, new_method_call
    from jeepney.auth import BEGIN, Authenticator

    address = DBusAddress(wanted.path, wanted.service, "org.freedesktop.DBus.Properties")
    question = new_method_call(address, "Get", "ss", (wanted.interface, wanted.name))
    question.header.flags |= MessageFlag.no_auto_start
    with socket.socket(socket.AF_UNIX) as line:
        _limit(line, deadline)
        line.connect(find_system_bus())
        login = Authenticator()
        for words in login:
            _limit(line, deadline)
            line.sendall(words)
            login.feed(_receive(line, deadline))
        _limit(line, deadline)
        line.sendall(BEGIN + message_bus.Hello().serialise(_HELLO) + question.serialise(_QUESTION))
        return _answer(line, deadline)


def _answer(line: socket.socket, deadline: float) -> "Message":
    from jeepney import HeaderFields, Parser

    parser = Parser()
    taken = 0
    while taken < MAX_ANSWER_BYTES:
        data = _receive(line, deadline)
        taken += len(data)
        for message in parser.feed(data):
            if message.header.fields.get(HeaderFields.reply_serial) == _QUESTION:
                return message
    raise ValueError("too long")


def _receive(line: socket.socket, deadline: float) -> bytes:
    _limit(line, deadline)
    data = line.recv(4096)
    if not data:
        raise ConnectionResetError("it closed the connection")
    return data


def _limit(line: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    line.settimeout(left)


def _read(wanted: Property, message: "Message") -> bool | int | NoAnswer:
    from jeepney import HeaderFields, MessageType

    if message.header.message_type is MessageType.error:
        kind = str(message.header.fields.get(HeaderFields.error_name, "")).rpartition(".")[2]
        absent = kind in _ABSENT
        return NoAnswer(f"{wanted.who} does not run here" if absent else f"{wanted.who} does not say")
    ((_, value),) = message.body
    return value if isinstance(value, int) else NoAnswer(f"{wanted.who} does not say")
