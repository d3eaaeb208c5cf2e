"""confluent-kafka (librdkafka) under the contract of `../contract.rs`."""
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from contract import from_hex, serve, tell, told, until_stdin_ends

mode, bootstrap, *rest = sys.argv[1:]
LIMIT = 30


def agent():
    admin = AdminClient({"bootstrap.servers": bootstrap})

    def create(topic, partitions):
        admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(LIMIT)

    def delete(topic):
        admin.delete_topics([topic])[topic].result(LIMIT)

    def topics():
        return {"topics": sorted(admin.list_topics(timeout=LIMIT).topics)}

    def describe(topic):
        found = admin.list_topics(topic, timeout=LIMIT).topics[topic]
        return {"partitions": len(found.partitions), "problem": found.error and found.error.name()}

    def groups():
        return {"groups": [group.group_id for group in admin.list_consumer_groups().result(LIMIT).valid]}

    def group(group):
        found = admin.describe_consumer_groups([group])[group].result(LIMIT)
        return {"state": found.state.name, "members": len(found.members)}

    def committed(group, topic, partitions):
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
        asked = [TopicPartition(topic, partition) for partition in partitions]
        found = consumer.committed(asked, timeout=LIMIT)
        consumer.close()
        return {"offsets": [max(partition.offset, -1) for partition in found]}

    def produce(topic, compression, acks, idempotent, records):
        producer = Producer({
            "bootstrap.servers": bootstrap,
            "compression.type": compression,
            "acks": acks,
            "enable.idempotence": idempotent,
            "linger.ms": 20,
        })
        placed = [None] * len(records)
        for at, record in enumerate(records):
            def delivered(error, message, at=at):
                placed[at] = error.str() if error else [message.partition(), message.offset() or 0]
            producer.produce(
                topic,
                value=from_hex(record["value"]),
                key=from_hex(record["key"]),
                partition=record["partition"],
                timestamp=record["timestamp"],
                headers=[(name, from_hex(value)) for name, value in record["headers"]],
                on_delivery=delivered,
            )
        left = producer.flush(LIMIT)
        failed = [place for place in placed if not isinstance(place, list)]
        if left or failed:
            raise RuntimeError(f"{left} not delivered, {failed[:3]}")
        return {"placed": placed}

    def consume(topic, count):
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False})
        partitions = consumer.list_topics(topic, timeout=LIMIT).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        records, end = [], time.monotonic() + LIMIT
        while len(records) < count and time.monotonic() < end:
            for message in consumer.consume(500, 0.2):
                if message.error():
                    raise KafkaException(message.error())
                records.append(told(*of(message)))
        consumer.close()
        return {"records": records}

    serve({"create": create, "delete": delete, "topics": topics, "describe": describe, "groups": groups,
           "group": group, "committed": committed, "produce": produce, "consume": consume})


def of(message):
    return (message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value(),
            message.headers())


def member(group, topic):
    """Reads and commits until stdin ends; rides out everything that a restart of the broker brings."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "partition.assignment.strategy": "range",
        "session.timeout.ms": 10000,
        "heartbeat.interval.ms": 300,
        "reconnect.backoff.max.ms": 500,
    })

    def now_has(consumer, partitions):
        tell(event="assigned", partitions=sorted(partition.partition for partition in partitions))

    def now_lacks(consumer, partitions):
        tell(event="revoked")

    consumer.subscribe([topic], on_assign=now_has, on_revoke=now_lacks, on_lost=now_lacks)
    ended = until_stdin_ends()
    while not ended.is_set():
        positions = {}
        for message in consumer.consume(200, 0.1):
            if message.error():
                tell(event="error", error=message.error().str())
                continue
            tell(event="record", **told(*of(message)))
            positions[message.partition()] = message.offset() + 1
        if positions:
            asked = [TopicPartition(topic, partition, offset) for partition, offset in positions.items()]
            tell(event="committing", offsets=positions)
            try:
                for partition in consumer.commit(offsets=asked, asynchronous=False):
                    if partition.error:
                        raise KafkaException(partition.error)
                tell(event="committed", offsets=positions)
            except KafkaException as error:
                tell(event="uncommitted", error=str(error))
    consumer.close()
    tell(event="left")


if mode == "agent":
    agent()
else:
    member(*rest)
