/**
 * NATS for SQL: the server that `hawser serve` runs, and the SQL functions as methods.
 *
 * {@link serve} puts the parts together. It starts them in this order, and each works with what is there by then:
 *
 * 1. the monitoring port (`monitoring.ts`, `monitor/`), so that a process that waits for Postgres can be seen to wait;
 * 2. the database: it waits for a Postgres that cannot be reached, then checks or installs the schema;
 * 3. the definition of the NATS server (`server-watch.ts`), which is followed from then on. Options that are missing or wrong
 *    are no reason to end: callers are told why, and the last options that were right stay in force;
 * 4. the gateway, which answers the SQL functions, and the bridge, which runs the functions that NATS reaches. Both connect
 *    to NATS by themselves, whenever there is a server; all connections of the process prefer the same server, and
 *    `nats-placement.ts` moves them where fewer processes stand;
 * 5. the address of the gateway is entered in Postgres, and the process is up.
 *
 * It stops the other way round, within `stopTimeoutMs`: the bridge ends its functions first, because they may call the
 * gateway; then the gateway takes no more clients and answers the calls under way.
 *
 * Several of these processes may serve one database: each runs a gateway, and one of them leads the subscriptions.
 */
export * from "./public.js";
export {
  checkServeOptions,
  type GatewayTls,
  isTuning,
  type OptionName,
  type TuningSetting,
  tuningSettings,
} from "./serve-options.js";
