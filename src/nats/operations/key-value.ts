/**
 * Values by key in JetStream buckets. A bucket is made by the first put; reading and deleting make none.
 *
 * A put and a get are one request each (ADR-8), which is made here: the objects that the library makes for a call that
 * opens its bucket would cost several times the request. For what is rarer a call opens the bucket by the library anew,
 * which costs no round trip and gives it the timeouts of this call; so a bucket that was deleted or made again by others
 * is no concern either.
 */
import { DeliverPolicy, JetStreamApiCodes, JetStreamApiError, PubHeaders } from "@nats-io/jetstream";
import { jserrors } from "@nats-io/jetstream/internal";
import { type KV, type KvEntry, Kvm } from "@nats-io/kv";
import { errors, type Msg, type MsgHdrs, MsgHdrsImpl } from "@nats-io/transport-node";
import type { GetHistoryResponse } from "../../../generated/ts/nats-functions/methods.js";
import { namedRules } from "../../../generated/ts/rules/named.js";
import { checkText } from "../../../generated/ts/rules/violation.js";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import { HawserError } from "../../errors/index.js";
import { Deadline, within } from "../../runtime/index.js";
import { ReceivedHeaders } from "../headers.js";
import type { ConnectionWatch } from "./connection-watch.js";
import { type Delivered, type DownloadBudget, deliver, type Selection } from "./delivery.js";
import { type Attempt, isAnotherLast, isPermissionDenied, isStreamMissing, natsFailure } from "./failure.js";
import {
  attemptOf,
  BoundedSet,
  type JetStream,
  jetStreamOf,
  lastChanceMs,
  type ReadOptions,
  runOnJetStream,
  type StorageOptions,
  unlessThere,
} from "./jetstream.js";
import { readAck } from "./stream-publish.js";
import { type OutgoingHeaders, outgoingHeaders } from "./write-side.js";

const maxKnownBuckets = 1000;
const { natsAnswerTimeoutMs } = gatewayConstants;

/** A call that is under way. */
interface BucketCall {
  readonly watch: ConnectionWatch;
  readonly attempt: Attempt;
  readonly deadline: Deadline;
}

/** What a bucket has for a key. */
interface Entry {
  readonly revision: number;
  readonly operation: Operation;
  /** Empty where it was deleted. */
  readonly value: Uint8Array;
}

/** Hands messages on, in their order. */
type ReadAll = (selection: Selection, onMessage: (message: Delivered) => void) => Promise<void>;

