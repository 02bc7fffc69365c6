/**
 * A client of NATS that knows nothing of ours, and looks at what the SQL functions did.
 */
import { type JetStreamManager, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { type KvEntry, Kvm } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";
import type { Msg, NatsConnection, Subscription } from "@nats-io/transport-node";
import { eventually } from "../../support/eventually.js";

/** Time limit for an answer of JetStream, in milliseconds. */
const patientMs = 20_000;

/** Sees all messages below one word, and can look into buckets and stores. */
export class Witness {
  readonly #seen: Msg[] = [];
  readonly #subscription: Subscription;

  readonly nats: NatsConnection;
  readonly manager: JetStreamManager;

  private constructor(nats: NatsConnection, manager: JetStreamManager, subjects: string) {
    this.nats = nats;
    this.manager = manager;
    this.#subscription = nats.subscribe(subjects, { callback: (_error, message) => void this.#seen.push(message) });
  }

  /** @param subjects what it sees the messages of, such as `mine.>` */
  static async open(nats: NatsConnection, subjects: string, domain?: string): Promise<Witness> {
    const options = { ...(domain !== undefined && { domain }), checkAPI: false, timeout: patientMs };
    const witness = new Witness(nats, await jetstreamManager(nats, options), subjects);
    await nats.flush();
    return witness;
  }

  /** Everything that has come since the last call, when so many are there; it takes them. */
  async messages(count: number): Promise<Msg[]> {
    await eventually(`${count} messages have come`, () => this.#seen.length >= count);
    return this.#seen.splice(0);
  }

  /** The next message; there must be no other. */
  async message(): Promise<Msg> {
    const messages = await this.messages(1);
    if (messages.length !== 1) throw new Error(`${messages.length} messages have come, not 1`);
    return messages[0]!;
  }

  /** Number of messages that have come and that no test has taken, once the server has no more for us. */
  async untaken(): Promise<number> {
    await this.nats.flush();
    return this.#seen.length;
  }

  /** Value of a key in a bucket. */
  async value(bucket: string, key: string, domain?: string): Promise<KvEntry | null> {
    const buckets = new Kvm(jetstream(this.nats, { ...(domain !== undefined && { domain }), timeout: patientMs }));
    return (await buckets.open(bucket)).get(key);
  }

  /** The content of a file; undefined if it is missing. */
  async file(store: string, name: string, domain?: string): Promise<Buffer | undefined> {
    const stores = new Objm(jetstream(this.nats, { ...(domain !== undefined && { domain }), timeout: patientMs }));
    const content = await (await stores.open(store)).getBlob(name);
    return content === null ? undefined : Buffer.from(content);
  }

  /** The names of all streams, those of buckets and stores among them. */
  async streams(): Promise<string[]> {
    const names: string[] = [];
    for await (const { config } of this.manager.streams.list()) names.push(config.name);
    return names.sort();
  }

  /** Answers each request to the subject with what `answer` makes of it. */
  respond(subject: string, answer: (request: Msg) => Uint8Array | string): Subscription {
    return this.nats.subscribe(subject, { callback: (_error, request) => void request.respond(answer(request)) });
  }

  close(): void {
    this.#subscription.unsubscribe();
  }
}
