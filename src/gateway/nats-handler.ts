/**
 * Answers the SQL functions over the connection to NATS.
 */
import { createHash } from "node:crypto";
import { type NatsConnection, nuid } from "@nats-io/transport-node";
import type * as spec from "../../generated/ts/nats-functions/methods.js";
import { HawserError } from "../errors/index.js";
import { type NatsConnector, NatsOperations, type ReadOptions, Refusals, readHeaders } from "../nats/index.js";
import { inTime } from "../runtime/index.js";
import { type GatewayCall, leftMs } from "./calls.js";
import type { GatewayClient } from "./protocol/index.js";

/** What the handler works with. */
export interface NatsHandlerOptions {
  readonly connector: NatsConnector;
  /** The largest file that an answer has room for, in bytes. */
  readonly maxFileBytes: number;
  /** Reads the definition of the server again: where none is known, one may have been committed a moment ago. */
  readDefinition(): Promise<void>;
  /** Reads the definition of the server again, and connects anew: always, or only if it has changed. */
  reload(always: boolean, call: GatewayCall): Promise<void>;
}

/** Carries calls out over NATS. What each method does stands in `NatsFunctionsHandler`. */
export class NatsHandler implements spec.NatsFunctionsHandler<GatewayCall> {
  readonly #connector: NatsConnector;
  readonly #options: NatsHandlerOptions;
  readonly #refusals = new Refusals<GatewayClient>();
  readonly #unflushed: Unflushed<GatewayClient>;
  #operations: NatsOperations | undefined;

  constructor(options: NatsHandlerOptions) {
    const { connector } = options;
    this.#connector = connector;
    this.#options = options;
    this.#unflushed = new Unflushed((connection) => connector.hasTaken(connection));
    connector.on("refused", ({ operation, subject, message }) => {
      if (operation === "publish") this.#refusals.refused({ subject, message });
    });
  }

  /** Forgets what the client was to be told. */
  forget(client: GatewayClient): void {
    this.#refusals.forget(client);
    this.#unflushed.forget(client);
  }

