"""Copies a topic in transactions, some of which are aborted, with confluent-kafka (librdkafka)."""
import json
import sys

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition, OFFSET_BEGINNING
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap = sys.argv[1]
LIMIT = 30
RECORDS = 200


def check(delivered):
    return lambda error, message: delivered.append(error)


def read(topic, isolation):
    """Returns all values of a topic, up to its end for readers of this isolation."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": "reader",
        "enable.auto.commit": False,
        "isolation.level": isolation,
        "enable.partition.eof": True,
    })
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    values = []
    while True:
        message = consumer.poll(LIMIT)
        if message is None:
            raise RuntimeError(f"{topic} does not end")
        if message.error():
            break  # the end
        values.append(message.value().decode())
    consumer.close()
    return values


admin = AdminClient({"bootstrap.servers": bootstrap})
for future in admin.create_topics([NewTopic(name, 1, 1) for name in ("in", "out", "zombie")]).values():
    future.result(LIMIT)

source = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
for number in range(RECORDS):
    source.produce("in", str(number))
assert source.flush(LIMIT) == 0

copier = Producer({"bootstrap.servers": bootstrap, "transactional.id": "copy", "linger.ms": 5})
copier.init_transactions(LIMIT)
consumer = Consumer({
    "bootstrap.servers": bootstrap,
    "group.id": "copiers",
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
})
consumer.subscribe(["in"])
copied = 0
rounds = 0
while copied < RECORDS:
    messages = [message for message in consumer.consume(17, 1.0) if not message.error()]
    if not messages:
        continue
    copier.begin_transaction()
    for message in messages:
        copier.produce("out", message.value())
    copier.send_offsets_to_transaction(
        consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), LIMIT
    )
    rounds += 1
    if rounds % 3 == 1:
        # What is not sent yet would be dropped by the client itself.
        assert copier.flush(LIMIT) == 0
        copier.abort_transaction(LIMIT)
        for partition in consumer.committed(consumer.assignment(), LIMIT):
            offset = partition.offset if partition.offset >= 0 else OFFSET_BEGINNING
            consumer.seek(TopicPartition("in", partition.partition, offset))
    else:
        copier.commit_transaction(LIMIT)
        copied += len(messages)
committed = consumer.committed(consumer.assignment(), LIMIT)[0].offset
consumer.close()

zombie = Producer({"bootstrap.servers": bootstrap, "transactional.id": "undead"})
zombie.init_transactions(LIMIT)
zombie.begin_transaction()
zombie.produce("zombie", "old")
zombie.flush(LIMIT)
heir = Producer({"bootstrap.servers": bootstrap, "transactional.id": "undead"})
heir.init_transactions(LIMIT)
try:
    zombie.commit_transaction(LIMIT)
    fenced = "nothing"
except KafkaException as error:
    fenced = "fatal" if error.args[0].fatal() else error.args[0].name()
heir.begin_transaction()
heir.produce("zombie", "new")
heir.commit_transaction(LIMIT)

print(json.dumps({
    "copied": read("out", "read_committed") == [str(number) for number in range(RECORDS)],
    "aborted_seen_by_all": len(read("out", "read_uncommitted")) > RECORDS,
    "committed": committed,
    "fenced": fenced,
    "zombie": read("zombie", "read_committed"),
}, sort_keys=True))
