/**
 * The gateway answers the generated SQL functions by carrying out their calls over NATS.
 *
 * A generated function sends its call with dblink as text: a method and its arguments as JSON, followed by payloads
 * (`call-text.ts`). For dblink, the gateway is a Postgres server (`protocol/`). A call passes through
 *
 *   PostgresServer → Calls → NatsHandler → NatsOperations → NATS
 *
 * {@link Calls} parses the argument and checks it against the spec, sets the time limit of the call, and waits for
 * capacity: at most `capacity` commands run concurrently, and a call that cannot start within half of its time fails
 * with `gateway_busy` without having sent anything. A started call is answered by its deadline, whatever NATS does:
 * with `nats_timeout`, or `outcome_unknown` if it may have changed something. Capacity is released when the command has
 * really ended.
 *
 * {@link NatsHandler} carries out the call over the current connection to NATS, which stays open until the call has
 * ended. Without a connection, it waits for one within the call's time. A core publish ends when its bytes are written.
 * If NATS refuses it later, the same client gets the error at its next publish to that subject or its next flush. A
 * flush also fails if an earlier connection was lost with unconfirmed messages of this client.
 *
 * Postgres finds its gateways in a table (`addresses.ts`). Each gateway maintains its own row, which also has the NATS
 * server of its process, and removes the rows of gateways that are gone.
 */
export {
  AddressBook,
  type GatewayAddress,
  type GatewayEntry,
  type NatsPlace,
  natsServersInUse,
  type Placement,
} from "./addresses.js";
export { Gateway, type GatewayIdentity, type ServerDefinition } from "./gateway.js";
export { isBindable } from "./protocol/index.js";
