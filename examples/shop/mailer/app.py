"""Writes a mail for what happens in the shop, and keeps them in an outbox.

    POST /on/EVENT          an event is pushed by Nuncio: the body is the record's value
    GET  /outbox[?order=ID] shows the mails, the newest last
    GET  /healthz           says that the service works
"""

import json
import logging
import os
import signal
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from outbox import Outbox

BODY_BYTES_MAX = 1024 * 1024
IDLE_SECONDS_MAX = 60

SUBJECTS = {
    "orders.placed": "We have got your order",
    "inventory.reserved": "Your order is on its way",
    "inventory.sold-out": "We are sorry: your order is sold out",
}

log = logging.getLogger("mailer")


class Refusal(Exception):
    """An answer that is not a success."""

    def __init__(self, status: HTTPStatus, reason: str):
        super().__init__(reason)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS_MAX
    outbox: Outbox

    def do_GET(self):
        self.answer(self.get)

    def do_POST(self):
        self.answer(self.post)

    def get(self):
        url = urlsplit(self.path)
        if url.path == "/healthz":
            return {"status": "ok"}
        if url.path == "/outbox":
            order = parse_qs(url.query).get("order", [None])[0]
            return {"mails": self.outbox.mails(order)}
        raise Refusal(HTTPStatus.NOT_FOUND, f"no GET {url.path} here")

    def post(self):
        body = self.body()  # read first: what is left of it would be taken for the next request
        event = self.path.removeprefix("/on/")
        if event not in SUBJECTS:
            raise Refusal(HTTPStatus.NOT_FOUND, f"no POST {self.path} here")
        try:
            order = json.loads(body)
            order_id, customer = str(order["order_id"]), str(order["customer"])
        except (ValueError, TypeError, KeyError) as error:
            # Trying again would not help, and 400 says so.
            raise Refusal(HTTPStatus.BAD_REQUEST, f"the event cannot be read: {error!r}") from error

        # Records may come again: when our answer got lost, or when they were published twice. One event makes one mail.
        mail = {"id": f"{event}/{order_id}", "order_id": order_id, "to": customer, "subject": SUBJECTS[event]}
        new = self.outbox.add(mail)
        log.info("%s %s to %s", "mail" if new else "again", mail["id"], customer)
        return {"mail": mail["id"], "new": new}

    def body(self) -> bytes:
        try:
            length = int(self.headers["content-length"])
        except (TypeError, ValueError):
            self.close_connection = True
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "a content-length is needed") from None
        if not 0 <= length <= BODY_BYTES_MAX:
            self.close_connection = True
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {BODY_BYTES_MAX} bytes")
        return self.rfile.read(length)

    def answer(self, work):
        status = HTTPStatus.OK
        try:
            result = work()
        except Refusal as refusal:
            status, result = refusal.status, {"error": str(refusal)}
        except Exception:
            # A 5xx makes the sender try again.
            log.exception("%s %s failed", self.command, self.path)
            status, result = HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "something went wrong here"}
        body = json.dumps(result).encode() + b"\n"
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """The gateway writes the access log."""


class Server(ThreadingHTTPServer):
    daemon_threads = True  # idle connections do not hold up the end


def main():
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    address = (os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8080")))
    Handler.outbox = Outbox(Path(os.environ.get("DATA_DIR", "data")) / "outbox.jsonl")
    server = Server(address, Handler)

    def stop(number, _frame):
        log.info("stopping after %s", signal.Signals(number).name)
        # `shutdown` waits for `serve_forever`, which runs in this thread.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log.info("listening on %s:%s with %s mails", *address, len(Handler.outbox))
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    Handler.outbox.close()


if __name__ == "__main__":
    main()
