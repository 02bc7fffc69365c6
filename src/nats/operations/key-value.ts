/**
 * Values by key in JetStream buckets. A bucket is made by the first put; reading and deleting make none.
 *
 * Each call opens the bucket anew, which costs no round trip and gives it the timeouts of this call; so a bucket that
 * was deleted or made again by others is no concern either.
 */
import { DeliverPolicy } from "@nats-io/jetstream";
import { jserrors } from "@nats-io/jetstream/internal";
import { type KV, type KvEntry, Kvm } from "@nats-io/kv";
import type { MsgHdrs } from "@nats-io/transport-node";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import { NatsError } from "../../errors/index.js";
import { within } from "../../runtime/index.js";
import { ReceivedHeaders } from "../headers.js";
import type { ConnectionWatch } from "./connection-watch.js";
import { type Delivered, type DownloadBudget, deliver, type Selection } from "./delivery.js";
import { type Attempt, isAnotherLast, isPermissionDenied, isStreamMissing, natsFailure } from "./failure.js";
import {
  attemptOf,
  BoundedSet,
  type JetStreamCall,
  lastChanceMs,
  type ReadOptions,
  runOnJetStream,
  type StorageOptions,
  unlessThere,
} from "./jetstream.js";

const maxKnownBuckets = 1000;
const { natsAnswerTimeoutMs } = gatewayConstants;

/** A call, and the library's way to its buckets. */
interface BucketCall extends JetStreamCall {
  readonly buckets: Kvm;
}

/** What is put. */
interface Put {
  readonly bucket: string;
  readonly key: string;
  readonly value: Uint8Array;
  /** The revision that it has to follow; 0: none. Undefined: whatever is there. */
  readonly after?: number;
}

/** A revision of a key. */
export interface Revision {
  readonly revision: bigint;
  readonly operation: Operation;
  /** Undefined where it was deleted. */
  readonly value: Uint8Array | undefined;
  /** RFC 3339. */
  readonly created: string;
}

/** A value, a deletion, or a deletion with all that was before it. */
type Operation = "PUT" | "DEL" | "PURGE";

/** A value, as many are. */
const valueBytes = 1024;

/** The key-value buckets of one connection. */
export class KeyValue {
  readonly #watch: ConnectionWatch;
  /** Buckets that were there when last used: a put into another one asks first. */
  readonly #known = new BoundedSet(maxKnownBuckets);

  readonly #budget: DownloadBudget;

  constructor(watch: ConnectionWatch, budget: DownloadBudget) {
    this.#watch = watch;
    this.#budget = budget;
  }

  /**
   * Puts a value, and makes the bucket if there is none: file storage, one revision for each key, no time limit, as many
   * replicas as the options say.
   *
   * @returns its revision
   * @throws HawserError as `natsFailure` maps it; payload_too_large
   */
  put(bucket: string, key: string, value: Uint8Array, options: StorageOptions): Promise<bigint> {
    const attempt = attemptOf(`put of key "${key}" into bucket "${bucket}"`, options, true);
    this.#watch.checkSize(attempt, value.length);
    return this.#run(attempt, (call) => this.#putMaking(call, { bucket, key, value }));
  }

