/**
 * Values by key in JetStream buckets. A bucket is made by the first put; reading and deleting make none.
 *
 * Each call opens the bucket anew, which costs no round trip and gives it the timeouts of this call; so a bucket that
 * was deleted or made again by others is no concern either.
 */
import { jserrors } from "@nats-io/jetstream/internal";
import { type KV, type KvEntry, Kvm } from "@nats-io/kv";
import type { MsgHdrs } from "@nats-io/transport-node";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import { NatsError } from "../../errors/index.js";
import { type Deadline, within } from "../../runtime/index.js";
import { ReceivedHeaders } from "../headers.js";
import type { ConnectionWatch } from "./connection-watch.js";
import { type Attempt, isPermissionDenied, isStreamMissing, natsFailure } from "./failure.js";
import {
  attemptOf,
  BoundedSet,
  type JetStreamCall,
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

/** The key-value buckets of one connection. */
export class KeyValue {
  readonly #watch: ConnectionWatch;
  /** Buckets that were there when last used: a put into another one asks first. */
  readonly #known = new BoundedSet(maxKnownBuckets);

  constructor(watch: ConnectionWatch) {
    this.#watch = watch;
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
    const id = `${options.domain ?? ""} ${bucket}`;
    return this.#run(attempt, async (call) => {
      const denied = this.#known.has(id) ? undefined : await makeIfAllowed(call, bucket);
      try {
        const revision = await putWhileThere(call, bucket, key, value, denied);
        this.#known.add(id);
        return revision;
      } catch (error) {
        this.#known.delete(id);
        if (!(error instanceof jserrors.JetStreamNotEnabled)) throw error;
      }
      // Nobody took it: the bucket has been deleted since.
      await make(call, bucket);
      const revision = BigInt(await putOnce(call, bucket, key, value));
      this.#known.add(id);
      return revision;
    });
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

async function putOnce(call: BucketCall, bucket: string, key: string, value: Uint8Array): Promise<number> {
  return (await open(call, bucket)).put(key, value);
}

/**
 * Puts into a bucket that should be there. Where others listen to its keys, a missing bucket shows by silence alone.
 *
 * @param denied how making the bucket was denied
 * @throws JetStreamNotEnabled, if the bucket is missing
 */
async function putWhileThere(
  call: BucketCall,
  bucket: string,
  key: string,
  value: Uint8Array,
  denied: Error | undefined,
): Promise<bigint> {
  const { attempt, deadline, manager } = call;
  const answer = putOnce(call, bucket, key, value);
  const early = await within(Math.min(natsAnswerTimeoutMs, deadline.remainingMs / 2), answer);
  if (early !== undefined) return BigInt(early);
  const missing = new Promise<never>((_resolve, reject) => {
    manager.streams.info(`KV_${bucket}`).catch((error: unknown) => {
      // A user that may not know goes on waiting.
      if (isStreamMissing(error)) reject(new jserrors.JetStreamNotEnabled("the bucket is missing"));
    });
  });
  const late = await within(lastChance(deadline), Promise.race([answer, missing]));
  if (late !== undefined) return BigInt(late);
  if (denied === undefined) return BigInt(await answer);
  throw maybeMissing(attempt, denied);
}

/** Somewhat less than what is left, so that what it ends with can still be told. */
function lastChance(deadline: Deadline): number {
  return Math.max(1, deadline.remainingMs * 0.9);
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
    entry = await within(lastChance(call.deadline), opened.get(key));
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
