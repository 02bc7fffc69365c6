/** Carries out the calls of SQL functions over the connection to NATS. */
import { createHash } from "node:crypto";
import { type NatsConnection, nuid } from "@nats-io/transport-node";
import type * as spec from "../../../generated/ts/nats-functions/methods.js";
import { HawserError } from "../../foundation/errors/index.js";
import { inTime } from "../../foundation/runtime/index.js";
import { type NatsConnector, NatsOperations, type ReadOptions, Refusals, readHeaders } from "../connections/index.js";
import { type GatewayCall, remainingMs } from "./calls.js";
import type { GatewayClient } from "./protocol/index.js";

/** Collaborators and limits of a {@link NatsHandler}. */
export interface NatsHandlerOptions {
  readonly connector: NatsConnector;
  /** Largest file that fits into an answer, in bytes. */
  readonly maxFileBytes: number;
  /** Reads the definition of the server again. Called without a definition, since one may just have been committed. */
  readDefinition(): Promise<void>;
  /** Reads the definition of the server again, and reconnects: always, or only if it has changed. */
  reload(always: boolean, call: GatewayCall): Promise<void>;
}

/** Handler of all methods. `NatsFunctionsHandler` documents each of them. */
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

  /** Forgets refusals and unflushed publishes of a client. */
  forget(client: GatewayClient): void {
    this.#refusals.forget(client);
    this.#unflushed.forget(client);
  }

  publish({ subject, payload, reply, headers }: spec.PublishRequest, call: GatewayCall): spec.Answer<void> {
    return this.#publishing(call, subject, reply, (nats) =>
      nats.publish(subject, payload, { reply, headers: readHeaders(headers), timeoutMs: remainingMs(call) }),
    );
  }

  publishBatch({ subject, payloads, reply, headers }: spec.PublishBatchRequest, call: GatewayCall): spec.Answer<void> {
    return this.#publishing(call, subject, reply, (nats) =>
      nats.publishBatch(subject, payloads, { reply, headers: readHeaders(headers), timeoutMs: remainingMs(call) }),
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
        timeoutMs: remainingMs(call),
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
        timeoutMs: remainingMs(call),
      }),
    );
  }

  async flush(_request: spec.FlushRequest, call: GatewayCall): Promise<void> {
    await this.#using(call, (nats) => this.#flush(nats, call));
    const violations = this.#refusals.take(call.client);
    if (violations.length > 0) throw refusedError(violations);
  }

  request({ subject, payload }: spec.RequestRequest, call: GatewayCall): Promise<Uint8Array> {
    return this.#using(call, (nats) => nats.request(subject, payload, { timeoutMs: remainingMs(call) }));
  }

  putValue({ bucket, key, data, domain }: spec.PutValueRequest, call: GatewayCall): Promise<bigint> {
    return this.#using(call, (nats) => nats.keyValue.put(bucket, key, data, this.#callOptions(domain, call)));
  }

  getValue({ bucket, key, domain }: spec.GetValueRequest, call: GatewayCall): Promise<Uint8Array | undefined> {
    return this.#using(call, (nats) => nats.keyValue.get(bucket, key, this.#callOptions(domain, call)));
  }

  async deleteValue({ bucket, key, domain }: spec.DeleteValueRequest, call: GatewayCall): Promise<void> {
    await this.#using(call, (nats) => nats.keyValue.delete(bucket, key, this.#callOptions(domain, call)));
  }

  createValue({ bucket, key, data, domain }: spec.CreateValueRequest, call: GatewayCall): Promise<bigint> {
    return this.#using(call, (nats) => nats.keyValue.create(bucket, key, data, this.#callOptions(domain, call)));
  }

  updateValue(request: spec.UpdateValueRequest, call: GatewayCall): Promise<bigint> {
    const { bucket, key, data, revision, domain } = request;
    return this.#using(call, (nats) =>
      nats.keyValue.update(bucket, key, data, revision, this.#callOptions(domain, call)),
    );
  }

  async getKeys({ bucket, domain }: spec.GetKeysRequest, call: GatewayCall): Promise<readonly spec.GetKeysResponse[]> {
    const keys = await this.#using(call, (nats) => nats.keyValue.keys(bucket, this.#callOptions(domain, call)));
    return keys.map((key) => ({ key }));
  }

  getHistory(request: spec.GetHistoryRequest, call: GatewayCall): Promise<readonly spec.GetHistoryResponse[]> {
    const { bucket, key, domain } = request;
    return this.#using(call, (nats) => nats.keyValue.history(bucket, key, this.#callOptions(domain, call)));
  }

  async putFile({ store, name, content, domain }: spec.PutFileRequest, call: GatewayCall): Promise<void> {
    await this.#using(call, (nats) => nats.objectStores.put(store, name, content, this.#callOptions(domain, call)));
  }

  getFile({ store, name, domain }: spec.GetFileRequest, call: GatewayCall): Promise<Uint8Array> {
    return this.#using(call, (nats) => nats.objectStores.get(store, name, this.#callOptions(domain, call)));
  }

  async deleteFile({ store, name, domain }: spec.DeleteFileRequest, call: GatewayCall): Promise<void> {
    await this.#using(call, (nats) => nats.objectStores.delete(store, name, this.#callOptions(domain, call)));
  }

  getFileInfo({ store, name, domain }: spec.GetFileInfoRequest, call: GatewayCall): Promise<spec.GetFileInfoResponse> {
    return this.#using(call, async (nats) =>
      checkedText(store, await nats.objectStores.info(store, name, this.#callOptions(domain, call))),
    );
  }

  getFileList(request: spec.GetFileListRequest, call: GatewayCall): Promise<readonly spec.GetFileListResponse[]> {
    const { store, domain } = request;
    return this.#using(call, async (nats) => {
      const files = await nats.objectStores.list(store, this.#callOptions(domain, call));
      return files.map((file) => checkedText(store, file));
    });
  }

  async createStream({ stream, domain, ...settings }: spec.CreateStreamRequest, call: GatewayCall): Promise<void> {
    await this.#using(call, (nats) => nats.streamManagement.create(stream, settings, this.#callOptions(domain, call)));
  }

  async updateStream({ stream, domain, ...changes }: spec.UpdateStreamRequest, call: GatewayCall): Promise<void> {
    await this.#using(call, (nats) => nats.streamManagement.update(stream, changes, this.#callOptions(domain, call)));
  }

  async deleteStream({ stream, domain }: spec.DeleteStreamRequest, call: GatewayCall): Promise<void> {
    await this.#using(call, (nats) => nats.streamManagement.delete(stream, this.#callOptions(domain, call)));
  }

  getStreamList(
    { domain }: spec.GetStreamListRequest,
    call: GatewayCall,
  ): Promise<readonly spec.GetStreamListResponse[]> {
    return this.#using(call, (nats) => nats.streamManagement.list(this.#callOptions(domain, call)));
  }

  async getServerInfo(_request: spec.GetServerInfoRequest, call: GatewayCall): Promise<spec.GetServerInfoResponse> {
    return (this.#current() ?? (await this.#connected(call))).serverInfo();
  }

  reloadConf(_request: spec.ReloadConfRequest, call: GatewayCall): Promise<void> {
    return this.#options.reload(false, call);
  }

  reloadConfForce(_request: spec.ReloadConfForceRequest, call: GatewayCall): Promise<void> {
    return this.#options.reload(true, call);
  }

  /** Publishes, without a promise if there is a connection: most calls take this path, and promises cost time. */
  #publishing(
    call: GatewayCall,
    subject: string,
    reply: string | undefined,
    publish: (nats: NatsOperations) => undefined | Promise<void>,
  ): spec.Answer<void> {
    const { client } = call;
    const violations = this.#refusals.take(client, ...(reply === undefined ? [subject] : [subject, reply]));
    if (violations.length > 0) throw refusedError(violations);
    this.#refusals.published(client, subject, reply);
    const nats = this.#current();
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
      remainingMs(call),
      () => flushTimeout(call),
      () => this.#unflushed.haveArrived(client, nats.connection),
    );
    if (!arrived) {
      this.#unflushed.forget(client);
      throw lostBeforeFlush();
    }
    try {
      await nats.flush({ timeoutMs: remainingMs(call) });
      this.#unflushed.forget(client);
    } catch (error) {
      // This error has reported the unknown outcome, so the next flush must not report it again.
      if (error instanceof HawserError && error.code === "outcome_unknown") this.#unflushed.forget(client);
      throw error;
    }
  }

  /** Runs an operation over the current connection, which stays open until the operation has ended. */
  async #using<T>(call: GatewayCall, work: (nats: NatsOperations) => Promise<T>): Promise<T> {
    const nats = this.#current() ?? (await this.#connected(call));
    const ended = this.#connector.use(nats.connection);
    try {
      return await work(nats);
    } finally {
      ended();
    }
  }

  /** Operations over the current connection, if there is one. */
  #current(): NatsOperations | undefined {
    const { connection } = this.#connector;
    if (connection === undefined) return undefined;
    if (this.#operations?.connection !== connection) this.#operations = new NatsOperations(connection);
    return this.#operations;
  }

  async #connected(call: GatewayCall): Promise<NatsOperations> {
    await inTime(
      remainingMs(call),
      () => this.#connector.failure ?? notConnectedYet(call),
      async (signal) => {
        if (this.#connector.options === undefined) await this.#options.readDefinition();
        return this.#connector.connected(signal);
      },
    );
    return this.#current() ?? this.#connected(call);
  }

  get #domain(): string | undefined {
    return this.#connector.options?.domain;
  }

  #callOptions(domain: string | undefined, call: GatewayCall): ReadOptions {
    const replicas = this.#connector.options?.replicas;
    return {
      domain: domain ?? this.#domain,
      timeoutMs: remainingMs(call),
      maxBytes: this.#options.maxFileBytes,
      replicas,
    };
  }
}

