/**
 * Files in JetStream object stores (ADR-20). A store is made by the first put; reading and deleting make none.
 *
 * The library's own object store is used for making stores alone: it cannot name a file in Unicode beyond Latin-1, waits
 * for ever for a file whose chunks are gone, makes the store that a link names, and overlooks the time of files that
 * other clients have written.
 */
import { DeliverPolicy, JetStreamApiCodes, JetStreamApiError, JsHeaders, PubHeaders } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import { headers, nuid } from "@nats-io/transport-node";
import { NatsError } from "../../errors/index.js";
import { type Attempt, isStreamMissing } from "../failure.js";
import type { ConnectionWatch } from "./connection-watch.js";
import { Deadline } from "./deadline.js";
import { deliver } from "./delivery.js";
import { DownloadBudget } from "./download-budget.js";
import { downloadFile } from "./file-download.js";
import {
  chunkSubject,
  digestText,
  type FileInfo,
  type FileRecord,
  fileInfo,
  readRecord,
  recordSubject,
  recordSubjects,
  type StoredRecord,
  streamOf,
} from "./file-record.js";
import { uploadChunks } from "./file-upload.js";
import { type JetStreamSession, jetStreamSession } from "./jetstream-session.js";

/** Where a file is, and how long a call may take. */
export interface StoreOptions {
  /** The JetStream domain; without one, that of the server. */
  readonly domain?: string | undefined;
  /** How long the whole call may take, in milliseconds. */
  readonly timeoutMs: number;
  /** How many servers keep a store that the call makes. Default: 1. */
  readonly replicas?: number | undefined;
}

/** The same, for what is as large as what was stored. */
export interface ReadOptions extends StoreOptions {
  /** The largest content, or list of records, that is read, in bytes. */
  readonly maxBytes: number;
}

/** The code of the JetStream API for a stream that others have made meanwhile, with other settings. */
const streamNameInUse = 10058;
/** A record, as most are. */
const recordBytes = 2 * 1024;

type Work<T> = (session: JetStreamSession, signal: AbortSignal) => Promise<T>;

/** The object stores that one connection reaches. */
export class ObjectStores {
  readonly #watch: ConnectionWatch;
  readonly #budget: DownloadBudget;

  constructor(watch: ConnectionWatch) {
    this.#watch = watch;
    this.#budget = new DownloadBudget(watch.connection);
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
  put(store: string, name: string, content: Uint8Array, options: StoreOptions): Promise<void> {
    const attempt = attemptOf(`put of file "${name}" into store "${store}"`, options, true);
    return this.#run(attempt, async (session, signal) => {
      let before = await recordOf(session, store, name, async () => {
        await makeStore(session, store, options);
        return undefined;
      });
      const version = nuid.next();
      const chunkBytes = Math.min(128 * 1024, this.#watch.connection.info?.max_payload ?? Number.POSITIVE_INFINITY);
      const chunks = chunkSubject(store, version);
      let mayBeThere = false;
      try {
        const upload = await uploadChunks(session.client, chunks, content, chunkBytes, signal);
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
          signal.throwIfAborted();
          mayBeThere = true;
          if (await replaceRecord(session, store, record, before)) break;
          mayBeThere = false;
          before = await recordOf(session, store, name);
        }
      } catch (error) {
        // Nobody can reach them any more. But a record whose answer is lost may be stored: then they are the file.
        const isRefused = !mayBeThere || error instanceof JetStreamApiError;
        const removal = isRefused
          ? purge(session, store, chunks)
          : removeReplaced(session, store, name, version, before);
        void removal.catch(() => undefined);
        throw error;
      }
      // The file is there, whatever becomes of the chunks of the one before.
      if (before?.record.nuid)
        await purge(session, store, chunkSubject(store, before.record.nuid)).catch(() => undefined);
    });
  }

  /**
   * The content of a file, whose digest has been checked.
   *
   * @throws HawserError file_missing; gateway_limit: larger than `maxBytes`; nats_failed: damaged
   */
  get(store: string, name: string, options: ReadOptions): Promise<Uint8Array> {
    const attempt = attemptOf(`read of file "${name}" in store "${store}"`, options, false);
    return this.#run(attempt, (session, signal) =>
      downloadFile(session, this.#budget, { store, name }, options.maxBytes, signal, async (place) => {
        const stored = await recordOf(session, place.store, place.name);
        if (stored === undefined || stored.record.deleted === true) throw missing(place.store, place.name);
        return stored.record;
      }),
    );
  }

  /** Deletes a file. Does nothing if the file or the store is missing. @throws HawserError as `natsFailure` maps it */
  delete(store: string, name: string, options: StoreOptions): Promise<void> {
    const attempt = attemptOf(`delete of file "${name}" in store "${store}"`, options, true);
    return this.#run(attempt, async (session, signal) => {
      for (;;) {
        const before = await recordOf(session, store, name);
        if (before === undefined || before.record.deleted === true) return;
        const record = { ...before.record, deleted: true, size: 0, chunks: 0, digest: "" };
        signal.throwIfAborted();
        if (!(await replaceRecord(session, store, record, before))) continue;
        if (before.record.nuid) await purge(session, store, chunkSubject(store, before.record.nuid));
        return;
      }
    });
  }

  /** What a store says of a file. @throws HawserError file_missing, also for a deleted one */
  info(store: string, name: string, options: StoreOptions): Promise<FileInfo> {
    const attempt = attemptOf(`look-up of file "${name}" in store "${store}"`, options, false);
    return this.#run(attempt, async (session) => {
      const stored = await recordOf(session, store, name);
      if (stored === undefined || stored.record.deleted === true) throw missing(store, name);
      return fileInfo(store, stored);
    });
  }

  /**
   * The files of a store, without the deleted ones, in the order of their names; none if the store is missing.
   *
   * @throws HawserError gateway_limit: their records are larger than `maxBytes`
   */
  list(store: string, options: ReadOptions): Promise<FileInfo[]> {
    const attempt = attemptOf(`list of store "${store}"`, options, false);
    return this.#run(attempt, async (session, signal) => {
      const files = new Map<string, FileInfo>();
      let bytes = 0;
      const selection = {
        stream: streamOf(store),
        subject: recordSubjects(store),
        policy: DeliverPolicy.LastPerSubject,
        messageBytes: recordBytes,
      };
      try {
        await deliver(session, this.#budget, selection, signal, ({ data, seq, storedAt }) => {
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

  async #run<T>(attempt: Attempt, work: Work<T>): Promise<T> {
    this.#watch.checkHeaders(attempt);
    const deadline = new Deadline(attempt.timeoutMs);
    const abort = new AbortController();
    try {
      return await this.#watch.run(attempt, deadline, async () => {
        const session = await jetStreamSession(this.#watch.connection, attempt.domain, deadline.remainingMs);
        return work(session, abort.signal);
      });
    } catch (error) {
      abort.abort(error);
      throw error;
    }
  }
}

