/**
 * `hawser streams`: JetStream streams of the NATS server that the database defines, by its SQL functions.
 */
import { type NatsSql, natsSqlRanges } from "../../../generated/ts/nats-functions/client.js";
import { HawserError, plural } from "../../foundation/errors/index.js";
import { natsSql } from "../../nats/client/index.js";
import { natsFunctionsSchema, withCommandDatabase } from "../operate/index.js";
import {
  type Arguments,
  actionOf,
  defineCommand,
  flag,
  type Given,
  option,
  optional,
  refusal,
  refuseForeignFlags,
  required,
} from "./command-line.js";
import { databaseOption, databaseUrlOf, oneOf } from "./options.js";
import { printable, printOutcomes, printRows } from "./output.js";
import { type QuantityKind, type QuantityRange, quantityOf, quantityText, wholeNumber } from "./quantities.js";

type StreamRow = Awaited<ReturnType<NatsSql["streamList"]>>[number];

/** Ranges and choices of the settings: the same for `create` and `update`. */
const ranges = natsSqlRanges.streamCreate satisfies typeof natsSqlRanges.streamUpdate;

/** Flags of the settings, which not all actions accept. */
const settingOptions = {
  subject: option("SUBJECT", "Store messages of this subject, which may have * and >. May be given several times", {
    multiple: true,
  }),
  storage: option(ranges.storage.values.join("|"), "With create: storage of the messages. Default: file"),
  retention: option(
    ranges.retention.values.join("|"),
    "With create: keep messages up to the limits, until all consumers have acknowledged them, or until one has. Default: limits",
  ),
  discard: option(
    ranges.discard.values.join("|"),
    "At a limit, delete the oldest messages, or refuse new ones. Default: old",
  ),
  "max-age": option("TIME", "The greatest age of a message; 0: no limit"),
  "max-messages": option("N", "The greatest number of messages; 0: no limit"),
  "max-bytes": option("SIZE", "The greatest size of all messages; 0: no limit"),
  "max-message-bytes": option("SIZE", "The greatest size of one message; 0: that of the server"),
  "duplicate-window": option("TIME", "Time for which the id of a message is known"),
  replicas: option(
    "N",
    `Number of servers of a cluster that store it, ${ranges.replicas.min} to ${ranges.replicas.max}`,
  ),
} as const satisfies Arguments;

const changes = [
  ...(["subject", "discard", "max-age", "max-messages", "max-bytes", "max-message-bytes"] as const),
  ...(["duplicate-window", "replicas"] as const),
] as const;

const actions = {
  list: [],
  create: ["storage", "retention", ...changes],
  update: changes,
  delete: [],
} as const;
type Action = keyof typeof actions;

const args = {
  action: required("Action", { valueHint: Object.keys(actions).join("|") }),
  name: optional("The stream; list takes none", { valueHint: "NAME" }),
  ...databaseOption,
  ...settingOptions,
  domain: option("DOMAIN", "The JetStream domain. Default: the option domain of the server that the database defines"),
  json: flag("Print each line as JSON"),
} as const satisfies Arguments;

export const command = defineCommand({
  details:
    "It calls the SQL functions (nats_create_stream and the like) as the login of the database, which needs the " +
    "role hawser_nats, and `hawser serve` has to run",
  args,
  run: async (given) => {
    const action = actionOf("streams", given.action, Object.keys(actions) as Action[]);
    checkFlags(action, given);
    const { json = false, domain, name = "" } = given;
    const settings = settingsOf(given);
    const storage = oneOf("storage", given.storage, ranges.storage.values);
    const retention = oneOf("retention", given.retention, ranges.retention.values);
    await withFunctions(databaseUrlOf(given), async (nats) => {
      switch (action) {
        case "list":
          return list(await nats.streamList({ domain }), json);
        case "create": {
          const { subjects = [], ...options } = settings;
          await nats.streamCreate(name, subjects, { ...options, storage, retention, domain });
          return printOutcomes(
            [{ stream: name, outcome: "created" }],
            json,
            () => `Made the stream "${printable(name)}".`,
          );
        }
        case "update":
          await nats.streamUpdate(name, { ...settings, domain });
          return printOutcomes(
            [{ stream: name, outcome: "updated" }],
            json,
            () => `Changed the stream "${printable(name)}".`,
          );
        case "delete":
          return remove(nats, name, domain, json);
      }
    });
  },
  examples: [
    ["hawser streams list", "What there is, with the streams of buckets (KV_…) and object stores (OBJ_…)"],
    ["hawser streams create ORDERS --subject 'orders.>' --max-age 7d", "Messages of a week"],
    ["hawser streams update ORDERS --subject 'orders.>' --subject 'returns.>'", "Store the messages of these subjects"],
    ["hawser streams delete ORDERS", "With all its messages"],
    ["hawser streams list --json | jq -r 'select(.consumers == 0) | .stream'", "Streams that nobody reads"],
  ],
});

