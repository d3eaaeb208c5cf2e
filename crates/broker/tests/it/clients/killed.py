"""Copies a topic in transactions while the broker is killed again and again (confluent-kafka, librdkafka)."""
import json
import sys

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition, OFFSET_BEGINNING
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap = sys.argv[1]
LIMIT = 60
RECORDS = 1200
BATCH = 10
# After so many transactions a line is told, and the broker killed.
TELL_EVERY = 15


def settings(**more):
    return {
        "bootstrap.servers": bootstrap,
        "reconnect.backoff.max.ms": 200,
        "socket.timeout.ms": 10000,
        "log_level": 0,
        # librdkafka would drop all brokers at once, and then wait for ever for a group's coordinator that it dropped.
        "metadata.recovery.strategy": "none",
        **{name.replace("_", "."): value for name, value in more.items()},
    }


def begin():
    """Starts a producer, which aborts what the one before has left open."""
    while True:
        try:
            producer = Producer(settings(transactional_id="copy", linger_ms=2))
            producer.init_transactions(LIMIT)
            return producer
        except KafkaException:
            continue


def position(consumer):
    """Returns how far committed transactions have come."""
    while True:
        try:
            offset = consumer.committed([TopicPartition("in", 0)], LIMIT)[0].offset
            return max(offset, 0)
        except KafkaException:
            continue


def read(topic, isolation):
    consumer = Consumer(settings(
        group_id="reader", enable_auto_commit=False, isolation_level=isolation, enable_partition_eof=True
    ))
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


admin = AdminClient(settings())
for future in admin.create_topics([NewTopic(name, 1, 1) for name in ("in", "out")]).values():
    future.result(LIMIT)
source = Producer(settings(enable_idempotence=True))
for number in range(RECORDS):
    source.produce("in", str(number))
assert source.flush(LIMIT) == 0
records = read("in", "read_committed")

consumer = Consumer(settings(group_id="copiers", enable_auto_commit=False))
consumer.assign([TopicPartition("in", 0)])
producer = begin()
at = position(consumer)
done = failures = 0
while at < RECORDS:
    try:
        producer.begin_transaction()
        for value in records[at:at + BATCH]:
            producer.produce("out", value)
        following = min(at + BATCH, RECORDS)
        producer.send_offsets_to_transaction(
            [TopicPartition("in", 0, following)], consumer.consumer_group_metadata(), LIMIT
        )
        producer.commit_transaction(LIMIT)
        at = following
        done += 1
        if done % TELL_EVERY == 0:
            print(f"copied {at}", flush=True)
    except KafkaException:
        # Whether it was committed, only the group's offset tells.
        failures += 1
        producer = begin()
        at = position(consumer)
consumer.close()
print(json.dumps({"copied_once": read("out", "read_committed") == records}), flush=True)
