/**
 * `hawser init`: the schema, its roles and grants.
 */
import { defineCommand } from "citty";
import pc from "picocolors";
import { type InstallReport, install, type Shortfall } from "../store/index.js";
import { databaseOption, databaseUrlOf } from "./database-option.js";
import { withExamples } from "./examples.js";
import { print } from "./help.js";
import { jsonText, printable } from "./printable.js";
import { plural } from "./table.js";

export const init = withExamples(
  defineCommand({
    meta: {
      name: "init",
      description:
        "Prepare a database for Hawser: its schema, roles and grants. It may be run again at any time, and by many at " +
        "once. It needs no superuser, only CREATE on the database; what else the role may not do is named one by one",
    },
    args: {
      ...databaseOption,
      "dry-run": { type: "boolean", description: "Print the SQL that would be run, for psql, and change nothing" },
      json: { type: "boolean", description: "Print what was done as one line of JSON" },
    },
    run: async ({ args }) => {
      const report = await install({ databaseUrl: databaseUrlOf(args), dryRun: args["dry-run"] ?? false });
      if (args.json) print(process.stdout, jsonText(report));
      else tell(report);
    },
  }),
  [
    ["hawser init --database-url postgres://dba@db.internal/app", "Prepare the database `app`"],
    ["hawser init --dry-run > install.sql", "Have the SQL read before it is run"],
    [
      "psql -c 'CREATE ROLE billing LOGIN IN ROLE hawser_peer'",
      "Then let programs in with no more rights than a peer needs",
    ],
  ],
);

function tell({ database, role, migrations, shortfalls, sql }: InstallReport): void {
  if (sql !== undefined) {
    process.stdout.write(sql);
    for (const line of shortfalls.flatMap(shortfallLines)) print(process.stderr, line);
    return;
  }
  const done =
    migrations.length === 0
      ? "The schema was there already."
      : `Applied ${plural(migrations.length, "migration")}: ${migrations.map(({ id, name }) => `${id} (${name})`).join(", ")}.`;
  print(process.stdout, `${pc.bold(printable(database))} is ready, as ${printable(role)}. ${done}`);
  if (shortfalls.length === 0) return;
  print(process.stdout, `\nWhat ${pc.bold(printable(role))} may not do; everything else works:`);
  for (const line of shortfalls.flatMap(shortfallLines)) print(process.stdout, line);
}

function shortfallLines({ what, meaning, remedy }: Shortfall): string[] {
  return [
    `${pc.yellow("•")} ${printable(what)}`,
    `    which means: ${printable(meaning)}`,
    `    remedy: ${printable(remedy)}`,
  ];
}
