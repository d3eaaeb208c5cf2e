"""Changes the members of a group one by one from the classic protocol to that of KIP-848, and back (confluent-kafka)."""
import json
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap = sys.argv[1]
LIMIT = 120
PARTITIONS = 6
GROUP = "rolling"

lock = threading.Lock()
owner = {}
seen = {}
twice = []
sent = [0] * PARTITIONS
done = threading.Event()


class Member(threading.Thread):
    def __init__(self, name, **settings):
        super().__init__(daemon=True)
        self.leaving = threading.Event()
        self.member = name
        self.consumer = Consumer({
            "bootstrap.servers": bootstrap,
            "group.id": GROUP,
            "client.id": name,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 0,
            **{key.replace("_", "."): value for key, value in settings.items()},
        })
        self.start()

    def assigned(self, _, partitions):
        with lock:
            for one in partitions:
                if owner.get(one.partition, self.member) != self.member:
                    twice.append((one.partition, owner[one.partition], self.member))
                owner[one.partition] = self.member

    def revoked(self, consumer, partitions):
        positions = [one for one in consumer.position(partitions) if one.offset >= 0]
        if positions:
            consumer.commit(offsets=positions, asynchronous=False)
        with lock:
            for one in partitions:
                owner.pop(one.partition, None)

    def lost(self, _, partitions):
        with lock:
            twice.append((self.member, "lost", [one.partition for one in partitions]))
            for one in partitions:
                owner.pop(one.partition, None)

    def run(self):
        self.consumer.subscribe(["t"], on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.lost)
        while not self.leaving.is_set():
            message = self.consumer.poll(0.05)
            if message is None:
                continue
            if message.error():
                raise KafkaException(message.error())
            place = (message.partition(), message.offset())
            with lock:
                seen[place] = seen.get(place, 0) + 1
        self.consumer.close()

    def leave(self):
        self.leaving.set()
        self.join(LIMIT)


def classic(name, strategy):
    return Member(name, group_protocol="classic", partition_assignment_strategy=strategy,
                  heartbeat_interval_ms=200, session_timeout_ms=30000)


def modern(name):
    return Member(name, group_protocol="consumer")


def until(what, condition):
    ends = time.monotonic() + LIMIT
    while True:
        with lock:
            if condition():
                return
            state = dict(owner)
        if time.monotonic() > ends:
            raise RuntimeError(f"not in time: {what}; owners {state}, twice {twice}")
        time.sleep(0.02)


def shared_by(*names):
    until(f"shared by {names}", lambda: len(owner) == PARTITIONS and set(owner.values()) == set(names))
    kinds.append(kind())


def kind():
    listed = admin.list_consumer_groups(request_timeout=LIMIT).result(LIMIT)
    return [one.type.name.lower() for one in listed.valid if one.group_id == GROUP][0]


def produce():
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 1, "enable.idempotence": True})
    number = 0
    while not done.is_set():
        sent[number % PARTITIONS] += 1
        producer.produce("t", str(number), partition=number % PARTITIONS)
        producer.poll(0.005)
        number += 1
    assert producer.flush(LIMIT) == 0


admin = AdminClient({"bootstrap.servers": bootstrap})
for future in admin.create_topics([NewTopic("t", PARTITIONS, 1)]).values():
    future.result(LIMIT)
kinds = []
producing = threading.Thread(target=produce, daemon=True)
producing.start()

a, b = classic("a", "cooperative-sticky"), classic("b", "cooperative-sticky")
shared_by("a", "b")
c = modern("c")
shared_by("a", "b", "c")
a.leave()
d = modern("d")
shared_by("b", "c", "d")
b.leave()
shared_by("c", "d")
e = classic("e", "range")
shared_by("c", "d", "e")
c.leave()
f = classic("f", "range")
shared_by("d", "e", "f")
d.leave()
shared_by("e", "f")
done.set()
producing.join(LIMIT)
until("all records", lambda: len(seen) == sum(sent))
e.leave()
f.leave()
print(json.dumps({
    "kinds": kinds,
    "assigned_twice": twice,
    "read_once": all(count == 1 for count in seen.values()),
    "read_all": all(len([p for p, _ in seen if p == at]) == count for at, count in enumerate(sent)),
}), flush=True)
