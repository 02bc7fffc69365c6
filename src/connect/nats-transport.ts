/**
 * Calls over NATS: each is a request to the subject of its method.
 */
import type { Transport } from "@connectrpc/connect";
import type { NatsConnection } from "@nats-io/transport-node";
import { ConnectionWatch } from "../nats/index.js";
import { Deadline, maxTimerMs, unlessAborted } from "../runtime/index.js";
import { bytesOfHeaders, checkSubjectPrefix, natsHeaders, readMessage, subjectOf } from "./nats-subjects.js";
import { type Carrier, checkTransportOptions, createTransport, type TransportOptions } from "./transport.js";

/** How calls are made over NATS. */
export interface NatsTransportOptions extends TransportOptions {
  /** What the subjects begin with; the service has the same one. Default: nothing. */
  readonly subjectPrefix?: string | undefined;
}

/**
 * A transport for clients of Connect: `createClient(Warehouse, createNatsTransport(connection))`. It makes unary calls.
 *
 * Calls fail with a `ConnectError`. Its `cause` is a `HawserError` where NATS, and not the service, was the reason:
 * `unavailable` if nobody answers the subject, `deadline_exceeded` after the time limit, `resource_exhausted` if the call is
 * larger than the NATS server takes, and what else docs/rpc.md lists.
 *
 * @param connection stays the caller's: it is not closed here
 * @throws HawserError `invalid_argument`
 */
export function createNatsTransport(connection: NatsConnection, options: NatsTransportOptions = {}): Transport {
  checkTransportOptions(options, "a NATS transport", ["subjectPrefix"]);
  const { subjectPrefix, ...common } = options;
  checkSubjectPrefix(subjectPrefix);
  const watch = new ConnectionWatch(connection);
  const carrier: Carrier = {
    scheme: "nats",
    async call({ method, pairs, payload, timeoutMs, signal }) {
      const subject = subjectOf(method, subjectPrefix);
      const limitMs = Math.min(Math.ceil(timeoutMs), maxTimerMs);
      const attempt = { name: `call of "${subject}"`, subject, changes: true, timeoutMs: limitMs };
      const headers = natsHeaders(pairs);
      watch.checkHeaders(attempt);
      watch.checkSize(attempt, bytesOfHeaders(headers) + payload.length);
      const deadline = new Deadline(limitMs);
      const request = () => connection.request(subject, payload, { headers, timeout: deadline.remainingMs });
      const answered = watch.run(attempt, deadline, request);
      // NATS has no way to take a request back: its answer is ignored.
      return readMessage(await (signal === undefined ? answered : unlessAborted(answered, signal)));
    },
  };
  return createTransport(carrier, common);
}
