/**
 * Key-value buckets in JetStream. The first put creates a bucket; reading and deleting do not.
 *
 * A put, a get and a deletion are one request each (ADR-8), which Hawser sends itself: opening the bucket with nats.js
 * would cost several times the request. nats.js creates buckets. No bucket is kept open, so others may delete or recreate
 * a bucket at any time.
 */
import { type ApiError, DeliverPolicy, JetStreamApiCodes, JetStreamApiError, PubHeaders } from "@nats-io/jetstream";
import { jserrors } from "@nats-io/jetstream/internal";
import { type KvEntry, Kvm } from "@nats-io/kv";
import { errors, type Msg, type MsgHdrs } from "@nats-io/transport-node";
import type { GetHistoryResponse } from "../../../../generated/ts/nats-functions/methods.js";
import { namedRules } from "../../../../generated/ts/rules/named.js";
import { checkText } from "../../../../generated/ts/rules/violation.js";
import { HawserError } from "../../../foundation/errors/index.js";
import { Deadline, within } from "../../../foundation/runtime/index.js";
import { ReceivedNatsHeaders, singleHeaderBlock } from "../headers.js";
import type { ConnectionWatch } from "./connection-watch.js";
import { type Delivery, deliver, type Selection, storedAtMs } from "./delivery.js";
import {
  isPermissionDenied,
  isStreamMissing,
  isWrongLastRevision,
  natsFailure,
  type OperationDescription,
  readAnswer,
} from "./failure.js";
import {
  almostRemainingMs,
  attemptOf,
  BoundedSet,
  type JetStream,
  jetStreamOf,
  type ReadOptions,
  runOnJetStream,
  type StorageOptions,
  unlessExists,
} from "./jetstream.js";
import { natsAnswerTimeoutMs, readAck } from "./stream-publish.js";

const maxKnownBuckets = 1000;

/** A running call. */
interface BucketCall {
  readonly watch: ConnectionWatch;
  readonly attempt: OperationDescription;
  readonly deadline: Deadline;
}

/** Last entry of a key in its bucket. */
interface Entry {
  readonly revision: number;
  readonly operation: Operation;
  /** Empty if the key was deleted. */
  readonly value: Uint8Array;
}

/** Function that passes all selected messages to `onMessage`, in order. */
type ReadAll = (selection: Selection, onMessage: (message: Delivery) => void) => Promise<void>;

/** A revision of a key to put. */
interface Put {
  readonly bucket: string;
  readonly key: string;
  /** Empty for a deletion. */
  readonly value: Uint8Array;
  /** Encoded headers. Default: none. */
  readonly headers?: string;
}

/** A value, a deletion, or a deletion together with all earlier revisions. */
type Operation = "PUT" | "DEL" | "PURGE";

/** Estimated size of a value. */
const valueBytes = 1024;

const nothing = new Uint8Array(0);
const deletion = singleHeaderBlock("KV-Operation", "DEL");

/** Key-value buckets over one connection. */
export class KeyValue {
  readonly #watch: ConnectionWatch;
  /** Buckets that existed at their last use. A put into any other bucket first tries to create the bucket. */
  readonly #known = new BoundedSet(maxKnownBuckets);

  constructor(watch: ConnectionWatch) {
    this.#watch = watch;
  }

  /**
   * Puts a value. Creates the bucket if it is missing, with file storage, one revision per key, no expiry, and the
   * number of replicas in the options.
   *
   * @returns revision of the value
   * @throws HawserError from `natsFailure`; payload_too_large
   */
  put(bucket: string, key: string, value: Uint8Array, options: StorageOptions): Promise<bigint> {
    const attempt = attemptOf(`put of key "${key}" into bucket "${bucket}"`, options, true);
    this.#watch.checkSize(attempt, value.length);
    return this.#run(attempt, bucket, key, (call) => this.#putCreating(call, { bucket, key, value }));
  }

