/** `hawser uninstall`: removes NATS from SQL. */
import { plural } from "../../foundation/errors/index.js";
import { uninstall as removeNats, type UninstallReport } from "../installation/index.js";
import { defineCommand, flag } from "./command-line.js";
import { missingPrivilegeLines } from "./init.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { jsonText, print, printable, styled } from "./output.js";

export const command = defineCommand({
  details:
    "It removes nothing while functions are subscribed or answer requests. The schemas hawser and hawser_data " +
    "stay, with the messages of peers",
  args: {
    ...databaseOption,
    "dry-run": flag("Print the SQL that would be run, for psql, and change nothing"),
    json: flag("Print the removed objects as one line of JSON"),
  },
  run: async (args) => {
    const onWait = (line: string) => print(process.stderr, printable(line));
    const databaseUrl = databaseUrlOf(args);
    const report = await removeNats({ databaseUrl, dryRun: args["dry-run"] ?? false, onWait });
    if (args.json) print(process.stdout, jsonText(report));
    else tellRemoval(report);
  },
  examples: [
    ["hawser uninstall --dry-run", "Review the SQL before it is run"],
    ["hawser uninstall --database-url postgres://dba@db.internal/app", "Remove NATS from SQL from the database `app`"],
  ],
});

function tellRemoval({
  database,
  role,
  functions,
  wrappers,
  eventTriggers,
  dblink,
  schemas,
  login,
  missingPrivileges,
  rest,
  sql,
}: UninstallReport) {
  if (sql !== undefined) {
    process.stdout.write(sql);
    return;
  }
  const removed = [
    ...(functions > 0 ? [plural(functions, "function")] : []),
    ...wrappers.map((name) => `the foreign data wrapper ${name}`),
    ...eventTriggers.map((name) => `the event trigger ${name}`),
    ...(dblink ? ["dblink"] : []),
    ...schemas.map((name) => `the schema ${name}`),
  ];
  const what = removed.length === 0 ? "nothing: it was not installed" : removed.join(", ");
  print(process.stdout, `Removed from ${styled("bold", printable(database))}, as ${printable(role)}: ${what}.`);
  print(
    process.stdout,
    `The schemas of functions and tables stay, with the data of peers. To remove them too: ${rest}`,
  );
  if (login !== null) {
    print(
      process.stdout,
      `The login ${printable(login)} stays: roles are shared by all databases of the server. DROP ROLE ${printable(login)} if no database needs it.`,
    );
  }
  if (missingPrivileges.length === 0) return;
  print(process.stdout, `\nNot removed, because ${styled("bold", printable(role))} lacks the rights:`);
  for (const line of missingPrivileges.flatMap(missingPrivilegeLines)) print(process.stdout, line);
}
