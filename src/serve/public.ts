/**
 * What the package exports as `hawser/nats`: `hawser serve` as a class, and a typed client of the SQL functions.
 */
export type * from "../../generated/ts/nats-functions/client.js";
export type { ServeSettings, ServeSettingsInput } from "../../generated/ts/settings/nats.js";
export type { SqlClient } from "../postgres/index.js";
export type { LogDetails, Logger } from "../runtime/index.js";
export type { PemSource } from "../transport/index.js";
export { type NatsFunctionsOptions, natsFunctions } from "./nats-functions.js";
export { Serve } from "./serve.js";
export type { GatewayTls, ServeOptions } from "./serve-options.js";
