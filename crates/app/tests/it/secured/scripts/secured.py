"""Writes a record as a user and reads it: `secured.py CLIENT BOOTSTRAP PROTOCOL MECHANISM USER PASSWORD [CA [CERTIFICATE KEY]]`.

Says `read`, or `refused` when the broker does not believe the user, or does not let it.
"""

import asyncio
import ssl
import sys

client, bootstrap, protocol, mechanism, user, password, *files = sys.argv[1:]
ca = files[0] if files else None
identity = files[1:3] if len(files) > 2 else None
TOPIC = "orders"
LIMIT = 30.0


def confluent():
    from confluent_kafka import Consumer, KafkaError, Producer

    refusals = []
    config = {
        "bootstrap.servers": bootstrap,
        "security.protocol": protocol,
        "error_cb": lambda error: refusals.append(error),
    }
    if protocol.startswith("SASL"):
        config.update({"sasl.mechanisms": mechanism, "sasl.username": user, "sasl.password": password})
    if ca:
        config["ssl.ca.location"] = ca
    if identity:
        config.update({"ssl.certificate.location": identity[0], "ssl.key.location": identity[1]})
    told = []
    producer = Producer({**config, "message.timeout.ms": 20000})
    producer.produce(TOPIC, b"v", on_delivery=lambda error, message: told.append((error, message)))
    refused = (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    while not told:
        producer.poll(0.1)
        if any(error.code() in refused for error in refusals):
            return "refused"
    error, message = told[0]
    if error is not None:
        return "refused" if error.code() in refused else f"not written: {error}"
    offset = message.offset()
    from confluent_kafka import TopicPartition

    consumer = Consumer({**config, "group.id": f"secured-{offset}"})
    consumer.assign([TopicPartition(TOPIC, 0, offset)])
    record = consumer.poll(LIMIT)
    consumer.close()
    return "read" if record is not None and record.error() is None else f"not read: {record and record.error()}"


def kafka_python():
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.errors import KafkaError

    config = {"bootstrap_servers": bootstrap, "security_protocol": protocol}
    if protocol.startswith("SASL"):
        config.update({"sasl_mechanism": mechanism, "sasl_plain_username": user, "sasl_plain_password": password})
    if ca:
        config.update({"ssl_cafile": ca})
    if identity:
        config.update({"ssl_certfile": identity[0], "ssl_keyfile": identity[1]})
    try:
        producer = KafkaProducer(**config)
        offset = producer.send(TOPIC, b"v").get(LIMIT).offset
        consumer = KafkaConsumer(**config, consumer_timeout_ms=int(LIMIT * 1000))
    except KafkaError as error:
        return "refused" if "uthenti" in repr(error) or "Authoriz" in repr(error) else f"failed: {error!r}"
    consumer.assign([TopicPartition(TOPIC, 0)])
    consumer.seek(TopicPartition(TOPIC, 0), offset)
    for _ in consumer:
        return "read"
    return "not read"


async def aiokafka():
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
    from aiokafka.errors import KafkaError

    config = {"bootstrap_servers": bootstrap, "security_protocol": protocol}
    if protocol.startswith("SASL"):
        config.update({"sasl_mechanism": mechanism, "sasl_plain_username": user, "sasl_plain_password": password})
    if ca:
        context = ssl.create_default_context(cafile=ca)
        if identity:
            context.load_cert_chain(*identity)
        config["ssl_context"] = context
    producer = AIOKafkaProducer(**config)
    try:
        await producer.start()
    except KafkaError:
        # It says no more than that it cannot connect; the broker's side is checked by others.
        await producer.stop()
        return "refused"
    offset = (await producer.send_and_wait(TOPIC, b"v")).offset
    await producer.stop()
    consumer = AIOKafkaConsumer(**config)
    await consumer.start()
    consumer.assign([TopicPartition(TOPIC, 0)])
    consumer.seek(TopicPartition(TOPIC, 0), offset)
    await asyncio.wait_for(consumer.getone(), LIMIT)
    await consumer.stop()
    return "read"


run = {"confluent": confluent, "kafka-python": kafka_python, "aiokafka": lambda: asyncio.run(aiokafka())}
print(run[client]())