  /**
   * Puts the value of a key that has none; creates the bucket as {@link put} does.
   *
   * @returns revision of the value
   * @throws HawserError key_exists; as `natsFailure` maps it; payload_too_large
   */
  create(bucket: string, key: string, value: Uint8Array, options: StorageOptions): Promise<bigint> {
    const attempt = attemptOf(`creation of key "${key}" in bucket "${bucket}"`, options, true);
    this.#watch.checkSize(attempt, value.length);
    return this.#run(attempt, bucket, key, async (call) => {
      let refusal: Error;
      try {
        return await this.#putCreating(call, { bucket, key, value, headers: following(0) });
      } catch (error) {
        if (!isWrongLastRevision(error)) throw error;
        refusal = error;
      }
      // A deleted key has a last revision, which the new one must follow.
      const last = await lastEntryOf(call, bucket, key, refusal);
      if (last?.operation === "PUT") throw keyExists(attempt, refusal, `Its revision is ${last.revision}.`);
      try {
        return BigInt(await putOnce(call, { bucket, key, value, headers: following(last?.revision ?? 0) }));
      } catch (error) {
        throw isWrongLastRevision(error) ? keyExists(attempt, error, "Another writer was faster.") : error;
      }
    });
  }

  /**
   * Replaces the value with the given revision.
   *
   * @returns the new revision
   * @throws HawserError wrong_revision, also if the key or bucket is missing; as `natsFailure` maps it;
   * payload_too_large
   */
  update(bucket: string, key: string, value: Uint8Array, revision: bigint, options: StorageOptions): Promise<bigint> {
    const attempt = attemptOf(`update of key "${key}" in bucket "${bucket}"`, options, true);
    this.#watch.checkSize(attempt, value.length);
    return this.#run(attempt, bucket, key, async (call) => {
      try {
        return await putIntoExisting(call, { bucket, key, value, headers: following(revision) }, undefined);
      } catch (error) {
        if (isWrongLastRevision(error)) throw wrongRevision(attempt, revision, error);
        // No responder: the bucket or JetStream is missing.
        if (!(error instanceof jserrors.JetStreamNotEnabled)) throw error;
        const missing = await isMissing(call, bucket);
        throw missing ? wrongRevision(attempt, revision, error, "the bucket is missing") : error;
      }
    });
  }

  /** Puts a value, and creates the bucket if it is missing. */
  async #putCreating(call: BucketCall, put: Put): Promise<bigint> {
    const { bucket } = put;
    const id = `${call.attempt.domain ?? ""} ${bucket}`;
    const denied = this.#known.has(id) ? undefined : await createIfPermitted(call, bucket);
    try {
      const revision = await putIntoExisting(call, put, denied);
      this.#known.add(id);
      return revision;
    } catch (error) {
      this.#known.delete(id);
      if (!(error instanceof jserrors.JetStreamNotEnabled)) throw error;
    }
    // No responder: the bucket has been deleted since its last use.
    await createBucket(call, bucket);
    const revision = BigInt(await putOnce(call, put));
    this.#known.add(id);
    return revision;
  }

  /**
   * Keys with a value, in the order of their bytes; empty if the bucket is missing.
   *
   * @throws HawserError gateway_limit, if they are larger than `maxBytes`; as `natsFailure` maps it
   */
  async keys(bucket: string, options: ReadOptions): Promise<string[]> {
    const attempt = attemptOf(`list of the keys of bucket "${bucket}"`, options, false);
    checkNames(attempt, bucket);
    return this.#reading(attempt, async (readAll) => {
      const keys = new Set<string>();
      const prefix = subjectOf(bucket, "");
      let bytes = 0;
      const selection = { subject: subjectOf(bucket, ">"), from: DeliverPolicy.LastPerSubject, headersOnly: true };
      await readAll({ ...selection, messageBytes: 0, stream: streamOf(bucket) }, ({ message }) => {
        const key = message.subject.slice(prefix.length);
        // After a gap, a key that was written meanwhile is delivered again.
        if (operationOf(message) !== "PUT") keys.delete(key);
        else keys.add(key);
        bytes += key.length;
        if (bytes > options.maxBytes) throw tooMuch(attempt, options.maxBytes);
      });
      return [...keys].sort();
    });
  }

  /**
   * Stored revisions of a key, oldest first; empty if the key or the bucket is missing.
   *
   * @throws HawserError gateway_limit, if their values are larger than `maxBytes`; as `natsFailure` maps it
   */
  async history(bucket: string, key: string, options: ReadOptions): Promise<GetHistoryResponse[]> {
    const attempt = attemptOf(`history of key "${key}" in bucket "${bucket}"`, options, false);
    checkNames(attempt, bucket, key);
    return this.#reading(attempt, async (readAll) => {
      const revisions: GetHistoryResponse[] = [];
      let bytes = 0;
      const place = { stream: streamOf(bucket), subject: subjectOf(bucket, key) };
      await readAll({ ...place, from: DeliverPolicy.All, messageBytes: valueBytes }, (delivery) => {
        const { message } = delivery;
        bytes += message.data.length;
        if (bytes > options.maxBytes) throw tooMuch(attempt, options.maxBytes);
        const operation = operationOf(message);
        const value = operation === "PUT" ? message.data : undefined;
        const created = new Date(storedAtMs(delivery)).toISOString();
        revisions.push({ revision: BigInt(delivery.number), operation, value, created });
      });
      return revisions;
    });
  }

  /** Reads messages of a bucket; none if it is missing. */
  #reading<T>(attempt: OperationDescription, work: (readAll: ReadAll) => Promise<T>): Promise<T> {
    return runOnJetStream(this.#watch, attempt, (call) =>
      work(async (selection, onMessage) => {
        try {
          await deliver(call, selection, onMessage);
        } catch (error) {
          if (!isStreamMissing(error)) throw error;
        }
      }),
    );
  }

  /**
   * Value of a key; undefined if the key or the bucket is missing, or the key was deleted.
   *
   * @throws HawserError from `natsFailure`
   */
  get(bucket: string, key: string, options: StorageOptions): Promise<Uint8Array | undefined> {
    const attempt = attemptOf(`read of key "${key}" in bucket "${bucket}"`, options, false);
    return this.#run(attempt, bucket, key, (call) => read(call, bucket, key));
  }

  /**
   * Deletes a key; its earlier revisions stay within the bucket's history. Does nothing if the key or the bucket is
   * missing.
   *
   * @throws HawserError from `natsFailure`
   */
  delete(bucket: string, key: string, options: StorageOptions): Promise<void> {
    const attempt = attemptOf(`delete of key "${key}" in bucket "${bucket}"`, options, true);
    return this.#run(attempt, bucket, key, async (call) => {
      if (!(await mayHold(call, bucket, key))) return;
      try {
        await putOnce(call, { bucket, key, value: nothing, headers: deletion });
      } catch (error) {
        // No responder: the bucket was deleted since it was read, together with the key.
        if (!(error instanceof jserrors.JetStreamNotEnabled)) throw error;
      }
    });
  }

  async #run<T>(
    attempt: OperationDescription,
    bucket: string,
    key: string,
    work: (call: BucketCall) => Promise<T>,
  ): Promise<T> {
    const watch = this.#watch;
    checkNames(attempt, bucket, key);
    watch.checkHeaders(attempt);
    const deadline = new Deadline(attempt.timeoutMs);
    return watch.run(attempt, deadline, () => work({ watch, attempt, deadline }));
  }
}

