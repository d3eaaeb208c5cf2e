import java.io.FileReader;
import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.UserScramCredentialDeletion;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.errors.AuthenticationException;
import org.apache.kafka.common.errors.AuthorizationException;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** `Secured PROPERTIES FILE WHAT...`: what a user may do with the Java client. Says what came of it on one line. */
public final class Secured {
    private static final Duration LIMIT = Duration.ofSeconds(30);

    public static void main(String[] args) throws Exception {
        Properties properties = new Properties();
        try (FileReader reader = new FileReader(args[0])) {
            properties.load(reader);
        }
        try {
            System.out.println(run(properties, args));
        } catch (Exception error) {
            Throwable cause = error;
            while (cause instanceof ExecutionException && cause.getCause() != null) {
                cause = cause.getCause();
            }
            String kind = cause instanceof AuthenticationException ? "refused"
                : cause instanceof AuthorizationException ? "denied" : "failed";
            System.out.println(kind + " " + cause.getClass().getSimpleName());
        }
    }

    private static String run(Properties properties, String[] args) throws Exception {
        switch (args[1]) {
            case "trip": return trip(properties, args[2]);
            case "user": return user(properties, args[2], args[3]);
            case "users": return users(properties);
            case "forget": return forget(properties, args[2]);
            case "allow": return allow(properties, args);
            case "rules": return rules(properties);
            case "clear": return clear(properties, args[2]);
            default: throw new IllegalArgumentException(args[1]);
        }
    }

    private static String trip(Properties properties, String topic) throws Exception {
        long offset;
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer())) {
            offset = producer.send(new ProducerRecord<>(topic, 0, "k", "v")).get().offset();
        }
        try (KafkaConsumer<String, String> consumer =
                new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer())) {
            TopicPartition partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seek(partition, offset);
            return consumer.poll(LIMIT).isEmpty() ? "not read" : "read";
        }
    }

    private static String user(Properties properties, String name, String password) throws Exception {
        try (Admin admin = Admin.create(properties)) {
            ScramCredentialInfo info = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 8192);
            admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(name, info, password))).all().get();
            return "made";
        }
    }

    private static String users(Properties properties) throws Exception {
        try (Admin admin = Admin.create(properties)) {
            StringBuilder out = new StringBuilder();
            admin.describeUserScramCredentials().all().get().values().stream()
                .map(user -> user.name() + user.credentialInfos().stream()
                    .map(info -> " " + info.mechanism().mechanismName() + "/" + info.iterations()).sorted().toList())
                .sorted().forEach(user -> out.append(user).append("; "));
            return out.toString().trim();
        }
    }

    private static String forget(Properties properties, String name) throws Exception {
        try (Admin admin = Admin.create(properties)) {
            admin.alterUserScramCredentials(List.of(new UserScramCredentialDeletion(name, ScramMechanism.SCRAM_SHA_512)))
                .all().get();
            return "forgotten";
        }
    }

    /** `allow PRINCIPAL OPERATION TYPE NAME literal|prefixed allow|deny (in any case)`. */
    private static String allow(Properties properties, String[] args) throws Exception {
        try (Admin admin = Admin.create(properties)) {
            PatternType pattern = PatternType.fromString(args[6].toUpperCase());
            ResourcePattern resource = new ResourcePattern(ResourceType.fromString(args[4]), args[5], pattern);
            AccessControlEntry entry = new AccessControlEntry(
                args[2], "*", AclOperation.fromString(args[3]), AclPermissionType.fromString(args[7]));
            admin.createAcls(List.of(new AclBinding(resource, entry))).all().get();
            return "made";
        }
    }

    private static String rules(Properties properties) throws Exception {
        try (Admin admin = Admin.create(properties)) {
            Collection<AclBinding> found = admin.describeAcls(AclBindingFilter.ANY).values().get();
            return found.stream().map(AclBinding::toString).sorted().toList().toString();
        }
    }

    private static String clear(Properties properties, String principal) throws Exception {
        try (Admin admin = Admin.create(properties)) {
            AclBindingFilter filter = new AclBindingFilter(
                org.apache.kafka.common.resource.ResourcePatternFilter.ANY,
                new org.apache.kafka.common.acl.AccessControlEntryFilter(
                    principal, null, AclOperation.ANY, AclPermissionType.ANY));
            return "gone " + admin.deleteAcls(List.of(filter)).all().get().size();
        }
    }
}