/** What is put. */
interface Put {
  readonly bucket: string;
  readonly key: string;
  readonly value: Uint8Array;
  /** The revision that it has to follow; 0: none. Undefined: whatever is there. */
  readonly after?: number;
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
    return this.#run(attempt, bucket, key, (call) => this.#putMaking(call, { bucket, key, value }));
  }

  /**
   * Puts the value of a key that has none, or none any more; makes the bucket as {@link put} does.
   *
   * @returns its revision
   * @throws HawserError key_exists; as `natsFailure` maps it; payload_too_large
   */
  create(bucket: string, key: string, value: Uint8Array, options: StorageOptions): Promise<bigint> {
    const attempt = attemptOf(`creation of key "${key}" in bucket "${bucket}"`, options, true);
    this.#watch.checkSize(attempt, value.length);
    return this.#run(attempt, bucket, key, async (call) => {
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
   * @throws HawserError wrong_revision, also if there is no such key or bucket; as `natsFailure` maps it;
   * payload_too_large
   */
  update(bucket: string, key: string, value: Uint8Array, revision: bigint, options: StorageOptions): Promise<bigint> {
    const attempt = attemptOf(`update of key "${key}" in bucket "${bucket}"`, options, true);
    this.#watch.checkSize(attempt, value.length);
    return this.#run(attempt, bucket, key, async (call) => {
      try {
        return await putWhileThere(call, { bucket, key, value, after: Number(revision) }, undefined);
      } catch (error) {
        if (isAnotherLast(error)) throw wrongRevision(attempt, revision, error);
        // Nobody took it: there is no bucket, or no JetStream.
        if (!(error instanceof jserrors.JetStreamNotEnabled)) throw error;
        const missing = await isMissing(call, bucket);
        throw missing ? wrongRevision(attempt, revision, error, "the bucket is missing") : error;
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
   * @throws HawserError gateway_limit, if they are larger than `maxBytes`; as `natsFailure` maps it
   */
  async keys(bucket: string, options: ReadOptions): Promise<string[]> {
    const attempt = attemptOf(`list of the keys of bucket "${bucket}"`, options, false);
    checkNames(attempt, bucket);
    return this.#reading(attempt, async (readAll) => {
      const keys = new Set<string>();
      const prefix = subjectOf(bucket, "");
      let bytes = 0;
      const selection = { subject: subjectOf(bucket, ">"), policy: DeliverPolicy.LastPerSubject, headersOnly: true };
      await readAll({ ...selection, messageBytes: 0, stream: streamOf(bucket) }, (message) => {
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
   * @throws HawserError gateway_limit, if their values are larger than `maxBytes`; as `natsFailure` maps it
   */
  async history(bucket: string, key: string, options: ReadOptions): Promise<GetHistoryResponse[]> {
    const attempt = attemptOf(`history of key "${key}" in bucket "${bucket}"`, options, false);
    checkNames(attempt, bucket, key);
    return this.#reading(attempt, async (readAll) => {
      const revisions: GetHistoryResponse[] = [];
      let bytes = 0;
      const place = { stream: streamOf(bucket), subject: subjectOf(bucket, key) };
      await readAll({ ...place, policy: DeliverPolicy.All, messageBytes: valueBytes }, (message) => {
        bytes += message.data.length;
        if (bytes > options.maxBytes) throw tooMuch(attempt, options.maxBytes);
        const operation = operationOf(message);
        const value = operation === "PUT" ? message.data : undefined;
        revisions.push({ revision: BigInt(message.seq), operation, value, created: message.storedAt });
      });
      return revisions;
    });
  }

  /** Reads messages of a bucket, none if it is missing. */
  #reading<T>(attempt: Attempt, work: (readAll: ReadAll) => Promise<T>): Promise<T> {
    return runOnJetStream(this.#watch, attempt, (call) =>
      work(async (selection, onMessage) => {
        try {
          await deliver(call, this.#budget, selection, onMessage);
        } catch (error) {
          if (!isStreamMissing(error)) throw error;
        }
      }),
    );
  }

  /**
   * The value of a key; undefined if the key or the bucket is missing, or the key was deleted.
   *
   * @throws HawserError as `natsFailure` maps it
   */
  get(bucket: string, key: string, options: StorageOptions): Promise<Uint8Array | undefined> {
    const attempt = attemptOf(`read of key "${key}" in bucket "${bucket}"`, options, false);
    return this.#run(attempt, bucket, key, (call) => read(call, bucket, key));
  }

  /**
   * Deletes a key; its earlier revisions stay as the bucket's history demands. Does nothing if the key or the bucket is
   * missing.
   *
   * @throws HawserError as `natsFailure` maps it
   */
  delete(bucket: string, key: string, options: StorageOptions): Promise<void> {
    const attempt = attemptOf(`delete of key "${key}" in bucket "${bucket}"`, options, true);
    return this.#run(attempt, bucket, key, async (call) => {
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

  async #run<T>(attempt: Attempt, bucket: string, key: string, work: (call: BucketCall) => Promise<T>): Promise<T> {
    const watch = this.#watch;
    checkNames(attempt, bucket, key);
    watch.checkHeaders(attempt);
    const deadline = new Deadline(attempt.timeoutMs);
    return watch.run(attempt, deadline, () => work({ watch, attempt, deadline }));
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

async function make(call: BucketCall, bucket: string): Promise<void> {
  const { replicas = 1 } = call.attempt;
  const { client } = await libraryOf(call);
  await unlessThere(new Kvm(client).create(bucket, { replicas }));
}

/** A handle to a bucket that may be there or not. With `direct`, any server that has it may answer. */
async function open(call: BucketCall, bucket: string, direct = false): Promise<KV> {
  const { client } = await libraryOf(call);
  return new Kvm(client).open(bucket, { allow_direct: direct });
}

/** The library's objects, with the timeouts of this call. */
function libraryOf({ watch, attempt, deadline }: BucketCall): Promise<JetStream> {
  return jetStreamOf(watch.connection, attempt.domain, deadline.remainingMs);
}

/** The stream of a bucket (ADR-8). */
function streamOf(bucket: string): string {
  return `KV_${bucket}`;
}

/** @throws HawserError invalid_argument, before a name becomes part of a subject; they have been checked with the call */
function checkNames({ name }: Attempt, bucket: string, key?: string): void {
  const violation =
    checkText("bucket", namedRules.bucket, bucket) ??
    (key === undefined ? undefined : checkText("key", namedRules.key, key));
  if (violation === undefined) return;
  throw new HawserError("invalid_argument", `The ${name} was refused: its ${violation.path} ${violation.rule}.`);
}

/** The subject of a key. */
function subjectOf(bucket: string, key: string): string {
  return `$KV.${bucket}.${key}`;
}

/** What a message of a bucket's stream did (ADR-8); a marker of the server itself (ADR-48) tells why it is there. */
function operationOf({ headers }: { readonly headers: MsgHdrs | undefined }): Operation {
  const reason = headers?.get("Nats-Marker-Reason");
  const operation = headers?.get("KV-Operation");
  if (operation === "DEL" || operation === "PURGE") return operation;
  return reason ? "PURGE" : "PUT";
}

/** @throws JetStreamNotEnabled, if nobody took it */
async function putOnce(call: BucketCall, { bucket, key, value, after }: Put): Promise<number> {
  const { attempt } = call;
  // Where a domain was named, its servers give it to the stream.
  const prefix = attempt.domain === undefined ? "" : `${apiPrefixOf(attempt)}.`;
  const subject = `${prefix}${subjectOf(bucket, key)}`;
  return readAck(attempt, await askJetStream(call, subject, value, after === undefined ? undefined : following(after)))
    .seq;
}

/** That the last revision must be this one. */
function following(revision: number): OutgoingHeaders {
  const headers = new MsgHdrsImpl();
  headers.set(PubHeaders.ExpectedLastSubjectSequenceHdr, `${revision}`);
  return outgoingHeaders(headers);
}

/** What JetStream answers. @throws JetStreamNotEnabled, if nobody listens; what `Asking.ask` throws */
async function askJetStream(
  { watch, deadline }: BucketCall,
  subject: string,
  payload: Uint8Array,
  headers?: OutgoingHeaders,
): Promise<Msg> {
  try {
    return await watch.ask(subject, payload, deadline.remainingMs, headers);
  } catch (cause) {
    throw cause instanceof errors.NoRespondersError
      ? new jserrors.JetStreamNotEnabled("nobody listens", { cause })
      : cause;
  }
}

/** The subjects of the JetStream API begin with it. */
function apiPrefixOf({ domain }: Attempt): string {
  return domain === undefined ? "$JS.API" : `$JS.${domain}.API`;
}

/**
 * Puts into a bucket that should be there. Where others listen to its keys, a missing bucket shows by silence alone.
 *
 * @param denied how making the bucket was denied
 * @throws JetStreamNotEnabled, if the bucket is missing
 */
async function putWhileThere(call: BucketCall, put: Put, denied: Error | undefined): Promise<bigint> {
  const { attempt, deadline } = call;
  const answer = putOnce(call, put);
  const early = await within(Math.min(natsAnswerTimeoutMs, deadline.remainingMs / 2), answer);
  if (early !== undefined) return BigInt(early);
  const missing = new Promise<never>((_resolve, reject) => {
    // A user that may not know goes on waiting.
    void isMissing(call, put.bucket).then((missing) => {
      if (missing) reject(new jserrors.JetStreamNotEnabled("the bucket is missing"));
    });
  });
  const late = await within(lastChanceMs(deadline), Promise.race([answer, missing]));
  if (late !== undefined) return BigInt(late);
  if (denied === undefined) return BigInt(await answer);
  throw maybeMissing(attempt, denied);
}

/** Whether JetStream says that there is no such bucket. */
async function isMissing(call: BucketCall, bucket: string): Promise<boolean> {
  const { manager } = await libraryOf(call);
  return manager.streams.info(streamOf(bucket)).then(() => false, isStreamMissing);
}

/** The bucket could not be made, and nothing tells whether it is there. */
function maybeMissing(attempt: Attempt, denied: Error): HawserError {
  const { code, detail } = natsFailure(denied, attempt);
  const words = `Nobody acknowledged the ${attempt.name}; if the bucket is missing, this user may not make it.`;
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
    // Direct reading is what users can be given a right to for single keys.
    return readDirectly(call, bucket, key, error);
  }
}

/**
 * The last that was done to a key; null for nothing. From the leader of the stream, so that a session reads what it has
 * just put, and a missing bucket is told from a JetStream that does not answer.
 *
 * @throws JetStreamApiError what the stream said; HawserError nats_failed, if something else answered
 */
async function entryOf(call: BucketCall, bucket: string, key: string): Promise<Entry | null> {
  const { attempt } = call;
  const subject = subjectOf(bucket, key);
  const query = Buffer.from(JSON.stringify({ last_by_subj: subject }));
  const answer = await askJetStream(call, `${apiPrefixOf(attempt)}.STREAM.MSG.GET.${streamOf(bucket)}`, query);
  const { error, message } = readStored(attempt, answer);
  if (error?.err_code === JetStreamApiCodes.NoMessageFound) return null;
  if (error !== undefined) throw new JetStreamApiError(error);
  if (message?.subject !== subject || typeof message.seq !== "number") return null;
  // Any client may publish to the subject of a key, with headers that the library throws at, or takes minutes for.
  const headers = message.hdrs === undefined ? undefined : new ReceivedHeaders(Buffer.from(message.hdrs, "base64"));
  return {
    revision: message.seq,
    operation: operationOf({ headers }),
    value: Uint8Array.from(Buffer.from(message.data ?? "", "base64")),
  };
}

/** The answer of the JetStream API to STREAM.MSG.GET. */
interface StoredAnswer {
  readonly error?: ConstructorParameters<typeof JetStreamApiError>[0];
  readonly message?: {
    readonly subject?: string;
    readonly seq?: number;
    readonly hdrs?: string;
    readonly data?: string;
  };
}

function readStored({ name }: Attempt, answer: Msg): StoredAnswer {
  let stored: StoredAnswer | null;
  try {
    stored = answer.json();
  } catch (cause) {
    throw noApi(name, cause);
  }
  if (typeof stored !== "object" || stored === null) throw noApi(name);
  return stored;
}

function noApi(name: string, cause?: unknown): HawserError {
  return new HawserError("nats_failed", `The ${name} was answered by something that is no JetStream.`, { cause });
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
  return entry?.operation === "PUT" ? entry.value : undefined;
}

/** The last that was done to a key; null for nothing. A user who may write need not have the right to read. */
async function lastOf(call: BucketCall, bucket: string, key: string, refusal: Error): Promise<Entry | null> {
  try {
    return await entryOf(call, bucket, key);
  } catch (error) {
    const unread = "Or it had one, and was deleted: this user may not read it.";
    throw isPermissionDenied(error) ? keyExists(call.attempt, refusal, unread) : error;
  }
}

function keyExists({ name }: Attempt, cause: unknown, detail: string): HawserError {
  return new HawserError("key_exists", `The ${name} was refused: it has a value.`, { cause, detail });
}

function wrongRevision({ name }: Attempt, revision: bigint, cause: Error, detail = cause.message): HawserError {
  return new HawserError("wrong_revision", `The ${name} was refused: its revision is not ${revision}.`, {
    cause,
    detail,
  });
}

function tooMuch({ name }: Attempt, maxBytes: number): HawserError {
  return new HawserError("gateway_limit", `The ${name} is larger than ${maxBytes} bytes.`);
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