  publish({ subject, payload, reply, headers }: spec.PublishRequest, call: GatewayCall): spec.Answer<void> {
    return this.#publishing(call, subject, reply, (nats) =>
      nats.publish(subject, payload, { reply, headers: readHeaders(headers), timeoutMs: leftMs(call) }),
    );
  }

  publishBatch({ subject, payloads, reply, headers }: spec.PublishBatchRequest, call: GatewayCall): spec.Answer<void> {
    return this.#publishing(call, subject, reply, (nats) =>
      nats.publishBatch(subject, payloads, { reply, headers: readHeaders(headers), timeoutMs: leftMs(call) }),
    );
  }

  async publishStream(request: spec.PublishStreamRequest, call: GatewayCall): Promise<void> {
    await this.publishAck(request, call);
  }

  publishAck(request: spec.PublishAckRequest, call: GatewayCall): Promise<spec.PublishAckResponse> {
    const { subject, payload, headers, domain } = request;
    return this.#using(call, (nats) =>
      nats.streams.publish(subject, payload, {
        headers: readHeaders(headers),
        domain: domain ?? this.#domain,
        messageId: publishedId(request),
        timeoutMs: leftMs(call),
      }),
    );
  }

  async publishStreamBatch(request: spec.PublishStreamBatchRequest, call: GatewayCall): Promise<void> {
    const { subject, payloads, headers, domain } = request;
    await this.#using(call, (nats) =>
      nats.streams.publishBatch(subject, payloads, {
        headers: readHeaders(headers),
        domain: domain ?? this.#domain,
        messageId: publishedId(request),
        timeoutMs: leftMs(call),
      }),
    );
  }

  async flush(_request: spec.FlushRequest, call: GatewayCall): Promise<void> {
    await this.#using(call, (nats) => this.#flush(nats, call));
    const violations = this.#refusals.take(call.client);
    if (violations.length > 0) throw refused(violations);
  }

  request({ subject, payload }: spec.RequestRequest, call: GatewayCall): Promise<Uint8Array> {
    return this.#using(call, (nats) => nats.request(subject, payload, { timeoutMs: leftMs(call) }));
  }

  putValue({ bucket, key, data, domain }: spec.PutValueRequest, call: GatewayCall): Promise<bigint> {
    return this.#using(call, (nats) => nats.keyValue.put(bucket, key, data, this.#place(domain, call)));
  }

  getValue({ bucket, key, domain }: spec.GetValueRequest, call: GatewayCall): Promise<Uint8Array | undefined> {
    return this.#using(call, (nats) => nats.keyValue.get(bucket, key, this.#place(domain, call)));
  }

  async deleteValue({ bucket, key, domain }: spec.DeleteValueRequest, call: GatewayCall): Promise<void> {
    await this.#using(call, (nats) => nats.keyValue.delete(bucket, key, this.#place(domain, call)));
  }

  createValue({ bucket, key, data, domain }: spec.CreateValueRequest, call: GatewayCall): Promise<bigint> {
    return this.#using(call, (nats) => nats.keyValue.create(bucket, key, data, this.#place(domain, call)));
  }

  updateValue(request: spec.UpdateValueRequest, call: GatewayCall): Promise<bigint> {
    const { bucket, key, data, revision, domain } = request;
    return this.#using(call, (nats) => nats.keyValue.update(bucket, key, data, revision, this.#place(domain, call)));
  }

  async getKeys({ bucket, domain }: spec.GetKeysRequest, call: GatewayCall): Promise<readonly spec.GetKeysResponse[]> {
    const keys = await this.#using(call, (nats) => nats.keyValue.keys(bucket, this.#place(domain, call)));
    return keys.map((key) => ({ key }));
  }

  getHistory(request: spec.GetHistoryRequest, call: GatewayCall): Promise<readonly spec.GetHistoryResponse[]> {
    const { bucket, key, domain } = request;
    return this.#using(call, (nats) => nats.keyValue.history(bucket, key, this.#place(domain, call)));
  }

  async putFile({ store, name, content, domain }: spec.PutFileRequest, call: GatewayCall): Promise<void> {
    await this.#using(call, (nats) => nats.objectStores.put(store, name, content, this.#place(domain, call)));
  }

  getFile({ store, name, domain }: spec.GetFileRequest, call: GatewayCall): Promise<Uint8Array> {
    return this.#using(call, (nats) => nats.objectStores.get(store, name, this.#place(domain, call)));
  }

  async deleteFile({ store, name, domain }: spec.DeleteFileRequest, call: GatewayCall): Promise<void> {
    await this.#using(call, (nats) => nats.objectStores.delete(store, name, this.#place(domain, call)));
  }

  getFileInfo({ store, name, domain }: spec.GetFileInfoRequest, call: GatewayCall): Promise<spec.GetFileInfoResponse> {
    return this.#using(call, async (nats) =>
      checkedText(store, await nats.objectStores.info(store, name, this.#place(domain, call))),
    );
  }

  getFileList(request: spec.GetFileListRequest, call: GatewayCall): Promise<readonly spec.GetFileListResponse[]> {
    const { store, domain } = request;
    return this.#using(call, async (nats) => {
      const files = await nats.objectStores.list(store, this.#place(domain, call));
      return files.map((file) => checkedText(store, file));
    });
  }

  async getServerInfo(_request: spec.GetServerInfoRequest, call: GatewayCall): Promise<spec.GetServerInfoResponse> {
    return (this.#present() ?? (await this.#connected(call))).serverInfo();
  }

  reloadConf(_request: spec.ReloadConfRequest, call: GatewayCall): Promise<void> {
    return this.#options.reload(false, call);
  }

  reloadConfForce(_request: spec.ReloadConfForceRequest, call: GatewayCall): Promise<void> {
    return this.#options.reload(true, call);
  }

  /** Without waiting, where there is a connection: the path of most calls. */
  #publishing(
    call: GatewayCall,
    subject: string,
    reply: string | undefined,
    publish: (nats: NatsOperations) => undefined | Promise<void>,
  ): spec.Answer<void> {
    const { client } = call;
    const violations = this.#refusals.take(client, ...(reply === undefined ? [subject] : [subject, reply]));
    if (violations.length > 0) throw refused(violations);
    this.#refusals.published(client, subject, reply);
    const nats = this.#present();
    if (nats === undefined) return this.#connected(call).then((later) => this.#publishOver(later, client, publish));
    return this.#publishOver(nats, client, publish);
  }

  #publishOver(
    nats: NatsOperations,
    client: GatewayClient,
    publish: (nats: NatsOperations) => undefined | Promise<void>,
  ): undefined | Promise<void> {
    const written = publish(nats);
    this.#unflushed.published(client, nats.connection);
    return written?.finally(this.#connector.use(nats.connection));
  }

  async #flush(nats: NatsOperations, call: GatewayCall): Promise<void> {
    const { client } = call;
    const arrived = await inTime(
      leftMs(call),
      () => flushLate(call),
      () => this.#unflushed.arrived(client, nats.connection),
    );
    if (!arrived) {
      this.#unflushed.forget(client);
      throw lostBetween();
    }
    try {
      await nats.flush({ timeoutMs: leftMs(call) });
      this.#unflushed.forget(client);
    } catch (error) {
      // The session has been told what it would be told the next time.
      if (error instanceof HawserError && error.code === "outcome_unknown") this.#unflushed.forget(client);
      throw error;
    }
  }

  /** Works over the live connection, which stays until the work has ended. */
  async #using<T>(call: GatewayCall, work: (nats: NatsOperations) => Promise<T>): Promise<T> {
    const nats = this.#present() ?? (await this.#connected(call));
    const ended = this.#connector.use(nats.connection);
    try {
      return await work(nats);
    } finally {
      ended();
    }
  }

  /** The operations over the live connection, if there is one. */
  #present(): NatsOperations | undefined {
    const { connection } = this.#connector;
    if (connection === undefined) return undefined;
    if (this.#operations?.connection !== connection) this.#operations = new NatsOperations(connection);
    return this.#operations;
  }

  async #connected(call: GatewayCall): Promise<NatsOperations> {
    await inTime(
      leftMs(call),
      () => this.#connector.failure ?? notYet(call),
      async (signal) => {
        if (this.#connector.options === undefined) await this.#options.readDefinition();
        return this.#connector.connected(signal);
      },
    );
    return this.#present() ?? this.#connected(call);
  }

  get #domain(): string | undefined {
    return this.#connector.options?.domain;
  }

  #place(domain: string | undefined, call: GatewayCall): ReadOptions {
    const replicas = this.#connector.options?.replicas;
    return { domain: domain ?? this.#domain, timeoutMs: leftMs(call), maxBytes: this.#options.maxFileBytes, replicas };
  }
}

