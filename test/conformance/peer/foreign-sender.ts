/**
 * A foreign peer's sending half, after docs/protocol.md and docs/store-protocol.md.
 *
 * It does as little as they allow: it goes live as soon as it may, keeps what is unconfirmed, and stores it when the
 * connection ends, when the listener is busy, or when nobody can be dialled.
 */
import type { ForeignStore } from "./store.js";
import type { FrameJson, Wire, WireConnection } from "./wire.js";

const shortBacklogRows = 256;

interface Unconfirmed {
  readonly number: number;
  readonly topicId: number;
  readonly payload: Uint8Array;
  readonly headers: readonly (readonly [string, string])[];
  /** Compression of the payload, and its uncompressed length. */
  readonly packed?: { readonly compression: string; readonly uncompressedBytes: number };
  readonly settle: (outcome: "delivered" | "stored") => void;
}

/** Channel from this sender to one listener. */
export class ForeignSender {
  #connection: WireConnection | undefined;
  #live = false;
  #goingLive = false;
  #lastNumber = 0;
  #written = 0;
  #credit = 0;
  #unconfirmed: Unconfirmed[] = [];
  #storing: Promise<void> = Promise.resolve();
  #whenLive: (() => void)[] = [];
  #ended: Promise<void> = Promise.resolve();
  /** The final cursor that the listener said in Goodbye. */
  goodbye: FrameJson | undefined;

  readonly #store: ForeignStore;
  readonly #channelId: number;
  readonly #listenerName: string;

  constructor(store: ForeignStore, channelId: number, listenerName: string) {
    this.#store = store;
    this.#channelId = channelId;
    this.#listenerName = listenerName;
  }

  /** Calls the listener. Resolves with the code of the refusal, if it was one. */
  async connect(wire: Wire, address: string, secret: Uint8Array, sourceTopic: string): Promise<string | undefined> {
    const dialled = await wire.dial({
      address,
      secret,
      hello: {
        senderName: this.#store.name,
        sourceTopic,
        listenerName: this.#listenerName,
        channelId: this.#channelId,
        epoch: String(this.#store.epoch),
      },
    });
    if ("refused" in dialled) return dialled.refused ?? "closed";
    const { connection, welcome } = dialled;
    this.#connection = connection;
    this.#credit = Number(welcome["credit"]);
    this.#acknowledge(welcome["cursorEpoch"], welcome["cursor"]);
    this.#written = this.#firstUnconfirmed() - 1;
    this.#goLiveIfShort(welcome);
    this.#ended = this.#listen(connection);
    return undefined;
  }

  /** Resolves when the listener has said that the channel is live. */
  async isLive(): Promise<void> {
    if (!this.#live) await new Promise<void>((resolve) => this.#whenLive.push(resolve));
  }

  /** At-least-once. Resolves when the message is delivered or stored. */
  async send(
    topicId: number,
    text: string,
    headers: readonly (readonly [string, string])[] = [],
  ): Promise<"delivered" | "stored"> {
    const settled = new Promise<"delivered" | "stored">((settle) => {
      this.#lastNumber += 1;
      this.#unconfirmed.push({ number: this.#lastNumber, topicId, payload: Buffer.from(text), headers, settle });
    });
    if (this.#connection === undefined) await this.#storeUnconfirmed();
    else this.#write();
    return await settled;
  }

  /** The same with a payload that is compressed already; not for messages that may have to be stored. */
  async sendPacked(
    topicId: number,
    payload: Uint8Array,
    compression: string,
    uncompressedBytes: number,
  ): Promise<"delivered" | "stored"> {
    const settled = new Promise<"delivered" | "stored">((settle) => {
      this.#lastNumber += 1;
      const packed = { compression, uncompressedBytes };
      this.#unconfirmed.push({ number: this.#lastNumber, topicId, payload, headers: [], packed, settle });
    });
    this.#write();
    return await settled;
  }

  /** At-most-once: several in one batch. */
  sendOnce(topicId: number, ...texts: string[]): void {
    this.#connection?.send(
      batch(
        this.#store.epoch,
        topicId,
        "DELIVERY_AT_MOST_ONCE",
        texts.map((text) => Buffer.from(text)),
      ),
    );
  }

  /** Says Goodbye, and waits for the listener's. */
  async close(): Promise<void> {
    this.#connection?.send({ goodbye: {} });
    await this.#ended;
  }

  async #listen(connection: WireConnection): Promise<void> {
    for (let frame = await connection.receive(); frame !== undefined; frame = await connection.receive()) {
      const { ack, goodbye } = frame;
      if (ack !== undefined) {
        this.#acknowledge(ack["epoch"], ack["number"]);
        this.#credit = Number(ack["credit"]);
        if (ack["live"] === true && !this.#live) {
          this.#live = true;
          for (const resolve of this.#whenLive.splice(0)) resolve();
        }
        this.#goLiveIfShort(ack);
        if (ack["busy"] === true) await this.#storeUnconfirmed();
        this.#write();
      } else if (goodbye !== undefined) {
        this.goodbye = goodbye;
        this.#acknowledge(goodbye["epoch"], goodbye["number"]);
        connection.end();
      }
    }
    this.#connection = undefined;
    this.#live = this.#goingLive = false;
    await this.#storeUnconfirmed();
  }

  #goLiveIfShort({ backlog = "0" }: FrameJson): void {
    if (this.#goingLive || Number(backlog) > shortBacklogRows) return;
    this.#goingLive = true;
    this.#connection?.send({ goLive: { epoch: String(this.#store.epoch) } });
  }

  /** Only numbers of the own epoch confirm anything. */
  #acknowledge(epoch = "0", number = "0"): void {
    if (Number(epoch) === this.#store.epoch) this.#confirm(Number(number), "delivered");
  }

  #confirm(number: number, outcome: "delivered" | "stored"): void {
    while (this.#unconfirmed[0] !== undefined && this.#unconfirmed[0].number <= number) {
      this.#unconfirmed.shift()!.settle(outcome);
    }
  }

  #firstUnconfirmed(): number {
    return this.#unconfirmed[0]?.number ?? this.#lastNumber + 1;
  }

