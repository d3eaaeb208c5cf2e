import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.HashSet;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Apache Kafka's Java client under the contract of {@code ../contract.rs}. */
public final class JavaClient {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final long LIMIT_SECONDS = 30;
    private static String bootstrap;

    public static void main(String[] args) throws Exception {
        bootstrap = args[1];
        if (args[0].equals("agent")) {
            agent();
        } else {
            member(args[2], args[3]);
        }
    }

    private static void agent() throws Exception {
        try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", bootstrap))) {
            BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                ObjectNode answer = JSON.createObjectNode();
                try {
                    carryOut(admin, JSON.readTree(line), answer);
                } catch (Exception error) {
                    answer.put("error", error.toString());
                }
                tell(answer);
            }
        }
    }

    private static void carryOut(Admin admin, JsonNode command, ObjectNode answer) throws Exception {
        String topic = command.path("topic").asText();
        String group = command.path("group").asText();
        switch (command.get("do").asText()) {
            case "create" -> {
                NewTopic made = new NewTopic(topic, command.get("partitions").asInt(), (short) 1);
                admin.createTopics(List.of(made)).all().get(LIMIT_SECONDS, TimeUnit.SECONDS);
            }
            case "delete" -> admin.deleteTopics(List.of(topic)).all().get(LIMIT_SECONDS, TimeUnit.SECONDS);
            case "topics" -> {
                ArrayNode names = answer.putArray("topics");
                admin.listTopics().names().get().stream().sorted().forEach(names::add);
            }
            case "describe" -> {
                var found = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
                answer.put("partitions", found.partitions().size());
            }
            case "groups" -> {
                ArrayNode names = answer.putArray("groups");
                admin.listGroups().all().get().forEach(found -> names.add(found.groupId()));
            }
            case "group" -> {
                var found = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
                answer.put("state", found.groupState().toString());
                answer.put("members", found.members().size());
            }
            case "committed" -> {
                var found = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
                ArrayNode offsets = answer.putArray("offsets");
                for (JsonNode partition : command.get("partitions")) {
                    OffsetAndMetadata offset = found.get(new TopicPartition(topic, partition.asInt()));
                    offsets.add(offset == null ? -1 : offset.offset());
                }
            }
            case "produce" -> produce(topic, command, answer);
            case "consume" -> consume(topic, command, answer);
            case "transact" -> transact(topic, command);
            case "finish" -> open.commitTransaction();
            default -> throw new IllegalArgumentException("unknown command");
        }
    }

    private static void produce(String topic, JsonNode command, ObjectNode answer) throws Exception {
        Properties options = new Properties();
        options.put("bootstrap.servers", bootstrap);
        options.put("compression.type", command.get("compression").asText());
        options.put("acks", command.get("acks").asText());
        options.put("enable.idempotence", command.get("idempotent").asText());
        options.put("linger.ms", "20");
        var bytes = new ByteArraySerializer();
        try (var producer = new KafkaProducer<byte[], byte[]>(options, bytes, bytes)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (JsonNode record : command.get("records")) {
                List<Header> headers = new ArrayList<>();
                for (JsonNode header : record.get("headers")) {
                    headers.add(new RecordHeader(header.get(0).asText(), fromHex(header.get(1))));
                }
                sent.add(producer.send(new ProducerRecord<>(
                        topic,
                        record.get("partition").asInt(),
                        record.get("timestamp").asLong(),
                        fromHex(record.get("key")),
                        fromHex(record.get("value")),
                        headers)));
            }
            producer.flush();
            ArrayNode placed = answer.putArray("placed");
            for (Future<RecordMetadata> one : sent) {
                RecordMetadata place = one.get(LIMIT_SECONDS, TimeUnit.SECONDS);
                placed.addArray().add(place.partition()).add(place.offset());
            }
        }
    }

    /** The producer whose transaction was left open. */
    private static KafkaProducer<byte[], byte[]> open;

    private static void transact(String topic, JsonNode command) throws Exception {
        Properties options = new Properties();
        options.put("bootstrap.servers", bootstrap);
        options.put("transactional.id", command.get("id").asText());
        var bytes = new ByteArraySerializer();
        var producer = new KafkaProducer<byte[], byte[]>(options, bytes, bytes);
        producer.initTransactions();
        producer.beginTransaction();
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (JsonNode record : command.get("records")) {
            int partition = record.get("partition").asInt();
            sent.add(producer.send(new ProducerRecord<>(topic, partition, null, fromHex(record.get("value")))));
        }
        for (Future<RecordMetadata> one : sent) {
            one.get(LIMIT_SECONDS, TimeUnit.SECONDS);
        }
        switch (command.get("end").asText()) {
            case "commit" -> producer.commitTransaction();
            case "abort" -> producer.abortTransaction();
            default -> {
                open = producer;
                return;
            }
        }
        producer.close();
    }

    private static void consume(String topic, JsonNode command, ObjectNode answer) {
        int count = command.get("count").asInt();
        Properties options = new Properties();
        options.put("isolation.level", command.path("isolation").asText("read_uncommitted"));
        options.put("bootstrap.servers", bootstrap);
        options.put("enable.auto.commit", "false");
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<byte[], byte[]>(options, bytes, bytes)) {
            List<TopicPartition> partitions = consumer.partitionsFor(topic).stream()
                    .map(found -> new TopicPartition(topic, found.partition()))
                    .toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            ArrayNode records = answer.putArray("records");
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(LIMIT_SECONDS);
            while (records.size() < count && System.nanoTime() < end) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    records.add(told(record));
                }
            }
        }
    }

    private static void member(String group, String topic) throws Exception {
        Properties options = new Properties();
        options.put("bootstrap.servers", bootstrap);
        options.put("group.id", group);
        String protocol = System.getenv().getOrDefault("NUNCIO_GROUP_PROTOCOL", "classic");
        options.put("group.protocol", protocol);
        options.put("auto.offset.reset", "earliest");
        options.put("enable.auto.commit", "false");
        if (protocol.equals("classic")) {
            options.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer.RangeAssignor");
            options.put("session.timeout.ms", "10000");
            options.put("heartbeat.interval.ms", "300");
        } else {
            // An assignor that is named is the broker's.
            options.put("group.remote.assignor", System.getenv().getOrDefault("NUNCIO_GROUP_ASSIGNOR", "uniform"));
        }
        Thread ended = new Thread(() -> {
            try {
                System.in.readAllBytes();
            } catch (java.io.IOException error) {
                throw new java.io.UncheckedIOException(error);
            }
        });
        ended.setDaemon(true);
        ended.start();
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<byte[], byte[]>(options, bytes, bytes)) {
            var listener = new ConsumerRebalanceListener() {
                private final Set<TopicPartition> owned = new HashSet<>();

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    owned.addAll(partitions);
                    tellOwned();
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    owned.removeAll(partitions);
                    if (protocol.equals("classic") || owned.isEmpty()) {
                        tell(JSON.createObjectNode().put("event", "revoked"));
                    } else {
                        tellOwned();
                    }
                }

                private void tellOwned() {
                    ObjectNode event = JSON.createObjectNode().put("event", "assigned");
                    ArrayNode numbers = event.putArray("partitions");
                    owned.stream().map(TopicPartition::partition).sorted().forEach(numbers::add);
                    tell(event);
                }
            };
            if (topic.startsWith("^")) {
                consumer.subscribe(new SubscriptionPattern(topic), listener); // the broker finds the topics
            } else {
                consumer.subscribe(List.of(topic), listener);
            }
            while (ended.isAlive()) {
                Map<TopicPartition, OffsetAndMetadata> positions = new java.util.HashMap<>();
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                    tell(told(record).put("event", "record"));
                    TopicPartition partition = new TopicPartition(record.topic(), record.partition());
                    positions.put(partition, new OffsetAndMetadata(record.offset() + 1));
                }
                if (!positions.isEmpty()) {
                    commit(consumer, positions);
                }
            }
        }
        tell(JSON.createObjectNode().put("event", "left"));
    }

    private static void commit(
            KafkaConsumer<byte[], byte[]> consumer, Map<TopicPartition, OffsetAndMetadata> positions) {
        try {
            consumer.commitSync(positions);
            Map<String, Long> offsets = new TreeMap<>();
            positions.forEach((partition, place) ->
                    offsets.put(Integer.toString(partition.partition()), place.offset()));
            ObjectNode event = JSON.createObjectNode().put("event", "committed");
            tell(event.set("offsets", JSON.valueToTree(offsets)));
        } catch (KafkaException error) {
            tell(JSON.createObjectNode().put("event", "uncommitted").put("error", error.toString()));
        }
    }

    private static ObjectNode told(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode told = JSON.createObjectNode()
                .put("partition", record.partition())
                .put("offset", record.offset())
                .put("timestamp", record.timestamp())
                .put("key", toHex(record.key()))
                .put("value", toHex(record.value()));
        ArrayNode headers = told.putArray("headers");
        for (Header header : record.headers()) {
            headers.addArray().add(header.key()).add(toHex(header.value()));
        }
        return told;
    }

    private static synchronized void tell(ObjectNode event) {
        System.out.println(event.put("at", System.nanoTime() / 1000));
    }

    private static byte[] fromHex(JsonNode text) {
        return text.isNull() ? null : HexFormat.of().parseHex(text.asText());
    }

    private static String toHex(byte[] value) {
        return value == null ? null : HexFormat.of().formatHex(value);
    }
}
