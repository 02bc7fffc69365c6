/**
 * NATS for SQL: what `hawser serve` runs, and a typed client of the SQL functions.
 */
export * from "../../generated/ts/nats-functions/client.js";
export type { ServeSettings, ServeSettingsInput } from "../../generated/ts/settings/nats.js";
export { HawserError } from "../errors/index.js";
export type { Logger } from "../store/index.js";
export { type GatewayTls, Serve, type ServeOptions } from "./serve.js";
