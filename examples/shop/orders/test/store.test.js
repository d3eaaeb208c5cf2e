import assert from 'node:assert/strict';
import { appendFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { validate } from '../src/order.js';
import { Store } from '../src/store.js';

const order = (id) => ({ order_id: id, customer: 'ada@example.com', items: [{ sku: 'tea-pot', quantity: 1 }] });

test('orders outlive the process, a torn line does not', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'orders-'));
  t.after(() => rm(folder, { recursive: true }));
  const path = join(folder, 'data', 'orders.jsonl');

  let store = await Store.open(path);
  await Promise.all([store.add(order('a')), store.add(order('b'))]);
  await store.published('a');
  await store.close();
  await appendFile(path, '{"order": {"order_id": "c", "cust');

  store = await Store.open(path);
  assert.equal(store.size, 2);
  assert.deepEqual(store.get('a'), order('a'));
  assert.deepEqual(store.unpublished(), [order('b')]);
  await store.add(order('d'));
  await store.close();

  store = await Store.open(path);
  assert.equal(store.size, 3);
  await store.close();
});

test('every problem of an order is told at once', () => {
  assert.deepEqual(validate(order('a')), []);
  assert.deepEqual(validate([]), ['an order is an object']);
  assert.deepEqual(validate({ customer: 'ada', items: [] }), [
    'customer: an e-mail address is needed',
    'items: between 1 and 100 are needed',
  ]);
  assert.deepEqual(validate({ customer: 'a@b', items: [null, { sku: 'Tea', quantity: 1.5 }] }), [
    'items[0].sku: a name such as tea-pot is needed',
    'items[0].quantity: a whole number between 1 and 1000 is needed',
    'items[1].sku: a name such as tea-pot is needed',
    'items[1].quantity: a whole number between 1 and 1000 is needed',
  ]);
});
