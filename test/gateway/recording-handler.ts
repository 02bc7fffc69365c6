/**
 * A handler that carries nothing out: it checks that it was asked for what the spec allows, counts, and gives an answer of
 * the right type. What is fuzzed is everything before it and behind it.
 */
import type * as spec from "../../generated/ts/nats-functions/methods.js";
import type { GatewayCall } from "../../src/gateway/calls.js";
import { readHeaders } from "../../src/nats/index.js";

/** How a value of a request has to be; `?` at its end: or undefined. */
type Form = "text" | "text?" | "bytes" | "lists" | "integer?" | "object?" | "type";

const checks: Record<string, (value: unknown) => boolean> = {
  text: (value) => typeof value === "string" && value !== "" && !/[\0\p{Surrogate}]/u.test(value),
  bytes: (value) => value instanceof Uint8Array,
  lists: (value) => Array.isArray(value) && value.every((one) => one instanceof Uint8Array),
  integer: (value) => Number.isInteger(value) && Math.abs(value as number) <= 2 ** 31,
  object: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  type: (value) => ["text", "json", "jsonb", "binary"].includes(value as string),
};

/** Of a publish into a stream. */
const published: Record<string, Form> = { headers: "object?", domain: "text?", messageId: "text?" };
const place: Record<string, Form> = { store: "text", name: "text", domain: "text?" };
const cell: Record<string, Form> = { bucket: "text", key: "text", domain: "text?" };

const file: spec.GetFileInfoResponse = {
  name: "näme\u0001",
  bucket: "b",
  nuid: "n",
  size: 2n ** 63n - 1n,
  chunks: 0n,
  modified: "2026-01-01T00:00:00Z",
  delete: false,
  metadata: JSON.parse('{"__proto__":{"a":1}}'),
};

/** Values that are read: of all of them one is no text. */
const values = [
  undefined,
  Buffer.alloc(0),
  Buffer.from("ä😀"),
  Buffer.from("[1]"),
  Buffer.from([0xff]),
  Buffer.from("\0"),
];

/** See above. */
export class RecordingHandler implements spec.NatsFunctionsHandler<GatewayCall> {
  /** How often each method was asked. */
  readonly asked = new Map<string, number>();

  publish(request: spec.PublishRequest, call: GatewayCall): void | Promise<void> {
    this.#check("publish", request, call, { subject: "text", payload: "bytes", reply: "text?", headers: "object?" });
    return later(request.payload, undefined);
  }

  publishBatch(request: spec.PublishBatchRequest, call: GatewayCall): void {
    const form: Record<string, Form> = { subject: "text", payloads: "lists", reply: "text?", headers: "object?" };
    this.#check("publishBatch", request, call, form);
  }

  publishStream(request: spec.PublishStreamRequest, call: GatewayCall): void {
    const form: Record<string, Form> = { subject: "text", payload: "bytes", ...published };
    this.#check("publishStream", request, call, form);
  }

  publishAck(request: spec.PublishAckRequest, call: GatewayCall): spec.Answer<spec.PublishAckResponse> {
    const form: Record<string, Form> = { subject: "text", payload: "bytes", ...published };
    this.#check("publishAck", request, call, form);
    return later(request.payload, { stream: "s", seq: 1n, duplicate: false });
  }

  publishStreamBatch(request: spec.PublishStreamBatchRequest, call: GatewayCall): void {
    const form: Record<string, Form> = { subject: "text", payloads: "lists", ...published };
    this.#check("publishStreamBatch", request, call, form);
  }

  flush(request: spec.FlushRequest, call: GatewayCall): void {
    this.#check("flush", request, call, {});
  }

  request(request: spec.RequestRequest, call: GatewayCall): spec.Answer<Uint8Array> {
    this.#check("request", request, call, { subject: "text", payload: "bytes", timeout: "integer?" });
    return later(request.payload, Buffer.from([0, 255]));
  }

  putValue(request: spec.PutValueRequest, call: GatewayCall): bigint {
    this.#check("putValue", request, call, { ...cell, data: "bytes" });
    return 7n;
  }

  getValue(request: spec.GetValueRequest, call: GatewayCall): spec.Answer<Uint8Array | undefined> {
    this.#check("getValue", request, call, { ...cell, type: "type" });
    return later(Buffer.from(request.key), values[request.key.length % values.length]);
  }

  deleteValue(request: spec.DeleteValueRequest, call: GatewayCall): void {
    this.#check("deleteValue", request, call, cell);
  }

  putFile(request: spec.PutFileRequest, call: GatewayCall): void {
    this.#check("putFile", request, call, { ...place, content: "bytes" });
  }

  getFile(request: spec.GetFileRequest, call: GatewayCall): Uint8Array {
    this.#check("getFile", request, call, place);
    return Buffer.alloc(request.name.length);
  }

  deleteFile(request: spec.DeleteFileRequest, call: GatewayCall): void {
    this.#check("deleteFile", request, call, place);
  }

  getFileInfo(request: spec.GetFileInfoRequest, call: GatewayCall): spec.GetFileInfoResponse {
    this.#check("getFileInfo", request, call, place);
    return file;
  }

  getFileList(request: spec.GetFileListRequest, call: GatewayCall): spec.GetFileInfoResponse[] {
    this.#check("getFileList", request, call, { store: "text", domain: "text?" });
    return [file, file];
  }

  getServerInfo(request: spec.GetServerInfoRequest, call: GatewayCall): spec.GetServerInfoResponse {
    this.#check("getServerInfo", request, call, {});
    return serverInfo;
  }

  reloadConf(request: spec.ReloadConfRequest, call: GatewayCall): void {
    this.#check("reloadConf", request, call, {});
  }

  reloadConfForce(request: spec.ReloadConfForceRequest, call: GatewayCall): void {
    this.#check("reloadConfForce", request, call, {});
  }

  #check(name: string, request: object, { timeoutMs, session }: GatewayCall, forms: Record<string, Form>): void {
    for (const [property, value] of Object.entries(request)) {
      const form = Object.hasOwn(forms, property) ? forms[property]! : undefined;
      const isRight = form?.endsWith("?")
        ? value === undefined || checks[form.slice(0, -1)]!(value)
        : form !== undefined && checks[form]!(value);
      if (!isRight) throw new Error(`${name} was asked with ${property}: ${String(value)}`);
    }
    if (!(timeoutMs >= 0 && timeoutMs <= 60_000) || session.id !== 1) throw new Error(`${name} may take ${timeoutMs}`);
    this.asked.set(name, (this.asked.get(name) ?? 0) + 1);
    readHeaders((request as spec.PublishRequest).headers);
  }
}

const serverInfo: spec.GetServerInfoResponse = {
  serverId: "i",
  serverName: "n",
  host: "h",
  port: 4222,
  version: "2",
  authRequired: false,
  tlsRequiered: false,
  maxPayload: 1n,
  proto: 1,
  clientId: 1n,
  go: "go",
  connectUrls: ["a", "b"],
  headers: true,
  lameDuckMode: false,
  tlsRequired: false,
};

/** At once for most payloads, later for some, in ways that a handler may. */
function later<T>(payload: Uint8Array, value: T): T | Promise<T> {
  switch (payload.length % 8) {
    case 5:
      return Promise.resolve(value);
    case 6:
      return Promise.resolve().then(() => value);
    default:
      return value;
  }
}