function attemptOf(name: string, { domain, replicas, timeoutMs }: StoreOptions, changes: boolean): Attempt {
  return { name, domain, replicas, changes, timeoutMs };
}

/** The record of a file, deleted or not; undefined if there is none. */
async function recordOf(
  { manager }: JetStreamSession,
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
  { client }: JetStreamSession,
  store: string,
  record: FileRecord,
  before: StoredRecord | undefined,
): Promise<boolean> {
  const replacing = headers();
  replacing.set(JsHeaders.RollupHdr, JsHeaders.RollupValueSubject);
  // So that the chunks of each version are removed by whoever replaces it.
  replacing.set(PubHeaders.ExpectedLastSubjectSequenceHdr, `${before?.seq ?? 0}`);
  try {
    await client.publish(recordSubject(store, record.name), JSON.stringify(record), { headers: replacing });
    return true;
  } catch (error) {
    const { StreamWrongLastSequence, StreamWrongLastSequenceUnknown } = JetStreamApiCodes;
    if (!(error instanceof JetStreamApiError)) throw error;
    if (error.code !== StreamWrongLastSequence && error.code !== StreamWrongLastSequenceUnknown) throw error;
    return false;
  }
}

/** Removes the chunks of the version before, if it turns out that the record of `version` was stored. */
async function removeReplaced(
  session: JetStreamSession,
  store: string,
  name: string,
  version: string,
  before: StoredRecord | undefined,
): Promise<void> {
  if (!before?.record.nuid) return;
  const now = await recordOf(session, store, name);
  if (now?.record.nuid === version) await purge(session, store, chunkSubject(store, before.record.nuid));
}

/** One that is there stays as it is. */
async function makeStore({ client }: JetStreamSession, store: string, { replicas = 1 }: StoreOptions): Promise<void> {
  try {
    await new Objm(client).create(store, { replicas });
  } catch (error) {
    if (!(error instanceof JetStreamApiError && error.code === streamNameInUse)) throw error;
  }
}

async function purge({ manager }: JetStreamSession, store: string, subject: string): Promise<void> {
  await manager.streams.purge(streamOf(store), { filter: subject });
}

function missing(store: string, name: string): NatsError {
  return new NatsError("file_missing", `There is no file "${name}" in the object store "${store}".`);
}

function listTooLarge(store: string, maxBytes: number): NatsError {
  return new NatsError("gateway_limit", `The list of the files of store "${store}" is larger than ${maxBytes} bytes.`);
}
