/**
 * Messages of one topic that wait to be handled together. One batch is handled at a time: what comes meanwhile is the next.
 */
import type { BatchSettings } from "../../generated/ts/settings/peer.js";
import type { HandlerResult } from "../channel/index.js";

interface Waiting<Item> {
  readonly item: Item;
  readonly bytes: number;
  readonly settle: (result: HandlerResult) => void;
}

export class BatchQueue<Item> {
  #waiting: Waiting<Item>[] = [];
  #timer: NodeJS.Timeout | NodeJS.Immediate | undefined;
  #isBusy = false;

  readonly settings: BatchSettings;
  readonly #handle: (items: readonly Item[]) => Promise<readonly HandlerResult[]>;

  /** @param handle resolves with the result of each item; never rejects */
  constructor(settings: BatchSettings, handle: (items: readonly Item[]) => Promise<readonly HandlerResult[]>) {
    this.settings = settings;
    this.#handle = handle;
  }

  /** Resolves when the item was handled, with others or alone. */
  add(item: Item, bytes: number): Promise<HandlerResult> {
    const result = new Promise<HandlerResult>((settle) => {
      this.#waiting.push({ item, bytes, settle });
    });
    this.#consider();
    return result;
  }

  #consider(): void {
    if (this.#isBusy || this.#waiting.length === 0) return;
    const { maxMessages, waitMs } = this.settings;
    if (this.#waiting.length >= maxMessages) {
      void this.#run();
      return;
    }
    // What the turn of the event loop brings is one batch.
    this.#timer ??= waitMs === 0 ? setImmediate(() => void this.#run()) : setTimeout(() => void this.#run(), waitMs);
  }

  async #run(): Promise<void> {
    clearTimeout(this.#timer as NodeJS.Timeout | undefined);
    clearImmediate(this.#timer as NodeJS.Immediate | undefined);
    this.#timer = undefined;
    if (this.#isBusy) return;
    this.#isBusy = true;
    const batch = this.#take();
    const results = await this.#handle(batch.map(({ item }) => item));
    for (const [index, { settle }] of batch.entries()) settle(results[index]!);
    this.#isBusy = false;
    this.#consider();
  }

  #take(): readonly Waiting<Item>[] {
    const { maxMessages, maxBytes } = this.settings;
    let bytes = 0;
    let count = 0;
    while (count < Math.min(this.#waiting.length, maxMessages)) {
      bytes += this.#waiting[count]!.bytes;
      if (count > 0 && bytes > maxBytes) break;
      count += 1;
    }
    return this.#waiting.splice(0, count);
  }
}
