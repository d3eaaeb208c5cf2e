// Takes a customer's orders, keeps them, and tells the rest of the shop.
//
//   POST /        places an order: {"customer": "ada@example.com", "items": [{"sku": "tea-pot", "quantity": 1}]}
//   GET  /ID      shows one
//   GET  /healthz says that the service works

import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';

import { log } from './log.js';
import { validate } from './order.js';
import { Publisher } from './publisher.js';
import { Store } from './store.js';

const BODY_BYTES_MAX = 64 * 1024;

const host = process.env.HOST ?? '0.0.0.0';
const port = Number(process.env.PORT ?? 8080);
const gateway = process.env.NUNCIO_GATEWAY_URL ?? 'http://127.0.0.1:8080';

const store = await Store.open(join(process.env.DATA_DIR ?? 'data', 'orders.jsonl'));
const publisher = new Publisher(new URL('/events/orders', gateway), store);
publisher.start();

/** An answer that is not a success. */
class Refusal extends Error {
  constructor(status, message, problems) {
    super(message);
    this.status = status;
    this.problems = problems;
  }
}

async function readJson(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > BODY_BYTES_MAX) throw new Refusal(413, `an order has at most ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new Refusal(400, 'the body is not JSON');
  }
}

async function placeOrder(request) {
  const body = await readJson(request);
  const problems = validate(body);
  if (problems.length > 0) throw new Refusal(422, 'the order cannot be taken', problems);

  const order = {
    order_id: randomUUID(),
    customer: body.customer,
    items: body.items.map(({ sku, quantity }) => ({ sku, quantity })),
    placed_at: new Date().toISOString(),
  };
  // First the disk, then the topic: when the gateway is away now, the publisher goes on trying, even after a restart.
  await store.add(order);
  await publisher.publish(order, request.headers.traceparent);
  log('order placed', { order_id: order.order_id, items: order.items.length });
  return { status: 201, body: order, headers: { location: `/orders/${order.order_id}` } };
}

function showOrder(id) {
  const order = store.get(id);
  if (!order) throw new Refusal(404, `there is no order ${id}`);
  return { status: 200, body: order };
}

async function answer(request) {
  const { pathname } = new URL(request.url, 'http://orders');
  const [, id] = pathname.split('/');
  if (pathname === '/healthz') return { status: 200, body: { status: 'ok' } };
  if (pathname === '/' && request.method === 'POST') return placeOrder(request);
  if (id && pathname === `/${id}` && request.method === 'GET') return showOrder(id);
  throw new Refusal(404, `no ${request.method} ${pathname} here`);
}

const server = createServer(async (request, response) => {
  let result;
  try {
    result = await answer(request);
  } catch (error) {
    if (!(error instanceof Refusal)) log('request failed', { error: error.message, stack: error.stack });
    result = {
      status: error.status ?? 500,
      body: { error: error.status ? error.message : 'something went wrong here', problems: error.problems },
      // What is left of an oversized body is not read.
      headers: error.status === 413 ? { connection: 'close' } : {},
    };
  }
  const body = JSON.stringify(result.body) + '\n';
  response.writeHead(result.status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    ...result.headers,
  });
  response.end(body);
});

server.listen(port, host, () => log('listening', { address: `${host}:${port}`, orders: store.size }));

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => {
    log('stopping', { signal });
    publisher.stop();
    // Requests under way are answered first; what is not published yet is published after the next start.
    server.close(async () => {
      await store.close();
      process.exit(0);
    });
    server.closeIdleConnections();
  });
}
