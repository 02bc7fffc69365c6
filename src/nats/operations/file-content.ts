/**
 * The content of files: reads it, and writes it in chunks.
 */
import { createHash } from "node:crypto";
import { DeliverPolicy } from "@nats-io/jetstream";
import { HawserError } from "../../errors/index.js";
import { type DownloadBudget, deliver } from "./delivery.js";
import { chunkSubject, type FileRecord, hasDigest, streamOf } from "./file-record.js";
import type { JetStreamCall } from "./jetstream.js";

/** A file by its name. */
export interface FilePlace {
  readonly store: string;
  readonly name: string;
}

/** Links that are followed from one file to the next. */
const maxLinks = 8;

/**
 * The content of the file, or of the one that it links to. Starts again if the file is replaced meanwhile.
 *
 * @param recordAt the record of a file that is there
 * @throws HawserError gateway_limit: larger than `maxBytes`; nats_failed: damaged, or a link that leads nowhere; and what
 *   `recordAt` throws
 */
export async function downloadFile(
  call: JetStreamCall,
  budget: DownloadBudget,
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
    const content = await readContent(call, budget, at.store, record);
    if (content !== undefined) return content;
    call.signal.throwIfAborted();
    const now = await recordAt(at);
    if (now.nuid === record.nuid) throw damaged(at);
    record = now;
  }
}

/** Undefined if the chunks are not those of the record. */
async function readContent(
  call: JetStreamCall,
  budget: DownloadBudget,
  store: string,
  record: FileRecord,
): Promise<Uint8Array | undefined> {
  const content = Buffer.allocUnsafe(record.size ?? 0);
  const digest = createHash("sha256");
  let bytes = 0;
  const take = (chunk: Uint8Array) => {
    if (bytes + chunk.length <= content.length) {
      content.set(chunk, bytes);
      digest.update(chunk);
    }
    bytes += chunk.length;
  };
  const stream = streamOf(store);
  const subject = chunkSubject(store, record.nuid);
  if (record.chunks === 1) {
    // One round trip instead of a consumer. It comes as base64.
    const only = await budget.spend(Math.ceil(content.length * 1.4), call.signal, () =>
      call.manager.streams.getMessage(stream, { last_by_subj: subject }),
    );
    if (only !== null) take(only.data);
  } else if (content.length > 0) {
    const messageBytes = Math.ceil(content.length / (record.chunks || 1));
    const selection = { stream, subject, policy: DeliverPolicy.All, messageBytes };
    await deliver(call, budget, selection, ({ data }) => take(data));
  }
  return bytes === content.length && hasDigest(record, digest.digest()) ? content : undefined;
}

function linkedBy(record: FileRecord, at: FilePlace, links: number): FilePlace {
  const link = record.options!.link!;
  const shown = `File "${at.name}" of store "${at.store}"`;
  if (!link.name) throw new HawserError("nats_failed", `${shown} is a link to the whole store "${link.bucket}".`);
  if (links >= maxLinks) throw new HawserError("nats_failed", `${shown} is the end of more than ${maxLinks} links.`);
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
    `File "${name}" of store "${store}" is damaged: its content is not that of its size and digest.`,
  );
}

/** What was written. */
export interface Upload {
  readonly chunks: number;
  /** SHA-256 of the content. */
  readonly digest: Buffer;
}

/** Chunks that wait for their acknowledgement at once. */
const maxInFlight = 16;

/**
 * Publishes the content in chunks, in their order, and resolves when all have been stored.
 *
 * @param chunkBytes of each but the last
 * @throws what the library throws for the first that was not stored
 */
export async function uploadChunks(
  { client, signal }: JetStreamCall,
  subject: string,
  content: Uint8Array,
  chunkBytes: number,
): Promise<Upload> {
  const count = Math.ceil(content.length / chunkBytes);
  // Chunk by chunk, so that a large file does not hold everything else up.
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
      // Awaited below; a failure of one must not count as unhandled while another is awaited.
      stored.catch(() => undefined);
      inFlight.add(stored);
    }
    await Promise.all(inFlight);
  } catch (error) {
    // So that none is stored after the caller has removed them.
    await Promise.allSettled(inFlight);
    throw error;
  }
  return { chunks: count, digest: digest.digest() };
}
