/**
 * Answers the SQL functions over the connection to NATS.
 */
import { nuid } from "@nats-io/transport-node";
import type * as spec from "../../generated/ts/nats-functions/methods.js";
import { GatewayError, type HawserError } from "../errors/index.js";
import {
  type FileInfo,
  type NatsLink,
  NatsOperations,
  publishViolation,
  Refusals,
  readHeaders,
} from "../nats/index.js";
import type { GatewayCall } from "./calls.js";
import type { GatewaySession } from "./protocol/index.js";

/** What the handler works with. */
export interface NatsHandlerOptions {
  readonly link: NatsLink;
  /** The largest file that an answer has room for, in bytes. */
  readonly maxFileBytes: number;
  /** Reads the definition of the server again, and connects anew: always, or only if it has changed. */
  reload(always: boolean): Promise<void>;
}

/** See `NatsFunctionsHandler` for what each method does. */
export class NatsHandler implements spec.NatsFunctionsHandler<GatewayCall> {
  readonly #link: NatsLink;
  readonly #maxFileBytes: number;
  readonly #reload: NatsHandlerOptions["reload"];
  readonly #refusals = new Refusals<GatewaySession>();
  #operations: NatsOperations | undefined;

  constructor({ link, maxFileBytes, reload }: NatsHandlerOptions) {
    this.#link = link;
    this.#maxFileBytes = maxFileBytes;
    this.#reload = reload;
    link.on("refused", ({ message }) => {
      const violation = publishViolation(message);
      if (violation !== undefined) this.#refusals.refused(violation);
    });
  }

  /** Forgets what the session was to be told. */
  endSession(session: GatewaySession): void {
    this.#refusals.forget(session);
  }

