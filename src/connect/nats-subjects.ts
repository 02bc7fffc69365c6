/**
 * Methods as subjects of NATS, and metadata as headers of its messages.
 */
import type { DescMethod } from "@bufbuild/protobuf";
import { type Msg, type MsgHdrs, MsgHdrsImpl } from "@nats-io/transport-node";
import { HawserError } from "../errors/index.js";
import { headersReadHere } from "../nats/index.js";
import type { HeaderPairs } from "./headers.js";

/** Tokens with dots between them, without wildcards. */
const prefixPattern = /^[^\s.*>$][^\s.*>]*(?:\.[^\s.*>]+)*$/;

/** @throws HawserError `invalid_argument` for what cannot begin a subject */
export function checkSubjectPrefix(prefix: unknown): void {
  if (prefix === undefined || (typeof prefix === "string" && prefixPattern.test(prefix))) return;
  throw new HawserError(
    "invalid_argument",
    `subjectPrefix ${JSON.stringify(prefix)}: must be words with dots between them, without wildcards, spaces and $ as the first character. Example: "staging.eu"`,
  );
}

/** `acme.v1.Warehouse.Reserve`, behind the prefix. */
export function subjectOf({ parent, name }: DescMethod, prefix: string | undefined): string {
  return `${prefix === undefined ? "" : `${prefix}.`}${parent.typeName}.${name}`;
}

/** As NATS carries them. */
export function natsHeaders(pairs: HeaderPairs): MsgHdrs {
  const record: Record<string, string[]> = Object.create(null);
  for (const [name, value] of pairs) {
    const values = record[name];
    if (values === undefined) record[name] = [value];
    else values.push(value);
  }
  return MsgHdrsImpl.fromRecord(record);
}

/** How many bytes they take in a message. */
export function bytesOfHeaders(headers: MsgHdrs): number {
  return (headers as MsgHdrsImpl).encode().length;
}

/** A message as calls and answers have it. */
export interface ReadMessage {
  /** Without NATS's own, which begin with `Nats-`. */
  readonly headers: HeaderPairs;
  readonly payload: Uint8Array;
  /** By which a micro service says that it failed, as it may without knowing Connect (ADR-32). */
  readonly failure: { readonly status: number; readonly words: string } | undefined;
}

/** Reads a message, whoever has sent it. @throws what nats.js throws where it had to read the headers */
export function readMessage(message: Msg): ReadMessage {
  const headers = headersReadHere(message);
  const pairs: [string, string][] = [];
  for (const name of headers?.keys() ?? []) {
    if (/^nats-/i.test(name)) continue;
    for (const value of headers?.values(name) ?? []) pairs.push([name, value]);
  }
  const status = headers?.get("Nats-Service-Error-Code") ?? "";
  const failure =
    status === "" ? undefined : { status: Number(status), words: headers?.get("Nats-Service-Error") ?? "" };
  const { buffer, byteOffset, length } = message.data;
  // Not a Buffer, which is what the fields of a message would become, too.
  return { headers: pairs, payload: new Uint8Array(buffer, byteOffset, length), failure };
}