function notConnectedYet({ timeoutMs }: GatewayCall): HawserError {
  const detail = `Connecting has taken longer than the ${timeoutMs} ms of the call.`;
  return new HawserError("nats_unavailable", "there is no connection to the NATS server yet", { detail });
}

function flushTimeout({ timeoutMs }: GatewayCall): HawserError {
  const message = `the NATS server did not confirm the messages that this session published within ${timeoutMs} ms`;
  return new HawserError("nats_timeout", message, {
    detail: "They were sent over a connection that has been replaced.",
  });
}

function lostBeforeFlush(): HawserError {
  return new HawserError(
    "outcome_unknown",
    "the connection to NATS was lost after this session published a message and before this flush; it is unknown whether the " +
      "message arrived",
    {
      detail: "There is another connection now, whose server cannot confirm messages of the previous one.",
      remedy: "Publish everything since the last nats_flush() again, if duplicates are harmless.",
    },
  );
}

function refusedError(violations: readonly { readonly subject: string; readonly message: string }[]): HawserError {
  const subjects = violations.map(({ subject }) => `"${subject}"`).join(", ");
  return new HawserError(
    "nats_permission_denied",
    `the NATS server refused a message of this session to ${subjects}: its user is not permitted to publish there`,
    { detail: violations.map(({ message }) => message).join("; ") },
  );
}

