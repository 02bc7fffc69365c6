/**
 * The database of `hawser dev`, prepared as by `hawser init`, and its SQL functions answered as by `hawser serve`.
 */
import { HawserError } from "../errors/index.js";
import { Serve } from "../serve/index.js";
import { defineNatsServer, type InstallReport, install, type Logger } from "../store/index.js";

/** What is there already. */
export interface DevGatewayOptions {
  readonly databaseUrl: string;
  readonly natsUrl: string;
  readonly logger: Logger;
  /** Told in words what is being done. */
  readonly onProgress: (message: string) => void;
}

/**
 * Prepares the database, says there which NATS server it is, and starts to answer. A database of the user's own may have
 * something that keeps the SQL functions out: then it is prepared for peers alone.
 *
 * @returns undefined if the SQL functions are not there
 */
export async function startDevGateway(options: DevGatewayOptions): Promise<Serve | undefined> {
  const { databaseUrl, natsUrl, logger, onProgress } = options;
  const { nats, shortfalls } = await prepare(databaseUrl, onProgress);
  for (const { what, meaning } of shortfalls) onProgress(`Left out: ${what}; ${meaning}`);
  if (nats === null || nats.functions === 0) return undefined;
  const serve = await Serve.start({ databaseUrl, gatewayListen: "127.0.0.1:0", logger });
  try {
    const { hostname, port } = new URL(natsUrl);
    const foreign = await defineNatsServer({ databaseUrl, options: { host: hostname, port } });
    if (foreign !== undefined) onProgress(`The SQL functions use the foreign server ${foreign}, as the database says`);
    return serve;
  } catch (error) {
    await serve.stop();
    throw error;
  }
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
