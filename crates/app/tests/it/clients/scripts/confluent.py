"""confluent-kafka (librdkafka) under the contract of `../contract.rs`."""
import os
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from contract import from_hex, serve, tell, told, until_stdin_ends

mode, bootstrap, *rest = sys.argv[1:]
LIMIT = 30


def agent():
    admin = AdminClient({"bootstrap.servers": bootstrap})

    def create(topic, partitions, config=None):
        admin.create_topics([NewTopic(topic, partitions, 1, config=config or {})])[topic].result(LIMIT)

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

    open_producers = []

    def transact(topic, id, end, records):
        producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": id})
        producer.init_transactions(LIMIT)
        producer.begin_transaction()
        for record in records:
            producer.produce(topic, from_hex(record["value"]), partition=record["partition"])
        if producer.flush(LIMIT):
            raise RuntimeError("not all delivered")
        if end == "commit":
            producer.commit_transaction(LIMIT)
        elif end == "abort":
            producer.abort_transaction(LIMIT)
        else:
            open_producers.append(producer)

    def finish():
        open_producers.pop().commit_transaction(LIMIT)

    def ends(topic, partitions):
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none"})
        asked = [TopicPartition(topic, partition) for partition in partitions]
        found = [consumer.get_watermark_offsets(partition, timeout=LIMIT)[1] for partition in asked]
        consumer.close()
        return {"offsets": found}

    def consume(topic, count, value_bytes_max=None, isolation="read_committed"):
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False,
                             "isolation.level": isolation})
        partitions = consumer.list_topics(topic, timeout=LIMIT).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        records, end = [], time.monotonic() + LIMIT
        while len(records) < count and time.monotonic() < end:
            for message in consumer.consume(500, 0.2):
                if message.error():
                    raise KafkaException(message.error())
                records.append(told(*of(message, value_bytes_max)))
        consumer.close()
        return {"records": records}

    def read(topic, isolation):
        """Reads everything that is there now and may be seen."""
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False,
                             "enable.partition.eof": True, "isolation.level": isolation})
        partitions = consumer.list_topics(topic, timeout=LIMIT).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        records, left, end = [], set(partitions), time.monotonic() + LIMIT
        while left:
            if time.monotonic() > end:
                raise RuntimeError(f"partitions {left} do not end")
            for message in consumer.consume(500, 0.2):
                if not message.error():
                    records.append(told(*of(message)))
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
                else:
                    raise KafkaException(message.error())
        consumer.close()
        return {"records": records}

    serve({"create": create, "delete": delete, "topics": topics, "describe": describe, "groups": groups,
           "group": group, "committed": committed, "ends": ends, "produce": produce, "consume": consume, "read": read,
           "transact": transact, "finish": finish})


def of(message, value_bytes_max=None):
    value = message.value()
    value = value if value is None else value[:value_bytes_max]
    return (message.partition(), message.offset(), message.timestamp()[1], message.key(), value,
            message.headers())


def producer(topic, partitions, name):
    """Produces `name-0`, `name-1`, ... round robin until stdin ends, and tells where each was put."""
    failures = []
    producer = Producer({
        "bootstrap.servers": bootstrap,
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 5,
        "queue.buffering.max.messages": 2000,
        "message.timeout.ms": 0,  # it never gives up
        "reconnect.backoff.max.ms": 500,
        "error_cb": lambda error: failures.append(error) if error.fatal() else None,
    })
    acked = []

    def delivered(number):
        def told(error, message):
            if error:
                tell(event="failed", number=number, error=error.str())
            else:
                acked.append([number, message.partition(), message.offset()])
        return told

    ended, number = until_stdin_ends(), 0
    while not ended.is_set() and not failures:
        for _ in range(10):
            value = f"{name}-{number}".encode().ljust(400, b".")
            try:
                producer.produce(topic, value, partition=number % int(partitions), on_delivery=delivered(number))
            except BufferError:
                break  # the broker is away
            number += 1
        time.sleep(0.005)  # about 2000 records a second
        producer.poll(0)
        if acked:
            tell(event="acked", places=acked)
            acked.clear()
    left = producer.flush(LIMIT)
    tell(event="acked", places=acked)
    tell(event="ended", sent=number, left=left, failures=[failure.str() for failure in failures])


def member(group, topic, value_bytes_max=None):
    """Reads and commits until stdin ends; rides out everything that a restart of the broker brings."""
    protocol = os.environ.get("NUNCIO_GROUP_PROTOCOL", "classic")
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "reconnect.backoff.max.ms": 500,
    } | ({  # old clients know of no other protocol, and not of the setting either
        "partition.assignment.strategy": "range",
        "session.timeout.ms": 10000,
        "heartbeat.interval.ms": 300,
    } if protocol == "classic" else {
        "group.protocol": protocol,
        # An assignor that is named is the broker's.
        "group.remote.assignor": os.environ.get("NUNCIO_GROUP_ASSIGNOR", "uniform"),
    }))
    owned = set()

    def now_has(consumer, partitions):
        if protocol == "classic":
            owned.clear()
        owned.update((partition.topic, partition.partition) for partition in partitions)
        tell(event="assigned", partitions=sorted(partition for _, partition in owned))

    def now_lacks(consumer, partitions):
        owned.difference_update((partition.topic, partition.partition) for partition in partitions)
        if protocol == "classic" or not owned:
            tell(event="revoked")
        else:
            tell(event="assigned", partitions=sorted(partition for _, partition in owned))

    consumer.subscribe([topic], on_assign=now_has, on_revoke=now_lacks, on_lost=now_lacks)
    ended = until_stdin_ends()
    while not ended.is_set():
        places = {}
        for message in consumer.consume(200, 0.1):
            if message.error():
                tell(event="error", error=message.error().str())
                continue
            tell(event="record", **told(*of(message, value_bytes_max and int(value_bytes_max))))
            places[message.topic(), message.partition()] = message.offset() + 1
        if places:
            asked = [TopicPartition(*place, offset) for place, offset in places.items()]
            positions = {partition: offset for (_, partition), offset in places.items()}
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


{"agent": agent, "producer": producer, "member": member}[mode](*rest)
