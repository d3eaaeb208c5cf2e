// Orders as lines of JSON in a file that only grows. A line is either an order or the note that one was published:
//
//   {"order": {"order_id": "...", ...}}
//   {"published": "..."}

import { mkdir, open, readFile, truncate } from 'node:fs/promises';
import { dirname } from 'node:path';

export class Store {
  #file;
  #orders = new Map();
  #unpublished = new Set();
  #lastWrite = Promise.resolve();

  /** Opens the file, or begins it, and reads what is there. */
  static async open(path) {
    await mkdir(dirname(path), { recursive: true });
    const store = new Store();
    const bytes = await readFile(path).catch((error) => {
      if (error.code === 'ENOENT') return Buffer.alloc(0);
      throw error;
    });
    // A line without its end was being written when the machine went down. Nobody was told that it was kept.
    const complete = bytes.lastIndexOf(0x0a) + 1;
    if (complete < bytes.length) await truncate(path, complete);
    for (const line of bytes.subarray(0, complete).toString('utf8').split('\n')) {
      if (line) store.#apply(JSON.parse(line));
    }
    store.#file = await open(path, 'a');
    return store;
  }

  get size() {
    return this.#orders.size;
  }

  get(id) {
    return this.#orders.get(id);
  }

  /** Returns the orders that the rest of the shop may not have heard of. */
  unpublished() {
    return [...this.#unpublished].map((id) => this.#orders.get(id));
  }

  /** Keeps an order; it is on disk when this returns. */
  async add(order) {
    await this.#write({ order });
  }

  /** Notes that an order was published. */
  async published(id) {
    await this.#write({ published: id });
  }

  async close() {
    await this.#lastWrite.catch(() => {});
    await this.#file.close();
  }

  #write(entry) {
    // One after the other, so that lines never mix.
    const write = this.#lastWrite.catch(() => {}).then(async () => {
      await this.#file.appendFile(JSON.stringify(entry) + '\n');
      await this.#file.datasync();
      this.#apply(entry);
    });
    this.#lastWrite = write;
    return write;
  }

  #apply({ order, published }) {
    if (order) {
      this.#orders.set(order.order_id, order);
      this.#unpublished.add(order.order_id);
    } else if (published) {
      this.#unpublished.delete(published);
    }
  }
}
