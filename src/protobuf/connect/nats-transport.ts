/** Transport over NATS: a call is a request to the subject of its method. */
import type { Transport } from "@connectrpc/connect";
import type { NatsConnection } from "@nats-io/transport-node";
import { rpcConstants } from "../../../generated/ts/settings/connect.js";
import { checkOptionNames, namesOf } from "../../foundation/errors/index.js";
import {
  Deadline,
  inSpan,
  maxTimerMs,
  rpcErrorIn,
  type TraceContext,
  tracer,
  unlessAborted,
  withTrace,
} from "../../foundation/runtime/index.js";
import { ConnectionWatch } from "../../nats/connections/index.js";
import { NatsCaller } from "./nats-caller.js";
import {
  bytesOfHeaders,
  cancelSubjectOf,
  checkSubjectPrefix,
  natsHeaders,
  readMessage,
  subjectOf,
} from "./nats-subjects.js";
import { startCall } from "./spans.js";
import { type Carrier, createTransport, type TransportOptions, transportOptions } from "./transport.js";

/** Options of {@link createNatsTransport}. */
export interface NatsTransportOptions extends TransportOptions {
  /** Prefix of all subjects, the same as that of the service. Default: no prefix. */
  readonly subjectPrefix?: string | undefined;
}

const optionNames = namesOf<NatsTransportOptions>({ subjectPrefix: true, ...transportOptions });

/**
 * Creates a transport for Connect clients: `createClient(Warehouse, createNatsTransport(connection))`. It supports
 * unary calls.
 *
 * Failed calls reject with a `ConnectError`. If the error comes from NATS and not from the service, its `cause`
 * is a `HawserError`: `unavailable` if nobody subscribes to the subject, `deadline_exceeded` after the time limit,
 * `resource_exhausted` if the call exceeds the maximum payload of the NATS server; docs/rpc.md lists all. If the signal
 * of a call is aborted, the call is also canceled on the service.
 *
 * @param connection stays open and belongs to the caller
 * @throws HawserError `invalid_argument`
 */
export function createNatsTransport(connection: NatsConnection, options: NatsTransportOptions = {}): Transport {
  checkOptionNames(options, "a NATS transport", optionNames);
  const { subjectPrefix, ...common } = options;
  checkSubjectPrefix(subjectPrefix);
  const watch = new ConnectionWatch(connection);
  const carrier: Carrier = {
    scheme: "nats",
    call(outgoing) {
      const span = tracer && startCall("request", outgoing.method, outgoing.payload, undefined);
      if (span === undefined) return send(outgoing);
      return inSpan(
        span,
        () => send(outgoing, span.context),
        ({ headers }) => rpcErrorIn(headers),
      );
    },
  };
  const send = async (
    { method, pairs, payload, timeoutMs, signal }: Parameters<Carrier["call"]>[0],
    context?: TraceContext,
  ): ReturnType<Carrier["call"]> => {
    const subject = subjectOf(method, subjectPrefix);
    const limitMs = Math.min(Math.ceil(timeoutMs), maxTimerMs);
    const attempt = { name: `call of "${subject}"`, subject, changes: true, timeoutMs: limitMs };
    watch.checkHeaders(attempt);
    watch.checkOpen(attempt);
    const caller = NatsCaller.of(connection);
    const id = caller.nextCallId();
    const headersWith = (given: typeof pairs) => natsHeaders([...given, [rpcConstants.callHeader, id]]);
    const sizeWith = (given: typeof headers) => bytesOfHeaders(given) + payload.length;
    let headers = headersWith(context === undefined ? pairs : withTrace(pairs, context));
    // Tracing must not make a call too long.
    const maxBytes = connection.info?.max_payload ?? Infinity;
    if (context !== undefined && sizeWith(headers) > maxBytes) headers = headersWith(pairs);
    watch.checkSize(attempt, sizeWith(headers));
    const deadline = new Deadline(limitMs);
    const request = async () => {
      // The call may have waited for the connection to drain.
      signal?.throwIfAborted();
      return connection.request(subject, payload, { headers, timeout: deadline.remainingMs });
    };
    const answered = watch.run(attempt, deadline, request);
    if (signal === undefined) return readMessage(await answered);
    try {
      return readMessage(await unlessAborted(answered, signal));
    } catch (error) {
      if (signal.aborted) caller.cancel(cancelSubjectOf(method, subjectPrefix), id);
      throw error;
    }
  };
  return createTransport(carrier, common);
}
