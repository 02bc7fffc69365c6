/**
 * A client of NATS that knows nothing of ours: answers the requests of SQL functions, and looks at what else they did.
 */
import { randomBytes } from "node:crypto";
import { type JetStreamManager, type JsMsg, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, type Msg, type NatsConnection } from "@nats-io/transport-node";
import { eventually } from "../../support/eventually.js";
import { tokenIn } from "./sql-token.js";

/** Number of sightings by token. */
type Seen = Map<string, number>;

/** Timeout of JetStream requests of the witness, in milliseconds; long, as its reads must succeed on a busy machine. */
const patience = { timeout: 20_000 };

/** Observes the effects of calls in NATS. Survives the death of its server. Disposing closes it. */
export class SqlWitness implements AsyncDisposable {
  readonly #id = randomBytes(4).toString("hex");
  readonly echo = `${this.#id}.echo`;
  readonly core = `${this.#id}.core`;
  readonly streamed = `${this.#id}.streamed`;
  readonly stream = `S_${this.#id}`;
  readonly bucket = `b_${this.#id}`;
  readonly store = `o_${this.#id}`;
  /** Requests, by token. */
  readonly requests: Seen = new Map();
  /** Core messages, by token. */
  readonly messages: Seen = new Map();
  /** Messages that are not the complete payload of a call. */
  readonly damaged: string[] = [];

  readonly nats: NatsConnection;
  readonly #manager: JetStreamManager;

  private constructor(nats: NatsConnection, manager: JetStreamManager) {
    this.nats = nats;
    this.#manager = manager;
    nats.subscribe(this.echo, {
      callback: (_error, message) => {
        this.#note(this.requests, message);
        const answer = (): void => {
          // The connection may be away just now; whoever asked hears nothing then.
          if (!nats.isClosed()) message.respond(`echo/${message.string()}`);
        };
        // So that answers overtake each other.
        setTimeout(answer, Math.random() * 15);
      },
    });
    nats.subscribe(this.core, { callback: (_error, message) => this.#note(this.messages, message) });
  }

  /** @param natsUrl its stream, bucket and store have names that no one else has */
  static async open(natsUrl: string): Promise<SqlWitness> {
    const nats = await connect({
      servers: natsUrl,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 20,
      reconnectJitter: 10,
      ignoreClusterUpdates: true,
    });
    const witness = new SqlWitness(nats, await jetstreamManager(nats, patience));
    await witness.#manager.streams.add({ name: witness.stream, subjects: [witness.streamed], storage: "file" });
    await nats.flush();
    return witness;
  }

  /** Resolves when the server answers, and nothing that was published before is still under way to us. */
  async settled(): Promise<void> {
    await eventually("the witness is connected, and has everything", async () => {
      return await this.nats.flush().then(
        () => true,
        () => false,
      );
    });
  }

  /**
   * Resolves when it has these messages, by their tokens. What another connection published and has been confirmed to the
   * caller is on its way to the server, which may read it later than what we ask it.
   */
  async received(...tokens: readonly string[]): Promise<void> {
    await eventually(`${tokens.join(", ")} have come`, () => tokens.every((token) => this.messages.has(token)));
  }

  /** The messages of the stream: payload by number. */
  async streamMessages(): Promise<Map<number, string>> {
    const found = new Map<number, string>();
    await this.#read(this.stream, ({ seq, data }) => found.set(seq, textOf(data)));
    return found;
  }

  /** The values of the bucket, by key. */
  async values(): Promise<Map<string, string>> {
    const found = new Map<string, string>();
    const start = `$KV.${this.bucket}.`;
    await this.#read(`KV_${this.bucket}`, ({ subject, data }) => found.set(subject.slice(start.length), textOf(data)));
    return found;
  }

  /** The files of the store, by name; "damaged" for one whose chunks are not those of its record. */
  async files(): Promise<Map<string, Buffer | "damaged">> {
    const records: { name: string; nuid: string; size: number; chunks: number; deleted?: boolean }[] = [];
    const chunks = new Map<string, Uint8Array[]>();
    const start = `$O.${this.store}.C.`;
    await this.#read(`OBJ_${this.store}`, (message) => {
      const { subject, data } = message;
      const version = subject.slice(start.length);
      if (!subject.startsWith(start)) records.push(message.json());
      else chunks.set(version, [...(chunks.get(version) ?? []), data]);
    });
    const whole = records.map(({ name, nuid, size, chunks: count }) => {
      const parts = chunks.get(nuid) ?? [];
      const content = Buffer.concat(parts);
      return [name, parts.length === count && content.length === size ? content : "damaged"] as const;
    });
    return new Map(whole);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.nats.close();
  }

  #note(seen: Seen, message: Msg): void {
    const token = tokenIn(message.string());
    if (token === undefined) this.damaged.push(message.string().slice(0, 100));
    else seen.set(token, (seen.get(token) ?? 0) + 1);
  }

  async #read(stream: string, each: (message: JsMsg) => void): Promise<void> {
    const { state } = await this.#manager.streams.info(stream).catch((error: Error) => {
      if (/stream not found/.test(error.message)) return { state: { messages: 0 } };
      throw error;
    });
    if (state.messages === 0) return;
    const consumer = await jetstream(this.nats, patience).consumers.get(stream);
    const messages = await consumer.consume();
    for await (const message of messages) {
      each(message);
      if (message.info.pending === 0) break;
    }
    await messages.close();
  }
}

function textOf(data: Uint8Array): string {
  return Buffer.from(data).toString();
}
