/**
 * A request and its one answer.
 */
import type { MsgHdrs } from "@nats-io/transport-node";
import { NatsError } from "../../errors/index.js";
import { receivedHeaders } from "../received-headers.js";
import type { ConnectionWatch } from "./connection-watch.js";
import { Deadline } from "./deadline.js";
import { encodeHeaders } from "./publish.js";
import { checkSubject } from "./subject.js";

/** How a request is made. */
export interface RequestOptions {
  /** How long the answer may take, in milliseconds. */
  readonly timeoutMs: number;
  /** As `readHeaders` makes them. */
  readonly headers?: MsgHdrs | undefined;
}

/** The headers by which a service says that it could not answer (NATS services, ADR-32). */
const serviceErrorCode = "Nats-Service-Error-Code";
const serviceError = "Nats-Service-Error";

/**
 * The payload of the first answer.
 *
 * @throws HawserError no_responders at once, where nobody listens to the subject; nats_timeout; nats_failed where a
 *   service answered that it failed, with its code and words; unreadable_headers; nats_permission_denied; payload_too_large;
 *   nats_unavailable: not sent; outcome_unknown: the connection ended before the answer came
 */
export async function request(
  watch: ConnectionWatch,
  subject: string,
  payload: Uint8Array,
  { timeoutMs, headers }: RequestOptions,
): Promise<Uint8Array> {
  checkSubject("subject", subject);
  const attempt = { name: `request to "${subject}"`, subject, changes: true, timeoutMs };
  if (headers !== undefined) watch.checkHeaders(attempt);
  watch.checkSize(attempt, payload.length + (headers === undefined ? 0 : encodeHeaders(headers).length));
  const deadline = new Deadline(timeoutMs);
  const answer = await watch.run(attempt, deadline, () =>
    watch.connection.request(subject, payload, {
      timeout: deadline.remainingMs,
      ...(headers === undefined ? {} : { headers }),
    }),
  );
  const received = receivedHeaders(answer);
  const code = received?.get(serviceErrorCode) ?? "";
  // Whether it is an answer or an error is not known.
  if (code === "" && received?.problem !== undefined) {
    throw new NatsError(
      "unreadable_headers",
      `The answer to the request to "${subject}" has headers that cannot be read: ${received.problem}.`,
    );
  }
  if (code === "") return answer.data;
  const words = received?.get(serviceError) ?? "";
  throw new NatsError(
    "nats_failed",
    `The service at "${subject}" answered with error ${code}: ${words || "no words"}.`,
    {
      detail: `${serviceErrorCode} ${code}`,
    },
  );
}