function notYet({ timeoutMs }: GatewayCall): HawserError {
  const detail = `Connecting has not ended within the ${timeoutMs} ms of the call.`;
  return new HawserError("nats_unavailable", "there is no connection to the NATS server yet", { detail });
}

function flushLate({ timeoutMs }: GatewayCall): HawserError {
  const message = `the NATS server has not confirmed what this session published within ${timeoutMs} ms`;
  return new HawserError("nats_timeout", message, { detail: "It went over a connection that has been replaced." });
}

function lostBetween(): HawserError {
  return new HawserError(
    "outcome_unknown",
    "the connection to NATS was lost between a message that this session published and this flush: whether the " +
      "message arrived is unknown",
    {
      detail: "There is another connection now, which knows nothing of what was sent over the one before.",
      remedy: "Publish again what has been published since the last nats_flush(), where repeating does no harm.",
    },
  );
}

function refused(violations: readonly { readonly subject: string; readonly message: string }[]): HawserError {
  const subjects = violations.map(({ subject }) => `"${subject}"`).join(", ");
  return new HawserError(
    "nats_permission_denied",
    `the NATS server refused a message of this session to ${subjects}: its user may not publish there`,
    { detail: violations.map(({ message }) => message).join("; ") },
  );
}

/**
 * What the stream knows a message by. Where it is published for one that is being handled, the same each time that is handled;
 * and another one for other content: a function may take a publish back, with a savepoint, and publish something else.
 */
