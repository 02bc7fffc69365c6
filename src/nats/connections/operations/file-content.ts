/**
 * Reads the content of files, and writes it in chunks.
 */
import { createHash } from "node:crypto";
import { DeliverPolicy } from "@nats-io/jetstream";
import { HawserError } from "../../../foundation/errors/index.js";
import { DownloadBudget, deliver } from "./delivery.js";
import { chunkSubject, type FileRecord, hasDigest, streamOf } from "./file-record.js";
import type { JetStreamCall } from "./jetstream.js";

/** Store and name of a file. */
export interface FilePlace {
  readonly store: string;
  readonly name: string;
}

/** Maximum number of links to follow. */
const maxLinks = 8;

/**
 * Reads the content of a file, or of the file that it links to. Starts again if the file is replaced meanwhile.
 *
 * @param recordAt reads the record of an existing file
 * @throws HawserError gateway_limit: larger than `maxBytes`; nats_failed: damaged, or a dangling link; errors of
 * `recordAt`
 */
export async function downloadFile(
  call: JetStreamCall,
  place: FilePlace,
  maxBytes: number,
  recordAt: (place: FilePlace) => Promise<FileRecord>,
): Promise<Uint8Array> {
  let at = place;
  let record = await recordAt(at);
  for (let links = 0; record.options?.link !== undefined; links++) {
    at = linkedBy(record, at, links);
    record = await recordAt(at);
  }
  for (;;) {
    checkSize(record, at, maxBytes);
    const content = await readContent(call, at.store, record);
    if (content !== undefined) return content;
    call.signal.throwIfAborted();
    const now = await recordAt(at);
    if (now.nuid === record.nuid) throw damaged(at);
    record = now;
  }
}

/** Reads the chunks of a file. Returns undefined if they do not match the record. */
async function readContent(call: JetStreamCall, store: string, record: FileRecord): Promise<Uint8Array | undefined> {
  const content = Buffer.allocUnsafe(record.size ?? 0);
  const digest = createHash("sha256");
  let bytes = 0;
  const append = (chunk: Uint8Array) => {
    if (bytes + chunk.length <= content.length) {
      content.set(chunk, bytes);
      digest.update(chunk);
    }
    bytes += chunk.length;
  };
  const stream = streamOf(store);
  const subject = chunkSubject(store, record.nuid);
  if (record.chunks === 1) {
    // One round trip instead of a consumer. The content is base64-encoded.
    const only = await DownloadBudget.of(call.connection).spend(Math.ceil(content.length * 1.4), call.signal, () =>
      call.manager.streams.getMessage(stream, { last_by_subj: subject }),
    );
    if (only !== null) append(only.data);
  } else if (content.length > 0) {
    const messageBytes = Math.ceil(content.length / (record.chunks || 1));
    const selection = { stream, subject, from: DeliverPolicy.All, messageBytes };
    await deliver(call, selection, ({ message }) => append(message.data));
  }
  return bytes === content.length && hasDigest(record, digest.digest()) ? content : undefined;
}

function linkedBy(record: FileRecord, at: FilePlace, links: number): FilePlace {
  const link = record.options!.link!;
  const shown = `File "${at.name}" of store "${at.store}"`;
  if (!link.name) throw new HawserError("nats_failed", `${shown} is a link to the whole store "${link.bucket}".`);
  if (links >= maxLinks)
    throw new HawserError("nats_failed", `${shown} is behind a chain of more than ${maxLinks} links.`);
  return { store: link.bucket, name: link.name };
}

function checkSize({ size = 0 }: FileRecord, { store, name }: FilePlace, maxBytes: number): void {
  if (!Number.isSafeInteger(size) || size < 0) throw damaged({ store, name });
  if (size <= maxBytes) return;
  throw new HawserError(
    "gateway_limit",
    `File "${name}" of store "${store}" has ${size} bytes; at most ${maxBytes} are read.`,
  );
}

function damaged({ store, name }: FilePlace): HawserError {
  return new HawserError(
    "nats_failed",
    `File "${name}" of store "${store}" is damaged: its content does not match its size and digest.`,
  );
}

/** Result of an upload. */
export interface Upload {
  readonly chunks: number;
  /** SHA-256 of the content. */
  readonly digest: Buffer;
}

/** Maximum number of unacknowledged chunks. */
const maxInFlight = 16;

/**
 * Publishes the content in chunks, in order, and resolves when all are stored.
 *
 * @param chunkBytes size of each chunk except the last
 * @throws the nats.js error of the first chunk that was not stored
 */
export async function uploadChunks(
  { client, signal }: JetStreamCall,
  subject: string,
  content: Uint8Array,
  chunkBytes: number,
): Promise<Upload> {
  const count = Math.ceil(content.length / chunkBytes);
  // The digest is updated chunk by chunk, so that a large file does not block the event loop.
  const digest = createHash("sha256");
  const inFlight = new Set<Promise<void>>();
  try {
    for (let index = 0; index < count; index++) {
      if (inFlight.size >= maxInFlight) await Promise.race(inFlight);
      signal.throwIfAborted();
      const chunk = content.subarray(index * chunkBytes, (index + 1) * chunkBytes);
      digest.update(chunk);
      const stored = client.publish(subject, chunk).then(() => {
        inFlight.delete(stored);
      });
      // The handler prevents an unhandled rejection of one chunk while another is awaited.
      stored.catch(() => undefined);
      inFlight.add(stored);
    }
    await Promise.all(inFlight);
  } catch (error) {
    // All publishes must end first: a chunk could be stored after the caller has removed the others.
    await Promise.allSettled(inFlight);
    throw error;
  }
  return { chunks: count, digest: digest.digest() };
}
