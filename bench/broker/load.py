"""The load of `cargo xtask bench broker`: librdkafka through confluent-kafka, the same for both brokers.

    load.py topic   BOOTSTRAP TOPIC PARTITIONS FLUSH   makes a topic; FLUSH 1: each append is flushed (Apache Kafka)
    load.py produce BOOTSTRAP TOPIC ACKS COUNT BYTES   as fast as it goes
    load.py latency BOOTSTRAP TOPIC ACKS RATE SECONDS  at a fixed rate, each record sent at once
    load.py consume BOOTSTRAP TOPIC COUNT              from the beginning

Prints one JSON object with what was measured.
"""
import json
import os
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

mode, bootstrap, topic, *rest = sys.argv[1:]
COMMON = {"bootstrap.servers": bootstrap}
LIMIT = 300


class Delivered:
    """Counts answers; the first failure ends the run."""

    def __init__(self):
        self.count = 0
        self.latencies = []

    def __call__(self, error, message):
        if error:
            raise KafkaException(error)
        self.count += 1

    def timed(self, error, message):
        self(error, message)
        self.latencies.append(message.latency())


def make(partitions, flush):
    config = {"flush.messages": "1"} if flush == "1" else {}
    admin = AdminClient(COMMON)
    admin.create_topics([NewTopic(topic, int(partitions), 1, config=config)])[topic].result(LIMIT)
    return {}


def produce(acks, count, size):
    count, size = int(count), int(size)
    producer = Producer({**COMMON, "acks": acks, "linger.ms": 5, "batch.size": 1 << 17,
                         "queue.buffering.max.messages": 100_000})
    # Bytes that no batch could be squeezed by; a few different ones, so that records differ.
    values = [os.urandom(size) for _ in range(64)]
    delivered = Delivered()
    begun = time.monotonic()
    for number in range(count):
        while True:
            try:
                producer.produce(topic, values[number & 63], on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.01)
        if number & 255 == 0:
            producer.poll(0)
    left = producer.flush(LIMIT)
    if left or delivered.count != count:
        raise RuntimeError(f"{left} records left, {delivered.count} of {count} delivered")
    return {"seconds": time.monotonic() - begun, "records": count, "bytes": count * size}


def latency(acks, rate, seconds):
    producer = Producer({**COMMON, "acks": acks, "linger.ms": 0})
    value, rate, seconds = os.urandom(1000), int(rate), float(seconds)
    warm, delivered = Delivered(), Delivered()
    for _ in range(200):
        producer.produce(topic, value, on_delivery=warm)
        producer.poll(0.002)
    producer.flush(LIMIT)
    begun = time.monotonic()
    for number in range(int(rate * seconds)):
        while time.monotonic() < begun + number / rate:
            producer.poll(min(0.001, 1 / rate))
        producer.produce(topic, value, on_delivery=delivered.timed)
    if producer.flush(LIMIT):
        raise RuntimeError("not everything was delivered")
    ordered = sorted(delivered.latencies)
    at = lambda share: ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000
    return {"p50_ms": at(0.5), "p99_ms": at(0.99), "records": len(ordered)}


def consume(count):
    count = int(count)
    consumer = Consumer({**COMMON, "group.id": "bench", "enable.auto.commit": False, "check.crcs": False})
    partitions = consumer.list_topics(topic, timeout=LIMIT).topics[topic].partitions
    begun = time.monotonic()
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    read = size = 0
    while read < count:
        if time.monotonic() > begun + LIMIT:
            raise RuntimeError(f"{read} of {count} records after {LIMIT} s")
        for message in consumer.consume(1000, 1.0):
            if message.error():
                raise KafkaException(message.error())
            read += 1
            size += len(message.value())
    seconds = time.monotonic() - begun
    consumer.close()
    return {"seconds": seconds, "records": read, "bytes": size}


print(json.dumps({"topic": make, "produce": produce, "latency": latency, "consume": consume}[mode](*rest)))