/**
 * Creates the bucket. A user who may put into a bucket need not be permitted to create or inspect it.
 *
 * @returns the refusal, if it was refused
 */
async function createIfPermitted(call: BucketCall, bucket: string): Promise<Error | undefined> {
  try {
    await createBucket(call, bucket);
    return undefined;
  } catch (error) {
    if (!isPermissionDenied(error)) throw error;
    return error as Error;
  }
}

async function createBucket(call: BucketCall, bucket: string): Promise<void> {
  const { replicas = 1 } = call.attempt;
  const { client } = await natsJsOf(call);
  await unlessExists(new Kvm(client).create(bucket, { replicas }));
}

/** Objects of nats.js with the time limit of this call. */
function natsJsOf({ watch, attempt, deadline }: BucketCall): Promise<JetStream> {
  return jetStreamOf(watch.connection, attempt.domain, deadline.remainingMs);
}

/** Name of a bucket's stream (ADR-8). */
function streamOf(bucket: string): string {
  return `KV_${bucket}`;
}

/**
 * Checks names once more, because they become parts of subjects; callers must have checked them against the spec.
 *
 * @throws HawserError invalid_argument
 */
function checkNames({ name }: OperationDescription, bucket: string, key?: string): void {
  const violation =
    checkText("bucket", namedRules.bucket, bucket) ??
    (key === undefined ? undefined : checkText("key", namedRules.key, key));
  if (violation === undefined) return;
  throw new HawserError("invalid_argument", `The ${name} was refused: its ${violation.path} ${violation.rule}.`);
}

