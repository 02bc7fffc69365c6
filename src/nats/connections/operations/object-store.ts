/**
 * Files in JetStream object stores (ADR-20). The first put creates a store; reading and deleting do not.
 *
 * The object store of nats.js is used only to create stores. It cannot name a file in Unicode beyond Latin-1, waits
 * forever for a file whose chunks are missing, creates a missing store to which a link points, and ignores the
 * modification time of files that other clients have written.
 */
import { DeliverPolicy, JetStreamApiError, JsHeaders, PubHeaders } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import { headers, nuid } from "@nats-io/transport-node";
import type { GetFileInfoResponse } from "../../../../generated/ts/nats-functions/methods.js";
import { HawserError } from "../../../foundation/errors/index.js";
import type { ConnectionWatch } from "./connection-watch.js";
import { deliver, storedAtMs } from "./delivery.js";
import { isStreamMissing, isWrongLastRevision, type OperationDescription } from "./failure.js";
import { downloadFile, uploadChunks } from "./file-content.js";
import {
  chunkSubject,
  digestText,
  type FileRecord,
  fileInfo,
  readRecord,
  recordSubject,
  recordSubjects,
  type StoredRecord,
  streamOf,
} from "./file-record.js";
import {
  attemptOf,
  type JetStreamCall,
  type ReadOptions,
  runOnJetStream,
  type StorageOptions,
  unlessExists,
} from "./jetstream.js";

/** Estimated size of a record. */
const recordBytes = 2 * 1024;

/** Object stores over one connection. */
export class ObjectStores {
  readonly #watch: ConnectionWatch;

  constructor(watch: ConnectionWatch) {
    this.#watch = watch;
  }

  /**
   * Puts a file, replacing one of the same name. Creates the store if it is missing, with file storage and without
   * limits. Until the put is complete, readers get the previous file.
   *
   * A failed put removes its chunks. If the connection closed, unused chunks may remain in the store: those of the new
   * version or, if its record was stored, those of the previous one.
   *
   * @throws HawserError from `natsFailure`
   */
  put(store: string, name: string, content: Uint8Array, options: StorageOptions): Promise<void> {
    const attempt = attemptOf(`put of file "${name}" into store "${store}"`, options, true);
    return this.#run(attempt, async (call) => {
      let before = await recordOf(call, store, name, async () => {
        await unlessExists(new Objm(call.client).create(store, { replicas: options.replicas ?? 1 }));
        return undefined;
      });
      const version = nuid.next();
      const chunkBytes = Math.min(128 * 1024, this.#watch.connection.info?.max_payload ?? Number.POSITIVE_INFINITY);
      const chunks = chunkSubject(store, version);
      let mayBeThere = false;
      try {
        const upload = await uploadChunks(call, chunks, content, chunkBytes);
        const record: FileRecord = {
          name,
          description: "",
          options: { max_chunk_size: chunkBytes },
          bucket: store,
          nuid: version,
          size: content.length,
          chunks: upload.chunks,
          mtime: new Date().toISOString(),
          digest: digestText(upload.digest),
          deleted: false,
        };
        for (;;) {
          call.signal.throwIfAborted();
          mayBeThere = true;
          if (await replaceRecord(call, store, record, before)) break;
          mayBeThere = false;
          before = await recordOf(call, store, name);
        }
      } catch (error) {
        // The chunks are unreachable, unless their record was stored and only its acknowledgement was lost.
        const isRefused = !mayBeThere || error instanceof JetStreamApiError;
        const removal = isRefused ? purge(call, store, chunks) : removeReplaced(call, store, name, version, before);
        void removal.catch(() => undefined);
        throw error;
      }
      // The put is complete even if the old chunks cannot be removed.
      if (before?.record.nuid) await purge(call, store, chunkSubject(store, before.record.nuid)).catch(() => undefined);
    });
  }

  /**
   * Content of a file, verified by its digest.
   *
   * @throws HawserError file_missing; gateway_limit: larger than `maxBytes`; nats_failed: damaged
   */
  get(store: string, name: string, options: ReadOptions): Promise<Uint8Array> {
    const attempt = attemptOf(`read of file "${name}" in store "${store}"`, options, false);
    return this.#run(attempt, (call) =>
      downloadFile(call, { store, name }, options.maxBytes, async (place) => {
        const stored = await recordOf(call, place.store, place.name);
        if (stored === undefined || stored.record.deleted === true) throw missing(place.store, place.name);
        return stored.record;
      }),
    );
  }

  /** Deletes a file. Does nothing if the file or the store is missing. @throws HawserError from `natsFailure` */
  delete(store: string, name: string, options: StorageOptions): Promise<void> {
    const attempt = attemptOf(`delete of file "${name}" in store "${store}"`, options, true);
    return this.#run(attempt, async (call) => {
      for (;;) {
        const before = await recordOf(call, store, name);
        if (before === undefined || before.record.deleted === true) return;
        const record = { ...before.record, deleted: true, size: 0, chunks: 0, digest: "" };
        call.signal.throwIfAborted();
        if (!(await replaceRecord(call, store, record, before))) continue;
        if (before.record.nuid) await purge(call, store, chunkSubject(store, before.record.nuid));
        return;
      }
    });
  }

  /** Properties of a file. @throws HawserError file_missing, also for a deleted one */
  info(store: string, name: string, options: StorageOptions): Promise<GetFileInfoResponse> {
    const attempt = attemptOf(`look-up of file "${name}" in store "${store}"`, options, false);
    return this.#run(attempt, async (call) => {
      const stored = await recordOf(call, store, name);
      if (stored === undefined || stored.record.deleted === true) throw missing(store, name);
      return fileInfo(store, stored);
    });
  }

  /**
   * Files of a store without the deleted ones, ordered by name; empty if the store is missing.
   *
   * @throws HawserError gateway_limit: their records are larger than `maxBytes`
   */
  list(store: string, options: ReadOptions): Promise<GetFileInfoResponse[]> {
    const attempt = attemptOf(`list of store "${store}"`, options, false);
    return this.#run(attempt, async (call) => {
      const files = new Map<string, GetFileInfoResponse>();
      let bytes = 0;
      const selection = {
        stream: streamOf(store),
        subject: recordSubjects(store),
        from: DeliverPolicy.LastPerSubject,
        messageBytes: recordBytes,
      };
      try {
        await deliver(call, selection, (delivery) => {
          const { data } = delivery.message;
          bytes += data.length;
          if (bytes > options.maxBytes) throw listTooLarge(store, options.maxBytes);
          const record = readRecord(store, data);
          if (record.deleted === true) files.delete(record.name);
          else {
            const storedAt = new Date(storedAtMs(delivery)).toISOString();
            files.set(record.name, fileInfo(store, { record, seq: delivery.number, storedAt }));
          }
        });
      } catch (error) {
        if (isStreamMissing(error)) return [];
        throw error;
      }
      return [...files.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    });
  }

  #run<T>(attempt: OperationDescription, work: (call: JetStreamCall) => Promise<T>): Promise<T> {
    return runOnJetStream(this.#watch, attempt, work);
  }
}

