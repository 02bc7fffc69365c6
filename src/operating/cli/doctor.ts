/** `hawser doctor`: reports problems of an installation with their remedies. */

import { HawserError, plural, withoutPasswords } from "../../foundation/errors/index.js";
import { urlFromEnvironment } from "../../foundation/sql-clients/index.js";
import {
  type CheckReport,
  type DoctorOptions,
  type DoctorReport,
  doctor as examine,
  type NamedFinding,
  type Severity,
} from "../doctor/index.js";
import { type Arguments, defineCommand, flag, type Given, option } from "./command-line.js";
import { databaseOption, databaseUrlOf, secretsDirectoriesOf, secretsDirectoryOption } from "./options.js";
import { jsonText, Output, print, printable, styled } from "./output.js";

/** Options of an examination. Spread them into a command's `args`. */
export const examinationOptions = {
  ...databaseOption,
  "executor-url": option(
    "URL",
    "Login that runs subscribed functions, if `hawser serve` is given one. Default: HAWSER_EXECUTOR_URL",
  ),
  ...secretsDirectoryOption,
} as const satisfies Arguments;

/** @throws HawserError `invalid_argument` for an empty URL */
export function examinationOf(given: Given<typeof examinationOptions>): DoctorOptions {
  if (given["executor-url"] === "") {
    throw new HawserError("invalid_argument", "--executor-url is empty; give it a URL, or remove it");
  }
  return {
    databaseUrl: databaseUrlOf(given),
    executorUrl: given["executor-url"] ?? urlFromEnvironment("HAWSER_EXECUTOR_URL"),
    secretsDirectories: secretsDirectoriesOf(given),
  };
}

const args = {
  ...examinationOptions,
  strict: flag("Exit with status 1 for warnings too"),
  verbose: flag("Also show successful checks"),
  json: flag("Print the report as one line of JSON"),
} as const satisfies Arguments;

export const command = defineCommand({
  details:
    "It checks the database, its schema, roles and grants, the path from Postgres through the gateway to NATS, " +
    "subscriptions and their leader, streams, schedules, waiting messages and dead letters. It changes nothing, and takes 30 seconds at most. It names " +
    "the checks that its login may not make; the login of `hawser serve` may make most, if it is a member of " +
    "hawser_nats and hawser_peer too. The exit status is 1 if it finds an error, or with --strict a warning, else 0",
  args,
  run: async (given) => {
    const { json = false, strict = false, verbose = false } = given;
    const report = await examine(examinationOf(given));
    if (json) await new Output().write(`${jsonText(doctorJson(report))}\n`);
    else print(process.stdout, doctorText(report, { verbose }));
    process.exitCode = exitStatusFor(report, { strict });
  },
  examples: [
    ["hawser doctor --database-url postgres://bridge@127.0.0.1/app", "Problems and remedies"],
    [
      "hawser doctor --verbose --secrets-dir /run/secrets/hawser",
      "Also successful checks, with the files of `hawser serve`",
    ],
    ["hawser doctor --json --strict | jq '.findings[].what'", "For a monitor that should alert on warnings too"],
  ],
});

/** Exit status for findings; errors of the command itself have other statuses. */
const foundSomething = 1;

/** Heads of findings, colored by severity and of equal width. */
const heads: Readonly<Record<Severity, string>> = {
  error: styled("red", "error  "),
  warning: styled("yellow", "warning"),
  note: styled("cyan", "note   "),
};

/** Report for people. */
function doctorText(report: DoctorReport, { verbose }: { readonly verbose: boolean }): string {
  const { findings, checks } = report;
  return [
    ...(verbose ? checks.filter(({ seen, outcome }) => seen !== undefined && outcome === "ok").map(okLine) : []),
    ...findings.map(findingLines),
    ...notCheckedLines(checks),
    doctorSummary(report),
  ].join("\n");
}

/** Report for programs. */
export function doctorJson({ ok, findings, checks }: DoctorReport): object {
  return {
    ok,
    findings: findings.map(({ check, severity, code, what, remedy }) => ({
      check,
      severity,
      code: code ?? null,
      what: withoutPasswords(what),
      remedy: withoutPasswords(remedy),
    })),
    checks: checks.map(({ check, outcome, seen, why }) => ({
      check,
      outcome,
      seen: seen === undefined ? null : withoutPasswords(seen),
      why: why === undefined ? null : withoutPasswords(why),
    })),
  };
}

function exitStatusFor({ findings }: DoctorReport, { strict }: { readonly strict: boolean }): number {
  const counts = ({ severity }: NamedFinding): boolean => severity === "error" || (strict && severity === "warning");
  return findings.some(counts) ? foundSomething : 0;
}

function okLine({ check, seen }: CheckReport): string {
  return `${styled("green", "ok     ")} ${check}: ${shown(seen!)}`;
}

function findingLines({ check, severity, code, what, remedy }: NamedFinding): string {
  const tail = code === undefined ? "" : ` ${styled("dim", `[${code}]`)}`;
  return `${heads[severity]} ${styled("bold", check)}: ${shown(what)}${tail}\n        remedy: ${shown(remedy)}`;
}

/** Lines of skipped and partly skipped checks; checks that wait for the same other check share a line. */
function notCheckedLines(checks: readonly CheckReport[]): string[] {
  const named = checks.filter(({ why }) => why !== undefined);
  const waiting = new Map<string, string[]>();
  for (const { check, blockedBy } of named) {
    if (blockedBy !== undefined) waiting.set(blockedBy, [...(waiting.get(blockedBy) ?? []), check]);
  }
  const hasFailed = (name: string) => checks.some(({ check, outcome }) => check === name && outcome === "error");
  const others = named.filter(({ blockedBy }) => blockedBy === undefined);
  return [
    ...[...waiting].map(([name, names]) => {
      const why = hasFailed(name) ? `until \`${name}\` succeeds` : `because \`${name}\` found nothing to check`;
      return `Not checked ${why}: ${names.join(", ")}`;
    }),
    ...others.map(({ check, outcome, why }) => {
      const how = outcome === "not_checked" ? "Not checked" : "Partly checked";
      return `${how}: ${check}: ${shown(why!)}`;
    }),
  ];
}

/** Numbers of findings and checks in one sentence. */
export function doctorSummary({ findings, checks }: DoctorReport): string {
  const count = (severity: Severity) => findings.filter((finding) => finding.severity === severity).length;
  const found = (["error", "warning", "note"] as const).filter((severity) => count(severity) > 0);
  const checked = checks.filter(({ outcome }) => outcome !== "not_checked").length;
  if (found.length === 0) return `No problems found: ${plural(checked, "check")} of ${checks.length} done.`;
  return `${found.map((severity) => plural(count(severity), severity)).join(", ")}; ${checked} of ${plural(checks.length, "check")} done.`;
}

function shown(text: string): string {
  return printable(withoutPasswords(text));
}
