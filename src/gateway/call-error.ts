/**
 * What went wrong with a call, as the caller in SQL is told.
 */
import type { ArgumentFault } from "../../generated/ts/nats-functions/argument.js";
import { GatewayError, type HawserError } from "../errors/index.js";

/** An argument that cannot be. */
export function badArgument(sqlName: string, { kind, argument, value, rule }: ArgumentFault): HawserError {
  switch (kind) {
    case "null":
      return new GatewayError("null_argument", `${sqlName}: the argument ${argument} is NULL, and needs a value`, {
        hint: `Give ${argument} a value${emptyOf(argument)}.`,
      });
    case "rule":
      return new GatewayError("invalid_argument", `${sqlName}: the argument ${argument} is ${value}, and ${rule}`, {
        hint: `Give an argument that obeys the rule: it ${rule}.`,
      });
    case "form":
      return new GatewayError("gateway_protocol", `${sqlName}: ${argument === "" ? "the call" : argument}: ${rule}`);
  }
}

/** What to give for nothing, where that is what the caller may have meant. */
function emptyOf(argument: string): string {
  if (argument === "payloads") return "; an array without messages is '{}'";
  return /^payloads?\b/.test(argument) ? "; an empty message is '', and in JSON 'null'" : "";
}

/** A call that holds more than the gateway takes apart. */
export function tooMuch(what: "values" | "messages", limit: number): HawserError {
  return what === "values"
    ? new GatewayError("gateway_limit", `the call has headers with more than ${limit} values`, {
        hint: "Give fewer headers, or fewer values.",
      })
    : new GatewayError("gateway_limit", `the call has a list of more than ${limit} messages`, {
        hint: `Split it into lists of at most ${limit} messages.`,
      });
}

/** A value that is no text. */
export function notText(sqlName: string, request: unknown, why: string): HawserError {
  return new GatewayError("not_text", `${sqlName}: the value${placeOf(request)} is no text: ${why}`);
}

/** A call that waited for its turn until its deadline. */
export function tooBusy(sqlName: string, capacity: number, waitedMs: number): HawserError {
  return new GatewayError(
    "gateway_busy",
    `${sqlName}: ${capacity} commands are under way, as many as the option capacity allows, and none ended within ${waitedMs} ms; nothing was sent`,
  );
}

/** A call without an answer at its deadline. */
export function tooLate(sqlName: string, changes: boolean, limitMs: number): HawserError {
  const message = `${sqlName}: there is no answer after ${limitMs} ms`;
  return changes
    ? new GatewayError("outcome_unknown", `${message}, and the outcome is unknown`)
    : new GatewayError("nats_timeout", message);
}

/** An answer that is longer than the gateway sends. */
export function tooLong(sqlName: string, bytes: number, maxBytes: number): HawserError {
  return new GatewayError(
    "gateway_limit",
    `${sqlName}: the answer has ${bytes} bytes on its way to Postgres, and the limit is ${maxBytes}`,
    { hint: "Read less, or start `hawser serve` with a greater --max-response-bytes." },
  );
}

/** Where a value was read, by the names in the request. */
function placeOf(request: unknown): string {
  const names = ["bucket", "key", "store", "name"] as const;
  const given = names.flatMap((name) => {
    const value = (request as Partial<Record<(typeof names)[number], string>>)[name];
    return value === undefined ? [] : [`${name} "${value}"`];
  });
  return given.length === 0 ? "" : ` of ${given.join(", ")}`;
}
