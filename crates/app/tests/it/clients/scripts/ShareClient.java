import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Share consumers of Apache Kafka's Java client, and what its admin client does with share groups; one command a line. */
public final class ShareClient {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final long LIMIT_SECONDS = 30;

    /** One consumer, with what it has got and not acknowledged. */
    private static final class Member {
        final KafkaShareConsumer<String, String> consumer;
        final Map<Long, ConsumerRecord<String, String>> records = new HashMap<>();

        Member(KafkaShareConsumer<String, String> consumer) {
            this.consumer = consumer;
        }
    }

    private static final Map<String, Member> MEMBERS = new HashMap<>();
    private static String bootstrap;

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", bootstrap))) {
            BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                ObjectNode answer = JSON.createObjectNode();
                try {
                    carryOut(admin, JSON.readTree(line), answer);
                } catch (Exception error) {
                    Throwable cause = error.getCause() == null ? error : error.getCause();
                    answer.put("error", cause.getClass().getSimpleName() + ": " + cause.getMessage());
                }
                System.out.println(answer);
            }
        }
    }

    private static void carryOut(Admin admin, JsonNode command, ObjectNode answer) throws Exception {
        String topic = command.path("topic").asText();
        String group = command.path("group").asText();
        Member member = MEMBERS.get(command.path("name").asText());
        switch (command.get("do").asText()) {
            case "create" -> admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1)))
                    .all().get(LIMIT_SECONDS, TimeUnit.SECONDS);
            case "set" -> {
                var resource = new ConfigResource(ConfigResource.Type.GROUP, group);
                var entry = new ConfigEntry(command.get("key").asText(), command.get("value").asText());
                Collection<AlterConfigOp> ops = List.of(new AlterConfigOp(entry, AlterConfigOp.OpType.SET));
                admin.incrementalAlterConfigs(Map.of(resource, ops)).all().get(LIMIT_SECONDS, TimeUnit.SECONDS);
            }
            case "produce" -> {
                Properties options = new Properties();
                options.put("bootstrap.servers", bootstrap);
                if (command.has("transaction")) {
                    options.put("transactional.id", "t-" + topic);
                }
                var text = new StringSerializer();
                try (var producer = new KafkaProducer<String, String>(options, text, text)) {
                    if (command.has("transaction")) {
                        producer.initTransactions();
                        producer.beginTransaction();
                    }
                    for (JsonNode value : command.get("values")) {
                        producer.send(new ProducerRecord<>(topic, 0, null, value.asText()));
                    }
                    producer.flush();
                    switch (command.path("transaction").asText()) {
                        case "commit" -> producer.commitTransaction();
                        case "abort" -> producer.abortTransaction();
                        default -> { }
                    }
                }
            }
            case "open" -> {
                Properties options = new Properties();
                options.put("bootstrap.servers", bootstrap);
                options.put("group.id", group);
                options.put("share.acknowledgement.mode", command.get("mode").asText());
                if (command.has("acquire")) {
                    options.put("share.acquire.mode", command.get("acquire").asText());
                    options.put("max.poll.records", command.get("most").asText());
                }
                var text = new StringDeserializer();
                var opened = new Member(new KafkaShareConsumer<>(options, text, text));
                opened.consumer.subscribe(List.of(topic));
                MEMBERS.put(command.get("name").asText(), opened);
            }
            case "poll" -> {
                ArrayNode records = answer.putArray("records");
                var got = member.consumer.poll(Duration.ofMillis(command.get("millis").asLong()));
                for (ConsumerRecord<String, String> record : got) {
                    member.records.put(record.offset(), record);
                    records.addArray()
                            .add(record.offset())
                            .add(record.value())
                            .add(record.deliveryCount().get().intValue());
                }
            }
            case "say" -> {
                var record = member.records.get(command.get("offset").asLong());
                member.consumer.acknowledge(record, AcknowledgeType.valueOf(command.get("type").asText()));
            }
            case "commit" -> {
                ArrayNode failed = answer.putArray("failed");
                member.consumer.commitSync(Duration.ofSeconds(LIMIT_SECONDS)).values().forEach(outcome ->
                        outcome.ifPresent(error -> failed.add(error.getClass().getSimpleName())));
            }
            case "close" -> {
                member.consumer.close(Duration.ofSeconds(LIMIT_SECONDS));
                MEMBERS.remove(command.get("name").asText());
            }
            case "describe" -> {
                var found = admin.describeShareGroups(List.of(group)).all().get().get(group);
                answer.put("state", found.groupState().toString());
                answer.put("members", found.members().size());
            }
            case "list" -> {
                ArrayNode groups = answer.putArray("groups");
                admin.listGroups().all().get().forEach(found -> {
                    if (found.type().isPresent() && found.type().get().toString().equals("Share")) {
                        groups.add(found.groupId());
                    }
                });
            }
            case "offsets" -> {
                var found = admin.listShareGroupOffsets(Map.of(group, new ListShareGroupOffsetsSpec()))
                        .partitionsToOffsetInfo(group).get();
                var info = found.get(new TopicPartition(topic, 0));
                answer.put("start", info == null ? -2 : info.startOffset());
                answer.put("lag", info == null ? -2 : info.lag().orElse(-1L));
            }
            case "alter" -> admin.alterShareGroupOffsets(
                    group, Map.of(new TopicPartition(topic, 0), command.get("offset").asLong())).all().get();
            case "forget" -> admin.deleteShareGroupOffsets(group, Set.of(topic)).all().get();
            case "delete" -> admin.deleteShareGroups(List.of(group)).all().get();
            default -> throw new IllegalArgumentException("unknown command");
        }
    }
}