/**
 * Nats-Msg-Id of a publish. While a function handles a message, the id is the same each time that message is handled.
 * Other content has another id: a function may roll back a publish to a savepoint and publish something else.
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

/** NUL or half of a surrogate pair in JSON, after an even number of backslashes. */
const notStorable = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/;

/** @throws HawserError not_text, if another client has written text that Postgres cannot store */
function checkedText(store: string, file: spec.GetFileInfoResponse): spec.GetFileInfoResponse {
  const text = JSON.stringify(file, (_name, value) => (typeof value === "bigint" ? undefined : value));
  if (notStorable.test(text)) {
    throw new HawserError(
      "not_text",
      `the record of file ${JSON.stringify(file.name)} in object store "${store}" contains NUL or half of a surrogate pair`,
      { remedy: "Let its writer put the file again without these characters, or delete it." },
    );
  }
  return file;
}

/** Largest file that fits into an answer: two digits per byte, after `\x`. */
export function fileBytesOf(maxResponseBytes: number): number {
  return Math.floor((maxResponseBytes - 2) / 2);
}

interface Published {
  /** Connection of the last publish. */
  connection: NatsConnection;
  /** True if all messages over earlier connections arrived. */
  earlier: Promise<boolean> | true;
}

/**
 * Connections to NATS over which clients have published since their last flush. A message in transit when its
 * connection is lost may be lost, and the next connection cannot confirm it.
 */
class Unflushed<Client extends object> {
  /** Weak, so that a call that ends after its client is gone leaves nothing behind. */
  readonly #clients = new WeakMap<Client, Published>();

  readonly #hasTaken: (connection: NatsConnection) => Promise<boolean>;

  /**
   * @param hasTaken returns whether the server has read everything that was published on a connection, even a replaced
   * one
   */
  constructor(hasTaken: (connection: NatsConnection) => Promise<boolean>) {
    this.#hasTaken = hasTaken;
  }

  /** Records a publish of a client. */
  published(client: Client, connection: NatsConnection): void {
    const before = this.#clients.get(client);
    if (before?.connection === connection) return;
    const earlier = before === undefined ? true : this.#arrived(before);
    this.#clients.set(client, { connection, earlier });
  }

  /** True if all messages that the client published over earlier connections have arrived. */
  async haveArrived(client: Client, present: NatsConnection): Promise<boolean> {
    const published = this.#clients.get(client);
    if (published === undefined) return true;
    return published.connection === present ? published.earlier : this.#arrived(published);
  }

  /** Removes a client that knows the outcome or has disconnected. */
  forget(client: Client): void {
    this.#clients.delete(client);
  }

  async #arrived({ connection, earlier }: Published): Promise<boolean> {
    const [last, before] = await Promise.all([this.#hasTaken(connection), earlier]);
    return last && before;
  }
}
