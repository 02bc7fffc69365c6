/**
 * Ends every operation over a connection by its deadline, even if the connection closes or the server stops reading.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import { HawserError } from "../../../foundation/errors/index.js";
import type { Deadline } from "../../../foundation/runtime/index.js";
import { onClose } from "../confirmed.js";
import { connectionLost, natsFailure, notConnected, type OperationDescription, timedOut, tooLarge } from "./failure.js";
import { isClosed, socketOf, Writer } from "./writer.js";

/** Number of bytes that may wait for a NATS server that does not read; after that nothing more is queued. */
const maxNatsWriteBytes = 1024 * 1024;

/** Errors with which the deadline or the end of the connection ends an operation. */
interface Endings {
  readonly timeout: () => HawserError;
  readonly lost: () => HawserError;
}

/** Connection whose operations end by their deadlines. */
export class ConnectionWatch {
  #writer: Writer | undefined;
  #draining: Promise<void> | undefined;

  constructor(readonly connection: NatsConnection) {}

  /** Writer of the connection, which must be one of Hawser. */
  get writer(): Writer {
    return (this.#writer ??= new Writer(this.connection));
  }

  /**
   * Runs `work` once the connection accepts more bytes, and resolves or rejects as `work` does, but at the deadline at
   * the latest.
   *
   * @throws HawserError from `natsFailure`; nats_unavailable if nothing was sent
   */
  async run<T>(attempt: OperationDescription, deadline: Deadline, work: () => Promise<T>): Promise<T> {
    this.checkOpen(attempt);
    if (this.isCongested) await this.drained(attempt, deadline);
    return this.withLimits(attempt, deadline, work(), {
      timeout: () => timedOut(attempt),
      lost: () => connectionLost(attempt),
    });
  }

  /** @throws HawserError nats_unavailable, if the connection can send nothing any more */
  checkOpen(attempt: OperationDescription): void {
    if (this.connection.isDraining() || isClosed(this.connection)) throw notConnected(attempt);
  }

  /**
   * @throws HawserError payload_too_large, if the server would close the connection because of a message of this size
   */
  checkSize(attempt: OperationDescription, bytes: number): void {
    const limit = this.connection.info?.max_payload;
    if (limit !== undefined && bytes > limit) throw tooLarge(attempt, bytes, limit);
  }

  /**
   * Checks what the server would close the connection over.
   *
   * @param headers encoded headers; "" for none
   * @throws HawserError payload_too_large, not_supported (headers)
   */
  checkMessage(attempt: OperationDescription, headers: string, payloadBytes: number): void {
    if (headers !== "") this.checkHeaders(attempt);
    this.checkSize(attempt, payloadBytes + Buffer.byteLength(headers));
  }

  /** @throws HawserError not_supported, if the server does not support headers: it would close the connection */
  checkHeaders({ name }: OperationDescription): void {
    const { info } = this.connection;
    if (info === undefined || info.headers === true) return;
    throw new HawserError(
      "not_supported",
      `The NATS server (version ${info.version}) does not support headers, which the ${name} needs.`,
      { remedy: "Allow headers in the server's configuration, or use a server that supports them." },
    );
  }

  /** True while the server reads so slowly that more data would only queue in memory. */
  get isCongested(): boolean {
    return (socketOf(this.connection)?.writableLength ?? 0) > maxNatsWriteBytes;
  }

  /**
   * Resolves when the server has read the queued bytes; until then nothing of the attempt is sent.
   *
   * @throws HawserError nats_unavailable, if the server has not read them by the deadline, or the connection closes
   */
  async drained(attempt: OperationDescription, deadline: Deadline): Promise<void> {
    this.#draining ??= this.#drain().finally(() => {
      this.#draining = undefined;
    });
    await this.withLimits(attempt, deadline, this.#draining, {
      timeout: () => congested(attempt),
      lost: () => notConnected(attempt),
    });
    this.checkOpen(attempt);
  }

  /**
   * Resolves or rejects as `work` does; rejects with an error of `endings` at the deadline, or when the connection
   * closes.
   */
  withLimits<T>(attempt: OperationDescription, deadline: Deadline, work: Promise<T>, endings: Endings): Promise<T> {
    return new Promise((resolve, reject) => {
      const removeListener = onClose(this.connection, () => settle(() => reject(endings.lost())));
      const timer = setTimeout(() => settle(() => reject(endings.timeout())), deadline.remainingMs);
      const settle = (act: () => void) => {
        clearTimeout(timer);
        removeListener();
        act();
      };
      work.then(
        (value) => settle(() => resolve(value)),
        (error: unknown) => settle(() => reject(natsFailure(error, attempt))),
      );
    });
  }

  async #drain(): Promise<void> {
    while (this.isCongested) {
      const socket = socketOf(this.connection)!;
      // When the connection closes, nats.js removes the listener, and this promise stays pending; its waiters end with
      // the connection.
      await new Promise<void>((resolve) => socket.once("drain", resolve));
    }
  }
}

function congested({ name, timeoutMs }: OperationDescription): HawserError {
  return new HawserError(
    "nats_unavailable",
    `The NATS server has not read previously sent data for ${timeoutMs} ms, so the ${name} was not sent.`,
  );
}
