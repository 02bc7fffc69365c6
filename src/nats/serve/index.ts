/**
 * NATS for SQL: the server that `hawser serve` runs, and the SQL functions as methods.
 *
 * {@link serve} combines the parts. The parts start in this order, and each uses the parts started before it:
 *
 * 1. the monitoring port (`monitoring.ts`, `monitor/`), so that a process that waits for Postgres is visible;
 * 2. the database: waits for an unreachable Postgres, then checks or installs the schema;
 * 3. the definition of the NATS server (`server-watch.ts`), whose changes take effect from then on. Missing or invalid
 * options do not end the process: callers receive the reason, and the last valid options stay in effect;
 * 4. the gateway, which answers the SQL functions, and the bridge, which runs the subscribed functions. Both connect to
 * NATS themselves as soon as a server is defined; all connections of the process prefer the same server, and
 * `nats-placement.ts` moves them to a server with fewer processes;
 * 5. the gateway's address is registered in Postgres, and the process is ready.
 *
 * The server stops in reverse order, within `stopTimeoutMs`: the bridge ends its functions first, because they may call the
 * gateway; then the gateway refuses new clients and answers the pending calls.
 *
 * Several of these processes may serve one database: each runs a gateway, and one of them leads the subscriptions.
 */
export { type HawserServer, serve } from "./serve.js";
export {
  checkServeOptions,
  type GatewayTls,
  isTuning,
  type OptionName,
  type ServeOptions,
  type TuningSetting,
  tuningSettings,
} from "./serve-options.js";
