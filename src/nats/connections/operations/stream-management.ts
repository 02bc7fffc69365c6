/** Creates, changes, deletes and lists JetStream streams. */
import { DiscardPolicy, RetentionPolicy, StorageType, type StreamConfig, type StreamInfo } from "@nats-io/jetstream";
import { millis, nanos } from "@nats-io/transport-node";
import type {
  CreateStreamRequest,
  GetStreamListResponse,
  UpdateStreamRequest,
} from "../../../../generated/ts/nats-functions/methods.js";
import { gatewayConstants } from "../../../../generated/ts/settings/nats.js";
import { HawserError } from "../../../foundation/errors/index.js";
import { matchesOwnInbox } from "../connect.js";
import type { ConnectionWatch } from "./connection-watch.js";
import { isStreamMissing, type OperationDescription } from "./failure.js";
import { attemptOf, runOnJetStream, type StorageOptions } from "./jetstream.js";

/**
 * Settings of a stream that can be changed. For an undefined setting, a new stream gets the default of the server, and
 * an existing stream keeps its value.
 */
export type StreamChanges = Omit<UpdateStreamRequest, "stream" | "domain">;

/** Settings of a new stream. */
export type StreamSettings = StreamChanges & Pick<CreateStreamRequest, "subjects" | "storage" | "retention">;

/** JetStream streams over one connection. */
export class StreamManagement {
  readonly #watch: ConnectionWatch;

  constructor(watch: ConnectionWatch) {
    this.#watch = watch;
  }

  /**
   * Creates a stream. Does nothing if a stream of that name and with the same settings exists.
   *
   * @throws HawserError from `natsFailure`; `nats_failed` if a stream of that name has other settings
   */
  async create(stream: string, settings: StreamSettings, options: StorageOptions): Promise<void> {
    const { storage = "file", retention = "limits" } = settings;
    const replicas = settings.replicas ?? options.replicas ?? 1;
    const config = {
      name: stream,
      storage: storage === "file" ? StorageType.File : StorageType.Memory,
      retention: retentions[retention as keyof typeof retentions],
      ...configOf({ ...settings, replicas }),
    };
    const attempt = attemptOf(`creation of stream "${stream}"`, { ...options, replicas }, true);
    checkSubjects(attempt, settings);
    await runOnJetStream(this.#watch, attempt, async ({ manager }) => {
      await manager.streams.add(config);
    });
  }

  /**
   * Changes the given settings. Other settings stay unchanged, including those that {@link StreamChanges} does not
   * have.
   *
   * @throws HawserError from `natsFailure`; `no_stream` if the stream is missing
   */
  async update(stream: string, changes: StreamChanges, options: StorageOptions): Promise<void> {
    const attempt = attemptOf(`update of stream "${stream}"`, { ...options, replicas: changes.replicas }, true);
    checkSubjects(attempt, changes);
    await runOnJetStream(this.#watch, attempt, async ({ manager }) => {
      try {
        await manager.streams.update(stream, configOf(changes));
      } catch (cause) {
        if (!isStreamMissing(cause)) throw cause;
        const where = options.domain === undefined ? "" : ` in domain "${options.domain}"`;
        throw new HawserError("no_stream", `The ${attempt.name} failed: there is no such stream${where}.`, { cause });
      }
    });
  }

  /** Deletes a stream. Does nothing if it is missing. @throws HawserError from `natsFailure` */
  delete(stream: string, options: StorageOptions): Promise<void> {
    const attempt = attemptOf(`deletion of stream "${stream}"`, options, true);
    return runOnJetStream(this.#watch, attempt, async ({ manager }) => {
      try {
        await manager.streams.delete(stream);
      } catch (error) {
        if (!isStreamMissing(error)) throw error;
      }
    });
  }

  /** All streams, ordered by name. @throws HawserError from `natsFailure` */
  list(options: StorageOptions): Promise<GetStreamListResponse[]> {
    const attempt = attemptOf("list of the streams", options, false);
    return runOnJetStream(this.#watch, attempt, async ({ manager }) => {
      const found: GetStreamListResponse[] = [];
      for await (const info of manager.streams.list()) found.push(rowOf(info));
      return found.sort((one, other) => (one.stream < other.stream ? -1 : 1));
    });
  }
}

/**
 * @throws HawserError `invalid_argument` for an empty list of subjects, for which JetStream would use the name of the
 * stream, and for a subject that matches the replies to Hawser's own requests
 */
function checkSubjects({ name }: OperationDescription, { subjects }: StreamChanges): void {
  const refuse = (why: string) => new HawserError("invalid_argument", `The ${name} was refused: ${why}.`);
  if (subjects?.length === 0) throw refuse("subjects is empty; name at least one subject");
  const own = subjects?.find(matchesOwnInbox);
  if (own === undefined) return;
  const replies = `"${gatewayConstants.natsInboxPrefix}.>", where the replies to requests of all sessions arrive`;
  throw refuse(`the subject "${own}" matches ${replies}; name other subjects`);
}

const retentions = {
  limits: RetentionPolicy.Limits,
  interest: RetentionPolicy.Interest,
  workqueue: RetentionPolicy.Workqueue,
} as const;

/** Given settings in JetStream's form, in which -1 means no limit. */
function configOf(changes: StreamChanges): Partial<StreamConfig> {
  const { subjects, discard, maxAgeMs, maxMessages, maxBytes, maxMessageBytes, duplicateWindowMs, replicas } = changes;
  const limit = (value: bigint | number) => Number(value) || -1;
  return {
    ...(subjects !== undefined && { subjects: [...subjects] }),
    ...(discard !== undefined && { discard: discard === "new" ? DiscardPolicy.New : DiscardPolicy.Old }),
    ...(maxAgeMs !== undefined && { max_age: nanos(Number(maxAgeMs)) }),
    ...(maxMessages !== undefined && { max_msgs: limit(maxMessages) }),
    ...(maxBytes !== undefined && { max_bytes: limit(maxBytes) }),
    ...(maxMessageBytes !== undefined && { max_msg_size: limit(maxMessageBytes) }),
    ...(duplicateWindowMs !== undefined && { duplicate_window: nanos(Number(duplicateWindowMs)) }),
    ...(replicas !== undefined && { num_replicas: replicas }),
  };
}

function rowOf({ config, state, created }: StreamInfo): GetStreamListResponse {
  const limit = (value: number | undefined) => Math.max(0, value ?? 0);
  const text = (value: string | undefined) => (value ?? "").replace(noCharacter, "\ufffd");
  return {
    stream: text(config.name),
    subjects: (config.subjects ?? []).map(text),
    storage: text(config.storage),
    retention: text(config.retention),
    discard: text(config.discard),
    maxAgeMs: BigInt(Math.floor(millis(config.max_age ?? 0))),
    maxMessages: BigInt(limit(config.max_msgs)),
    maxBytes: BigInt(limit(config.max_bytes)),
    maxMessageBytes: limit(config.max_msg_size),
    duplicateWindowMs: BigInt(Math.floor(millis(config.duplicate_window ?? 0))),
    replicas: config.num_replicas,
    messages: BigInt(state.messages),
    bytes: BigInt(state.bytes),
    firstSeq: BigInt(state.first_seq),
    lastSeq: BigInt(state.last_seq),
    consumers: state.consumer_count,
    created: text(created),
  };
}

/** NUL and halves of surrogate pairs, which a text of Postgres cannot contain. Other clients may have written them. */
const noCharacter = /[\0\p{Surrogate}]/gu;
