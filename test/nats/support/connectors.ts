/**
 * Connectors to NATS for tests: their options checked as Hawser checks them, everything they log kept.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { CompleteNatsServerOptions } from "../../../generated/ts/nats-options/index.js";
import type { HawserError } from "../../../src/foundation/errors/index.js";
import {
  checkNatsServerOptions,
  NatsConnector,
  type NatsConnectorEvents,
} from "../../../src/nats/connections/index.js";
import { temporaryDirectory } from "../../support/temporary.js";

/** Something that listens on a port of this machine. */
interface Listening {
  readonly host: string;
  readonly port: number;
}

/** Options as a foreign server has them, for that server. */
export function optionsFor(
  { host, port }: Listening,
  options: Readonly<Record<string, unknown>> = {},
): CompleteNatsServerOptions {
  const checked = checkNatsServerOptions({ host, port, ...options });
  if (!checked.ok) throw new Error(checked.violation.message);
  return checked.options;
}

/** A connector, stopped when the test has ended, and what it has logged. */
export interface TestConnector {
  readonly connector: NatsConnector;
  readonly logged: { readonly level: string; readonly details: object; readonly message: string }[];
}

/** Makes a connector that is not configured yet. */
export function testConnector(
  options: { secretsDirectories?: readonly string[]; natsWaitMs?: number; usesLastMs?: () => number } = {},
): TestConnector {
  const logged: TestConnector["logged"] = [];
  const log = (level: string) => (details: object, message: string) => {
    logged.push({ level, details, message });
  };
  const logger = { debug: log("debug"), info: log("info"), warn: log("warn"), error: log("error") };
  // Connecting may take a while where the machine has much other work.
  const connector = new NatsConnector({
    name: "hawser test",
    secretsDirectories: [],
    natsWaitMs: 30_000,
    logger,
    ...options,
  });
  onTestFinished(() => connector.stop());
  return { connector, logged };
}

/** Connects once with the options, and resolves with the error, or undefined if there is a connection. */
export async function connectError(
  options: CompleteNatsServerOptions,
  secretsDirectory?: string,
): Promise<HawserError | undefined> {
  const { connector } = testConnector(secretsDirectory === undefined ? {} : { secretsDirectories: [secretsDirectory] });
  connector.configure(options);
  try {
    await connector.ready();
    return undefined;
  } catch (error) {
    return error as HawserError;
  } finally {
    await connector.stop();
  }
}

/** Resolves with the next event of that name. */
export function next<Name extends keyof NatsConnectorEvents>(
  connector: NatsConnector,
  name: Name,
): Promise<NatsConnectorEvents[Name]> {
  return new Promise((resolve) => {
    const off = connector.on(name, (...event) => {
      off();
      resolve(event);
    });
  });
}

/** A directory with files, removed when the test has ended: name → content. */
export function secretsDirectory(files: Readonly<Record<string, string | Uint8Array>> = {}): string {
  const directory = join(temporaryDirectory(), "secrets");
  mkdirSync(directory);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(directory, name), content);
  return directory;
}
