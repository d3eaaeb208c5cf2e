"""What both Python scripts share: reading commands, telling events. See `../contract.rs`."""
import json
import sys
import threading
import time


def tell(**event):
    """Prints one line of JSON with the machine's monotonic time in microseconds."""
    event["at"] = time.monotonic_ns() // 1000
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def serve(commands):
    """Carries out one command a line until stdin ends."""
    for line in sys.stdin:
        command = json.loads(line)
        try:
            tell(**(commands[command.pop("do")](**command) or {}))
        except Exception as error:  # whatever it is, the test wants to read it
            tell(error=f"{type(error).__name__}: {error}")


def until_stdin_ends():
    """Returns an event that is set when the test closes stdin."""
    ended = threading.Event()

    def watch():
        sys.stdin.read()
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    return ended


def from_hex(text):
    return None if text is None else bytes.fromhex(text)


def to_hex(value):
    return None if value is None else value.hex()


def told(partition, offset, timestamp, key, value, headers):
    """Returns a consumed record in the contract's form."""
    return {
        "partition": partition,
        "offset": offset,
        "timestamp": timestamp,
        "key": to_hex(key),
        "value": to_hex(value),
        "headers": [[name, to_hex(value)] for name, value in headers or []],
    }
