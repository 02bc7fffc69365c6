/** `hawser dead`: lists, retries, edits and discards dead letters. */
import { limits } from "../../../generated/ts/rules/peer/catalog.js";
import { HawserError, plural } from "../../foundation/errors/index.js";
import { Descriptors, payloadLine, shownPayload } from "../../protobuf/typed/index.js";
import {
  type DeadLetterEntry,
  type DeadLetterFilter,
  type DeadLetterOutcome,
  type DeadLetters,
  deadLetterIdOf,
  deadLetters,
  type WholeDeadLetter,
  withCommandDatabase,
} from "../operate/index.js";
import {
  type Arguments,
  actionOf,
  defineCommand,
  flag,
  type Given,
  option,
  optional,
  refusal,
  required,
} from "./command-line.js";
import { confirmed, yesOption } from "./confirmation.js";
import { edit, editOptions } from "./dead-edit.js";
import { databaseOption, databaseUrlOf, descriptorsOption } from "./options.js";
import { type Column, jsonText, Output, printFirstRows, printOutcomes, rowLimit } from "./output.js";
import { momentOf, wholeNumber } from "./quantities.js";
import { retention } from "./retention.js";

/** Options that filter dead letters. */
const filterOptions = {
  source: option(
    "SOURCE",
    "Only dead letters of a recipient in the queue (@listener, #group) or a subscribed function",
  ),
  topic: option("TOPIC", "Only dead letters for a topic or subject"),
  code: option("CODE", "Only dead letters with this error code, such as handler_failed"),
  origin: option(
    limits.DeadLetter.origin.values.join("|"),
    "Only dead letters of subscriptions, of the outbox, or of the queue",
  ),
  "older-than": option("TIME", "Only messages dead-lettered longer ago than a time such as 7d, or before a date"),
  since: option("MOMENT", "Only messages dead-lettered since a date, or within a time such as 12h"),
  limit: option(
    "N",
    "At most N of them: list has the newest, retry and discard have the oldest. Default: all; for list without --json 100",
  ),
} as const satisfies Arguments;

/** Filter from ids and options. @throws HawserError `invalid_argument` */
function filterOf(ids: readonly string[], args: Given<typeof filterOptions>): DeadLetterFilter {
  return {
    ids: ids.length === 0 ? undefined : ids.map(deadLetterIdOf),
    source: args.source,
    topic: args.topic,
    errorCode: args.code,
    origin: args.origin,
    before: momentOf("--older-than", args["older-than"]),
    after: momentOf("--since", args.since),
    limit: wholeNumber("--limit", args.limit),
  };
}

/** True if the filter selects a subset; a limit alone does not. */
function selectsSubset({ limit: _, ...criteria }: DeadLetterFilter): boolean {
  return Object.values(criteria).some((value) => value !== undefined);
}

const actions = ["list", "retry", "discard", "edit", "retention"] as const;
type Action = (typeof actions)[number];

const ownOptions = {
  all: flag("Retry or discard every dead letter; required if neither ids nor filters are given"),
  ...yesOption,
  payload: flag("With list --json: also headers and payload"),
  ...descriptorsOption,
  ...editOptions,
  json: flag("Print each dead letter, or its outcome, as one line of JSON"),
} as const satisfies Arguments;

