/**
 * The database of `hawser dev`, prepared as by `hawser init`, and its SQL functions answered as by `hawser serve`.
 */

import { HawserError } from "../errors/index.js";
import { type InstallReport, install } from "../installation/index.js";
import type { Logger } from "../runtime/index.js";
import { Serve } from "../serve/index.js";
import { type DefinedNatsServer, defineNatsServer, restoreNatsServer } from "../store/index.js";

/** What is there already. */
export interface DevGatewayOptions {
  readonly databaseUrl: string;
  /** The database is one that the user named: it outlives `hawser dev`. */
  readonly isDatabaseGiven: boolean;
  readonly natsUrl: string;
  /** The user named the NATS server: it is wanted, whatever the database defines. */
  readonly isNatsGiven: boolean;
  readonly logger: Logger;
  /** Told in words what is being done. */
  readonly onProgress: (message: string) => void;
}

/** SQL functions that are answered. */
export interface DevGateway {
  /** Undefined if the SQL functions are not there. */
  readonly serve: Serve | undefined;
  /** Which NATS server the SQL functions use, in words, if it is not that of {@link DevGatewayOptions}. */
  readonly otherNats: string | undefined;
  /** Ends the answers, and puts back what the database had defined. */
  stop(): Promise<void>;
  /** Puts back what the database had defined, without waiting for the end of the answers. */
  restore(): Promise<void>;
}

/**
 * Prepares the database, says there which NATS server it is, and starts to answer. A database of the user's own may have
 * something that keeps the SQL functions out: then it is prepared for peers alone. It may also define a NATS server: that
 * one is used, unless HAWSER_NATS_URL names another.
 */
export async function startDevGateway(options: DevGatewayOptions): Promise<DevGateway> {
  const { databaseUrl, logger, onProgress } = options;
  const { nats, missingPrivileges } = await prepare(databaseUrl, onProgress);
  for (const { what, meaning } of missingPrivileges) onProgress(`Left out: ${what}; ${meaning}`);
  if (nats === null || nats.functions === 0) {
    return { serve: undefined, otherNats: undefined, stop: async () => undefined, restore: async () => undefined };
  }
  // Before anything connects to NATS: it is not to be the server of a definition that is replaced.
  const { otherNats, restore } = await define(options);
  try {
    const serve = await Serve.start({ databaseUrl, gatewayListen: "127.0.0.1:0", logger });
    return { serve, otherNats, restore, stop: () => serve.stop().finally(restore) };
  } catch (error) {
    await restore();
    throw error;
  }
}

const loopback = "127.0.0.1";

/** Tells the database which NATS server it is, and returns how that is undone. */
async function define(options: DevGatewayOptions): Promise<Pick<DevGateway, "otherNats" | "restore">> {
  const { databaseUrl, isDatabaseGiven, natsUrl, isNatsGiven, onProgress } = options;
  const { hostname, port } = new URL(natsUrl);
  const wanted = { host: hostname, port: port || "4222" };
  const isThere = ({ options: present }: DefinedNatsServer) =>
    Object.keys(present).length === 2 && present["host"] === wanted.host && present["port"] === wanted.port;
  // In a directory that is kept, the last start has left the port that it had.
  const isLeft = ({ options: present, foreignServer }: DefinedNatsServer) =>
    !isDatabaseGiven &&
    foreignServer === null &&
    Object.keys(present).toSorted().join() === "host,port" &&
    present["host"] === loopback;
  const { before, isSet } = await defineNatsServer({
    databaseUrl,
    options: wanted,
    replaces: (present) => !isThere(present) && (isNatsGiven || isLeft(present)),
  });
  if (before !== undefined && !isSet) {
    if (isThere(before)) return { otherNats: undefined, restore: async () => undefined };
    const otherNats = inWords(before);
    onProgress(
      `The SQL functions use ${otherNats}: so the database defines it, and it is left alone. To use another one while ` +
        "`hawser dev` runs, name it in HAWSER_NATS_URL; SELECT hawser.set_nats_server(NULL) removes what that function has set",
    );
    return { otherNats, restore: async () => undefined };
  }
  const isKept = before !== undefined && !isLeft(before);
  if (isKept) {
    onProgress(
      `The SQL functions use the NATS server of HAWSER_NATS_URL while \`hawser dev\` runs, then ${inWords(before)} again`,
    );
  }
  // The database that is our own ends with us, and the next start knows what this one has left.
  if (!isDatabaseGiven && !isNatsGiven) return { otherNats: undefined, restore: async () => undefined };
  const undo = async (): Promise<void> => {
    try {
      await restoreNatsServer({ databaseUrl, options: wanted }, isKept ? before : undefined);
    } catch (error) {
      const what = isKept ? `set back to ${inWords(before)}` : "removed";
      onProgress(`The NATS server that \`hawser dev\` has defined was not ${what}: ${(error as Error).message}`);
    }
  };
  let undone: Promise<void> | undefined;
  return { otherNats: undefined, restore: () => (undone ??= undo()) };
}

/** Without secrets. */
function inWords({ options, foreignServer }: DefinedNatsServer): string {
  const { host, port } = options;
  const place =
    host === undefined ? "the NATS server" : `the NATS server ${host}${port === undefined ? "" : `:${port}`}`;
  return `${place} of ${foreignServer === null ? "hawser.set_nats_server" : `the foreign server ${foreignServer}`}`;
}

/** What may be in the way of the SQL functions, and not of peers. */
const ofTheFunctions: ReadonlySet<string> = new Set([
  "native_extension",
  "dblink_shared",
  "name_occupied",
  "not_supported",
]);

async function prepare(databaseUrl: string, onProgress: (message: string) => void): Promise<InstallReport> {
  try {
    return await install({ databaseUrl });
  } catch (error) {
    if (!HawserError.is(error) || !ofTheFunctions.has(error.code)) throw error;
    onProgress(`Without NATS from SQL: ${error.message}`);
    return install({ databaseUrl, nats: false });
  }
}
