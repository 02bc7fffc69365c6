import { Compression, compress } from "../wire/index.js";
import type { PeerContext } from "./context.js";
import type { Outgoing } from "./outgoing.js";

/** Messages whose payload is being compressed, in order, with those that were sent behind them. */
export class SendPacking {
  /** Their payload bytes, uncompressed. */
  bytes = 0;
  /** In the order in which they were sent. */
  readonly messages = new Set<Outgoing>();
  #tail: Promise<void> | undefined;

  readonly #context: Pick<PeerContext, "settings" | "logger">;
  readonly #offer: (message: Outgoing) => void;

  /** @param offer gets each message when it is its turn */
  constructor(context: Pick<PeerContext, "settings" | "logger">, offer: (message: Outgoing) => void) {
    this.#context = context;
    this.#offer = offer;
  }

  /** Whether a message has to go through here: it is long, or others that wait here come before it. */
  takes(payload: Uint8Array): boolean {
    return payload.length > this.#context.settings.compressThresholdBytes || this.#tail !== undefined;
  }

  /** Compresses a message, and offers it behind those that are here already. */
  add(message: Outgoing): void {
    const bytes = message.payload.length;
    this.messages.add(message);
    this.bytes += bytes;
    const work = async (): Promise<void> => {
      try {
        await this.#pack(message);
      } catch (error) {
        this.#context.logger.debug({ err: error }, "could not compress a payload; it travels as it is");
      }
      this.messages.delete(message);
      this.bytes -= bytes;
      this.#offer(message);
    };
    const mine: Promise<void> = (this.#tail ?? Promise.resolve()).then(work).finally(() => {
      if (this.#tail === mine) this.#tail = undefined;
    });
    this.#tail = mine;
  }

  /** Resolves when everything that is here now was offered. */
  async drain(): Promise<void> {
    await this.#tail;
  }

  /** With gzip, because the message may have to be stored, and every peer reads it. */
  async #pack(message: Outgoing): Promise<void> {
    const { payload } = message;
    if (payload.length <= this.#context.settings.compressThresholdBytes) return;
    const packed = await compress(payload, Compression.GZIP);
    // Its caller went meanwhile, and may have written over what was read: once more, from the copy.
    if (message.payload !== payload) return await this.#pack(message);
    if (packed.length >= payload.length) return;
    message.payload = packed;
    message.encoding = { compression: Compression.GZIP, uncompressedBytes: payload.length };
  }
}