  publish({ subject, payload, reply, headers }: spec.PublishRequest, call: GatewayCall): spec.Answer<void> {
    return this.#publishing(call, subject, reply, (nats) =>
      nats.publish(subject, payload, { reply, headers: readHeaders(headers), timeoutMs: left(call) }),
    );
  }

  publishBatch({ subject, payloads, reply, headers }: spec.PublishBatchRequest, call: GatewayCall): spec.Answer<void> {
    return this.#publishing(call, subject, reply, (nats) =>
      nats.publishBatch(subject, payloads, { reply, headers: readHeaders(headers), timeoutMs: left(call) }),
    );
  }

  async publishStream(request: spec.PublishStreamRequest, call: GatewayCall): Promise<void> {
    await this.publishAck(request, call);
  }

  async publishAck(request: spec.PublishAckRequest, call: GatewayCall): Promise<spec.PublishAckResponse> {
    const { subject, payload, headers, domain } = request;
    const nats = await this.#connected(call);
    return nats.publishStream(subject, payload, {
      headers: readHeaders(headers),
      domain: domain ?? this.#domain,
      messageId: nuid.next(),
      timeoutMs: left(call),
    });
  }

  async publishStreamBatch(request: spec.PublishStreamBatchRequest, call: GatewayCall): Promise<void> {
    const { subject, payloads, headers, domain } = request;
    const nats = await this.#connected(call);
    await nats.publishStreamBatch(subject, payloads, {
      headers: readHeaders(headers),
      domain: domain ?? this.#domain,
      messageId: nuid.next(),
      timeoutMs: left(call),
    });
  }

  async flush(_request: spec.FlushRequest, call: GatewayCall): Promise<void> {
    const nats = await this.#connected(call);
    await nats.flush({ timeoutMs: left(call) });
    const violations = this.#refusals.take(call.session);
    if (violations.length > 0) throw refused(violations);
  }

  async request({ subject, payload }: spec.RequestRequest, call: GatewayCall): Promise<Uint8Array> {
    const nats = await this.#connected(call);
    return nats.request(subject, payload, { timeoutMs: left(call) });
  }

  async putValue({ bucket, key, data, domain }: spec.PutValueRequest, call: GatewayCall): Promise<bigint> {
    const nats = await this.#connected(call);
    return nats.keyValue.put(bucket, key, data, this.#place(domain, call));
  }

  async getValue(request: spec.GetValueRequest, call: GatewayCall): Promise<Uint8Array | undefined> {
    const { bucket, key, domain } = request;
    const nats = await this.#connected(call);
    return nats.keyValue.get(bucket, key, this.#place(domain, call));
  }

  async deleteValue({ bucket, key, domain }: spec.DeleteValueRequest, call: GatewayCall): Promise<void> {
    const nats = await this.#connected(call);
    await nats.keyValue.delete(bucket, key, this.#place(domain, call));
  }

  async putFile({ store, name, content, domain }: spec.PutFileRequest, call: GatewayCall): Promise<void> {
    const nats = await this.#connected(call);
    await nats.objectStores.put(store, name, content, this.#place(domain, call));
  }

  async getFile({ store, name, domain }: spec.GetFileRequest, call: GatewayCall): Promise<Uint8Array> {
    const nats = await this.#connected(call);
    return nats.objectStores.get(store, name, { ...this.#place(domain, call), maxBytes: this.#maxFileBytes });
  }

  async deleteFile({ store, name, domain }: spec.DeleteFileRequest, call: GatewayCall): Promise<void> {
    const nats = await this.#connected(call);
    await nats.objectStores.delete(store, name, this.#place(domain, call));
  }

  async getFileInfo(request: spec.GetFileInfoRequest, call: GatewayCall): Promise<spec.GetFileInfoResponse> {
    const { store, name, domain } = request;
    const nats = await this.#connected(call);
    return fileRow(store, await nats.objectStores.info(store, name, this.#place(domain, call)));
  }

  async getFileList(request: spec.GetFileListRequest, call: GatewayCall): Promise<readonly spec.GetFileListResponse[]> {
    const nats = await this.#connected(call);
    const place = { ...this.#place(request.domain, call), maxBytes: this.#maxFileBytes };
    return (await nats.objectStores.list(request.store, place)).map((file) => fileRow(request.store, file));
  }

  async getServerInfo(_request: spec.GetServerInfoRequest, call: GatewayCall): Promise<spec.GetServerInfoResponse> {
    const nats = await this.#connected(call);
    const info = nats.serverInfo();
    return { ...info, tlsRequiered: info.tlsRequired };
  }

  reloadConf(): Promise<void> {
    return this.#reload(false);
  }

  reloadConfForce(): Promise<void> {
    return this.#reload(true);
  }

  /** Without waiting, where there is a connection: the path of most calls. */
  #publishing(
    call: GatewayCall,
    subject: string,
    reply: string | undefined,
    publish: (nats: NatsOperations) => undefined | Promise<void>,
  ): spec.Answer<void> {
    const { session } = call;
    const violations = this.#refusals.take(session, ...(reply === undefined ? [subject] : [subject, reply]));
    if (violations.length > 0) throw refused(violations);
    this.#refusals.published(session, subject, reply);
    const nats = this.#present();
    return nats === undefined ? this.#connected(call).then(publish) : publish(nats);
  }

  /** The operations over the live connection, if there is one. */
  #present(): NatsOperations | undefined {
    const { connection } = this.#link;
    if (connection === undefined) return undefined;
    if (this.#operations?.connection !== connection) this.#operations = new NatsOperations(connection);
    return this.#operations;
  }

  async #connected(call: GatewayCall): Promise<NatsOperations> {
    const present = this.#present();
    if (present !== undefined) return present;
    await this.#link.connected(AbortSignal.timeout(left(call)));
    return this.#present() ?? this.#connected(call);
  }

  get #domain(): string | undefined {
    return this.#link.options?.domain;
  }

  #place(domain: string | undefined, call: GatewayCall): { domain: string | undefined; timeoutMs: number } {
    return { domain: domain ?? this.#domain, timeoutMs: left(call) };
  }
}

/** What is left of a call's time, at least 1 ms. */
function left({ startedAt, timeoutMs }: GatewayCall): number {
  return Math.max(1, Math.ceil(timeoutMs - (performance.now() - startedAt)));
}

function refused(violations: readonly { readonly subject: string; readonly message: string }[]): HawserError {
  const subjects = violations.map(({ subject }) => `"${subject}"`).join(", ");
  return new GatewayError(
    "nats_permission_denied",
    `the NATS server refused a message of this session to ${subjects}: its user may not publish there`,
    { detail: violations.map(({ message }) => message).join("; ") },
  );
}

/** Behind an even number of backslashes: NUL, or half of a surrogate pair, as JSON has them. */
const noCharacter = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/;

/** @throws GatewayError not_text, where another client has written what no text of Postgres can hold */
function fileRow(store: string, { deleted, ...file }: FileInfo): spec.GetFileInfoResponse {
  const text = JSON.stringify(file, (_name, value) => (typeof value === "bigint" ? undefined : value));
  if (noCharacter.test(text)) {
    throw new GatewayError(
      "not_text",
      `the record of file ${JSON.stringify(file.name)} in object store "${store}" holds NUL or half of a surrogate pair`,
      { hint: "Have its writer put it again without that, or delete it." },
    );
  }
  return { ...file, delete: deleted };
}

/** How many bytes of a file an answer of so many bytes has room for: two digits each, behind `\x`. */
export function fileBytesOf(maxResponseBytes: number): number {
  return Math.floor((maxResponseBytes - 2) / 2);
}
