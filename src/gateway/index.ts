/**
 * The gateway answers the generated SQL functions: Postgres asks it, and it asks NATS.
 *
 * A generated function sends its call with dblink, as text: a method and its arguments as JSON, with payloads behind them
 * (`call-text.ts`). To dblink the gateway is a Postgres server (`protocol/`). A call goes this way:
 *
 *   PostgresServer → Calls → NatsHandler → NatsOperations → NATS
 *
 * {@link Calls} reads and checks the argument by the spec, gives the call its time limit and waits for a place: at most
 * `capacity` commands are under way at once, and a call that gets no place within half of its time fails with `gateway_busy`,
 * having sent nothing. From then on it has its answer by its deadline, whatever NATS does. A late one is `nats_timeout`, or
 * `outcome_unknown` if it may have changed something. The place is given back when the command has really ended.
 *
 * {@link NatsHandler} carries the call out over the present connection to NATS, which stays open until the call has ended.
 * Without a connection it waits, within the call's time, for the connector. A core publish is settled when its bytes have
 * left; what NATS refuses later is reported to the same client at its next publish to that subject or its next flush, and
 * a flush also fails if an earlier connection was lost with messages of this client on it.
 *
 * Postgres finds its gateways in a table (`addresses.ts`). Each gateway keeps its own row there, takes out the rows of those
 * that are gone, and tells which NATS server its process stands on.
 */
export {
  AddressBook,
  type GatewayAddress,
  type GatewayEntry,
  type GatewayStanding,
  type Placement,
  standings,
} from "./addresses.js";
export { Gateway, type GatewayIdentity } from "./gateway.js";
export { isBindable } from "./protocol/index.js";
