/**
 * Files in JetStream object stores (ADR-20). A store is made by the first put; reading and deleting make none.
 *
 * The library's own object store is used for making stores alone: it cannot name a file in Unicode beyond Latin-1, waits
 * for ever for a file whose chunks are gone, makes the store that a link names, and overlooks the time of files that
 * other clients have written.
 */
import { DeliverPolicy, JetStreamApiError, JsHeaders, PubHeaders } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import { headers, nuid } from "@nats-io/transport-node";
import type { GetFileInfoResponse } from "../../../generated/ts/nats-functions/methods.js";
import { HawserError } from "../../errors/index.js";
import type { ConnectionWatch } from "./connection-watch.js";
import { type DownloadBudget, deliver } from "./delivery.js";
import { type Attempt, isAnotherLast, isStreamMissing } from "./failure.js";
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
  unlessThere,
} from "./jetstream.js";

/** A record, as most are. */
const recordBytes = 2 * 1024;

/** The object stores that one connection reaches. */
export class ObjectStores {
  readonly #watch: ConnectionWatch;
  readonly #budget: DownloadBudget;

  constructor(watch: ConnectionWatch, budget: DownloadBudget) {
    this.#watch = watch;
    this.#budget = budget;
  }

  /**
   * Puts a file, in place of the one of that name, and makes the store if there is none, in files and without limits.
   * Until all of it is there, readers get the file that was there before.
   *
   * A put that failed removes what it has written, unless the connection ended: then chunks that belong to no file may
   * stay in the store, of the new version or, if its record was stored, of the one before.
   *
   * @throws HawserError as `natsFailure` maps it
   */
  put(store: string, name: string, content: Uint8Array, options: StorageOptions): Promise<void> {
    const attempt = attemptOf(`put of file "${name}" into store "${store}"`, options, true);
    return this.#run(attempt, async (call) => {
      let before = await recordOf(call, store, name, async () => {
        await unlessThere(new Objm(call.client).create(store, { replicas: options.replicas ?? 1 }));
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
        // Nobody can reach them any more. But a record whose answer is lost may be stored: then they are the file.
        const isRefused = !mayBeThere || error instanceof JetStreamApiError;
        const removal = isRefused ? purge(call, store, chunks) : removeReplaced(call, store, name, version, before);
        void removal.catch(() => undefined);
        throw error;
      }
      // The file is there, whatever becomes of the chunks of the one before.
      if (before?.record.nuid) await purge(call, store, chunkSubject(store, before.record.nuid)).catch(() => undefined);
    });
  }

  /**
   * The content of a file, whose digest has been checked.
   *
   * @throws HawserError file_missing; gateway_limit: larger than `maxBytes`; nats_failed: damaged
   */
  get(store: string, name: string, options: ReadOptions): Promise<Uint8Array> {
    const attempt = attemptOf(`read of file "${name}" in store "${store}"`, options, false);
    return this.#run(attempt, (call) =>
      downloadFile(call, this.#budget, { store, name }, options.maxBytes, async (place) => {
        const stored = await recordOf(call, place.store, place.name);
        if (stored === undefined || stored.record.deleted === true) throw missing(place.store, place.name);
        return stored.record;
      }),
    );
  }

  /** Deletes a file. Does nothing if the file or the store is missing. @throws HawserError as `natsFailure` maps it */
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

  /** What a store says of a file. @throws HawserError file_missing, also for a deleted one */
  info(store: string, name: string, options: StorageOptions): Promise<GetFileInfoResponse> {
    const attempt = attemptOf(`look-up of file "${name}" in store "${store}"`, options, false);
    return this.#run(attempt, async (call) => {
      const stored = await recordOf(call, store, name);
      if (stored === undefined || stored.record.deleted === true) throw missing(store, name);
      return fileInfo(store, stored);
    });
  }

  /**
   * The files of a store, without the deleted ones, in the order of their names; none if the store is missing.
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
        policy: DeliverPolicy.LastPerSubject,
        messageBytes: recordBytes,
      };
      try {
        await deliver(call, this.#budget, selection, ({ data, seq, storedAt }) => {
          bytes += data.length;
          if (bytes > options.maxBytes) throw listTooLarge(store, options.maxBytes);
          const record = readRecord(store, data);
          if (record.deleted === true) files.delete(record.name);
          else files.set(record.name, fileInfo(store, { record, seq, storedAt }));
        });
      } catch (error) {
        if (isStreamMissing(error)) return [];
        throw error;
      }
      return [...files.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    });
  }

  #run<T>(attempt: Attempt, work: (call: JetStreamCall) => Promise<T>): Promise<T> {
    return runOnJetStream(this.#watch, attempt, work);
  }
}

/** The record of a file, deleted or not; undefined if there is none. */
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

/** Writes a record; false if another one has taken the place of `before` meanwhile. */
async function replaceRecord(
  { client }: JetStreamCall,
  store: string,
  record: FileRecord,
  before: StoredRecord | undefined,
): Promise<boolean> {
  const replacing = headers();
  replacing.set(JsHeaders.RollupHdr, JsHeaders.RollupValueSubject);
  // So that the chunks of each version are removed by the writer that replaces it.
  replacing.set(PubHeaders.ExpectedLastSubjectSequenceHdr, `${before?.seq ?? 0}`);
  try {
    await client.publish(recordSubject(store, record.name), JSON.stringify(record), { headers: replacing });
    return true;
  } catch (error) {
    if (!isAnotherLast(error)) throw error;
    return false;
  }
}

/** Removes the chunks of the version before, if it turns out that the record of `version` was stored. */
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