/** Record of a file, deleted or not; undefined if there is none. */
async function recordOf(
  { manager }: JetStreamCall,
  store: string,
  name: string,
  withoutStore: () => Promise<undefined> = async () => undefined,
): Promise<StoredRecord | undefined> {
  try {
    const message = await manager.streams.getMessage(streamOf(store), { last_by_subj: recordSubject(store, name) });
    if (message === null) return undefined;
    return { record: readRecord(store, message.data), seq: message.seq, storedAt: message.timestamp };
  } catch (error) {
    if (isStreamMissing(error)) return withoutStore();
    throw error;
  }
}

/** Writes a record. Returns false if another one has replaced `before` meanwhile. */
async function replaceRecord(
  { client }: JetStreamCall,
  store: string,
  record: FileRecord,
  before: StoredRecord | undefined,
): Promise<boolean> {
  const replacing = headers();
  replacing.set(JsHeaders.RollupHdr, JsHeaders.RollupValueSubject);
  // The chunks of each version are removed by the writer that replaces it.
  replacing.set(PubHeaders.ExpectedLastSubjectSequenceHdr, `${before?.seq ?? 0}`);
  try {
    await client.publish(recordSubject(store, record.name), JSON.stringify(record), { headers: replacing });
    return true;
  } catch (error) {
    if (!isWrongLastRevision(error)) throw error;
    return false;
  }
}

/** Removes the chunks of the previous version, if the record of `version` was stored. */
async function removeReplaced(
  call: JetStreamCall,
  store: string,
  name: string,
  version: string,
  before: StoredRecord | undefined,
): Promise<void> {
  if (!before?.record.nuid) return;
  const now = await recordOf(call, store, name);
  if (now?.record.nuid === version) await purge(call, store, chunkSubject(store, before.record.nuid));
}

async function purge({ manager }: JetStreamCall, store: string, subject: string): Promise<void> {
  await manager.streams.purge(streamOf(store), { filter: subject });
}

function missing(store: string, name: string): HawserError {
  return new HawserError("file_missing", `There is no file "${name}" in the object store "${store}".`);
}

function listTooLarge(store: string, maxBytes: number): HawserError {
  return new HawserError(
    "gateway_limit",
    `The list of the files of store "${store}" is larger than ${maxBytes} bytes.`,
  );
}
