/**
 * What a publish into a stream is answered with.
 */
import type { PubAck } from "@nats-io/jetstream";
import { jserrors } from "@nats-io/jetstream/internal";
import { errors, type Msg } from "@nats-io/transport-node";
import { NatsError } from "../../errors/index.js";
import type { Attempt } from "../failure.js";

/** True if nobody listens to the subject, no stream either. */
export function isNobody(error: unknown): boolean {
  if (error instanceof errors.RequestError) return error.isNoResponders();
  return error instanceof errors.NoRespondersError;
}

/** @throws JetStreamApiError what the stream said; NatsError nats_failed, if something else answered */
export function readAck({ name }: Attempt, answer: Msg): PubAck {
  let ack: Partial<PubAck> & { readonly error?: ConstructorParameters<typeof jserrors.JetStreamApiError>[0] };
  try {
    ack = answer.json();
  } catch (cause) {
    throw notAnAck(name, cause);
  }
  if (typeof ack !== "object" || ack === null) throw notAnAck(name);
  if (ack.error !== undefined) throw new jserrors.JetStreamApiError(ack.error);
  if (typeof ack.stream !== "string" || ack.stream === "" || typeof ack.seq !== "number") throw notAnAck(name);
  return ack as PubAck;
}

function notAnAck(name: string, cause?: unknown): NatsError {
  return new NatsError("nats_failed", `The ${name} was answered by something that is no stream.`, { cause });
}