/** Subject of a key. */
function subjectOf(bucket: string, key: string): string {
  return `$KV.${bucket}.${key}`;
}

/**
 * Operation of a message in a bucket's stream (ADR-8). A message with a reason is a delete marker of the server
 * (ADR-48).
 */
function operationOf({ headers }: { readonly headers?: MsgHdrs | undefined }): Operation {
  const reason = headers?.get("Nats-Marker-Reason");
  const operation = headers?.get("KV-Operation");
  if (operation === "DEL" || operation === "PURGE") return operation;
  return reason ? "PURGE" : "PUT";
}

/** Puts by one request, and returns the revision. @throws JetStreamNotEnabled, if there is no responder */
async function putOnce(call: BucketCall, { bucket, key, value, headers }: Put): Promise<number> {
  const { attempt } = call;
  // The servers of a domain map subjects with the prefix of its API to the subjects of its buckets.
  const prefix = attempt.domain === undefined ? "" : `${apiPrefixOf(attempt)}.`;
  const subject = `${prefix}${subjectOf(bucket, key)}`;
  return readAck(attempt, await requestJetStream(call, subject, value, headers)).seq;
}

/** Header that makes JetStream refuse a put unless the key's last revision is the given one; 0 for none. */
function following(revision: number | bigint): string {
  return singleHeaderBlock(PubHeaders.ExpectedLastSubjectSequenceHdr, `${revision}`);
}

/** Sends a request to JetStream. @throws JetStreamNotEnabled, if there is no responder; errors of `Writer.request` */
async function requestJetStream(
  { watch, deadline }: BucketCall,
  subject: string,
  payload: Uint8Array,
  headers?: string,
): Promise<Msg> {
  try {
    return await watch.writer.request(subject, payload, deadline.remainingMs, headers);
  } catch (cause) {
    throw cause instanceof errors.NoRespondersError
      ? new jserrors.JetStreamNotEnabled("nobody listens", { cause })
      : cause;
  }
}

/** Prefix of JetStream API subjects. */
function apiPrefixOf({ domain }: OperationDescription): string {
  return domain === undefined ? "$JS.API" : `$JS.${domain}.API`;
}

/**
 * Puts into a bucket that should exist. If other clients subscribe to the subjects of its keys, a missing bucket shows
 * only as a missing answer, so the bucket is looked up when the answer takes long.
 *
 * @param denied refusal to create the bucket; undefined if there was none
 * @throws JetStreamNotEnabled, if the bucket is missing
 */
async function putIntoExisting(call: BucketCall, put: Put, denied: Error | undefined): Promise<bigint> {
  const { attempt, deadline } = call;
  const answer = putOnce(call, put);
  const early = await within(Math.min(natsAnswerTimeoutMs, deadline.remainingMs / 2), answer);
  if (early !== undefined) return BigInt(early);
  const missing = new Promise<never>((_resolve, reject) => {
    // If the user may not look up the bucket, the wait continues.
    void isMissing(call, put.bucket).then((missing) => {
      if (missing) reject(new jserrors.JetStreamNotEnabled("the bucket is missing"));
    });
  });
  const late = await within(almostRemainingMs(deadline), Promise.race([answer, missing]));
  if (late !== undefined) return BigInt(late);
  if (denied === undefined) return BigInt(await answer);
  throw maybeMissing(attempt, denied);
}

/** True if JetStream reports that the bucket does not exist. */
async function isMissing(call: BucketCall, bucket: string): Promise<boolean> {
  const { manager } = await natsJsOf(call);
  return manager.streams.info(streamOf(bucket)).then(() => false, isStreamMissing);
}

/** Error of a put without an answer into a bucket that this user may not create, and that may not exist. */
function maybeMissing(attempt: OperationDescription, denied: Error): HawserError {
  const { code, detail } = natsFailure(denied, attempt);
  const words = `The ${attempt.name} was not acknowledged; if the bucket is missing, this user is not permitted to create it.`;
  return new HawserError(code, words, {
    cause: denied,
    ...(detail === undefined ? {} : { detail }),
    outcome: "unknown",
  });
}