  /**
   * Puts the value of a key that has none, or none any more; makes the bucket as {@link put} does.
   *
   * @returns its revision
   * @throws NatsError key_exists; HawserError as `natsFailure` maps it; payload_too_large
   */
  create(bucket: string, key: string, value: Uint8Array, options: StorageOptions): Promise<bigint> {
    const attempt = attemptOf(`creation of key "${key}" in bucket "${bucket}"`, options, true);
    this.#watch.checkSize(attempt, value.length);
    return this.#run(attempt, async (call) => {
      let refusal: Error;
      try {
        return await this.#putMaking(call, { bucket, key, value, after: 0 });
      } catch (error) {
        if (!isAnotherLast(error)) throw error;
        refusal = error;
      }
      // What was deleted has a last revision, which the new one has to follow.
      const last = await lastOf(call, bucket, key, refusal);
      if (last?.operation === "PUT") throw keyExists(attempt, refusal, `Its revision is ${last.revision}.`);
      try {
        return BigInt(await putOnce(call, { bucket, key, value, after: last?.revision ?? 0 }));
      } catch (error) {
        throw isAnotherLast(error) ? keyExists(attempt, error, "Another writer was faster.") : error;
      }
    });
  }

  /**
   * Puts a value in the place of the given revision.
   *
   * @returns the new revision
   * @throws NatsError wrong_revision, also if there is no such key or bucket; HawserError as `natsFailure` maps it;
   * payload_too_large
   */
  update(bucket: string, key: string, value: Uint8Array, revision: bigint, options: StorageOptions): Promise<bigint> {
    const attempt = attemptOf(`update of key "${key}" in bucket "${bucket}"`, options, true);
    this.#watch.checkSize(attempt, value.length);
    return this.#run(attempt, async (call) => {
      try {
        return await putWhileThere(call, { bucket, key, value, after: Number(revision) }, undefined);
      } catch (error) {
        if (isAnotherLast(error)) throw wrongRevision(attempt, revision, error);
        // Nobody took it: there is no bucket, or no JetStream.
        if (!(error instanceof jserrors.JetStreamNotEnabled)) throw error;
        const isMissing = await call.manager.streams.info(streamOf(bucket)).then(() => false, isStreamMissing);
        throw isMissing ? wrongRevision(attempt, revision, error, "the bucket is missing") : error;
      }
    });
  }

  /** Puts a value, and makes the bucket where it is missing. */
  async #putMaking(call: BucketCall, put: Put): Promise<bigint> {
    const { bucket } = put;
    const id = `${call.attempt.domain ?? ""} ${bucket}`;
    const denied = this.#known.has(id) ? undefined : await makeIfAllowed(call, bucket);
    try {
      const revision = await putWhileThere(call, put, denied);
      this.#known.add(id);
      return revision;
    } catch (error) {
      this.#known.delete(id);
      if (!(error instanceof jserrors.JetStreamNotEnabled)) throw error;
    }
    // Nobody took it: the bucket has been deleted since.
    await make(call, bucket);
    const revision = BigInt(await putOnce(call, put));
    this.#known.add(id);
    return revision;
  }

  /**
   * The keys that have a value, in the order of their bytes; none if the bucket is missing.
   *
   * @throws NatsError gateway_limit, if they are larger than `maxBytes`; HawserError as `natsFailure` maps it
   */
  keys(bucket: string, options: ReadOptions): Promise<string[]> {
    const attempt = attemptOf(`list of the keys of bucket "${bucket}"`, options, false);
    return this.#run(attempt, async (call) => {
      const keys = new Set<string>();
      const prefix = subjectOf(bucket, "");
      let bytes = 0;
      const selection = { subject: subjectOf(bucket, ">"), policy: DeliverPolicy.LastPerSubject, headersOnly: true };
      await this.#deliver(call, bucket, { ...selection, messageBytes: 0 }, (message) => {
        const key = message.subject.slice(prefix.length);
        // Read anew after a gap, a key that was written meanwhile comes again.
        if (operationOf(message) !== "PUT") keys.delete(key);
        else keys.add(key);
        bytes += key.length;
        if (bytes > options.maxBytes) throw tooMuch(attempt, options.maxBytes);
      });
      return [...keys].sort();
    });
  }

  /**
   * The revisions of a key that the bucket keeps, the oldest first; none if the key or the bucket is missing.
   *
   * @throws NatsError gateway_limit, if their values are larger than `maxBytes`; HawserError as `natsFailure` maps it
   */
  history(bucket: string, key: string, options: ReadOptions): Promise<Revision[]> {
    const attempt = attemptOf(`history of key "${key}" in bucket "${bucket}"`, options, false);
    return this.#run(attempt, async (call) => {
      const revisions: Revision[] = [];
      let bytes = 0;
      const selection = { subject: subjectOf(bucket, key), policy: DeliverPolicy.All, messageBytes: valueBytes };
      await this.#deliver(call, bucket, selection, (message) => {
        bytes += message.data.length;
        if (bytes > options.maxBytes) throw tooMuch(attempt, options.maxBytes);
        const operation = operationOf(message);
        const value = operation === "PUT" ? message.data : undefined;
        revisions.push({ revision: BigInt(message.seq), operation, value, created: message.storedAt });
      });
      return revisions;
    });
  }

  async #deliver(
    call: BucketCall,
    bucket: string,
    selection: Omit<Selection, "stream">,
    onMessage: (message: Delivered) => void,
  ): Promise<void> {
    try {
      await deliver(call, this.#budget, { ...selection, stream: streamOf(bucket) }, onMessage);
    } catch (error) {
      if (!isStreamMissing(error)) throw error;
    }
  }

  /**
   * The value of a key; undefined if the key or the bucket is missing, or the key was deleted.
   *
   * @throws HawserError as `natsFailure` maps it
   */
  get(bucket: string, key: string, options: StorageOptions): Promise<Uint8Array | undefined> {
    const attempt = attemptOf(`read of key "${key}" in bucket "${bucket}"`, options, false);
    return this.#run(attempt, (call) => read(call, bucket, key));
  }

  /**
   * Deletes a key; its earlier revisions stay as the bucket's history demands. Does nothing if the key or the bucket is
   * missing.
   *
   * @throws HawserError as `natsFailure` maps it
   */
  delete(bucket: string, key: string, options: StorageOptions): Promise<void> {
    const attempt = attemptOf(`delete of key "${key}" in bucket "${bucket}"`, options, true);
    return this.#run(attempt, async (call) => {
      if (!(await mayHold(call, bucket, key))) return;
      const opened = await open(call, bucket);
      try {
        await opened.delete(key);
      } catch (error) {
        // Nobody took it: the bucket has gone since it was read, and the key with it.
        if (!(error instanceof jserrors.JetStreamNotEnabled)) throw error;
      }
    });
  }

  #run<T>(attempt: Attempt, work: (call: BucketCall) => Promise<T>): Promise<T> {
    return runOnJetStream(this.#watch, attempt, async (call) => {
      try {
        return await work({ ...call, buckets: new Kvm(call.client) });
      } catch (error) {
        throw named(error, attempt);
      }
    });
  }
}

