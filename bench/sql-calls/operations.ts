/**
 * The measured operations, by SQL and by nats.js.
 */
import { type JetStreamClient, jetstream } from "@nats-io/jetstream";
import { type KV, Kvm } from "@nats-io/kv";
import { type NatsConnection, nuid } from "@nats-io/transport-node";

export const operations = ["request", "kv put", "kv get", "stream publish"] as const;
export type Operation = (typeof operations)[number];

/** The names in NATS, of the run's own: others may measure with the same nats-server. */
export interface Places {
  /** Subject on which a responder returns each request's payload. */
  readonly subject: string;
  readonly streamSubject: string;
  readonly stream: string;
  readonly bucket: string;
}

export const payloadBytes = 100;
const payload = "x".repeat(payloadBytes);
const key = "rope";
const requestTimeoutMs = 10_000;

/** The statements of PL/pgSQL. */
export function sqlStatements({ subject, streamSubject, bucket }: Places): Record<Operation, string> {
  return {
    request: `PERFORM public.nats_request_text('${subject}', '${payload}', ${requestTimeoutMs});`,
    "kv put": `PERFORM public.nats_put_text('${bucket}', '${key}', '${payload}');`,
    "kv get": `PERFORM public.nats_get_text('${bucket}', '${key}');`,
    "stream publish": `PERFORM public.nats_publish_text_stream('${streamSubject}', '${payload}');`,
  };
}

/** The same, by nats.js alone. */
export class NatsOperations {
  readonly #nats: NatsConnection;
  readonly #client: JetStreamClient;
  readonly #bucket: KV;
  readonly #places: Places;

  private constructor(nats: NatsConnection, bucket: KV, places: Places) {
    this.#nats = nats;
    this.#client = jetstream(nats);
    this.#bucket = bucket;
    this.#places = places;
  }

  /** Makes the bucket, unless it is there. */
  static async open(nats: NatsConnection, places: Places): Promise<NatsOperations> {
    // Read from the leader of the stream, as the functions read.
    const bucket = await new Kvm(nats).create(places.bucket, { allow_direct: false });
    await bucket.put(key, payload);
    return new NatsOperations(nats, bucket, places);
  }

  /** Does it once. */
  readonly do: Record<Operation, () => Promise<unknown>> = {
    request: () => this.#nats.request(this.#places.subject, payload, { timeout: requestTimeoutMs }),
    "kv put": () => this.#bucket.put(key, payload),
    "kv get": () => this.#bucket.get(key),
    // With an id, as each message of the functions has one.
    "stream publish": () => this.#client.publish(this.#places.streamSubject, payload, { msgID: nuid.next() }),
  };

  /** The revision of the key. */
  async revision(): Promise<number> {
    return (await this.#bucket.get(key))!.revision;
  }

  /** Removes the bucket. */
  async remove(): Promise<void> {
    await this.#bucket.destroy();
  }
}
