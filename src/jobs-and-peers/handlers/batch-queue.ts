/**
 * Queue of messages for a batch handler. At most `concurrency` batches are handled at a time; messages that arrive
 * meanwhile form the next batch. If a batch fails, it is handled again without the messages that the handler marked as
 * failed. If the handler marked none, the batch is split in halves until the failing message is alone.
 */
import type { BatchSettings } from "../../../generated/ts/settings/peer.js";
import type { HandlerResult } from "../channel/index.js";

interface BatchItem<Item> {
  readonly item: Item;
  readonly bytes: number;
  /** Called when the item becomes part of the next batch. */
  readonly onJoined: () => void;
  readonly resolve: (result: HandlerResult) => void;
}

/**
 * Handles items as one batch. Never rejects.
 *
 * @returns the results of the items; undefined for items that are handled again. A single item always has a result
 */
type HandleBatch<Item> = (items: readonly Item[]) => Promise<readonly (HandlerResult | undefined)[]>;

export class BatchQueue<Item> {
  readonly #waiting: BatchItem<Item>[] = [];
  /** Size of the next batch: the first `count` items of the queue, with `bytes` payload bytes. */
  #next = { count: 0, bytes: 0 };
  #timer: NodeJS.Timeout | undefined;
  #isInBurst = false;
  /** Number of batches that are being handled. */
  #running = 0;
  #mayDelay = true;

  readonly #settings: BatchSettings;
  readonly #handle: HandleBatch<Item>;

  constructor(settings: BatchSettings, handle: HandleBatch<Item>) {
    this.#settings = settings;
    this.#handle = handle;
  }

  /**
   * Resolves with the result of the item.
   *
   * @param onJoined called when the item becomes part of the next batch; from then on it waits only for earlier
   * batches
   */
  add(item: Item, bytes: number, onJoined: () => void): Promise<HandlerResult> {
    const result = new Promise<HandlerResult>((resolve) => {
      this.#waiting.push({ item, bytes, onJoined, resolve });
    });
    this.#extendNext();
    this.#startIfReady();
    return result;
  }

  /** Starts incomplete batches from now on without waiting for further messages. */
  stopWaiting(): void {
    this.#mayDelay = false;
    this.#startIfReady();
  }

  get #mayStart(): boolean {
    return this.#waiting.length > 0 && this.#running < this.#settings.concurrency;
  }

  get #isFull(): boolean {
    const { maxMessages, maxBytes } = this.#settings;
    const { count, bytes } = this.#next;
    return count < this.#waiting.length || count >= maxMessages || bytes >= maxBytes;
  }

  /** Adds waiting items to the next batch. A single item always fits. */
  #extendNext(): void {
    const { maxMessages, maxBytes } = this.#settings;
    for (let { count, bytes } = this.#next; count < Math.min(this.#waiting.length, maxMessages); ) {
      const next = this.#waiting[count]!;
      bytes += next.bytes;
      if (count > 0 && bytes > maxBytes) return;
      count += 1;
      this.#next = { count, bytes };
      next.onJoined();
    }
  }

  #startIfReady(): void {
    while (this.#mayStart && this.#isFull) void this.#run();
    if (!this.#mayStart) return;
    const { waitMs } = this.#settings;
    if (waitMs > 0 && this.#mayDelay) this.#timer ??= setTimeout(() => void this.#run(), waitMs);
    else if (!this.#isInBurst) this.#startAfterBurst();
  }

  /**
   * Starts the batch after the first event loop turn that adds no message, so that it includes all messages of one
   * burst.
   */
  #startAfterBurst(): void {
    this.#isInBurst = true;
    const before = this.#waiting.length;
    setImmediate(() => {
      this.#isInBurst = false;
      if (!this.#mayStart) return;
      if (this.#waiting.length > before) this.#startAfterBurst();
      else void this.#run();
    });
  }

  async #run(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#running += 1;
    const batch = this.#waiting.splice(0, this.#next.count);
    this.#next = { count: 0, bytes: 0 };
    this.#extendNext();
    await this.#handleAll(batch);
    this.#running -= 1;
    this.#startIfReady();
  }

  async #handleAll(batch: readonly BatchItem<Item>[]): Promise<void> {
    const results = await this.#handle(batch.map(({ item }) => item));
    const others = batch.filter(({ resolve }, index) => {
      const result = results[index];
      if (result !== undefined) resolve(result);
      return result === undefined;
    });
    if (others.length === 0) return;
    if (others.length < batch.length) return await this.#handleAll(others);
    const half = Math.ceil(others.length / 2);
    await this.#handleAll(others.slice(0, half));
    await this.#handleAll(others.slice(half));
  }
}