/**
 * Makes the bucket. A user that may put into a bucket need not have the right to ask for it, or to make one.
 *
 * @returns how it was denied, if it was
 */
async function makeIfAllowed(call: BucketCall, bucket: string): Promise<Error | undefined> {
  try {
    await make(call, bucket);
    return undefined;
  } catch (error) {
    if (!isPermissionDenied(error)) throw error;
    return error as Error;
  }
}

function make({ buckets, attempt: { replicas = 1 } }: BucketCall, bucket: string): Promise<void> {
  return unlessThere(buckets.create(bucket, { replicas }));
}

/**
 * A handle to a bucket that may be there or not. Without `direct` it reads from the leader of the stream, so that a
 * session reads what it has just put, and a missing bucket is told from a JetStream that does not answer.
 */
function open({ buckets }: BucketCall, bucket: string, direct = false): Promise<KV> {
  return buckets.open(bucket, { allow_direct: direct });
}

/** The stream of a bucket (ADR-8). */
function streamOf(bucket: string): string {
  return `KV_${bucket}`;
}

/** The subject of a key. */
function subjectOf(bucket: string, key: string): string {
  return `$KV.${bucket}.${key}`;
}

/** What a message of a bucket's stream did (ADR-8); a marker of the server itself (ADR-48) tells why it is there. */
function operationOf({ headers }: Delivered): Operation {
  const reason = headers?.get("Nats-Marker-Reason");
  const operation = headers?.get("KV-Operation");
  if (operation === "DEL" || operation === "PURGE") return operation;
  return reason ? "PURGE" : "PUT";
}

async function putOnce(call: BucketCall, { bucket, key, value, after }: Put): Promise<number> {
  return (await open(call, bucket)).put(key, value, after === undefined ? {} : { previousSeq: after });
}

/**
 * Puts into a bucket that should be there. Where others listen to its keys, a missing bucket shows by silence alone.
 *
 * @param denied how making the bucket was denied
 * @throws JetStreamNotEnabled, if the bucket is missing
 */
async function putWhileThere(call: BucketCall, put: Put, denied: Error | undefined): Promise<bigint> {
  const { attempt, deadline, manager } = call;
  const answer = putOnce(call, put);
  const early = await within(Math.min(natsAnswerTimeoutMs, deadline.remainingMs / 2), answer);
  if (early !== undefined) return BigInt(early);
  const missing = new Promise<never>((_resolve, reject) => {
    manager.streams.info(streamOf(put.bucket)).catch((error: unknown) => {
      // A user that may not know goes on waiting.
      if (isStreamMissing(error)) reject(new jserrors.JetStreamNotEnabled("the bucket is missing"));
    });
  });
  const late = await within(lastChanceMs(deadline), Promise.race([answer, missing]));
  if (late !== undefined) return BigInt(late);
  if (denied === undefined) return BigInt(await answer);
  throw maybeMissing(attempt, denied);
}

