/**
 * The record that an object store keeps of each file (ADR-20), and its columns in SQL.
 */
import type { JsonObject } from "../../../../generated/ts/nats-functions/argument.js";
import type { GetFileInfoResponse } from "../../../../generated/ts/nats-functions/methods.js";
import { HawserError } from "../../../foundation/errors/index.js";

/** Record as its JSON has it. Some writers add fields, which a change of the record keeps. */
export interface FileRecord {
  readonly [field: string]: unknown;
  readonly name: string;
  readonly description?: string;
  readonly metadata?: JsonObject;
  readonly headers?: JsonObject;
  readonly options?: FileOptions;
  readonly bucket: string;
  readonly nuid: string;
  readonly size?: number;
  readonly chunks?: number;
  readonly mtime?: string;
  readonly digest?: string;
  readonly deleted?: boolean;
}

interface FileOptions extends JsonObject {
  readonly link?: { readonly bucket: string; readonly name?: string };
}

/** A stored record with the sequence number and time of its message. */
export interface StoredRecord {
  readonly record: FileRecord;
  readonly seq: number;
  readonly storedAt: string;
}

const digestType = "SHA-256=";

/** Name of an object store's stream. */
export function streamOf(store: string): string {
  return `OBJ_${store}`;
}

/** Subject of a file's record. The name is encoded as UTF-8, as ADR-20 specifies. */
export function recordSubject(store: string, name: string): string {
  // ADR-20 requires padding, which Node's base64url omits.
  const encoded = Buffer.from(name).toString("base64").replaceAll("+", "-").replaceAll("/", "_");
  return `$O.${store}.M.${encoded}`;
}

/** Subject that matches all records of a store. */
export function recordSubjects(store: string): string {
  return `$O.${store}.M.>`;
}

/** Subject of the chunks of one version of a file. */
export function chunkSubject(store: string, nuid: string): string {
  return `$O.${store}.C.${nuid}`;
}

/** Digest as stored in a record. */
export function digestText(sha256: Buffer): string {
  return `${digestType}${sha256.toString("base64").replaceAll("+", "-").replaceAll("/", "_")}`;
}

/** True if the record has this digest. Writers differ in its padding. */
export function hasDigest(record: FileRecord, sha256: Buffer): boolean {
  const text = record.digest ?? "";
  return text.startsWith(digestType) && Buffer.from(text.slice(digestType.length), "base64url").equals(sha256);
}

/** Parses a record. @throws HawserError nats_failed, if the JSON is not a record of a file */
export function readRecord(store: string, json: Uint8Array): FileRecord {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(json).toString());
  } catch (cause) {
    throw unreadable(store, cause);
  }
  const record = value as Partial<FileRecord> | null;
  if (typeof record?.name !== "string" || typeof record.nuid !== "string") {
    if (typeof record?.name !== "string" || record.options?.link === undefined) throw unreadable(store);
  }
  return record as FileRecord;
}

/** SQL columns of a record. */
export function fileInfo(store: string, { record, storedAt }: StoredRecord): GetFileInfoResponse {
  // Some writers leave mtime empty and rely on the time of the message.
  const hasTime = record.mtime !== undefined && !record.mtime.startsWith("0001-01-01");
  return {
    name: record.name,
    description: record.description,
    metadata: record.metadata ?? undefined,
    headers: record.headers ?? undefined,
    options: record.options ?? undefined,
    bucket: record.bucket ?? store,
    nuid: record.nuid ?? "",
    size: BigInt(record.size ?? 0),
    chunks: BigInt(record.chunks ?? 0),
    modified: hasTime ? record.mtime! : storedAt,
    digest: record.digest === "" ? undefined : record.digest,
    delete: record.deleted ?? false,
  };
}

function unreadable(store: string, cause?: unknown): HawserError {
  return new HawserError("nats_failed", `The object store "${store}" has an unreadable record of a file.`, {
    cause,
  });
}
