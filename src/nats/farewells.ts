/**
 * Connections that are left: what was published on them still goes out.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";

/** A server that does not answer is waited for no longer than when connecting. */
const { natsConnectTimeoutMs } = gatewayConstants;

/** Connections on their way out. */
export class Farewells {
  readonly #leaving = new Set<Promise<void>>();

  /** Ends the connection's subscriptions, sends what was published, and closes it: after `natsConnectTimeoutMs` anyway. */
  say(connection: NatsConnection): void {
    const left = leave(connection)
      .catch(() => undefined)
      .finally(() => this.#leaving.delete(left));
    this.#leaving.add(left);
  }

  /** Resolves when all are closed. */
  async done(): Promise<void> {
    await Promise.all(this.#leaving);
  }
}

async function leave(connection: NatsConnection): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, natsConnectTimeoutMs);
  });
  // One that has ended, or that its user drains already, has nothing more to send.
  const drained = connection.drain().catch(() => undefined);
  // The end of the connection does not end a drain that waits for the server's answer.
  await Promise.race([drained, late, connection.closed().then(() => undefined)]);
  clearTimeout(timer);
  await connection.close();
}
