import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;

/** Copies a topic in transactions, some of which are aborted, with the Java client. */
public final class Transactions {
    private static final int RECORDS = 200;
    private static String bootstrap;

    private static Properties properties(String... pairs) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        properties.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        properties.put("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        properties.put("value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        for (int at = 0; at < pairs.length; at += 2) {
            properties.put(pairs[at], pairs[at + 1]);
        }
        return properties;
    }

    private static List<String> read(String topic, String isolation) {
        List<String> values = new ArrayList<>();
        TopicPartition partition = new TopicPartition(topic, 0);
        try (KafkaConsumer<String, String> consumer =
                new KafkaConsumer<>(properties("isolation.level", isolation))) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            while (consumer.position(partition) < end) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofSeconds(1))) {
                    values.add(record.value());
                }
            }
        }
        return values;
    }

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        try (Admin admin = Admin.create(properties())) {
            admin.createTopics(List.of(
                new NewTopic("in", 1, (short) 1),
                new NewTopic("out", 1, (short) 1),
                new NewTopic("zombie", 1, (short) 1))).all().get();
        }
        try (KafkaProducer<String, String> source = new KafkaProducer<>(properties())) {
            for (int number = 0; number < RECORDS; number++) {
                source.send(new ProducerRecord<>("in", Integer.toString(number)));
            }
        }
        long committed = copy();
        String fenced = "nothing";
        KafkaProducer<String, String> zombie = new KafkaProducer<>(properties("transactional.id", "undead"));
        zombie.initTransactions();
        zombie.beginTransaction();
        zombie.send(new ProducerRecord<>("zombie", "old"));
        zombie.flush();
        try (KafkaProducer<String, String> heir = new KafkaProducer<>(properties("transactional.id", "undead"))) {
            heir.initTransactions();
            try {
                zombie.commitTransaction();
            } catch (ProducerFencedException | InvalidProducerEpochException error) {
                fenced = "fatal";
            } catch (KafkaException error) {
                fenced = error.toString();
            }
            heir.beginTransaction();
            heir.send(new ProducerRecord<>("zombie", "new"));
            heir.commitTransaction();
        }
        zombie.close(Duration.ZERO);
        List<String> expected = new ArrayList<>();
        for (int number = 0; number < RECORDS; number++) {
            expected.add(Integer.toString(number));
        }
        int all = read("out", "read_uncommitted").size();
        System.out.println(
            "{\"aborted_seen_by_all\": " + (all > RECORDS)
                + ", \"committed\": " + committed
                + ", \"copied\": " + read("out", "read_committed").equals(expected)
                + ", \"fenced\": \"" + fenced + "\""
                + ", \"zombie\": [\"" + String.join("\", \"", read("zombie", "read_committed")) + "\"]}");
    }

    private static long copy() {
        TopicPartition in = new TopicPartition("in", 0);
        try (KafkaProducer<String, String> copier =
                    new KafkaProducer<>(properties("transactional.id", "copy", "linger.ms", "5"));
                KafkaConsumer<String, String> consumer = new KafkaConsumer<>(properties(
                    "group.id", "copiers",
                    "enable.auto.commit", "false",
                    "auto.offset.reset", "earliest",
                    "max.poll.records", "17",
                    "isolation.level", "read_committed"))) {
            copier.initTransactions();
            consumer.subscribe(List.of("in"));
            int copied = 0;
            int rounds = 0;
            while (copied < RECORDS) {
                ConsumerRecords<String, String> records = consumer.poll(Duration.ofSeconds(1));
                if (records.isEmpty()) {
                    continue;
                }
                copier.beginTransaction();
                for (ConsumerRecord<String, String> record : records) {
                    copier.send(new ProducerRecord<>("out", record.value()));
                }
                Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                offsets.put(in, new OffsetAndMetadata(consumer.position(in)));
                copier.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                rounds++;
                if (rounds % 3 == 1) {
                    // What is not sent yet would be dropped by the client itself.
                    copier.flush();
                    copier.abortTransaction();
                    OffsetAndMetadata known = consumer.committed(java.util.Set.of(in)).get(in);
                    consumer.seek(in, known == null ? 0 : known.offset());
                } else {
                    copier.commitTransaction();
                    copied += records.count();
                }
            }
            return consumer.committed(java.util.Set.of(in)).get(in).offset();
        }
    }
}
