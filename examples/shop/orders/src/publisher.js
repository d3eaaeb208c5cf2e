// Publishes orders.placed with a plain POST through the gateway. A 2xx means that the record is on the broker's disk.
//
// An order is kept before it is published, so a crash in between, or a gateway that is away, only makes the event
// late. An answer that got lost makes the event come twice: those who hear it go by order_id.

import { log } from './log.js';

// Shorter than the three seconds after which the gateway gives up on a customer's request: the 201 comes in time.
const ATTEMPT_MS_MAX = 2_000;
const RETRY_MS = 2_000;

export class Publisher {
  #url;
  #store;
  #timer;
  #underWay = new Set();

  constructor(url, store) {
    this.#url = url;
    this.#store = store;
  }

  /** Publishes what was left over, now and from time to time. */
  start() {
    const round = async () => {
      for (const order of this.#store.unpublished()) {
        if (!(await this.publish(order))) break;
      }
      if (this.#timer !== null) this.#timer = setTimeout(round, RETRY_MS);
    };
    this.#timer = setTimeout(round, 0);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** Tries once; returns whether the order is published. `traceparent` ties the event to the request that caused it. */
  async publish(order, traceparent) {
    const id = order.order_id;
    if (this.#underWay.has(id)) return true;
    this.#underWay.add(id);
    try {
      const response = await fetch(this.#url, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...(traceparent && { traceparent }) },
        body: JSON.stringify(order),
        signal: AbortSignal.timeout(ATTEMPT_MS_MAX),
      });
      const answer = await response.text();
      if (!response.ok) throw new Error(`the gateway answers ${response.status}: ${answer.trim().slice(0, 200)}`);
      await this.#store.published(id);
      return true;
    } catch (error) {
      const reason = error.cause?.message ?? error.message;
      log('order is kept, but not published yet', { order_id: id, reason });
      return false;
    } finally {
      this.#underWay.delete(id);
    }
  }
}
