/** `hawser audit`: lists what operators have done. */
import { limits } from "../../../generated/ts/rules/peer/audit.js";
import { type Act, listActs, withCommandDatabase } from "../operate/index.js";
import { type Arguments, actionOf, defineCommand, flag, option, optional, refusal } from "./command-line.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { printFirstRows, rowLimit } from "./output.js";
import { momentOf, wholeNumber } from "./quantities.js";
import { retention } from "./retention.js";

const actions = ["list", "retention"] as const;

const filterOptions = {
  topic: option("NAME", "Only acts on a topic, subject, schedule, stream or peer"),
  action: option(limits.AuditRecord.action.values.join("|"), "Only acts of this kind"),
  login: option("LOGIN", "Only acts of a login"),
  since: option("MOMENT", "Only acts since a date, or within a time such as 12h"),
  limit: option("N", "At most N of them, the newest. Default: all; without --json 100"),
} as const satisfies Arguments;

export const command = defineCommand({
  details:
    "Retries, edits and discards of dead letters, cancels, pauses, limits, schedules and the like, by whichever way: the command, the " +
    "page or SQL. The newest are first. Running peers delete records that are older than the retention of the database, which " +
    "`retention` shows and `retention DAYS` sets",
  args: {
    what: optional("Default: list", { valueHint: actions.join("|") }),
    days: optional("With retention: the days, which only members of hawser_owner can set", { valueHint: "DAYS" }),
    ...filterOptions,
    ...databaseOption,
    json: flag("Print each act as one line of JSON"),
  },
  run: async (args) => {
    const { topic, login, action, days, json = false } = args;
    const what = actionOf("audit", args.what ?? "list", actions);
    const url = databaseUrlOf(args);
    if (what === "retention") {
      const stray = Object.keys(filterOptions).find((name) => args[name as keyof typeof filterOptions] !== undefined);
      if (stray !== undefined) throw refusal("audit", what, `--${stray} goes with list`);
      await retention("audit", days === undefined ? [] : [days], { url, json });
      return;
    }
    if (days !== undefined) throw refusal("audit", what, `it takes no "${days}"`);
    const limit = wholeNumber("--limit", args.limit);
    const filter = { object: topic, action, login, since: momentOf("--since", args.since) };
    const rows = await withCommandDatabase(
      url,
      (database) => listActs(database, { ...filter, limit: rowLimit(limit, json) }),
      { anyLogin: true },
    );
    await printFirstRows(rows, limit, {
      json,
      none: "Nobody has done anything that is recorded, or nothing that matches.",
      columns: [
        { head: "AT", cell: ({ at }) => at.toISOString() },
        { head: "LOGIN", cell: loginOf },
        { head: "APPLICATION", cell: ({ application }) => application ?? "" },
        { head: "ACTION", cell: ({ action: done }) => done },
        { head: "OBJECT", cell: ({ object }) => object ?? "" },
        { head: "COUNT", cell: ({ count }) => count ?? "" },
        { head: "DETAILS", cell: detailsOf },
      ],
    });
  },
  examples: [
    ["hawser audit", "What operators have done, the newest first"],
    ["hawser audit --topic mail --since 1d", "What was done to a topic since yesterday"],
    ["hawser audit --action discard --json", "All discards, with ids"],
    ["hawser audit retention 365", "Keep the records for a year"],
  ],
});

function loginOf({ login, role }: Act): string {
  return role === login ? login : `${login} as ${role}`;
}

/** Details as `name value`, lists cut to a few elements. */
function detailsOf({ details }: Act): string {
  return Object.entries(details ?? {})
    .map(([name, value]) => `${name} ${textOf(value)}`)
    .join(", ");
}

function textOf(value: unknown): string {
  if (!Array.isArray(value)) return String(value);
  const shown = value.slice(0, 5).join(" ");
  return value.length > 5 ? `${shown} …` : shown;
}