export const command = defineCommand({
  details:
    "They are messages that will not be tried again: their handler failed too often, no listener serves their " +
    "topic any more, a subscribed function failed, or NATS refused them. A list has the newest first. A retry sends them to their listener, " +
    "subscribed function or NATS again, the oldest first. `edit` corrects the payload of one of the queue or of a subscription; the " +
    "original stays until it has been handled. On a terminal, retry and discard without ids say how many " +
    "match, and ask. Running peers delete dead letters that are older than " +
    "the retention of the database, which `retention` shows and `retention DAYS` sets; without peers they stay",
  args: {
    action: required("Action", { valueHint: actions.join("|") }),
    ids: optional("Ids of dead letters; with retention: the days, which only members of hawser_owner can set", {
      multiple: true,
      valueHint: "ID…",
    }),
    ...databaseOption,
    ...filterOptions,
    ...ownOptions,
  },
  run: async (args) => {
    const action = actionOf("dead", args.action, actions);
    if (action === "retention") {
      const stray = notOfRetention.find((name) => args[name as keyof typeof args] !== undefined);
      if (stray !== undefined) throw refusal("dead", action, `--${stray} goes with the other actions`);
      await retention("dead", args.ids, { url: databaseUrlOf(args), json: args.json ?? false });
      return;
    }
    const notOfAction = action === "edit" ? notOfEdit : Object.keys(editOptions);
    const stray = notOfAction.find((name) => args[name as keyof typeof args] !== undefined);
    if (stray !== undefined)
      throw refusal(
        "dead",
        action,
        action === "edit" ? `--${stray} goes with the other actions` : `--${stray} goes with edit`,
      );
    if (action === "edit") {
      if (args.ids.length !== 1) throw refusal("dead", action, "name one dead letter by its id");
      const types = args.descriptors === undefined ? undefined : Descriptors.read(args.descriptors);
      await edit(databaseUrlOf(args), deadLetterIdOf(args.ids[0]!), args, types);
      return;
    }
    const filter = filterOf(args.ids, args);
    const { all = false, json = false, payload = false } = args;
    checkFlags(action, filter, args);
    const descriptors = args.descriptors === undefined ? undefined : Descriptors.read(args.descriptors);
    await withCommandDatabase(databaseUrlOf(args), async (database) => {
      const letters = deadLetters(database);
      if (action === "list") await list(letters, filter, { json, payload, descriptors });
      else {
        const selection = { ...filter, all, throughId: await letters.newestId() };
        const asks = filter.ids === undefined && !args.yes;
        if (asks && !(await confirmed(() => questionOf(letters, action, selection)))) return;
        await change(letters, action, selection, json);
      }
    });
  },
  examples: [
    ["hawser dead list", "The newest dead letters, the last one first"],
    ["hawser dead list 17 --json --payload", "All details of one"],
    ["hawser dead list --descriptors image.binpb", "Typed payloads as JSON, with an image of `buf build`"],
    ["hawser dead retry 17 18", "Retry two of them"],
    ["hawser dead retry --source @billing-1 --since 1h", "Retry the last hour's dead letters of one listener"],
    ["hawser dead discard --topic audit --older-than 7d", "Delete dead letters older than a week"],
    ["hawser dead edit 17 --retry", "Correct the payload in your editor, and have it handled again"],
    ["hawser dead edit 17 --text '{\"amount\": 17}'", "Replace the payload"],
    ["hawser dead edit 17 --as-new", "Enqueue another message like it"],
    ["hawser dead retention 90", "Keep dead letters for 90 days"],
  ],
});

/** Options that do not go with `retention`. */
const notOfRetention = [...Object.keys(filterOptions), "all", "yes", "payload", "descriptors"];
const notOfEdit = [...Object.keys(filterOptions), "all", "payload"];

function checkFlags(
  action: Exclude<Action, "retention" | "edit">,
  filter: DeadLetterFilter,
  { all = false, yes = false, payload = false, json = false, descriptors }: Given<typeof ownOptions>,
): void {
  const refuse = (why: string): never => {
    throw refusal("dead", action, why);
  };
  if (payload && (action !== "list" || !json)) refuse("--payload goes with list --json");
  if (descriptors !== undefined && action !== "list") refuse("--descriptors goes with list");
  if (descriptors !== undefined && json && !payload)
    refuse("--descriptors with --json needs --payload, which prints the payloads");
  if (action === "list") {
    if (yes) refuse("--yes goes with retry and discard");
    if (all) refuse("--all is for retry and discard; list shows all by default");
  } else if (all && selectsSubset(filter)) refuse("--all means every dead letter: remove it, or the ids and filters");
  else if (!all && !selectsSubset(filter)) refuse("name ids or filters, or --all for every dead letter");
}

