/** `hawser init`: installs the schema, its roles and grants, and NATS from SQL. */
import { HawserError, plural } from "../../foundation/errors/index.js";
import { type InstallReport, install, type MissingPrivilege } from "../installation/index.js";
import { defineCommand, flag, option } from "./command-line.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { jsonText, print, printable, styled } from "./output.js";

export const command = defineCommand({
  details:
    "It can be run again at any time, and by several processes at once. It needs no superuser, only CREATE on the " +
    "database; it lists further missing privileges individually",
  args: {
    ...databaseOption,
    schema: option("NAME", "Existing schema for the SQL functions. Default: public"),
    "no-nats": flag("Install only the objects of peers, without NATS from SQL"),
    "shared-dblink": flag(
      "Accept that every role may use dblink, and with it the gateway connection of a session that it shares",
    ),
    "dry-run": flag("Print the SQL that would be run, for psql, and change nothing"),
    json: flag("Print the result as one line of JSON"),
  },
  run: async (args) => {
    const noNats = args["no-nats"] ?? false;
    const sharedDblink = args["shared-dblink"] ?? false;
    refuseWithoutNats(noNats, { schema: args.schema !== undefined, "shared-dblink": sharedDblink });
    const databaseUrl = databaseUrlOf(args);
    const dryRun = args["dry-run"] ?? false;
    const onWait = (line: string) => print(process.stderr, printable(line));
    const nats = noNats ? false : { sharedDblink, ...(args.schema === undefined ? {} : { schema: args.schema }) };
    const report = await install({ databaseUrl, dryRun, nats, onWait });
    if (args.json) print(process.stdout, jsonText(report));
    else printReport(report);
    if (report.partial && !dryRun) throw partial(report);
  },
  examples: [
    ["hawser init --database-url postgres://dba@db.internal/app", "Prepare the database `app`"],
    ["hawser init --dry-run > install.sql", "Review the SQL before it is run"],
    ["psql -c 'CREATE ROLE billing LOGIN IN ROLE hawser_peer'", "Then grant programs only the rights of a peer"],
    ["psql -c 'GRANT hawser_nats TO app'", "And let a role call the SQL functions"],
  ],
});

/** Refuses flags that have no meaning with `--no-nats`. */
function refuseWithoutNats(noNats: boolean, given: Readonly<Record<"schema" | "shared-dblink", boolean>>): void {
  const other = (["schema", "shared-dblink"] as const).find((name) => given[name]);
  if (!noNats || other === undefined) return;
  throw new HawserError("invalid_argument", `--no-nats and --${other} do not go together; remove one`);
}

/** Error for a partial installation, because scripts that prepare a database would go on to call the functions. */
function partial({ missingPrivileges }: InstallReport): HawserError {
  const message =
    `NATS from SQL does not work: ${missingPrivileges[0]!.what}. Everything else was installed; the report lists the statements for a superuser. ` +
    "`hawser init --no-nats` prepares the database for peers only";
  return new HawserError("not_permitted", message);
}

function printReport(report: InstallReport): void {
  const { database, role, migrations, nats, missingPrivileges, warnings, roleWarnings, sql, superuserStatements } =
    report;
  const warned = [...roleWarnings, ...warnings, ...(nats?.warnings ?? [])].map(warningLine);
  if (sql !== undefined) {
    process.stdout.write(sql);
    for (const line of warned) print(process.stderr, line);
    for (const line of [...missingPrivileges.flatMap(missingPrivilegeLines), ...superuserLines(report)])
      print(process.stderr, line);
    return;
  }
  const done =
    migrations.length === 0
      ? "The schema existed already."
      : `Applied ${plural(migrations.length, "migration")}: ${migrations.map(({ id, name }) => `${id} (${name})`).join(", ")}.`;
  print(process.stdout, `${styled("bold", printable(database))} is ready, as ${printable(role)}. ${done}`);
  if (nats !== null) print(process.stdout, natsLine(nats));
  for (const line of warned) print(process.stdout, line);
  if (missingPrivileges.length > 0) {
    const remedies = superuserStatements.length === 0 ? ":" : ". Each has its remedy; all remedies together are below:";
    print(process.stdout, `\nThe role ${styled("bold", printable(role))} lacks these privileges${remedies}`);
  }
  const lines = [...missingPrivileges.flatMap(missingPrivilegeLines), ...superuserLines(report), ...nextLines(report)];
  for (const line of lines) print(process.stdout, line);
}

/** Statements for a superuser, ready to be passed on. */
function superuserLines({ role, nats, superuserStatements }: InstallReport): string[] {
  if (superuserStatements.length === 0) return [];
  const makesMore = nats !== null && (nats.wrappers.length === 0 || !nats.eventTriggers);
  const then = makesMore
    ? "then `hawser init` as the superuser, which makes the wrappers and event triggers as well, or again"
    : "then `hawser init` again";
  return [
    "",
    "All remedies together, for a superuser to run in this database:",
    ...superuserStatements.map((statement) => `    ${printable(statement)}`),
    `${then} as ${styled("bold", printable(role))}`,
  ];
}

/** Next steps from the functions to a first call. */
function nextLines({ database, nats }: InstallReport): string[] {
  if (nats === null || nats.functions === 0) return [];
  return [
    "",
    "Next steps for NATS from SQL:",
    "    CREATE ROLE bridge LOGIN PASSWORD '…' IN ROLE hawser_bridge;  -- the login of hawser serve",
    "    GRANT hawser_nats TO …;  -- the roles that may call the functions",
    `    ${serverSql(nats.wrappers)}  -- defines the NATS server`,
    `    HAWSER_DATABASE_URL=postgres://bridge:…@HOST:PORT/${encodeURIComponent(database)} hawser serve`,
  ];
}

function serverSql([wrapper]: readonly string[]): string {
  return wrapper === undefined
    ? `SELECT hawser.set_nats_server('{"host": "…", "port": 4222}');`
    : `CREATE SERVER nats FOREIGN DATA WRAPPER ${wrapper} OPTIONS (host '…', port '4222');`;
}

function natsLine({ schema, dblinkSchema, functions, wrappers, eventTriggers }: NonNullable<InstallReport["nats"]>) {
  if (functions === 0) {
    const why =
      dblinkSchema === null ? "dblink is missing" : `the schema ${printable(schema)} may not be used for the functions`;
    return `NATS from SQL: not installed, because ${why} (see below).`;
  }
  const server = wrappers.length > 0 ? `CREATE SERVER … FOREIGN DATA WRAPPER ${wrappers[0]}` : "hawser.set_nats_server";
  return [
    `NATS from SQL: ${plural(functions, "function")} in the schema ${printable(schema)}, over dblink in ` +
      `${dblinkSchema === null ? "no schema" : `the schema ${printable(dblinkSchema)}`}.`,
    `The NATS server is set by ${server}, and changes are followed ${eventTriggers ? "at once" : "within seconds"}.`,
  ].join(" ");
}

function warningLine(warning: string): string {
  return `${styled("yellow", "Warning:")} ${printable(warning)}`;
}

/** Lines about a privilege that the role lacks. */
export function missingPrivilegeLines({ what, meaning, remedy }: MissingPrivilege): string[] {
  return [
    `${styled("yellow", "•")} ${printable(what)}`,
    `    which means: ${printable(meaning)}`,
    `    remedy: ${printable(remedy)}`,
  ];
}
