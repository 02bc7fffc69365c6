/**
 * A handler that carries nothing out: it checks that it was asked for what the spec allows, counts, and gives an answer of
 * the right type. What is fuzzed is everything before it and behind it.
 */
import type * as spec from "../../generated/ts/nats-functions/methods.js";
import { readHeaders } from "../../src/nats/connections/index.js";
import type { GatewayCall } from "../../src/nats/gateway/calls.js";

/** Form of a value of a request; with `?` at the end it may be undefined. */
export type Form =
  | ("text" | "text?" | "texts" | "texts?" | "bytes" | "lists")
  | ("integer?" | "bigint" | "bigint?" | "choice?" | "object?" | "type");

const checks: Record<string, (value: unknown) => boolean> = {
  text: (value) => typeof value === "string" && value !== "" && !/[\0\p{Surrogate}]/u.test(value),
  texts: (value) =>
    Array.isArray(value) && value.every((one) => typeof one === "string" && !/[\0\p{Surrogate}]/u.test(one)),
  choice: (value) => ["file", "memory", "limits", "interest", "workqueue", "old", "new"].includes(value as string),
  bytes: (value) => value instanceof Uint8Array,
  lists: (value) => Array.isArray(value) && value.every((one) => one instanceof Uint8Array),
  integer: (value) => Number.isInteger(value) && Math.abs(value as number) <= 2 ** 31,
  bigint: (value) => typeof value === "bigint" && value >= 0n && value <= 2n ** 53n - 1n,
  object: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  type: (value) => ["text", "json", "jsonb", "binary"].includes(value as string),
};

const message = { subject: "text", payload: "bytes", headers: "object?" } as const;
const batch = { subject: "text", payloads: "lists", headers: "object?" } as const;
/** Forms of a publish into a stream. */
const stored = { domain: "text?", messageId: "text?" } as const;
const place = { store: "text", name: "text", domain: "text?" } as const;
const cell = { bucket: "text", key: "text", domain: "text?" } as const;

const streamLimits = {
  discard: "choice?",
  maxAgeMs: "bigint?",
  maxMessages: "bigint?",
  maxBytes: "bigint?",
  maxMessageBytes: "integer?",
  duplicateWindowMs: "bigint?",
  replicas: "integer?",
  domain: "text?",
} as const;

const streamRow: spec.GetStreamListResponse = {
  ...{ stream: "s", subjects: ["a.>", 'b"{,}'], storage: "file", retention: "limits", discard: "old" },
  ...{ maxAgeMs: 0n, maxMessages: 2n ** 53n, maxBytes: 0n, maxMessageBytes: 0, duplicateWindowMs: 120_000n },
  ...{
    replicas: 1,
    messages: 2n,
    bytes: 100n,
    firstSeq: 1n,
    lastSeq: 2n,
    consumers: 0,
    created: "2026-01-01T00:00:00Z",
  },
};

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

const nothing = () => undefined;

type Handler = spec.NatsFunctionsHandler<GatewayCall>;
type Request<Name extends keyof Handler> = Parameters<Handler[Name]>[0];

/** Values for the requests of each method, and its answers. Hostile calls use all of the values. */
const methods: {
  readonly [Name in keyof Handler]: readonly [
    forms: { readonly [Property in keyof Request<Name>]-?: Form },
    answer: (request: Request<Name>) => ReturnType<Handler[Name]>,
  ];
} = {
  publish: [{ ...message, reply: "text?" }, ({ payload }) => later(payload, undefined)],
  publishBatch: [{ ...batch, reply: "text?" }, nothing],
  publishStream: [{ ...message, ...stored }, nothing],
  publishAck: [{ ...message, ...stored }, ({ payload }) => later(payload, { stream: "s", seq: 1n, duplicate: false })],
  publishStreamBatch: [{ ...batch, ...stored }, nothing],
  flush: [{}, nothing],
  request: [
    { subject: "text", payload: "bytes", timeout: "integer?" },
    ({ payload }) => later(payload, Buffer.from([0, 255])),
  ],
  putValue: [{ ...cell, data: "bytes" }, () => 7n],
  getValue: [{ ...cell, type: "type" }, ({ key }) => later(Buffer.from(key), values[key.length % values.length])],
  deleteValue: [cell, nothing],
  createValue: [{ ...cell, data: "bytes" }, () => 8n],
  updateValue: [{ ...cell, data: "bytes", revision: "bigint" }, ({ revision }) => revision + 1n],
  getKeys: [{ bucket: "text", domain: "text?" }, ({ bucket }) => [{ key: bucket }, { key: "b" }]],
  getHistory: [
    cell,
    ({ key }) => [
      { revision: 1n, operation: "PUT", value: Buffer.from(key), created: "2026-11-21T12:00:00.000Z" },
      { revision: 2n, operation: "DEL", created: "2026-11-21T12:00:01.000Z" },
    ],
  ],
  putFile: [{ ...place, content: "bytes" }, nothing],
  getFile: [place, ({ name }) => Buffer.alloc(name.length)],
  deleteFile: [place, nothing],
  getFileInfo: [place, () => file],
  getFileList: [{ store: "text", domain: "text?" }, () => [file, file]],
  createStream: [
    { stream: "text", subjects: "texts", storage: "choice?", retention: "choice?", ...streamLimits },
    nothing,
  ],
  updateStream: [{ stream: "text", subjects: "texts?", ...streamLimits }, nothing],
  deleteStream: [{ stream: "text", domain: "text?" }, nothing],
  getStreamList: [{ domain: "text?" }, () => [streamRow, streamRow]],
  getServerInfo: [{}, () => serverInfo],
  reloadConf: [{}, nothing],
  reloadConfForce: [{}, nothing],
};

/** Forms of the values of each method, by its name in a call. */
export const formsOfCalls: ReadonlyMap<string, Readonly<Record<string, Form>>> = new Map(
  Object.entries(methods).map(([name, [forms]]) => [calledName(name), forms]),
);

/** `putValue` → `PutValue`. */
function calledName(name: string): string {
  return name.charAt(0).toUpperCase() + name.slice(1);
}

/** A handler, and how often each of its methods was asked, by its name in a call. */
export function recordingHandler(): { readonly handler: Handler; readonly asked: ReadonlyMap<string, number> } {
  const asked = new Map<string, number>();
  const made = Object.entries(methods).map(([name, [forms, answer]]) => {
    const method = (request: never, call: GatewayCall) => {
      check(name, request, call, forms);
      asked.set(calledName(name), (asked.get(calledName(name)) ?? 0) + 1);
      return answer(request);
    };
    return [name, method];
  });
  return { handler: Object.fromEntries(made), asked };
}

function check(name: string, request: object, { timeoutMs, client }: GatewayCall, forms: Record<string, Form>): void {
  for (const [property, value] of Object.entries(request)) {
    const form = Object.hasOwn(forms, property) ? forms[property]! : undefined;
    const isRight = form?.endsWith("?")
      ? value === undefined || checks[form.slice(0, -1)]!(value)
      : form !== undefined && checks[form]!(value);
    if (!isRight) throw new Error(`${name} was asked with ${property}: ${String(value)}`);
  }
  if (!(timeoutMs >= 0 && timeoutMs <= 60_000) || client.id !== 1) throw new Error(`${name} may take ${timeoutMs}`);
  readHeaders((request as spec.PublishRequest).headers);
}

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