async function list(
  letters: DeadLetters,
  filter: DeadLetterFilter,
  {
    json,
    payload,
    descriptors,
  }: { readonly json: boolean; readonly payload: boolean; readonly descriptors: Descriptors | undefined },
): Promise<void> {
  if (json && payload) {
    const output = new Output();
    // Read one at a time, because each may be as long as a message.
    for (const { id } of await letters.list(filter)) {
      const letter = await letters.get(id);
      if (letter !== undefined && !(await output.write(`${jsonText(wholeLine(letter, descriptors))}\n`))) return;
    }
    return;
  }
  const { limit } = filter;
  const rows = await letters.list({ ...filter, limit: rowLimit(limit, json) });
  const payloads = new Map<number, string>();
  if (descriptors !== undefined) {
    for (const { id } of rows) {
      const letter = await letters.get(id);
      if (letter === undefined) continue;
      payloads.set(id, shortCell(payloadLine(shownPayload(letter.payload, letter.headers, descriptors))));
    }
  }
  const givenBackColumn: Column<DeadLetterEntry> = { head: "GIVEN BACK", cell: ({ givenBack }) => givenBack };
  const payloadColumn: Column<DeadLetterEntry> = { head: "PAYLOAD", cell: ({ id }) => payloads.get(id) ?? "" };
  await printFirstRows(rows, limit, {
    json,
    none: "There are no dead letters, or none that match.",
    columns: [
      { head: "ID", cell: ({ id }) => id },
      { head: "GIVEN UP", cell: ({ createdAt }) => createdAt.toISOString() },
      { head: "TOPIC", cell: ({ topic }) => topic },
      {
        head: "SOURCE",
        cell: ({ source, sentAs, enqueuedBy }) =>
          sentAs ?? (enqueuedBy === null ? source : `${source} (enqueued by ${enqueuedBy})`),
      },
      { head: "LISTENER", cell: ({ listener }) => listener ?? "" },
      { head: "WORKER", cell: ({ worker }) => worker ?? "" },
      { head: "ATTEMPTS", cell: ({ attempts }) => attempts },
      ...(rows.some(({ givenBack }) => givenBack > 0) ? [givenBackColumn] : []),
      { head: "BYTES", cell: ({ payloadBytes }) => payloadBytes },
      { head: "ERROR", cell: errorOf },
      ...(descriptors === undefined ? [] : [payloadColumn]),
    ],
  });
}

function errorOf({ errorCode, errorMessage }: DeadLetterEntry): string {
  return `${errorCode}: ${shortCell(errorMessage)}`;
}

function shortCell(text: string): string {
  return text.length > 80 ? `${text.slice(0, 79)}…` : text;
}

/** Dead letter as JSON, with its payload in the form of `hawser listen --json`. */
function wholeLine({ payload, edit: made, ...letter }: WholeDeadLetter, descriptors: Descriptors | undefined): object {
  const { headers } = letter;
  const original = made && shownPayload(made.original, headers, descriptors);
  return { ...letter, ...shownPayload(payload, headers, descriptors), edit: made && { ...made, original } };
}

/** Number up to which the question before a change counts. */
const countedAtMost = 100_000;

/** Question before a retry or discard without ids; undefined if nothing matches. */
async function questionOf(
  letters: DeadLetters,
  action: Exclude<Action, "list" | "edit" | "retention">,
  selection: DeadLetterFilter,
): Promise<string | undefined> {
  const { limit = Infinity } = selection;
  const found = await letters.count(selection, Math.min(limit, countedAtMost + 1));
  if (found === 0) return undefined;
  const many = found === undefined ? "An unknown number of" : `More than ${countedAtMost}`;
  const count = found === undefined || found > countedAtMost ? undefined : found;
  const what = count === undefined ? `${many} dead letters` : plural(count, "dead letter");
  return action === "retry"
    ? `${what} will be handled again, which cannot be undone. Retry ${count === 1 ? "it" : "them"}?`
    : `${what} will be deleted, with payload, which cannot be undone. Discard ${count === 1 ? "it" : "them"}?`;
}

async function change(
  letters: DeadLetters,
  action: Exclude<Action, "list" | "edit" | "retention">,
  selection: DeadLetterFilter & { readonly all: boolean },
  json: boolean,
): Promise<void> {
  const outcomes = await letters[action](selection);
  await printOutcomes(outcomes, json, () => summaryOf(action, outcomes));
  const refused = outcomes.flatMap((outcome) => (outcome.outcome === "refused" ? [outcome] : []));
  const missing = outcomes.flatMap((outcome) => (outcome.outcome === "missing" ? [outcome.id] : []));
  if (refused[0] !== undefined) {
    const more = refused.length > 1 ? `; ${refused.length - 1} more were refused` : "";
    throw new HawserError(refused[0].code, `${refused[0].message}${more}`);
  }
  if (missing.length > 0) {
    const which = `${missing.slice(0, 10).join(", ")}${missing.length > 10 ? ", …" : ""}`;
    throw new HawserError(
      "invalid_argument",
      `there is no dead letter ${which}, or none that matches: retried, discarded or expired already? See \`hawser dead list\`.`,
    );
  }
}

function summaryOf(
  action: Exclude<Action, "list" | "edit" | "retention">,
  outcomes: readonly DeadLetterOutcome[],
): string {
  if (action === "discard") {
    const count = outcomes.filter(({ outcome }) => outcome === "discarded").length;
    return `Discarded ${plural(count, "dead letter")}.`;
  }
  const enqueued = outcomes.filter(({ outcome }) => outcome === "enqueued").length;
  return enqueued === 0 ? "Retried no dead letter." : `Enqueued ${plural(enqueued, "dead letter")} again.`;
}