async function read(call: BucketCall, bucket: string, key: string): Promise<Uint8Array | undefined> {
  try {
    const entry = await entryOf(call, bucket, key);
    return entry?.operation === "PUT" ? entry.value : undefined;
  } catch (error) {
    if (isStreamMissing(error)) return undefined;
    if (!isPermissionDenied(error)) throw error;
    // The user may still be permitted to read single keys directly (DIRECT.GET).
    return readDirectly(call, bucket, key, error);
  }
}

/**
 * Last entry of a key; null if there is none. It is read from the leader of the stream, so that a session reads its own
 * puts, and so that a missing bucket differs from a JetStream that does not answer.
 *
 * @throws JetStreamApiError of the stream; HawserError nats_failed, if something else answered
 */
async function entryOf(call: BucketCall, bucket: string, key: string): Promise<Entry | null> {
  const { attempt } = call;
  const subject = subjectOf(bucket, key);
  const query = Buffer.from(JSON.stringify({ last_by_subj: subject }));
  const answer = await requestJetStream(call, `${apiPrefixOf(attempt)}.STREAM.MSG.GET.${streamOf(bucket)}`, query);
  const { error, message } = readAnswer<StoredAnswer>(attempt, answer, "JetStream");
  if (error?.err_code === JetStreamApiCodes.NoMessageFound) return null;
  if (error !== undefined) throw new JetStreamApiError(error);
  if (message?.subject !== subject || typeof message.seq !== "number") return null;
  // Any client may publish to the subject of a key, with headers that nats.js throws at or parses for minutes.
  const headers = message.hdrs === undefined ? undefined : new ReceivedNatsHeaders(Buffer.from(message.hdrs, "base64"));
  return {
    revision: message.seq,
    operation: operationOf({ headers }),
    value: Uint8Array.from(Buffer.from(message.data ?? "", "base64")),
  };
}

/** Answer of the JetStream API to STREAM.MSG.GET. */
interface StoredAnswer {
  readonly error?: ApiError;
  readonly message?: {
    readonly subject?: string;
    readonly seq?: number;
    readonly hdrs?: string;
    readonly data?: string;
  };
}

async function readDirectly(
  call: BucketCall,
  bucket: string,
  key: string,
  denied: unknown,
): Promise<Uint8Array | undefined> {
  let entry: KvEntry | null | undefined;
  try {
    const { client } = await natsJsOf(call);
    // Any server with a replica may answer.
    const opened = await new Kvm(client).open(bucket, { allow_direct: true });
    // On nats-server 2.9, and if other clients subscribe to the bucket's subjects, a missing bucket does not answer.
    entry = await within(almostRemainingMs(call.deadline), opened.get(key));
  } catch {
    throw denied;
  }
  if (entry === undefined) throw denied;
  return entry?.operation === "PUT" ? entry.value : undefined;
}

/** Last entry of a key; null if there is none. A user who may write need not be permitted to read. */
async function lastEntryOf(call: BucketCall, bucket: string, key: string, refusal: Error): Promise<Entry | null> {
  try {
    return await entryOf(call, bucket, key);
  } catch (error) {
    const unread = "It may also have been deleted: this user is not permitted to read it.";
    throw isPermissionDenied(error) ? keyExists(call.attempt, refusal, unread) : error;
  }
}

function keyExists({ name }: OperationDescription, cause: unknown, detail: string): HawserError {
  return new HawserError("key_exists", `The ${name} was refused: the key has a value.`, { cause, detail });
}

function wrongRevision(
  { name }: OperationDescription,
  revision: bigint,
  cause: Error,
  detail = cause.message,
): HawserError {
  return new HawserError("wrong_revision", `The ${name} was refused: the key's revision is not ${revision}.`, {
    cause,
    detail,
  });
}

function tooMuch({ name }: OperationDescription, maxBytes: number): HawserError {
  return new HawserError("gateway_limit", `The ${name} is larger than ${maxBytes} bytes.`);
}

/** True if the key has a value, or the user is not permitted to read it. */
async function mayHold(call: BucketCall, bucket: string, key: string): Promise<boolean> {
  try {
    return (await read(call, bucket, key)) !== undefined;
  } catch (error) {
    if (isPermissionDenied(error)) return true;
    throw error;
  }
}
