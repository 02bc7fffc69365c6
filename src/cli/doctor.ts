/**
 * `hawser doctor`: what is wrong with an installation, and what to do about it.
 */
import { defineCommand } from "citty";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { doctor as examine } from "../doctor/index.js";
import { CliError } from "../errors/index.js";
import { valuesOf, withExamples } from "./command-line.js";
import { doctorJson, doctorText, exitStatusFor } from "./doctor-report.js";
import { databaseOption, databaseUrlOf } from "./options.js";
import { jsonText, Output, print } from "./output.js";

const args = {
  ...databaseOption,
  "executor-url": {
    type: "string",
    valueHint: "URL",
    description:
      "The login that runs subscribed functions, where `hawser serve` is given one; HAWSER_EXECUTOR_URL is read, too",
  },
  "secrets-dir": {
    type: "string",
    valueHint: "DIR",
    description:
      "Where files may be that options of the NATS server name (…_path), as for `hawser serve`; may be given several " +
      `times. Default ${gatewayConstants.secretsDirectory}`,
  },
  strict: { type: "boolean", description: "With warnings and no error the exit status is 1" },
  verbose: { type: "boolean", description: "Also tell what is in order" },
  json: { type: "boolean", description: "Print all of it as one line of JSON" },
} as const;

export const doctor = withExamples(
  defineCommand({
    meta: {
      name: "doctor",
      description:
        "Look for what is wrong with an installation, and say what to do about it. It looks at the database, its " +
        "schema, roles and grants, at the way from Postgres over the gateway to NATS, at subscriptions and who runs " +
        "them, and at messages that were given up; it changes nothing, and takes 30 seconds at most. What a login may " +
        "not look at is named: it sees most as the login of `hawser serve`, if that is in hawser_nats and hawser_peer, too. " +
        "The exit status is that of the first error's code, 1 if it has none, and 0 without an error",
    },
    args,
    run: async ({ args: given, rawArgs }) => {
      const { json = false, strict = false, verbose = false } = given;
      const directories = valuesOf(args, rawArgs, "secrets-dir");
      if (given["executor-url"] === "") {
        throw new CliError("invalid_argument", "--executor-url is empty; give it a URL, or leave it out");
      }
      const report = await examine({
        databaseUrl: databaseUrlOf(given),
        executorUrl: given["executor-url"] ?? (process.env["HAWSER_EXECUTOR_URL"] || undefined),
        secretsDirectories: directories.length > 0 ? directories : [gatewayConstants.secretsDirectory],
      });
      if (json) await new Output().write(`${jsonText(doctorJson(report))}\n`);
      else print(process.stdout, doctorText(report, { verbose }));
      process.exitCode = exitStatusFor(report, { strict });
    },
  }),
  [
    ["hawser doctor --database-url postgres://bridge@127.0.0.1/app", "What is wrong, and what to do"],
    [
      "hawser doctor --verbose --secrets-dir /run/secrets/hawser",
      "Also what is in order, with the files of `hawser serve`",
    ],
    ["hawser doctor --json --strict | jq '.findings[].what'", "For a monitor that is to hear of warnings, too"],
  ],
);
