/**
 * Which dead letters a command line means.
 */
import type { ArgsDef } from "citty";
import { CliError } from "../errors/index.js";
import type { DeadLetterFilter } from "../store/index.js";
import { momentOf } from "./moment.js";
import { wholeNumber } from "./whole-number.js";

/** The options that choose among dead letters. */
export const filterOptions = {
  source: {
    type: "string",
    valueHint: "SOURCE",
    description: "Only those of a channel (sender:source_topic:listener) or a subscribed function",
  },
  topic: { type: "string", valueHint: "TOPIC", description: "Only those for a topic or subject" },
  error: { type: "string", valueHint: "CODE", description: "Only those with this error code, such as handler_failed" },
  origin: { type: "string", valueHint: "peer|subscription", description: "Only those of peers, or of subscriptions" },
  before: { type: "string", valueHint: "MOMENT", description: "Only those given up before a date, or so long ago: 7d" },
  after: { type: "string", valueHint: "MOMENT", description: "Only those given up since a date, or since 12h ago" },
  limit: {
    type: "string",
    valueHint: "N",
    description: "At most N of them, the oldest first. Default: all; for list without --json 100",
  },
} as const satisfies ArgsDef;

type FilterArguments = { readonly [Name in keyof typeof filterOptions]?: string | undefined };

/** The filter that ids and options make. @throws CliError `invalid_argument` */
export function filterOf(ids: readonly string[], args: FilterArguments): DeadLetterFilter {
  return {
    ids: ids.length === 0 ? undefined : ids.map(idOf),
    source: args.source,
    topic: args.topic,
    errorCode: args.error,
    origin: args.origin,
    before: momentOf("before", args.before),
    after: momentOf("after", args.after),
    limit: wholeNumber("limit", args.limit, 1, Number.MAX_SAFE_INTEGER),
  };
}

/** Whether the filter chooses among them; a limit alone does not. */
export function choosesAmong({ limit: _, ...criteria }: DeadLetterFilter): boolean {
  return Object.values(criteria).some((value) => value !== undefined);
}

function idOf(text: string): number {
  const id = Number(text);
  if (/^[1-9]\d*$/.test(text) && Number.isSafeInteger(id)) return id;
  throw new CliError("invalid_argument", `"${text}" is no id of a dead letter: those are whole numbers from 1 on`);
}