/** The bucket could not be made, and nothing tells whether it is there. */
function maybeMissing(attempt: Attempt, denied: Error): NatsError {
  const { code, detail } = natsFailure(denied, attempt);
  const words = `Nobody acknowledged the ${attempt.name}; if the bucket is missing, this user may not make it.`;
  return new NatsError(code, words, {
    cause: denied,
    ...(detail === undefined ? {} : { detail }),
    outcome: "unknown",
  });
}

async function read(call: BucketCall, bucket: string, key: string): Promise<Uint8Array | undefined> {
  try {
    return valueIn(await (await open(call, bucket)).get(key));
  } catch (error) {
    if (isStreamMissing(error)) return undefined;
    if (!isPermissionDenied(error)) throw error;
    // Direct reading is what users can be given a right to for single keys.
    return readDirectly(call, bucket, key, error);
  }
}

async function readDirectly(
  call: BucketCall,
  bucket: string,
  key: string,
  denied: unknown,
): Promise<Uint8Array | undefined> {
  let entry: KvEntry | null | undefined;
  try {
    const opened = await open(call, bucket, true);
    // A missing bucket shows by silence alone, on nats-server 2.9 and where others listen to its subjects.
    entry = await within(lastChanceMs(call.deadline), opened.get(key));
  } catch {
    throw denied;
  }
  if (entry === undefined) throw denied;
  return valueIn(entry);
}

function valueIn(entry: KvEntry | null): Uint8Array | undefined {
  if (entry === null) return undefined;
  readStoredHeaders(entry);
  return entry.operation === "PUT" ? entry.value : undefined;
}

/** What is used of an entry beyond the library's interface. */
interface StoredEntry {
  readonly sm?: { readonly smr?: { readonly message: { readonly hdrs?: string } }; _header?: MsgHdrs };
}

/**
 * Where an entry came as a document, and not as a message, the library would read its headers by itself: a client that may
 * publish to the subject of a key can have put there what it throws at, or takes minutes for.
 */
function readStoredHeaders(entry: KvEntry): void {
  const { sm } = entry as unknown as StoredEntry;
  const block = sm?.smr?.message.hdrs;
  if (sm !== undefined && block !== undefined) sm._header = new ReceivedHeaders(Buffer.from(block, "base64"));
}

/** The last that was done to a key; null for nothing. A user who may write need not have the right to read. */
async function lastOf(call: BucketCall, bucket: string, key: string, refusal: Error): Promise<KvEntry | null> {
  let entry: KvEntry | null;
  try {
    entry = await (await open(call, bucket)).get(key);
  } catch (error) {
    const unread = "Or it had one, and was deleted: this user may not read it.";
    throw isPermissionDenied(error) ? keyExists(call.attempt, refusal, unread) : error;
  }
  if (entry !== null) readStoredHeaders(entry);
  return entry;
}

function keyExists({ name }: Attempt, cause: unknown, detail: string): NatsError {
  return new NatsError("key_exists", `The ${name} was refused: it has a value.`, { cause, detail });
}

function wrongRevision({ name }: Attempt, revision: bigint, cause: Error, detail = cause.message): NatsError {
  return new NatsError("wrong_revision", `The ${name} was refused: its revision is not ${revision}.`, {
    cause,
    detail,
  });
}

function tooMuch({ name }: Attempt, maxBytes: number): NatsError {
  return new NatsError("gateway_limit", `The ${name} is larger than ${maxBytes} bytes.`);
}

/** True if the key has a value, or the user may not know. */
async function mayHold(call: BucketCall, bucket: string, key: string): Promise<boolean> {
  try {
    return (await read(call, bucket, key)) !== undefined;
  } catch (error) {
    if (isPermissionDenied(error)) return true;
    throw error;
  }
}

/** The library has no class for a name that it refuses. */
function named(error: unknown, attempt: Attempt): Error {
  if (error instanceof Error && /^invalid (key|bucket name): /.test(error.message)) {
    return new NatsError("invalid_argument", `The ${attempt.name} was refused: ${error.message}.`, { cause: error });
  }
  return natsFailure(error, attempt);
}
