/**
 * NATS for SQL: the gateway that answers the generated functions, and a typed client of them.
 */
export * from "../../generated/ts/nats-functions/client.js";
export type { ServeSettings, ServeSettingsInput } from "../../generated/ts/settings/nats.js";
export { HawserError } from "../errors/index.js";
export type { Logger } from "./protocol/index.js";
export { type GatewayTls, Serve, type ServeOptions } from "./serve.js";
