"""aiokafka under the contract of `../contract.rs`."""
import asyncio
import sys
import threading

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError, for_code
from aiokafka.structs import OffsetAndMetadata

from contract import from_hex, serve, tell, told, until_stdin_ends

mode, bootstrap, *rest = sys.argv[1:]
LIMIT = 30


def agent():
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(2 * LIMIT)

    async def started():
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        return admin

    admin = run(started())

    def check(errors):
        for _, code, *words in errors:
            if code:
                raise for_code(code)(*words)

    def create(topic, partitions):
        check(run(admin.create_topics([NewTopic(topic, partitions, 1)])).topic_errors)

    def delete(topic):
        check(run(admin.delete_topics([topic])).topic_error_codes)

    def topics():
        return {"topics": sorted(run(admin.list_topics()))}

    def describe(topic):
        found = run(admin.describe_topics([topic]))[0]
        return {"partitions": len(found["partitions"]), "problem": None}

    def groups():
        return {"groups": [group for group, _ in run(admin.list_consumer_groups())]}

    def group(group):
        answers = run(admin.describe_consumer_groups([group]))
        _, _, state, _, _, members, *_ = answers[0].groups[0]
        return {"state": state, "members": len(members)}

    def committed(group, topic, partitions):
        asked = [TopicPartition(topic, partition) for partition in partitions]
        found = run(admin.list_consumer_group_offsets(group, partitions=asked))
        return {"offsets": [found[partition].offset for partition in asked]}

    async def produced(topic, compression, acks, idempotent, records):
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            compression_type=None if compression == "none" else compression,
            acks=acks if acks == "all" else int(acks),
            enable_idempotence=idempotent,
            linger_ms=20,
        )
        await producer.start()
        try:
            sent = [
                await producer.send(
                    topic,
                    value=from_hex(record["value"]),
                    key=from_hex(record["key"]),
                    partition=record["partition"],
                    timestamp_ms=record["timestamp"],
                    headers=[(name, from_hex(value)) for name, value in record["headers"]],
                )
                for record in records
            ]
            await producer.flush()
            # Without acknowledgements there is nothing to tell of.
            placed = [await future for future in sent]
        finally:
            await producer.stop()
        return {"placed": [[place.partition, place.offset] for place in placed if place]}

    def produce(**given):
        return run(produced(**given))

    open_producers = []

    async def transacted(topic, id, end, records):
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=id)
        await producer.start()
        await producer.begin_transaction()
        for record in records:
            await producer.send_and_wait(topic, from_hex(record["value"]), partition=record["partition"])
        if end == "open":
            open_producers.append(producer)
            return
        await (producer.commit_transaction() if end == "commit" else producer.abort_transaction())
        await producer.stop()

    def transact(**given):
        run(transacted(**given))

    def finish():
        run(open_producers.pop().commit_transaction())

    async def consumed(topic, count, isolation="read_uncommitted"):
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest",
                                    isolation_level=isolation)
        await consumer.start()
        try:
            await consumer._client.force_metadata_update()
            partitions = sorted((await known(consumer, topic)))
            consumer.assign([TopicPartition(topic, partition) for partition in partitions])
            await consumer.seek_to_beginning()
            records, end = [], loop.time() + LIMIT
            while len(records) < count and loop.time() < end:
                for some in (await consumer.getmany(timeout_ms=200)).values():
                    records += [told(*of(record)) for record in some]
        finally:
            await consumer.stop()
        return {"records": records}

    async def known(consumer, topic):
        consumer._client.add_topic(topic)
        while not consumer.partitions_for_topic(topic):
            await consumer._client.force_metadata_update()
        return consumer.partitions_for_topic(topic)

    def consume(**given):
        return run(consumed(**given))

    serve({"create": create, "delete": delete, "topics": topics, "describe": describe, "groups": groups,
           "group": group, "committed": committed, "produce": produce, "consume": consume,
           "transact": transact, "finish": finish})
    run(admin.close())


def of(record):
    return (record.partition, record.offset, record.timestamp, record.key, record.value, record.headers)


class Told(ConsumerRebalanceListener):
    async def on_partitions_assigned(self, assigned):
        tell(event="assigned", partitions=sorted(partition.partition for partition in assigned))

    async def on_partitions_revoked(self, revoked):
        tell(event="revoked")


async def member(group, topic):
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        partition_assignment_strategy=(RangePartitionAssignor,),
        session_timeout_ms=10000,
        heartbeat_interval_ms=300,
        metadata_max_age_ms=1000,
    )
    consumer.subscribe([topic], listener=Told())
    await consumer.start()
    ended = until_stdin_ends()
    while not ended.is_set():
        for partition, records in (await consumer.getmany(timeout_ms=200)).items():
            for record in records:
                tell(event="record", **told(*of(record)))
            offset = records[-1].offset + 1
            try:
                await consumer.commit({partition: OffsetAndMetadata(offset, "")})
                tell(event="committed", offsets={partition.partition: offset})
            except KafkaError as error:
                tell(event="uncommitted", error=str(error))
    await consumer.stop()
    tell(event="left")


if mode == "agent":
    agent()
else:
    asyncio.run(member(*rest))