  /** Writes what may be written: one message always, more as far as the credit goes. */
  #write(): void {
    if (this.#connection === undefined || !this.#goingLive) return;
    this.#written = Math.max(this.#written, this.#firstUnconfirmed() - 1);
    let inFlight = 0;
    for (const { number, topicId, payload, headers, packed } of this.#unconfirmed) {
      if (inFlight > 0 && inFlight + payload.length > this.#credit) return;
      inFlight += payload.length;
      if (number <= this.#written) continue;
      const frame = batch(this.#store.epoch, topicId, "DELIVERY_AT_LEAST_ONCE", [payload], number);
      if (headers.length > 0) {
        frame["batch"].headers = [{ headers: headers.map(([name, value]) => ({ name, value })) }];
      }
      if (packed !== undefined) {
        const { compression, uncompressedBytes } = packed;
        frame["batch"].compressions = [{ compression, uncompressedBytes: String(uncompressedBytes) }];
      }
      this.#connection.send(frame);
      this.#written = number;
    }
  }

  /** Stores everything unconfirmed, from the oldest on; one insert at a time. */
  async #storeUnconfirmed(): Promise<void> {
    this.#storing = this.#storing.then(async () => {
      const [first] = this.#unconfirmed;
      const last = this.#unconfirmed.at(-1);
      if (first === undefined || last === undefined) return;
      const held = await this.#store.store(
        { channelId: this.#channelId, listenerName: this.#listenerName },
        first.number,
        this.#unconfirmed.slice(),
      );
      if (!held) throw new Error(`the name "${this.#store.name}" is lost`);
      this.#confirm(last.number, "stored");
    });
    await this.#storing;
  }
}

function batch(
  epoch: number,
  topicId: number,
  delivery: string,
  payloads: readonly Uint8Array[],
  firstNumber?: number,
): FrameJson {
  return {
    batch: {
      epoch: String(epoch),
      delivery,
      ...(firstNumber === undefined ? {} : { firstNumber: String(firstNumber) }),
      topicId,
      payloads: payloads.map((payload) => Buffer.from(payload).toString("base64")),
    },
  };
}
