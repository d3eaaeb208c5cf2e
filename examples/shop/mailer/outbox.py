"""Mails as lines of JSON in a file that only grows."""

import json
import os
import threading
from pathlib import Path

SHOWN_MAX = 100


class Outbox:
    """Keeps each mail once. Safe to use from many threads."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._mails = {}
        self._file = path.open("a+b")
        self._file.seek(0)
        content = self._file.read()
        # A line without its end was being written when the machine went down; its event comes again.
        complete = content.rfind(b"\n") + 1
        self._file.truncate(complete)
        for line in content[:complete].splitlines():
            mail = json.loads(line)
            self._mails[mail["id"]] = mail

    def __len__(self):
        return len(self._mails)

    def add(self, mail: dict) -> bool:
        """Keeps a mail, and returns whether it is a new one. It is on disk when this returns."""
        with self._lock:
            if mail["id"] in self._mails:
                return False
            self._file.write(json.dumps(mail).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._mails[mail["id"]] = mail
            return True

    def mails(self, order_id: str | None = None) -> list[dict]:
        """Returns the newest mails, of one order or of all."""
        with self._lock:
            mails = [mail for mail in self._mails.values() if order_id in (None, mail["order_id"])]
        return mails[-SHOWN_MAX:]

    def close(self):
        with self._lock:
            self._file.close()