function checkFlags(action: Action, given: Given<typeof args>): void {
  const refuse = (why: string): never => {
    throw refusal("streams", action, why);
  };
  refuseForeignFlags("streams", action, actions, given);
  if (action === "list" && given.name !== undefined) refuse(`it lists all, and takes no name: "${given.name}"`);
  if (action !== "list" && given.name === undefined) refuse("name the stream");
  if (action === "create" && given.subject === undefined) refuse("say which messages, such as --subject 'orders.>'");
  if (action === "update" && changes.every((flag) => given[flag] === undefined)) {
    refuse(`name a setting to change: ${changes.map((flag) => `--${flag}`).join(", ")}`);
  }
}

/** @throws HawserError `invalid_argument`, naming the flag */
function settingsOf(given: Given<typeof settingOptions>): Parameters<NatsSql["streamUpdate"]>[1] & object {
  const quantity = (kind: QuantityKind, flag: Exclude<(typeof changes)[number], "subject">, range: QuantityRange) =>
    quantityOf(kind, `--${flag}`, given[flag], range);
  const big = (value: number | undefined) => (value === undefined ? undefined : BigInt(value));
  return {
    subjects: given.subject,
    discard: oneOf("discard", given.discard, ranges.discard.values),
    maxAgeMs: big(quantity("duration", "max-age", ranges.maxAgeMs)),
    maxMessages: big(wholeNumber("--max-messages", given["max-messages"], ranges.maxMessages)),
    maxBytes: big(quantity("size", "max-bytes", ranges.maxBytes)),
    maxMessageBytes: quantity("size", "max-message-bytes", ranges.maxMessageBytes),
    duplicateWindowMs: big(quantity("duration", "duplicate-window", ranges.duplicateWindowMs)),
    replicas: wholeNumber("--replicas", given.replicas, ranges.replicas),
  };
}

/** Runs `work` with the SQL functions of the database. Errors of the functions are thrown without a wrapper. */
async function withFunctions(url: string | undefined, work: (nats: NatsSql) => Promise<void>): Promise<void> {
  await withCommandDatabase(url, async (database) => {
    const schema = await natsFunctionsSchema(database);
    const query = async (text: string, values: unknown[]) => {
      try {
        return { rows: await database.query("call an SQL function", { text, values }) };
      } catch (error) {
        // The error of Postgres has the code of the function.
        throw (error instanceof HawserError ? error.cause : undefined) ?? error;
      }
    };
    await work(natsSql({ query }, { schema }));
  });
}

async function list(rows: readonly StreamRow[], json: boolean): Promise<void> {
  if (json) return printOutcomes(rows.map(forJson), true, () => "");
  await printRows(rows, {
    json,
    none: "There is no stream.",
    columns: [
      { head: "STREAM", cell: ({ stream }) => stream },
      { head: "SUBJECTS", cell: ({ subjects }) => subjects.join(" ") },
      { head: "STORAGE", cell: ({ storage }) => storage },
      { head: "RETENTION", cell: ({ retention }) => retention },
      { head: "LIMITS", cell: limitsOf },
      { head: "REPLICAS", cell: ({ replicas }) => replicas },
      { head: "MESSAGES", cell: ({ messages }) => String(messages) },
      { head: "BYTES", cell: ({ bytes }) => String(bytes) },
      { head: "CONSUMERS", cell: ({ consumers }) => consumers },
      { head: "CREATED", cell: ({ created }) => created },
    ],
  });
}

/** Row with numbers in place of bigints, which `JSON.stringify` rejects. */
function forJson(row: StreamRow): object {
  return Object.fromEntries(
    Object.entries(row).map(([name, value]) => [name, typeof value === "bigint" ? Number(value) : value]),
  );
}

function limitsOf({ maxAgeMs, maxMessages, maxBytes }: StreamRow): string {
  const limits = [
    maxAgeMs === 0n ? "" : quantityText("duration", Number(maxAgeMs)),
    maxMessages === 0n ? "" : plural(Number(maxMessages), "message"),
    maxBytes === 0n ? "" : quantityText("size", Number(maxBytes)),
  ];
  return limits.filter((each) => each !== "").join(", ");
}

async function remove(nats: NatsSql, stream: string, domain: string | undefined, json: boolean): Promise<void> {
  const found = await nats.streamList({ domain });
  if (!found.some((each) => each.stream === stream)) {
    throw new HawserError(
      "invalid_argument",
      `there is no stream "${printable(stream)}". See \`hawser streams list\`.`,
    );
  }
  await nats.streamDelete(stream, { domain });
  await printOutcomes([{ stream, outcome: "deleted" }], json, () => `Deleted the stream "${printable(stream)}".`);
}