function publishedId(request: spec.PublishAckRequest | spec.PublishStreamBatchRequest): string {
  const { messageId, subject, headers } = request;
  if (messageId === undefined) return nuid.next();
  const digest = createHash("sha256").update(`${subject}\n${JSON.stringify(headers ?? null)}\n`);
  for (const payload of "payloads" in request ? request.payloads : [request.payload]) {
    digest.update(`${payload.length}\n`).update(payload);
  }
  return `${messageId}.${digest.digest("base64url").slice(0, 12)}`;
}

/** Behind an even number of backslashes: NUL, or half of a surrogate pair, as JSON has them. */
const noCharacter = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/;

/** @throws HawserError not_text, where another client has written what no text of Postgres can hold */
function checkedText(store: string, file: spec.GetFileInfoResponse): spec.GetFileInfoResponse {
  const text = JSON.stringify(file, (_name, value) => (typeof value === "bigint" ? undefined : value));
  if (noCharacter.test(text)) {
    throw new HawserError(
      "not_text",
      `the record of file ${JSON.stringify(file.name)} in object store "${store}" holds NUL or half of a surrogate pair`,
      { remedy: "Have its writer put it again without that, or delete it." },
    );
  }
  return file;
}

/** How many bytes of a file an answer of so many bytes has room for: two digits each, behind `\x`. */
export function fileBytesOf(maxResponseBytes: number): number {
  return Math.floor((maxResponseBytes - 2) / 2);
}

interface Published {
  /** The connection of the last publish. */
  connection: NatsConnection;
  /** Whether all arrived that went over the connections before it. */
  earlier: Promise<boolean> | true;
}

/**
 * The connections to NATS that took what clients published since their last flush. A message that was on its way when its
 * connection was lost is gone, and the connection that came after it knows nothing of it.
 */
class Unflushed<Client extends object> {
  /** A call that ends after its client has gone leaves nothing behind. */
  readonly #clients = new WeakMap<Client, Published>();

  readonly #hasTaken: (connection: NatsConnection) => Promise<boolean>;

  /** @param hasTaken whether the server has taken all that was published on a connection, also on one that was left */
  constructor(hasTaken: (connection: NatsConnection) => Promise<boolean>) {
    this.#hasTaken = hasTaken;
  }

  /** The client has published over the connection. */
  published(client: Client, connection: NatsConnection): void {
    const before = this.#clients.get(client);
    if (before?.connection === connection) return;
    const earlier = before === undefined ? true : this.#arrived(before);
    this.#clients.set(client, { connection, earlier });
  }

  /** Whether all arrived that the client published over other connections than the present one. */
  async arrived(client: Client, present: NatsConnection): Promise<boolean> {
    const published = this.#clients.get(client);
    if (published === undefined) return true;
    return published.connection === present ? published.earlier : this.#arrived(published);
  }

  /** The client has been told what became of what it published, or has gone. */
  forget(client: Client): void {
    this.#clients.delete(client);
  }

  async #arrived({ connection, earlier }: Published): Promise<boolean> {
    const [last, before] = await Promise.all([this.#hasTaken(connection), earlier]);
    return last && before;
  }
}
