/** `hawser extension`: manages the files for `CREATE EXTENSION litmus_pgnats`. */
import { resolve } from "node:path";
import { version } from "../../foundation/runtime/index.js";
import {
  type ExtensionReport,
  extensionFiles,
  extensionName,
  findServerDirectories,
  installExtension,
  type ServerDirectories,
  uninstallExtension,
} from "../installation/index.js";
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
import { jsonText, Output, print, printable } from "./output.js";

const actions = ["install", "uninstall", "print"] as const;
type Action = (typeof actions)[number];

/** Flags of the actions that change files. */
const fileFlags = ["pg-config", "directory", "dry-run", "json"] as const;

const args = {
  action: required("Write the two files, remove them, or print one", { valueHint: actions.join("|") }),
  file: optional("With print: the file to print", { valueHint: "control|sql" }),
  "pg-config": option("PATH", "pg_config of the server, which knows its directories. Default: the first on the PATH"),
  directory: option("DIR", "Directory share/extension of the server, instead of pg_config"),
  "dry-run": flag("Print the planned changes, and change nothing"),
  json: flag("Print the result as one line of JSON"),
} as const satisfies Arguments;

export const command = defineCommand({
  details: "It needs neither a restart nor a preload",
  args,
  run: async (given) => {
    const action = actionOf("extension", given.action, actions);
    checkFlags(action, given);
    if (action === "print") {
      await new Output().write(fileOf(given.file).text);
      return;
    }
    const dryRun = given["dry-run"] ?? false;
    const where = directoriesOf(given);
    const report =
      action === "install" ? installExtension(where, { version, dryRun }) : uninstallExtension(where, { dryRun });
    if (given.json) print(process.stdout, jsonText({ version, ...report }));
    else printReport(action, report);
  },
  examples: [
    ["sudo npx hawser extension install", "For the Postgres whose pg_config is on the path"],
    ["hawser extension install --pg-config /usr/lib/postgresql/17/bin/pg_config", "For a specific server"],
    [`psql -c 'CREATE EXTENSION IF NOT EXISTS ${extensionName}'`, "Then, in each database, as a superuser"],
    [`hawser extension print sql > ${extensionName}--${version}.sql`, "For a package or an image"],
  ],
});

function checkFlags(action: Action, given: Given<typeof args>): void {
  const refuse = (why: string): never => {
    throw refusal("extension", action, why);
  };
  refuseForeignFlags("extension", action, { install: fileFlags, uninstall: fileFlags }, given);
  if (action !== "print" && given.file !== undefined) refuse(`"${given.file}" is an unexpected argument`);
  if (given["pg-config"] !== undefined && given.directory !== undefined) {
    refuse("--pg-config and --directory do not go together; remove one");
  }
}

function fileOf(name: string | undefined) {
  const files = extensionFiles(version);
  if (name === "control" || name === "sql") return files[name];
  throw refusal("extension", "print", `name control or sql${name === undefined ? "" : `, not "${name}"`}`);
}

function directoriesOf(given: Given<typeof args>): ServerDirectories {
  if (given.directory !== undefined) return { extension: resolve(given.directory) };
  return findServerDirectories({ pgConfig: given["pg-config"] });
}

function printReport(action: Exclude<Action, "print">, { directory, files, dryRun }: ExtensionReport): void {
  for (const { path, change } of files)
    print(process.stdout, `${lineHeads[dryRun ? "dry" : "done"][change]} ${printable(path)}`);
  if (action === "uninstall") {
    if (files.length === 0) print(process.stdout, `${printable(directory)} has no files of Hawser.`);
    print(process.stdout, "Databases keep the objects of CREATE EXTENSION; `hawser uninstall` removes them.");
    return;
  }
  print(
    process.stdout,
    `Next, in each database, as a superuser: CREATE EXTENSION IF NOT EXISTS ${extensionName};\n` +
      "Then start `hawser serve` for that database.",
  );
}

const lineHeads = {
  done: { written: "Wrote", unchanged: "Unchanged:", removed: "Removed" },
  dry: { written: "Would write", unchanged: "Unchanged:", removed: "Would remove" },
} as const;
