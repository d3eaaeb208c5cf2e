// kafkajs under the contract of `../contract.rs`.
'use strict';
const readline = require('node:readline');
const { Kafka, CompressionTypes, logLevel } = require('kafkajs');

const [mode, bootstrap, ...rest] = process.argv.slice(2);
const LIMIT = 30_000;
const kafka = new Kafka({ clientId: 'test', brokers: [bootstrap], logLevel: logLevel.WARN, logCreator });

// Its log goes to stderr, stdout belongs to the contract.
function logCreator() {
  return ({ log, ...entry }) => process.stderr.write(JSON.stringify({ ...entry, ...log }) + '\n');
}

function tell(event) {
  const at = Number(process.hrtime.bigint() / 1000n);
  process.stdout.write(JSON.stringify({ ...event, at }) + '\n');
}

const fromHex = (text) => (text === null ? null : Buffer.from(text, 'hex'));
const toHex = (bytes) => (bytes === null || bytes === undefined ? null : Buffer.from(bytes).toString('hex'));

function told(partition, message) {
  const headers = [];
  for (const [name, value] of Object.entries(message.headers ?? {})) {
    for (const one of Array.isArray(value) ? value : [value]) headers.push([name, toHex(one)]);
  }
  return {
    partition,
    offset: Number(message.offset),
    timestamp: Number(message.timestamp),
    key: toHex(message.key),
    value: toHex(message.value),
    headers,
  };
}

// kafkajs takes headers as an object: a repeated name becomes a list.
function headers(list) {
  const object = {};
  for (const [name, value] of list) (object[name] ??= []).push(fromHex(value));
  for (const name in object) if (object[name].length === 1) object[name] = object[name][0];
  return object;
}

let open; // the transaction that was left open

const commands = {
  async create(admin, { topic, partitions }) {
    const made = await admin.createTopics({ topics: [{ topic, numPartitions: partitions, replicationFactor: 1 }] });
    if (!made) throw new Error('the topic exists');
  },
  async delete(admin, { topic }) {
    await admin.deleteTopics({ topics: [topic] });
  },
  async topics(admin) {
    return { topics: (await admin.listTopics()).sort() };
  },
  async describe(admin, { topic }) {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
    return { partitions: topics[0].partitions.length, problem: null };
  },
  async groups(admin) {
    return { groups: (await admin.listGroups()).groups.map((group) => group.groupId) };
  },
  async group(admin, { group }) {
    const found = (await admin.describeGroups([group])).groups[0];
    return { state: found.state, members: found.members.length };
  },
  async committed(admin, { group, topic, partitions }) {
    const [found] = await admin.fetchOffsets({ groupId: group, topics: [topic] });
    const of = (partition) => found.partitions.find((one) => one.partition === partition);
    return { offsets: partitions.map((partition) => Number(of(partition)?.offset ?? -1)) };
  },
  async produce(admin, { topic, compression, acks, idempotent, records }) {
    const producer = kafka.producer({ idempotent, maxInFlightRequests: 5 });
    await producer.connect();
    const messages = records.map((record) => ({
      partition: record.partition,
      key: fromHex(record.key),
      value: fromHex(record.value),
      timestamp: String(record.timestamp),
      headers: headers(record.headers),
    }));
    const answer = await producer.send({
      topic,
      messages,
      acks: acks === 'all' ? -1 : Number(acks),
      compression: compression === 'gzip' ? CompressionTypes.GZIP : CompressionTypes.None,
    });
    await producer.disconnect();
    const next = new Map(answer.map((one) => [one.partition, Number(one.baseOffset)]));
    const placed = records.map(({ partition }) => {
      if (!next.has(partition)) return [partition, 0]; // acks=0 brings no answer
      const offset = next.get(partition);
      next.set(partition, offset + 1);
      return [partition, offset];
    });
    return { placed };
  },
  async transact(admin, { topic, id, end, records }) {
    const producer = kafka.producer({ transactionalId: id, idempotent: true, maxInFlightRequests: 1 });
    await producer.connect();
    const transaction = await producer.transaction();
    const messages = records.map(({ partition, value }) => ({ partition, value: fromHex(value) }));
    await transaction.send({ topic, messages });
    if (end === 'open') {
      open = transaction;
      return;
    }
    await (end === 'commit' ? transaction.commit() : transaction.abort());
    await producer.disconnect();
  },
  async finish() {
    await open.commit();
  },
  async consume(admin, { topic, count, isolation }) {
    const groupId = `reader-${process.pid}-${process.hrtime.bigint()}`;
    const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 100, readUncommitted: isolation === 'read_uncommitted' });
    const records = [];
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    await new Promise((resolve, reject) => {
      setTimeout(resolve, LIMIT).unref();
      consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
      consumer
        .run({
          autoCommit: false,
          eachBatch: async ({ batch }) => {
            for (const message of batch.messages) records.push(told(batch.partition, message));
            if (records.length >= count) resolve();
          },
        })
        .catch(reject);
    });
    await consumer.disconnect();
    return { records };
  },
};

async function agent() {
  const admin = kafka.admin();
  await admin.connect();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    try {
      tell((await commands[command.do](admin, command)) ?? {});
    } catch (error) {
      const causes = (error.errors ?? []).map(({ message }) => message).join('; ');
      tell({ error: `${error.name}: ${error.message} ${causes}` });
    }
  }
  await admin.disconnect();
}

async function member(groupId, topic) {
  const consumer = kafka.consumer({
    groupId,
    sessionTimeout: 10_000,
    heartbeatInterval: 300,
    maxWaitTimeInMs: 100,
  });
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    tell({ event: 'assigned', partitions: (payload.memberAssignment[topic] ?? []).sort((a, b) => a - b) });
  });
  consumer.on(consumer.events.REBALANCING, () => tell({ event: 'revoked' }));
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch: { partition, messages }, isRunning, isStale }) => {
      if (!isRunning() || isStale()) return;
      for (const message of messages) tell({ event: 'record', ...told(partition, message) });
      const offset = Number(messages[messages.length - 1].offset) + 1;
      try {
        await consumer.commitOffsets([{ topic, partition, offset: String(offset) }]);
        tell({ event: 'committed', offsets: { [partition]: offset } });
      } catch (error) {
        tell({ event: 'uncommitted', error: error.message });
        throw error;
      }
    },
  });
  process.stdin.resume();
  await new Promise((resolve) => process.stdin.on('end', resolve));
  await consumer.disconnect();
  tell({ event: 'left' });
}

(mode === 'agent' ? agent() : member(...rest)).catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
