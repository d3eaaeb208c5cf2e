"""kafka-python under the contract of `../contract.rs`."""
import sys
import time

from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from contract import from_hex, serve, tell, told, until_stdin_ends

mode, bootstrap, *rest = sys.argv[1:]
LIMIT = 30


def agent():
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)

    def create(topic, partitions):
        admin.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1}})

    def delete(topic):
        admin.delete_topics([topic])

    def topics():
        return {"topics": sorted(admin.list_topics())}

    def describe(topic):
        found = admin.describe_topics([topic])[0]
        return {"partitions": len(found["partitions"]), "problem": None}

    def groups():
        return {"groups": [group["group_id"] for group in admin.list_groups()]}

    def group(group):
        found = admin.describe_groups([group])[group]
        return {"state": found["group_state"], "members": len(found["members"])}

    def committed(group, topic, partitions):
        asked = [TopicPartition(topic, partition) for partition in partitions]
        found = admin.list_group_offsets({group: asked})[group]
        return {"offsets": [found[partition].offset for partition in asked]}

    def produce(topic, compression, acks, idempotent, records):
        producer = KafkaProducer(
            bootstrap_servers=bootstrap,
            compression_type=None if compression == "none" else compression,
            acks=acks if acks == "all" else int(acks),
            enable_idempotence=idempotent,
            linger_ms=20,
        )
        sent = [
            producer.send(
                topic,
                value=from_hex(record["value"]),
                key=from_hex(record["key"]),
                partition=record["partition"],
                timestamp_ms=record["timestamp"],
                headers=[(name, from_hex(value)) for name, value in record["headers"]],
            )
            for record in records
        ]
        producer.flush(LIMIT)
        placed = [future.get(LIMIT) for future in sent]
        producer.close()
        return {"placed": [[place.partition, place.offset] for place in placed]}

    open_producers = []

    def transact(topic, id, end, records):
        producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=id)
        producer.init_transactions()
        producer.begin_transaction()
        for record in records:
            producer.send(topic, from_hex(record["value"]), partition=record["partition"])
        producer.flush(LIMIT)
        if end == "open":
            open_producers.append(producer)
            return
        if end == "commit":
            producer.commit_transaction()
        else:
            producer.abort_transaction()
        producer.close()

    def finish():
        open_producers.pop().commit_transaction()

    def consume(topic, count, isolation="read_uncommitted"):
        consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False,
                                 auto_offset_reset="earliest", isolation_level=isolation)
        partitions = consumer.partitions_for_topic(topic)
        consumer.assign([TopicPartition(topic, partition) for partition in partitions])
        consumer.seek_to_beginning()
        records, end = [], time.monotonic() + LIMIT
        while len(records) < count and time.monotonic() < end:
            for some in consumer.poll(200).values():
                records += [told(*of(record)) for record in some]
        consumer.close()
        return {"records": records}

    serve({"create": create, "delete": delete, "topics": topics, "describe": describe, "groups": groups,
           "group": group, "committed": committed, "produce": produce, "consume": consume,
           "transact": transact, "finish": finish})


def of(record):
    return (record.partition, record.offset, record.timestamp, record.key, record.value, record.headers)


class Told(ConsumerRebalanceListener):
    def on_partitions_assigned(self, assigned):
        tell(event="assigned", partitions=sorted(partition.partition for partition in assigned))

    def on_partitions_revoked(self, revoked):
        tell(event="revoked")


def member(group, topic):
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        partition_assignment_strategy=(RangePartitionAssignor,),
        session_timeout_ms=10000,
        heartbeat_interval_ms=300,
    )
    consumer.subscribe([topic], listener=Told())
    ended = until_stdin_ends()
    while not ended.is_set():
        # kafka-python 3.0.12 forgets the assignment of a rejoin that only new metadata has caused, when a poll ends between the
        # request to sync and its answer; the first poll is long enough for that rejoin to be over.
        for partition, records in consumer.poll(2000).items():
            for record in records:
                tell(event="record", **told(*of(record)))
            offset = records[-1].offset + 1
            try:
                consumer.commit({partition: OffsetAndMetadata(offset, "", -1)})
                tell(event="committed", offsets={partition.partition: offset})
            except KafkaError as error:
                tell(event="uncommitted", error=str(error))
    consumer.close()
    tell(event="left")


if mode == "agent":
    agent()
else:
    member(*rest)
