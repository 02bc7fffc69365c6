/**
 * Operations over a connection to a test's server, and a stock client beside it that looks on.
 */
import { connect, type NatsConnection, type NodeConnectionOptions } from "@nats-io/transport-node";
import { type ErrorCode, HawserError } from "../../../src/foundation/errors/index.js";
import { NatsOperations } from "../../../src/nats/connections/operations/index.js";
import { eventually } from "../../support/eventually.js";
import type { TestNatsServer } from "../../support/nats-server.js";

/** Time enough for whatever is meant to succeed. */
export const timeoutMs = 30_000;

/** Fixtures of a test; closed at its end. */
export interface Operations extends AsyncDisposable {
  readonly operations: NatsOperations;
  readonly connection: NatsConnection;
  /** A connection of its own, by which effects are checked. */
  readonly stock: NatsConnection;
}

/** @param options of the connection under test; `stock` of the other one, where they differ */
export async function operationsOf(
  url: string,
  options: NodeConnectionOptions = {},
  stockOptions: NodeConnectionOptions = options,
): Promise<Operations> {
  const connection = await connect({ servers: url, reconnect: false, noAsyncTraces: true, ...options });
  const stock = await connect({ servers: url, reconnect: false, ...stockOptions });
  return {
    operations: new NatsOperations(connection),
    connection,
    stock,
    async [Symbol.asyncDispose]() {
      await Promise.all([connection.close(), stock.close()]);
    },
  };
}

/** The error that `work` throws, at once or by its promise; it must be of Hawser and have the code. */
export async function failureOf(code: ErrorCode, work: () => unknown): Promise<HawserError> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof HawserError)) throw new Error("it threw something that is no HawserError", { cause: error });
    if (error.code === code) return error;
    throw new Error(`it failed with ${error.code}, not ${code}: ${error.message}`, { cause: error });
  }
  throw new Error(`it did not fail with ${code}`);
}

/** Bytes of all values. */
export function bytesOf(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let index = 0; index < length; index++) bytes[index] = index * 7 + (index >> 8);
  return bytes;
}

/** Makes the server hang, and resolves when it does. SIGCONT, or its end, ends that. */
export async function hang(server: TestNatsServer, { operations }: Operations): Promise<void> {
  server.signal("SIGSTOP");
  await eventually("the server hangs", () =>
    operations.flush({ timeoutMs: 20 }).then(
      () => false,
      () => true,
    ),
  );
}

/** Intercepts messages that arrive over the connection; the test hands each on by `pass`, at any time. */
export function interceptArrivals({ connection }: Operations, take: (pass: () => void) => void): void {
  const { protocol } = connection as unknown as { protocol: { processMsg(...message: unknown[]): void } };
  const processMsg = protocol.processMsg.bind(protocol);
  // The bytes are those of a buffer that is used again.
  protocol.processMsg = (message, data) => {
    const kept = Uint8Array.from(data as Uint8Array);
    const copied = Object.assign(Object.create(Object.getPrototypeOf(message)), message);
    take(() => processMsg(copied, kept));
  };
}
