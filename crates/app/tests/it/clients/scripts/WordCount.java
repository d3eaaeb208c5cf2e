import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Counts words with Kafka Streams, exactly once: a repartition topic, a store in RocksDB, its changelog. See
 * {@code ../streams.rs}.
 */
public final class WordCount {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] args) throws Exception {
        String input = args[2];
        String output = args[3];
        // At so many words it stands still, in the middle of a transaction.
        long stallAt = Long.parseLong(args[5]);

        Properties options = new Properties();
        options.put("bootstrap.servers", args[0]);
        options.put("application.id", args[1]);
        options.put("state.dir", args[4]);
        options.put("processing.guarantee", "exactly_once_v2");
        options.put("num.stream.threads", "2");
        options.put("commit.interval.ms", "100");
        // Every count goes out, not only the last of a transaction.
        options.put("statestore.cache.max.bytes", "0");
        options.put("producer.linger.ms", "5");
        // Whoever lost its folder comes as somebody else: what it left open ends by time.
        options.put("producer.transaction.timeout.ms", "5000");
        if (args[6].equals("streams")) {
            // The broker assigns the tasks, and knows no static members.
            options.put("group.protocol", "streams");
        } else {
            // Whoever comes back within the session takes its old place.
            options.put("main.consumer.group.instance.id", "counter");
        }
        options.put("main.consumer.auto.offset.reset", "earliest");

        StreamsBuilder builder = new StreamsBuilder();
        var words = Grouped.with("words", Serdes.String(), Serdes.String());
        KStream<String, Long> counts = builder
                .stream(input, Consumed.with(Serdes.String(), Serdes.String()))
                .flatMapValues(line -> List.of(line.split(" ")))
                .groupBy((key, word) -> word, words)
                .count(Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts"))
                .toStream();
        counts.to(output, Produced.with(Serdes.String(), Serdes.Long()));
        AtomicLong counted = new AtomicLong();
        counts.foreach((word, count) -> {
            if (counted.incrementAndGet() >= stallAt) {
                // The record before is on its way already.
                tell(JSON.createObjectNode().put("event", "stalled"));
                sleepForever();
            }
        });

        KafkaStreams streams = new KafkaStreams(builder.build(), options);
        streams.setStateListener((state, before) -> {
            tell(JSON.createObjectNode().put("event", "state").put("state", state.toString()));
            if (state == KafkaStreams.State.ERROR) {
                Runtime.getRuntime().halt(1);
            }
        });
        streams.setGlobalStateRestoreListener(new Restored());
        streams.start();
        System.in.readAllBytes();
        boolean ended = streams.close(Duration.ofSeconds(60));
        Runtime.getRuntime().halt(ended ? 0 : 2);
    }

    private static void sleepForever() {
        try {
            Thread.sleep(Long.MAX_VALUE);
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }

    /** Tells how much of the store came from the changelog. */
    private static final class Restored implements StateRestoreListener {
        @Override
        public void onRestoreStart(TopicPartition partition, String store, long from, long to) {
        }

        @Override
        public void onBatchRestored(TopicPartition partition, String store, long to, long count) {
        }

        @Override
        public void onRestoreEnd(TopicPartition partition, String store, long count) {
            tell(JSON.createObjectNode()
                    .put("event", "restored")
                    .put("partition", partition.partition())
                    .put("records", count));
        }
    }

    private static synchronized void tell(ObjectNode event) {
        System.out.println(event.put("at", System.nanoTime() / 1000));
    }
}
