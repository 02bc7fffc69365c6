import { Compression } from "../../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { compress } from "../../wire/index.js";
import type { PeerContext } from "../core/context.js";
import type { Outgoing } from "./outgoing.js";

/** Queue of messages whose payload is being compressed, together with later messages that must not overtake them. */
export class SendPacking {
  /** Uncompressed payload bytes of the queued messages. */
  bytes = 0;
  /** Queued messages in the order of the sends. */
  readonly messages = new Set<Outgoing>();
  #tail: Promise<void> | undefined;

  readonly #context: Pick<PeerContext, "settings" | "logger">;
  readonly #offer: (message: Outgoing) => void;

  /** @param offer called with each message when it can be sent */
  constructor(context: Pick<PeerContext, "settings" | "logger">, offer: (message: Outgoing) => void) {
    this.#context = context;
    this.#offer = offer;
  }

  /** Number of queued messages. */
  get length(): number {
    return this.messages.size;
  }

  /**
   * True if a message of this length must use this queue: it has to be compressed, or earlier messages are queued.
   */
  takes(bytes: number): boolean {
    return bytes > this.#context.settings.compressThresholdBytes || this.messages.size > 0;
  }

  /** Compresses a message, and offers it after all earlier ones. */
  add(message: Outgoing): void {
    const bytes = message.payload.length;
    this.messages.add(message);
    this.bytes += bytes;
    const work = async (): Promise<void> => {
      try {
        await this.#pack(message);
      } catch (error) {
        this.#context.logger.debug({ err: error }, "could not compress a payload; sending it uncompressed");
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

  /** Resolves when all currently queued messages were offered. */
  async drain(): Promise<void> {
    await this.#tail;
  }

  /** Uses gzip because the message may have to be stored, and every peer can read gzip. */
  async #pack(message: Outgoing): Promise<void> {
    const { payload } = message;
    if (payload.length <= this.#context.settings.compressThresholdBytes) return;
    const packed = await compress(payload, Compression.GZIP);
    // The payload was replaced by a copy during the compression, because the caller may reuse its buffer: compress the
    // copy.
    if (message.payload !== payload) return await this.#pack(message);
    if (packed.length >= payload.length) return;
    message.payload = packed;
    message.encoding = { compression: Compression.GZIP, uncompressedBytes: payload.length };
  }
}
