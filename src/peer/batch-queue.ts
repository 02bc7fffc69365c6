/**
 * Messages that wait to be handled together. One batch is handled at a time: what comes meanwhile is the next. Of a batch in
 * which one has failed the others are handled again: those that the handler has not named together, else in halves, until the
 * one that fails is alone.
 */
import type { BatchSettings } from "../../generated/ts/settings/peer.js";
import type { HandlerResult } from "../channel/index.js";

interface Waiting<Item> {
  readonly item: Item;
  readonly bytes: number;
  /** It is part of the next batch. */
  readonly joined: () => void;
  readonly settle: (result: HandlerResult) => void;
}

/**
 * Handles items together, and never rejects.
 *
 * @returns the results that are certain: that of a single item always. All other items are handled again
 */
type HandleTogether<Item> = (items: readonly Item[]) => Promise<ReadonlyMap<Item, HandlerResult>>;

export class BatchQueue<Item> {
  readonly #waiting: Waiting<Item>[] = [];
  /** So many of those that wait, with so many bytes, are the next batch. */
  #next = { count: 0, bytes: 0 };
  #timer: NodeJS.Timeout | undefined;
  #isGathering = false;
  #isBusy = false;
  #waits = true;

  readonly #settings: BatchSettings;
  readonly #handle: HandleTogether<Item>;

  constructor(settings: BatchSettings, handle: HandleTogether<Item>) {
    this.#settings = settings;
    this.#handle = handle;
  }

  /**
   * Resolves when the item was handled, with others or alone.
   *
   * @param joined is called when the item is part of the next batch: then it waits for nothing but that
   */
  add(item: Item, bytes: number, joined: () => void): Promise<HandlerResult> {
    const result = new Promise<HandlerResult>((settle) => {
      this.#waiting.push({ item, bytes, joined, settle });
    });
    this.#join();
    this.#consider();
    return result;
  }

  /** From now on nothing waits for what may still come. */
  stopWaiting(): void {
    this.#waits = false;
    this.#consider();
  }

  get #isFull(): boolean {
    const { maxMessages, maxBytes } = this.#settings;
    const { count, bytes } = this.#next;
    return count < this.#waiting.length || count >= maxMessages || bytes >= maxBytes;
  }

  /** One message always fits. */
  #join(): void {
    const { maxMessages, maxBytes } = this.#settings;
    for (let { count, bytes } = this.#next; count < Math.min(this.#waiting.length, maxMessages); ) {
      const one = this.#waiting[count]!;
      bytes += one.bytes;
      if (count > 0 && bytes > maxBytes) return;
      count += 1;
      this.#next = { count, bytes };
      one.joined();
    }
  }

  #consider(): void {
    if (this.#isBusy || this.#waiting.length === 0) return;
    const { waitMs } = this.#settings;
    if (this.#isFull) void this.#run();
    else if (waitMs > 0 && this.#waits) this.#timer ??= setTimeout(() => void this.#run(), waitMs);
    else if (!this.#isGathering) this.#gather();
  }

  /** Runs when a turn of the event loop has brought nothing more. */
  #gather(): void {
    this.#isGathering = true;
    const before = this.#waiting.length;
    setImmediate(() => {
      this.#isGathering = false;
      if (this.#isBusy || this.#waiting.length === 0) return;
      if (this.#waiting.length > before) this.#gather();
      else void this.#run();
    });
  }

  async #run(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#isBusy = true;
    const batch = this.#waiting.splice(0, this.#next.count);
    this.#next = { count: 0, bytes: 0 };
    this.#join();
    await this.#handleAll(batch);
    this.#isBusy = false;
    this.#consider();
  }

  async #handleAll(batch: readonly Waiting<Item>[]): Promise<void> {
    const results = await this.#handle(batch.map(({ item }) => item));
    const others = batch.filter(({ item, settle }) => {
      const result = results.get(item);
      if (result !== undefined) settle(result);
      return result === undefined;
    });
    if (others.length === 0) return;
    if (others.length < batch.length) return await this.#handleAll(others);
    const half = Math.ceil(others.length / 2);
    await this.#handleAll(others.slice(0, half));
    await this.#handleAll(others.slice(half));
  }
}
