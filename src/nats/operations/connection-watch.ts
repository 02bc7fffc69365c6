/**
 * What every operation over a connection owes: it settles by its deadline, also when the connection ends or the server
 * stops reading.
 */
import type { Msg, NatsConnection } from "@nats-io/transport-node";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import { HawserError } from "../../errors/index.js";
import type { Deadline } from "../../runtime/index.js";
import { onEnd } from "../confirmed.js";
import { Asking } from "./asking.js";
import { type Attempt, connectionLost, natsFailure, notConnected, timedOut, tooLarge } from "./failure.js";
import { isOver, type OutgoingHeaders, socketOf } from "./write-side.js";

const { maxNatsWriteBytes } = gatewayConstants;

/** How an operation fails whose work has not settled itself. */
interface Endings {
  readonly timeout: () => HawserError;
  readonly lost: () => HawserError;
}

/** One connection, and the operations that wait for it. */
export class ConnectionWatch {
  readonly #asking: Asking;
  #draining: Promise<void> | undefined;

  constructor(readonly connection: NatsConnection) {
    this.#asking = new Asking(connection);
  }

  /**
   * Runs `work` once the connection takes more bytes, and settles as it does, by `deadline` at the latest.
   *
   * @throws HawserError whatever went wrong, as `natsFailure` maps it; nats_unavailable where nothing was sent
   */
  async run<T>(attempt: Attempt, deadline: Deadline, work: () => Promise<T>): Promise<T> {
    this.checkOpen(attempt);
    if (this.isCongested) await this.drained(attempt, deadline);
    return this.settled(attempt, deadline, work(), {
      timeout: () => timedOut(attempt),
      lost: () => connectionLost(attempt),
    });
  }

  /** Sends a request, within what {@link run} runs; see `Asking.ask`. */
  ask(subject: string, payload: Uint8Array, timeoutMs: number, headers?: OutgoingHeaders): Promise<Msg> {
    return this.#asking.ask(subject, payload, timeoutMs, headers);
  }

  /** @throws HawserError nats_unavailable, if nothing that is sent now can leave any more */
  checkOpen(attempt: Attempt): void {
    if (this.connection.isDraining() || isOver(this.connection)) throw notConnected(attempt);
  }

  /** @throws HawserError payload_too_large, if the server would end the connection over a message of that many bytes */
  checkSize(attempt: Attempt, bytes: number): void {
    const limit = this.connection.info?.max_payload;
    if (limit !== undefined && bytes > limit) throw tooLarge(attempt, bytes, limit);
  }

  /** @throws HawserError not_supported, if the server knows no headers: it would end the connection over them */
  checkHeaders({ name }: Attempt): void {
    const { info } = this.connection;
    if (info === undefined || info.headers === true) return;
    throw new HawserError(
      "not_supported",
      `The NATS server (version ${info.version}) knows no headers, which the ${name} needs.`,
      { remedy: "Allow headers in the server's configuration, or use a server that has them." },
    );
  }

  /** True while the server reads so slowly that more would only be queued in memory. */
  get isCongested(): boolean {
    return (socketOf(this.connection)?.writableLength ?? 0) > maxNatsWriteBytes;
  }

  /**
   * Resolves when the server has taken what waits; nothing of the attempt has been sent until then.
   *
   * @throws HawserError nats_unavailable, if it does not by the deadline, or the connection ends
   */
  async drained(attempt: Attempt, deadline: Deadline): Promise<void> {
    this.#draining ??= this.#drain().finally(() => {
      this.#draining = undefined;
    });
    await this.settled(attempt, deadline, this.#draining, {
      timeout: () => congested(attempt),
      lost: () => notConnected(attempt),
    });
    this.checkOpen(attempt);
  }

  /** Settles as `work` does, by the deadline, or at the end of the connection. */
  settled<T>(attempt: Attempt, deadline: Deadline, work: Promise<T>, endings: Endings): Promise<T> {
    return new Promise((resolve, reject) => {
      const forget = onEnd(this.connection, () => settle(() => reject(endings.lost())));
      const timer = setTimeout(() => settle(() => reject(endings.timeout())), deadline.remainingMs);
      const settle = (act: () => void) => {
        clearTimeout(timer);
        forget();
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
      // nats.js takes our listener away when the connection ends; then this stays pending, and its waiters end by that.
      await new Promise<void>((resolve) => socket.once("drain", resolve));
    }
  }
}

function congested({ name, timeoutMs }: Attempt): HawserError {
  return new HawserError(
    "nats_unavailable",
    `The NATS server has not read what was sent before for ${timeoutMs} ms: the ${name} was not sent.`,
  );
}
