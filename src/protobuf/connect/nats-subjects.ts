/** Mapping of methods to NATS subjects, and of metadata to NATS headers. */
import type { DescMethod } from "@bufbuild/protobuf";
import { type Msg, type MsgHdrs, MsgHdrsImpl } from "@nats-io/transport-node";
import { rpcConstants } from "../../../generated/ts/settings/connect.js";
import { invalidArgument } from "../../foundation/errors/index.js";
import { headersReadHere } from "../../nats/connections/index.js";
import type { HeaderPairs } from "./headers.js";

/** Tokens separated by dots, without wildcards. */
const prefixPattern = /^[^\s.*>$][^\s.*>]*(?:\.[^\s.*>]+)*$/;

/** @throws HawserError `invalid_argument` for an invalid prefix */
export function checkSubjectPrefix(prefix: unknown): void {
  if (prefix === undefined || (typeof prefix === "string" && prefixPattern.test(prefix))) return;
  throw invalidArgument(
    `subjectPrefix ${JSON.stringify(prefix)}: must be tokens separated by dots, without wildcards and spaces, and must not start with $. Example: "staging.eu"`,
  );
}

/** Subject of a method, such as `acme.v1.Warehouse.Reserve`, after the prefix. */
export function subjectOf({ parent, name }: DescMethod, prefix: string | undefined): string {
  return `${prefix === undefined ? "" : `${prefix}.`}${parent.typeName}.${name}`;
}

/**
 * Subject of cancellations, such as `acme.v1.Warehouse.hawser-cancel`, after the prefix. It cannot clash with a method,
 * because Protobuf names have no `-`.
 */
export function cancelSubjectOf({ parent }: DescMethod, prefix: string | undefined): string {
  return `${prefix === undefined ? "" : `${prefix}.`}${parent.typeName}.${rpcConstants.cancelWord}`;
}

/** Headers of a NATS message. */
export function natsHeaders(pairs: HeaderPairs): MsgHdrs {
  const record: Record<string, string[]> = Object.create(null);
  for (const [name, value] of pairs) {
    const values = record[name];
    if (values === undefined) record[name] = [value];
    else values.push(value);
  }
  return MsgHdrsImpl.fromRecord(record);
}

/** Encoded size of the headers in a message. */
export function bytesOfHeaders(headers: MsgHdrs): number {
  return (headers as MsgHdrsImpl).encode().length;
}

/** Content of a call or an answer. */
export interface ReadMessage {
  /** Headers, except the headers of NATS, which start with `Nats-`. */
  readonly headers: HeaderPairs;
  readonly payload: Uint8Array;
  /** Error headers of a micro service, which may not use Connect (ADR-32). */
  readonly failure: { readonly status: number; readonly text: string } | undefined;
}

/** Decodes a message from any sender. @throws errors of nats.js for invalid headers */
export function readMessage(message: Msg): ReadMessage {
  const headers = headersReadHere(message);
  const pairs: [string, string][] = [];
  for (const name of headers?.keys() ?? []) {
    if (/^nats-/i.test(name)) continue;
    for (const value of headers?.values(name) ?? []) pairs.push([name, value]);
  }
  const status = headers?.get("Nats-Service-Error-Code") ?? "";
  const failure =
    status === "" ? undefined : { status: Number(status), text: headers?.get("Nats-Service-Error") ?? "" };
  const { buffer, byteOffset, length } = message.data;
  // A plain Uint8Array: with a Buffer, the bytes fields of decoded messages would be Buffers, too.
  return { headers: pairs, payload: new Uint8Array(buffer, byteOffset, length), failure };
}
